// SPDX-License-Identifier: MIT
//
// From bytes to a profile: gunzip, the message, and every index in it checked.
//
// Go  github.com/google/pprof profile/profile.go Parse, CheckValid; prune.go. Unlike Go: no text
//     formats; a profile without names keeps its addresses.
#include "prof.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "profile.pb-c.h"

// More than that is no profile that anybody wrote on purpose.
#define UNPACKED_BYTES_MAX (UINT64_C(2) << 30)

void *prof_alloc(size_t count, size_t bytes)
{
    void *memory = calloc(count + (count == 0), bytes);
    if (memory == NULL) {
        exit(cli_fail("profile", "out of memory"));
    }
    return memory;
}

void *prof_grow(void *items, size_t count, size_t *cap, size_t bytes)
{
    if (count < *cap) {
        return items;
    }
    *cap = *cap * 2 + 64;
    void *grown = reallocarray(items, *cap, bytes);
    if (grown == NULL) {
        exit(cli_fail("profile", "out of memory"));
    }
    return grown;
}

char *prof_format(const char *format, ...)
{
    char *text;
    va_list args;
    va_start(args, format);
    int len = vasprintf(&text, format, args);
    va_end(args);
    if (len < 0) {
        exit(cli_fail("profile", "out of memory"));
    }
    return text;
}

// ---- gunzip ------------------------------------------------------------------------------------

static int unpack(const struct prof_bytes *in, const char *from, struct prof_bytes *out)
{
    z_stream stream = {.next_in = in->data, .avail_in = (uInt)in->count};
    size_t cap = 0;
    int state = inflateInit2(&stream, MAX_WBITS + 16);
    while (state == Z_OK) {
        if (out->count == cap) {
            out->data = prof_grow(out->data, cap, &cap, 1);
        }
        stream.next_out = out->data + out->count;
        stream.avail_out = (uInt)min_size(cap - out->count, UINT32_MAX);
        uInt room = stream.avail_out;
        state = inflate(&stream, Z_NO_FLUSH);
        out->count += room - stream.avail_out;
        if (state == Z_STREAM_END && stream.avail_in != 0 && stream.next_in[0] == 0x1f) {
            state = inflateReset(&stream); // another member follows
        }
        if (out->count > UNPACKED_BYTES_MAX) {
            inflateEnd(&stream);
            return cli_fail("profile", "%s unpacks to more than 2 GiB: that is no profile", from);
        }
    }
    inflateEnd(&stream);
    if (state == Z_STREAM_END) {
        return 0;
    }
    if (state == Z_BUF_ERROR) {
        return cli_fail("profile", "%s is cut off: its gzip data ends too early", from);
    }
    return cli_fail("profile", "%s is damaged: its gzip data cannot be unpacked", from);
}

// ---- what it is if it is no profile ------------------------------------------------------------

static bool begins(const struct prof_bytes *bytes, const char *text)
{
    size_t len = strlen(text);
    return bytes->count >= len && memcmp(bytes->data, text, len) == 0;
}

static int not_a_profile(const struct prof_bytes *bytes, const char *from, const char *why)
{
    static const char *const texts[] = {"heap profile: ", "goroutine profile: ", "--- contention",
                                        "--- mutex", "threadcreate profile: "};
    for (size_t i = 0; i < ARRAY_COUNT(texts); i++) {
        if (begins(bytes, texts[i])) {
            return cli_fail("profile",
                            "%s is a profile as text, for people: fetch it without debug=1", from);
        }
    }
    if (begins(bytes, "\177ELF")) {
        return cli_fail("profile", "%s is a program; its profile is wanted: a PID, URL or file",
                        from);
    }
    if (begins(bytes, "<")) {
        return cli_fail("profile", "%s is a page of a browser's, not a profile", from);
    }
    return cli_fail("profile", "%s is not a profile (profile.proto, plain or gzip'd): %s", from,
                    why);
}

// ---- the message -------------------------------------------------------------------------------

// What a decoder needs: the message, texts made harmless, and the first thing that is wrong.
struct decoder {
    const Perftools__Profiles__Profile *message;
    const char *wrong;
};

static const char *text_at(struct decoder *d, int64_t index)
{
    if (index < 0 || (uint64_t)index >= d->message->n_string_table) {
        d->wrong = "an index leads nowhere in the table of texts";
        return "";
    }
    return d->message->string_table[index];
}

