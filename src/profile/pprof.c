// SPDX-License-Identifier: MIT
//
// Pprof: a set as profile.proto, in two steps: first every address is looked up and gets its place
// in the tables of locations, functions and texts; then the messages are written in one go,
// straight into the compressor.
//
// Model
//   location   one for each address, with a line for each inlined call; ids count from 1
//   function   one for each name and file
//   text       one for each string; number 0 is the empty one
//   A caller's address is that of its call: return address - 1.
//   Names survive in go tool pprof only in mappings with has_functions, so that flag says whether
//   every address looked up in the mapping has a function, and likewise the other two.
//
// Why this way
//   nanopb writes what is repeated by callbacks that it calls twice where a length comes first; so
//   they only read.
//
// Go  1.19 runtime/pprof/proto.go profileBuilder, protomem.go writeHeapProto.
#include <pb_encode.h>
#include <string.h>

#include "profile/gzip.h"
#include "profile/maps.h"
#include "profile/profile_pb.inc"
#include "profile/profile.h"

// Of one address: inlining deeper than this is cut.
#define LINES_MAX 32
#define TABLE_COUNT 8192 // places of each hash table; a power of two

struct text {
    struct text *chain;
    struct text *next;
    uint64_t hash;
    const char *text;
    int64_t id;
};

struct function {
    struct function *chain;
    struct function *next;
    int64_t name;
    int64_t file;
    uint64_t id;
};

struct location {
    struct location *chain;
    struct location *next;
    uintptr_t address;
    uint64_t id;
    uint64_t mapping_id;
    uint32_t line_count;
    pp_Line *lines;
};

struct pprof {
    const struct profile_set *set;
    struct region region; // tables
    struct region names;  // what symbol.c finds
    struct symbols *symbols;
    struct text *texts[TABLE_COUNT];
    struct text *text_first, **text_end;
    int64_t text_count;
    struct function *functions[TABLE_COUNT];
    struct function *function_first, **function_end;
    uint64_t function_count;
    struct location *locations[TABLE_COUNT];
    struct location *location_first, **location_end;
    uint64_t location_count;
    bool failed; // memory is short
    // What one sample is written from.
    uint64_t ids[PROFILE_DEPTH_MAX];
    pp_Label labels[PROFILE_LABEL_MAX];
};

// --- tables ---

static size_t place(uint64_t hash)
{
    hash *= 0x9e3779b97f4a7c15U;
    return (size_t)(hash >> 32) % TABLE_COUNT;
}

static int64_t text_id(struct pprof *pprof, const char *text)
{
    uint64_t hash = 14695981039346656037U; // FNV-1a
    for (const char *at = text; *at != '\0'; at++) {
        hash = (hash ^ (unsigned char)*at) * 1099511628211U;
    }
    struct text **slot = &pprof->texts[place(hash)];
    for (struct text *known = *slot; known != NULL; known = known->chain) {
        if (known->hash == hash && strcmp(known->text, text) == 0) {
            return known->id;
        }
    }
    struct text *added = region_alloc(&pprof->region, sizeof(*added));
    if (added == NULL) {
        pprof->failed = true;
        return 0;
    }
    *added = (struct text){*slot, NULL, hash, text, pprof->text_count++};
    *slot = added;
    *pprof->text_end = added;
    pprof->text_end = &added->next;
    return added->id;
}

static uint64_t function_id(struct pprof *pprof, const char *name, const char *file)
{
    int64_t name_id = text_id(pprof, name);
    int64_t file_id = text_id(pprof, file == NULL ? "" : file);
    struct function **slot = &pprof->functions[place((uint64_t)name_id << 32 ^ (uint64_t)file_id)];
    for (struct function *known = *slot; known != NULL; known = known->chain) {
        if (known->name == name_id && known->file == file_id) {
            return known->id;
        }
    }
    struct function *added = region_alloc(&pprof->region, sizeof(*added));
    if (added == NULL) {
        pprof->failed = true;
        return 0;
    }
    *added = (struct function){*slot, NULL, name_id, file_id, ++pprof->function_count};
    *slot = added;
    *pprof->function_end = added;
    pprof->function_end = &added->next;
    return added->id;
}

static struct location *location_known(const struct pprof *pprof, uintptr_t address)
{
    struct location *location = pprof->locations[place(address)];
    while (location != NULL && location->address != address) {
        location = location->chain;
    }
    return location;
}

// Lines without a function say nothing to pprof and are left out: it asks /symbol then.
static void location_name(struct pprof *pprof, struct location *location)
{
    struct symbol_line found[LINES_MAX];
    uintptr_t start;
    size_t count = pprof->symbols == NULL
                       ? 0
                       : symbols_find(pprof->symbols, location->address, found, LINES_MAX, &start);
    if (count == 0) {
        return;
    }
    location->lines = region_alloc(&pprof->region, count * sizeof(*location->lines));
    if (location->lines == NULL) {
        return;
    }
    for (size_t i = 0; i < count; i++) {
        if (found[i].function != NULL) {
            location->lines[location->line_count++] = (pp_Line){
                .function_id = function_id(pprof, found[i].function, found[i].file),
                .line = found[i].line,
            };
        }
    }
}

