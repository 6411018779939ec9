// SPDX-License-Identifier: MIT
//
// One column of a profile as numbers: filters, the difference to a base, flat and cum, labels.
//
// Go  github.com/google/pprof internal/graph newGraph, internal/report computeTotal, printTags.
#include "prof.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "look.h"

// ---- names and numbers -------------------------------------------------------------------------

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

void prof_frame_name(const struct prof_frame *frame, int lines, char *buf, size_t cap)
{
    if (frame->function[0] != '\0') {
        if (lines && frame->line != 0) {
            snprintf(buf, cap, "%s %s:%" PRId64, frame->function, frame->file, frame->line);
        } else {
            snprintf(buf, cap, "%s", frame->function);
        }
    } else if (frame->mapping != NULL && frame->mapping->file[0] != '\0' && frame->address != 0) {
        const struct prof_mapping *m = frame->mapping;
        uint64_t offset = frame->address - m->start + m->offset;
        snprintf(buf, cap, "%s+0x%" PRIx64, base_name(m->file), offset);
    } else if (frame->mapping != NULL && frame->mapping->file[0] != '\0') {
        snprintf(buf, cap, "[%s]", base_name(frame->mapping->file));
    } else if (frame->address != 0) {
        snprintf(buf, cap, "0x%" PRIx64, frame->address);
    } else {
        snprintf(buf, cap, "<unknown>");
    }
}

const char *prof_short_name(const char *name)
{
    // "net/http.(*conn).serve": the last slash before anything that is not a path.
    size_t path = strcspn(name, "(<[ ");
    const char *start = name;
    for (size_t i = 0; i < path; i++) {
        if (name[i] == '/') {
            start = name + i + 1;
        }
    }
    return start;
}

static const char *time_amount(double ns, char *buf, size_t cap)
{
    static const struct {
        double ns;
        const char *unit;
    } units[] = {{3600e9, "h"}, {60e9, "min"}, {1e9, "s"}, {1e6, "ms"}, {1e3, "us"}, {1, "ns"}};
    size_t i = 0;
    double size = ns < 0 ? -ns : ns;
    while (i + 1 < ARRAY_COUNT(units) && size < units[i].ns * (i < 2 ? 2 : 1)) {
        i++;
    }
    double value = ns / units[i].ns;
    snprintf(buf, cap, value == (double)(int64_t)value ? "%.0f %s" : "%.2f %s", value,
             units[i].unit);
    return buf;
}

const char *prof_amount(int64_t value, const char *unit, char *buf, size_t cap)
{
    static const struct {
        const char *name;
        double ns;
    } times[] = {
        {"nanoseconds", 1}, {"microseconds", 1e3}, {"milliseconds", 1e6}, {"seconds", 1e9}};
    if (value == 0) {
        return "0";
    }
    if (strcmp(unit, "bytes") == 0) {
        char text[LOOK_BYTES];
        uint64_t size = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
        snprintf(buf, cap, "%s%s", value < 0 ? "-" : "", look_bytes(size, text, sizeof(text)));
        return buf;
    }
    for (size_t i = 0; i < ARRAY_COUNT(times); i++) {
        if (strcmp(unit, times[i].name) == 0) {
            return time_amount((double)value * times[i].ns, buf, cap);
        }
    }
    bool plain = unit[0] == '\0' || strcmp(unit, "count") == 0;
    snprintf(buf, cap, plain ? "%" PRId64 : "%" PRId64 " %s", value, unit);
    return buf;
}

// ---- the view ----------------------------------------------------------------------------------

size_t prof_type_find(const struct prof *prof, const char *name)
{
    char *end;
    size_t at = strtoul(name, &end, 10);
    if (name[0] >= '0' && name[0] <= '9' && *end == '\0' && at < prof->type_count) {
        return at;
    }
    for (size_t i = 0; i < prof->type_count; i++) {
        if (strcmp(prof->types[i].type, name) == 0) {
            return i;
        }
    }
    return prof->type_count;
}

const struct prof_frame **prof_frames(const struct prof *prof, const struct prof_sample *sample,
                                      size_t *count)
{
    size_t total = 0;
    for (size_t i = 0; i < sample->location_count; i++) {
        total += prof->locations[sample->locations[i]].frame_count;
    }
    const struct prof_frame **frames = prof_alloc(total, sizeof(*frames));
    *count = 0;
    for (size_t i = 0; i < sample->location_count; i++) {
        const struct prof_location *location = &prof->locations[sample->locations[i]];
        for (size_t j = 0; j < location->frame_count; j++) {
            frames[(*count)++] = &prof->frames[location->frame_first + j];
        }
    }
    return frames;
}