struct id {
    uint64_t id;
    size_t index;
};

static int id_compare(const void *a, const void *b)
{
    uint64_t left = ((const struct id *)a)->id;
    uint64_t right = ((const struct id *)b)->id;
    return (left > right) - (left < right);
}

static void ids_sort(struct id *ids, size_t count)
{
    if (count != 0) {
        qsort(ids, count, sizeof(*ids), id_compare);
    }
}

static bool id_find(const struct id *ids, size_t count, uint64_t id, size_t *index)
{
    const struct id key = {.id = id};
    // Writers number from 1 on: look there first.
    if (id >= 1 && id <= count && ids[id - 1].id == id) {
        *index = ids[id - 1].index;
        return true;
    }
    const struct id *found =
        count == 0 ? NULL : bsearch(&key, ids, count, sizeof(*ids), id_compare);
    if (found != NULL) {
        *index = found->index;
    }
    return found != NULL;
}

struct tables {
    struct id *mappings, *functions, *locations;
};

static uint64_t mapping_id(const Perftools__Profiles__Profile *m, size_t i)
{
    return m->mapping[i]->id;
}

static uint64_t function_id(const Perftools__Profiles__Profile *m, size_t i)
{
    return m->function[i]->id;
}

static uint64_t location_id(const Perftools__Profiles__Profile *m, size_t i)
{
    return m->location[i]->id;
}

static struct id *ids_make(const Perftools__Profiles__Profile *message, size_t count,
                           uint64_t (*id_of)(const Perftools__Profiles__Profile *, size_t))
{
    struct id *ids = prof_alloc(count, sizeof(*ids));
    for (size_t i = 0; i < count; i++) {
        ids[i] = (struct id){id_of(message, i), i};
    }
    ids_sort(ids, count);
    return ids;
}

static void types_read(struct decoder *d, struct prof *prof)
{
    const Perftools__Profiles__Profile *m = d->message;
    prof->type_count = m->n_sample_type;
    prof->types = prof_alloc(prof->type_count, sizeof(*prof->types));
    for (size_t i = 0; i < prof->type_count; i++) {
        prof->types[i].type = text_at(d, m->sample_type[i]->type);
        prof->types[i].unit = text_at(d, m->sample_type[i]->unit);
    }
    prof->type_default = prof->type_count - (prof->type_count != 0);
    if (m->default_sample_type != 0) {
        const char *name = text_at(d, m->default_sample_type);
        for (size_t i = 0; i < prof->type_count; i++) {
            prof->type_default = strcmp(prof->types[i].type, name) == 0 ? i : prof->type_default;
        }
    }
    if (m->period_type != NULL) {
        prof->period_type.type = text_at(d, m->period_type->type);
        prof->period_type.unit = text_at(d, m->period_type->unit);
    }
    prof->period = m->period;
    prof->time_ns = m->time_nanos;
    prof->duration_ns = m->duration_nanos;
    prof->drop_frames = text_at(d, m->drop_frames);
    prof->keep_frames = text_at(d, m->keep_frames);
    prof->comment_count = m->n_comment;
    prof->comments = prof_alloc(m->n_comment, sizeof(*prof->comments));
    for (size_t i = 0; i < m->n_comment; i++) {
        prof->comments[i] = text_at(d, m->comment[i]);
    }
}

static void mappings_read(struct decoder *d, struct prof *prof)
{
    const Perftools__Profiles__Profile *m = d->message;
    prof->mapping_count = m->n_mapping;
    prof->mappings = prof_alloc(m->n_mapping, sizeof(*prof->mappings));
    for (size_t i = 0; i < m->n_mapping; i++) {
        const Perftools__Profiles__Mapping *from = m->mapping[i];
        prof->mappings[i] = (struct prof_mapping){from->memory_start, from->memory_limit,
                                                  from->file_offset, text_at(d, from->filename)};
    }
}