static void location_add(struct pprof *pprof, uintptr_t address)
{
    if (location_known(pprof, address) != NULL) {
        return;
    }
    struct location *added = region_alloc(&pprof->region, sizeof(*added));
    if (added == NULL) {
        pprof->failed = true;
        return;
    }
    struct location **slot = &pprof->locations[place(address)];
    added->chain = *slot;
    added->address = address;
    added->id = ++pprof->location_count;
    *slot = added;
    *pprof->location_end = added;
    pprof->location_end = &added->next;
    if (pprof->symbols != NULL) {
        size_t mapping = symbols_mapping_of(pprof->symbols, address);
        added->mapping_id = mapping == SIZE_MAX ? 0 : mapping + 1;
    }
    location_name(pprof, added);
}

static uintptr_t address_of(const struct profile_sample *sample, uint32_t index)
{
    uintptr_t address = sample->stack[index];
    return address == 0 || (index == 0 && sample->leaf_exact) ? address : address - 1;
}

static void sample_intern(struct pprof *pprof, const struct profile_sample *sample)
{
    for (uint32_t i = 0; i < sample->depth; i++) {
        location_add(pprof, address_of(sample, i));
    }
    for (uint32_t i = 0; i < sample->label_count; i++) {
        const struct profile_label *label = &sample->labels[i];
        text_id(pprof, label->key);
        text_id(pprof, label->text != NULL ? label->text : "");
        text_id(pprof, label->unit != NULL ? label->unit : "");
    }
}

static void pprof_intern(struct pprof *pprof)
{
    text_id(pprof, "");
    for (const struct profile_entry *entry = pprof->set->first; entry != NULL && !pprof->failed;
         entry = entry->next) {
        sample_intern(pprof, &entry->sample);
    }
    size_t count = 0;
    const struct symbol_mapping *mappings =
        pprof->symbols == NULL ? NULL : symbols_mappings(pprof->symbols, &count);
    for (size_t i = 0; i < count; i++) {
        text_id(pprof, mappings[i].path);
        text_id(pprof, mappings[i].build_id);
    }
}

// --- messages ---

static bool write_message(pb_ostream_t *stream, const pb_field_t *field, const pb_msgdesc_t *type,
                          const void *message)
{
    return pb_encode_tag_for_field(stream, field) && pb_encode_submessage(stream, type, message);
}

static void label_fill(struct pprof *pprof, const struct profile_label *from, pp_Label *to)
{
    *to = (pp_Label){.key = text_id(pprof, from->key)};
    if (from->text != NULL) {
        to->str = text_id(pprof, from->text);
    } else {
        to->num = from->number;
        to->num_unit = text_id(pprof, from->unit == NULL ? "" : from->unit);
    }
}

static bool write_samples(pb_ostream_t *stream, const pb_field_t *field, void *const *arg)
{
    struct pprof *pprof = *arg;
    for (struct profile_entry *entry = pprof->set->first; entry != NULL; entry = entry->next) {
        struct profile_sample *from = &entry->sample;
        for (uint32_t i = 0; i < from->depth; i++) {
            pprof->ids[i] = location_known(pprof, address_of(from, i))->id;
        }
        for (uint32_t i = 0; i < from->label_count; i++) {
            label_fill(pprof, &from->labels[i], &pprof->labels[i]);
        }
        pp_Sample to = {
            .location_id_count = (pb_size_t)from->depth,
            .location_id = pprof->ids,
            .value_count = (pb_size_t)pprof->set->kind->type_count,
            .value = from->values,
            .label_count = (pb_size_t)from->label_count,
            .label = pprof->labels,
        };
        if (!write_message(stream, field, pp_Sample_fields, &to)) {
            return false;
        }
    }
    return true;
}

static bool write_mappings(pb_ostream_t *stream, const pb_field_t *field, void *const *arg)
{
    struct pprof *pprof = *arg;
    size_t count = 0;
    const struct symbol_mapping *from =
        pprof->symbols == NULL ? NULL : symbols_mappings(pprof->symbols, &count);
    for (size_t i = 0; i < count; i++) {
        pp_Mapping to = {
            .id = i + 1,
            .memory_start = from[i].start,
            .memory_limit = from[i].end,
            .file_offset = from[i].offset,
            .filename = text_id(pprof, from[i].path),
            .build_id = text_id(pprof, from[i].build_id),
            .has_functions = from[i].asked && from[i].functions,
            .has_filenames = from[i].asked && from[i].files,
            .has_line_numbers = from[i].asked && from[i].lines,
            .has_inline_frames = from[i].asked && from[i].functions && from[i].lines,
        };
        if (!write_message(stream, field, pp_Mapping_fields, &to)) {
            return false;
        }
    }
    return true;
}