static bool sample_matches(const struct prof *prof, const struct prof_sample *sample,
                           const regex_t *rule)
{
    for (size_t i = 0; i < sample->location_count; i++) {
        const struct prof_location *location = &prof->locations[sample->locations[i]];
        for (size_t j = 0; j < location->frame_count; j++) {
            const struct prof_frame *frame = &prof->frames[location->frame_first + j];
            if (regexec(rule, frame->function, 0, NULL, 0) == 0 ||
                regexec(rule, frame->file, 0, NULL, 0) == 0 ||
                (frame->mapping != NULL && regexec(rule, frame->mapping->file, 0, NULL, 0) == 0)) {
                return true;
            }
        }
    }
    return false;
}

// Adds the samples of a profile, times sign, and returns the sum of their absolute values.
static int64_t rows_add(struct prof_view *view, const struct prof *prof, size_t type, int sign,
                        const struct prof_filter *filter)
{
    int64_t total = 0;
    for (size_t i = 0; i < prof->sample_count; i++) {
        const struct prof_sample *sample = &prof->samples[i];
        int64_t value = sample->values[type];
        total = prof_add(total, value < 0 ? prof_add(~value, 1) : value);
        if (value == 0 || (filter->focus != NULL && !sample_matches(prof, sample, filter->focus)) ||
            (filter->ignore != NULL && sample_matches(prof, sample, filter->ignore))) {
            continue;
        }
        view->rows[view->row_count++] =
            (struct prof_row){prof, sample, sign < 0 ? prof_add(~value, 1) : value};
    }
    return total;
}

void prof_view_make(struct prof_view *view, const struct prof *prof, const struct prof *base,
                    size_t type, const struct prof_filter *filter)
{
    size_t cap = prof->sample_count + (base != NULL ? base->sample_count : 0);
    *view = (struct prof_view){
        .rows = prof_alloc(cap, sizeof(*view->rows)),
        .type = prof->types[type].type,
        .unit = prof->types[type].unit,
        .diff = base != NULL,
    };
    view->total = rows_add(view, prof, type, 1, filter);
    if (base != NULL) {
        // Percent are of the base, so that +100 % is twice as much.
        int64_t before = rows_add(view, base, type, -1, filter);
        view->total = before != 0 ? before : view->total;
    }
}

// ---- flat and cum ------------------------------------------------------------------------------

struct name_hash {
    size_t *slots; // index + 1; 0: empty
    size_t count;  // a power of two
};

static uint64_t text_hash(const char *text)
{
    uint64_t hash = UINT64_C(14695981039346656037);
    for (; *text != '\0'; text++) {
        hash = (hash ^ (unsigned char)*text) * UINT64_C(1099511628211);
    }
    return hash ^ (hash >> 29);
}

static size_t *slot_of(const struct name_hash *hash, const struct prof_node *nodes,
                       const char *name)
{
    size_t at = text_hash(name) & (hash->count - 1);
    while (hash->slots[at] != 0 && strcmp(nodes[hash->slots[at] - 1].name, name) != 0) {
        at = (at + 1) & (hash->count - 1);
    }
    return &hash->slots[at];
}

// Frames of both profiles by name: each frame's node, so that samples need no names.
struct frame_nodes {
    const struct prof *prof;
    size_t *nodes; // per frame of prof
};

static void frames_name(struct frame_nodes *map, struct prof_table *table, struct name_hash *hash,
                        int lines)
{
    char name[PROF_NAME_BYTES];
    map->nodes = prof_alloc(map->prof->frame_count, sizeof(*map->nodes));
    for (size_t i = 0; i < map->prof->frame_count; i++) {
        const struct prof_frame *frame = &map->prof->frames[i];
        prof_frame_name(frame, lines, name, sizeof(name));
        size_t *slot = slot_of(hash, table->nodes, name);
        if (*slot == 0) {
            struct prof_node *node = &table->nodes[table->count++];
            *node = (struct prof_node){.name = prof_format("%s", name), .file = frame->file};
            *slot = table->count;
        }
        map->nodes[i] = *slot - 1;
    }
}

static void row_count(const struct prof_row *row, size_t number, const struct frame_nodes *map,
                      struct prof_table *table)
{
    bool leaf = true;
    for (size_t i = 0; i < row->sample->location_count; i++) {
        const struct prof_location *location = &row->prof->locations[row->sample->locations[i]];
        for (size_t j = 0; j < location->frame_count; j++) {
            struct prof_node *node = &table->nodes[map->nodes[location->frame_first + j]];
            node->flat = prof_add(node->flat, leaf ? row->value : 0);
            node->cum = prof_add(node->cum, node->seen != number ? row->value : 0);
            node->seen = number;
            leaf = false;
        }
    }
}