static void frame_read(struct decoder *d, const struct tables *tables,
                       const Perftools__Profiles__Line *line, struct prof_frame *frame)
{
    size_t index;
    if (line->function_id == 0) {
        return;
    }
    if (!id_find(tables->functions, d->message->n_function, line->function_id, &index)) {
        d->wrong = "a line is of a function that is not there";
        return;
    }
    frame->function = text_at(d, d->message->function[index]->name);
    frame->file = text_at(d, d->message->function[index]->filename);
    frame->line = line->line;
}

static void locations_read(struct decoder *d, const struct tables *tables, struct prof *prof)
{
    const Perftools__Profiles__Profile *m = d->message;
    size_t count = 0;
    for (size_t i = 0; i < m->n_location; i++) {
        count += m->location[i]->n_line != 0 ? m->location[i]->n_line : 1;
    }
    prof->frames = prof_alloc(count, sizeof(*prof->frames));
    prof->location_count = m->n_location;
    prof->locations = prof_alloc(m->n_location, sizeof(*prof->locations));
    for (size_t i = 0; i < m->n_location; i++) {
        const Perftools__Profiles__Location *from = m->location[i];
        size_t mapping = 0;
        if (from->mapping_id != 0 &&
            !id_find(tables->mappings, m->n_mapping, from->mapping_id, &mapping)) {
            d->wrong = "a location is in a mapping that is not there";
        }
        size_t lines = from->n_line != 0 ? from->n_line : 1;
        prof->locations[i] = (struct prof_location){prof->frame_count, lines};
        for (size_t j = 0; j < lines; j++) {
            struct prof_frame *frame = &prof->frames[prof->frame_count++];
            frame->function = "";
            frame->file = "";
            frame->address = from->address;
            frame->mapping = from->mapping_id != 0 ? &prof->mappings[mapping] : NULL;
            if (from->n_line != 0) {
                frame_read(d, tables, from->line[j], frame);
            }
        }
    }
}

static void labels_read(struct decoder *d, const Perftools__Profiles__Sample *from,
                        struct prof_sample *sample)
{
    sample->labels = prof_alloc(from->n_label, sizeof(*sample->labels));
    sample->label_count = from->n_label;
    for (size_t i = 0; i < from->n_label; i++) {
        const Perftools__Profiles__Label *label = from->label[i];
        sample->labels[i] = (struct prof_label){
            .key = text_at(d, label->key),
            .text = label->str != 0 ? text_at(d, label->str) : NULL,
            .number = label->num,
            .unit = text_at(d, label->num_unit),
        };
    }
}

static void samples_read(struct decoder *d, const struct tables *tables, struct prof *prof)
{
    const Perftools__Profiles__Profile *m = d->message;
    prof->sample_count = m->n_sample;
    prof->samples = prof_alloc(m->n_sample, sizeof(*prof->samples));
    for (size_t i = 0; i < m->n_sample && d->wrong == NULL; i++) {
        const Perftools__Profiles__Sample *from = m->sample[i];
        struct prof_sample *sample = &prof->samples[i];
        if (from->n_value != prof->type_count) {
            d->wrong = "a sample has not as many values as the profile has columns";
            return;
        }
        sample->values = from->value;
        sample->locations = prof_alloc(from->n_location_id, sizeof(*sample->locations));
        sample->location_count = from->n_location_id;
        for (size_t j = 0; j < from->n_location_id; j++) {
            if (!id_find(tables->locations, m->n_location, from->location_id[j],
                         &sample->locations[j])) {
                d->wrong = "a sample was taken at a location that is not there";
                return;
            }
        }
        labels_read(d, from, sample);
    }
}

int prof_decode(const struct prof_bytes *bytes, const char *from, struct prof *out)
{
    struct prof_bytes plain = {0};
    const struct prof_bytes *message = bytes;
    if (bytes->count == 0) {
        return cli_fail("profile", "%s is empty", from);
    }
    if (begins(bytes, "\x1f\x8b")) {
        int status = unpack(bytes, from, &plain);
        if (status != 0) {
            return status;
        }
        message = &plain;
    }
    Perftools__Profiles__Profile *unpacked =
        perftools__profiles__profile__unpack(NULL, message->count, message->data);
    if (unpacked == NULL) {
        return not_a_profile(message, from, "the message does not parse");
    }
    struct decoder d = {unpacked, NULL};
    *out = (struct prof){.message = unpacked, .period_type = {"", ""}};
    if (unpacked->n_sample_type == 0 || unpacked->n_string_table == 0) {
        return not_a_profile(message, from, "it has no columns");
    }
    free(plain.data);
    for (size_t i = 0; i < unpacked->n_string_table; i++) {
        term_clean(unpacked->string_table[i]);
    }
    const struct tables tables = {ids_make(unpacked, unpacked->n_mapping, mapping_id),
                                  ids_make(unpacked, unpacked->n_function, function_id),
                                  ids_make(unpacked, unpacked->n_location, location_id)};
    types_read(&d, out);
    mappings_read(&d, out);
    locations_read(&d, &tables, out);
    samples_read(&d, &tables, out);
    if (d.wrong != NULL) {
        return not_a_profile(bytes, from, d.wrong);
    }
    return 0;
}