static bool write_locations(pb_ostream_t *stream, const pb_field_t *field, void *const *arg)
{
    struct pprof *pprof = *arg;
    for (struct location *from = pprof->location_first; from != NULL; from = from->next) {
        pp_Location to = {
            .id = from->id,
            .mapping_id = from->mapping_id,
            .address = from->address,
            .line_count = (pb_size_t)from->line_count,
            .line = from->lines,
        };
        if (!write_message(stream, field, pp_Location_fields, &to)) {
            return false;
        }
    }
    return true;
}

static bool write_functions(pb_ostream_t *stream, const pb_field_t *field, void *const *arg)
{
    struct pprof *pprof = *arg;
    for (struct function *from = pprof->function_first; from != NULL; from = from->next) {
        pp_Function to = {
            .id = from->id,
            .name = from->name,
            .system_name = from->name,
            .filename = from->file,
        };
        if (!write_message(stream, field, pp_Function_fields, &to)) {
            return false;
        }
    }
    return true;
}

static bool write_texts(pb_ostream_t *stream, const pb_field_t *field, void *const *arg)
{
    struct pprof *pprof = *arg;
    for (struct text *text = pprof->text_first; text != NULL; text = text->next) {
        if (!pb_encode_tag_for_field(stream, field) ||
            !pb_encode_string(stream, (const pb_byte_t *)text->text, strlen(text->text))) {
            return false;
        }
    }
    return true;
}

static bool stream_write(pb_ostream_t *stream, const pb_byte_t *bytes, size_t count)
{
    return gzip_write(stream->state, bytes, count);
}

static pb_callback_t callback(struct pprof *pprof,
                              bool (*write)(pb_ostream_t *, const pb_field_t *, void *const *))
{
    return (pb_callback_t){.funcs = {.encode = write}, .arg = pprof};
}

// Every text that the head of the profile needs is in the table before the table is written.
static bool pprof_encode(struct pprof *pprof, struct profile_sink *sink)
{
    const struct profile_set *set = pprof->set;
    const struct profile_kind *kind = set->kind;
    pp_ValueType types[PROFILE_VALUE_MAX];
    int64_t comments[PROFILE_COMMENT_MAX];
    for (uint32_t i = 0; i < kind->type_count; i++) {
        types[i] = (pp_ValueType){text_id(pprof, kind->types[i].type),
                                  text_id(pprof, kind->types[i].unit)};
    }
    for (size_t i = 0; i < set->comment_count; i++) {
        comments[i] = text_id(pprof, set->comments[i]);
    }
    pp_Profile profile = {
        .sample_type_count = (pb_size_t)kind->type_count,
        .sample_type = types,
        .sample = callback(pprof, write_samples),
        .mapping = callback(pprof, write_mappings),
        .location = callback(pprof, write_locations),
        .function = callback(pprof, write_functions),
        .string_table = callback(pprof, write_texts),
        .time_nanos = (int64_t)set->time_ns,
        .duration_nanos = (int64_t)set->duration_ns,
        .has_period_type = kind->period_type.type != NULL,
        .period = set->period,
        .comment_count = (pb_size_t)set->comment_count,
        .comment = comments,
    };
    if (profile.has_period_type) {
        profile.period_type = (pp_ValueType){text_id(pprof, kind->period_type.type),
                                             text_id(pprof, kind->period_type.unit)};
    }
    if (kind->default_type != NULL) {
        profile.default_sample_type = text_id(pprof, kind->default_type);
    }
    struct gzip *gzip = pprof->failed ? NULL : gzip_open(&pprof->region, sink);
    if (gzip == NULL) {
        return false;
    }
    pb_ostream_t stream = {.callback = stream_write, .state = gzip, .max_size = SIZE_MAX};
    bool good = pb_encode(&stream, pp_Profile_fields, &profile);
    return gzip_close(gzip) && good;
}

static bool pprof_run(struct pprof *pprof, struct profile_sink *sink)
{
    pprof->text_end = &pprof->text_first;
    pprof->function_end = &pprof->function_first;
    pprof->location_end = &pprof->location_first;
    pprof->symbols = symbols_open(&pprof->names);
    pprof_intern(pprof);
    bool good = !pprof->failed && pprof_encode(pprof, sink);
    if (pprof->symbols != NULL) {
        symbols_close(pprof->symbols);
    }
    region_end(&pprof->names);
    return good;
}

bool pprof_write(const struct profile_set *set, struct profile_sink *sink)
{
    struct region region;
    region_init(&region, SIZE_MAX); // what it needs is bounded by the set
    struct pprof *pprof = region_alloc(&region, sizeof(*pprof));
    if (pprof == NULL) {
        return false;
    }
    pprof->set = set;
    pprof->region = region; // it lies in the first block of the region, and carries on with it
    region_init(&pprof->names, symbols_limit(set->names_limit_bytes));
    bool good = pprof_run(pprof, sink);
    region = pprof->region;
    region_end(&region);
    return good;
}