static uint64_t size_of(int64_t value)
{
    return value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
}

static int by_number(int64_t a, int64_t b)
{
    return (size_of(a) < size_of(b)) - (size_of(a) > size_of(b));
}

static int flat_compare(const void *a, const void *b)
{
    const struct prof_node *x = a;
    const struct prof_node *y = b;
    int order = by_number(x->flat, y->flat);
    order = order != 0 ? order : by_number(x->cum, y->cum);
    return order != 0 ? order : strcmp(x->name, y->name);
}

static int cum_compare(const void *a, const void *b)
{
    const struct prof_node *x = a;
    const struct prof_node *y = b;
    int order = by_number(x->cum, y->cum);
    order = order != 0 ? order : by_number(x->flat, y->flat);
    return order != 0 ? order : strcmp(x->name, y->name);
}

void prof_table_make(struct prof_table *table, const struct prof_view *view, int lines,
                     enum prof_order order)
{
    struct frame_nodes maps[2] = {0};
    size_t cap = 0;
    for (size_t i = 0; i < view->row_count; i++) {
        size_t at = maps[0].prof == NULL || maps[0].prof == view->rows[i].prof ? 0 : 1;
        cap += maps[at].prof == NULL ? view->rows[i].prof->frame_count : 0;
        maps[at].prof = view->rows[i].prof;
    }
    struct name_hash hash = {.count = 1024};
    while (hash.count < 2 * cap) {
        hash.count *= 2;
    }
    hash.slots = prof_alloc(hash.count, sizeof(*hash.slots));
    *table = (struct prof_table){.nodes = prof_alloc(cap, sizeof(*table->nodes))};
    for (size_t i = 0; i < ARRAY_COUNT(maps) && maps[i].prof != NULL; i++) {
        frames_name(&maps[i], table, &hash, lines);
    }
    for (size_t i = 0; i < view->row_count; i++) {
        row_count(&view->rows[i], i + 1, &maps[view->rows[i].prof != maps[0].prof], table);
    }
    size_t kept = 0;
    for (size_t i = 0; i < table->count; i++) {
        if (table->nodes[i].flat != 0 || table->nodes[i].cum != 0) {
            table->nodes[kept++] = table->nodes[i];
        }
    }
    table->count = kept;
    if (kept != 0) {
        qsort(table->nodes, kept, sizeof(*table->nodes),
              order == PROF_BY_CUM ? cum_compare : flat_compare);
    }
    free(hash.slots);
    free(maps[0].nodes);
    free(maps[1].nodes);
}

// ---- labels ------------------------------------------------------------------------------------

static int tag_name_compare(const void *a, const void *b)
{
    const struct prof_tag *x = a;
    const struct prof_tag *y = b;
    int order = strcmp(x->key, y->key);
    return order != 0 ? order : strcmp(x->text, y->text);
}

static int tag_compare(const void *a, const void *b)
{
    const struct prof_tag *x = a;
    const struct prof_tag *y = b;
    int order = strcmp(x->key, y->key);
    order = order != 0 ? order : by_number(x->value, y->value);
    return order != 0 ? order : strcmp(x->text, y->text);
}

struct prof_tag *prof_tags_make(const struct prof_view *view, size_t *count)
{
    struct prof_tag *tags = NULL;
    size_t found = 0;
    size_t cap = 0;
    for (size_t i = 0; i < view->row_count; i++) {
        for (size_t j = 0; j < view->rows[i].sample->label_count; j++) {
            const struct prof_label *label = &view->rows[i].sample->labels[j];
            char number[PROF_AMOUNT_BYTES];
            // Writers that name no unit mean bytes by "bytes", as go tool pprof has it.
            const char *unit = label->unit[0] != '\0' ? label->unit : label->key;
            tags = prof_grow(tags, found, &cap, sizeof(*tags));
            tags[found++] = (struct prof_tag){
                label->key,
                prof_format("%s", label->text != NULL
                                      ? label->text
                                      : prof_amount(label->number,
                                                    strcmp(unit, "bytes") == 0 ? unit : label->unit,
                                                    number, sizeof(number))),
                view->rows[i].value};
        }
    }
    *count = 0;
    if (found == 0) {
        return tags;
    }
    qsort(tags, found, sizeof(*tags), tag_name_compare);
    for (size_t i = 0; i < found; i++) {
        if (*count != 0 && tag_name_compare(&tags[*count - 1], &tags[i]) == 0) {
            tags[*count - 1].value = prof_add(tags[*count - 1].value, tags[i].value);
        } else {
            tags[(*count)++] = tags[i];
        }
    }
    qsort(tags, *count, sizeof(*tags), tag_compare);
    return tags;
}