// ---- frames of no interest ---------------------------------------------------------------------

static bool rule_compile(regex_t *rule, const char *text)
{
    // Go's groups without capture are plain groups here.
    char *whole = prof_format("^(%s)$", text);
    for (char *at = strstr(whole, "(?:"); at != NULL; at = strstr(at, "(?:")) {
        memmove(at + 1, at + 3, strlen(at + 3) + 1);
    }
    bool good = regcomp(rule, whole, REG_EXTENDED | REG_NOSUB) == 0;
    free(whole);
    return good;
}

// A name without its arguments, as the rules want it.
static void simple_name(const char *name, char *buf, size_t cap)
{
    static const char *const kept[] = {"(anonymous namespace)", "operator()"};
    snprintf(buf, cap, "%s", name + (name[0] == '.'));
    for (char *at = strchr(buf, '('); at != NULL; at = strchr(at, '(')) {
        size_t skip = 0;
        if (strncmp(at, kept[0], strlen(kept[0])) == 0) {
            skip = strlen(kept[0]);
        } else if (at - buf >= 8 && strncmp(at - 8, kept[1], strlen(kept[1])) == 0) {
            skip = 2;
        }
        if (skip == 0) {
            *at = '\0';
            return;
        }
        at += skip;
    }
}

static bool is_dropped(const struct prof_frame *frame, const regex_t *drop, const regex_t *keep)
{
    char name[PROF_NAME_BYTES];
    simple_name(frame->function, name, sizeof(name));
    return name[0] != '\0' && regexec(drop, name, 0, NULL, 0) == 0 &&
           (keep == NULL || regexec(keep, name, 0, NULL, 0) != 0);
}

enum fate { FATE_STAYS, FATE_CUT, FATE_GOES };

// The outermost dropped call takes all it calls with it, unless all of the stack would go.
static void sample_drop(struct prof_sample *sample, const enum fate *fates)
{
    bool found_user = false;
    for (size_t i = sample->location_count; i-- > 0;) {
        enum fate fate = fates[sample->locations[i]];
        if (fate == FATE_STAYS) {
            found_user = true;
        } else if (found_user) {
            size_t first = fate == FATE_GOES ? i + 1 : i;
            sample->locations += first;
            sample->location_count -= first;
            return;
        }
    }
}

void prof_drop(struct prof *prof)
{
    regex_t drop;
    regex_t keep;
    if (prof->drop_frames[0] == '\0' || !rule_compile(&drop, prof->drop_frames)) {
        return;
    }
    bool keeps = prof->keep_frames[0] != '\0' && rule_compile(&keep, prof->keep_frames);
    enum fate *fates = prof_alloc(prof->location_count, sizeof(*fates));
    for (size_t i = 0; i < prof->location_count; i++) {
        struct prof_location *location = &prof->locations[i];
        for (size_t j = location->frame_count; j-- > 0;) {
            const struct prof_frame *frame = &prof->frames[location->frame_first + j];
            if (!is_dropped(frame, &drop, keeps ? &keep : NULL)) {
                continue;
            }
            if (j + 1 == location->frame_count) {
                fates[i] = FATE_GOES;
            } else {
                fates[i] = FATE_CUT;
                location->frame_first += j + 1;
                location->frame_count -= j + 1;
            }
            break;
        }
    }
    for (size_t i = 0; i < prof->sample_count; i++) {
        sample_drop(&prof->samples[i], fates);
    }
    free(fates);
    regfree(&drop);
    if (keeps) {
        regfree(&keep);
    }
}
