// SPDX-License-Identifier: MIT
//
// Proftext: a set as the text of debug=1, for people, and for go tool pprof, which reads the first
// three forms back.
//
// Model
//   A row is an entry with the values as they are printed. Rows go by their largest column, those
//   that are equal as they came. Under each row is a line for each call, inlined ones included.
//   Addresses in a row are return addresses: readers take 1 off each, so 1 is added to one that is
//   exact. Comments of the set stand under the first line: readers skip what begins with #.
//
// Go  1.19 runtime/pprof/pprof.go writeHeapInternal, printCountProfile, writeProfileInternal.
#include "profile/proftext.h"

#include <string.h>
#include <sys/resource.h>

#include "os/sys.h"
#include "profile/maps.h"

// Of one record: calls, with those inlined into them.
#define FRAMES_MAX 512
#define LINES_MAX 32

struct row {
    const struct profile_entry *entry;
    int64_t values[PROFILE_VALUE_MAX]; // as printed
    int64_t key;                       // larger ones first
    size_t order;
};

struct writer {
    const struct profile_set *set;
    struct row *rows;
    size_t count;
    int64_t totals[PROFILE_VALUE_MAX];
    struct symbols *symbols; // NULL: addresses only
    struct symbol_line found[LINES_MAX];
    struct proftext_frame frames[FRAMES_MAX];
    size_t widths[2 * FRAMES_MAX];
    struct proftext_out out;
};

// Columns of the heap kinds.
enum {
    HEAP_ALLOC_OBJECTS,
    HEAP_ALLOC_BYTES,
    HEAP_INUSE_OBJECTS,
    HEAP_INUSE_BYTES,
};

// --- rows ---

static bool row_before(const struct row *a, const struct row *b)
{
    return a->key != b->key ? a->key > b->key : a->order < b->order;
}

static void row_sink(struct row *rows, size_t at, size_t count)
{
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= count) {
            return;
        }
        if (child + 1 < count && row_before(&rows[child], &rows[child + 1])) {
            child++;
        }
        if (!row_before(&rows[at], &rows[child])) {
            return;
        }
        struct row swap = rows[at];
        rows[at] = rows[child];
        rows[child] = swap;
        at = child;
    }
}

// Heap sort: in place, and never slow.
static void rows_sort(struct row *rows, size_t count)
{
    for (size_t i = count / 2; i-- > 0;) {
        row_sink(rows, i, count);
    }
    for (size_t end = count; end-- > 1;) {
        struct row swap = rows[0];
        rows[0] = rows[end];
        rows[end] = swap;
        row_sink(rows, 0, end);
    }
}

static int64_t row_key(const struct profile_kind *kind, const int64_t *values)
{
    switch (kind->text) {
    case PROFILE_TEXT_HEAP:
        return values[HEAP_INUSE_BYTES];
    case PROFILE_TEXT_CONTENTION:
        return values[1];
    case PROFILE_TEXT_COUNT:
        return values[0];
    case PROFILE_TEXT_TABLE:
        break;
    }
    return values[kind->type_count - 1];
}

static bool rows_make(struct writer *writer, struct region *region)
{
    const struct profile_set *set = writer->set;
    writer->rows = region_alloc(region, set->count * sizeof(*writer->rows));
    if (writer->rows == NULL) {
        return false;
    }
    for (const struct profile_entry *entry = set->first; entry != NULL; entry = entry->next) {
        struct row *row = &writer->rows[writer->count];
        memcpy(row->values, entry->sample.values, sizeof(row->values));
        row->entry = entry;
        row->order = writer->count++;
        row->key = row_key(set->kind, row->values);
        if (set->kind->text == PROFILE_TEXT_HEAP) {
            proftext_sampled(&row->values[0], &row->values[1], set->period);
            proftext_sampled(&row->values[2], &row->values[3], set->period);
        }
        for (size_t i = 0; i < PROFILE_VALUE_MAX; i++) {
            writer->totals[i] += row->values[i];
        }
    }
    rows_sort(writer->rows, writer->count);
    return true;
}

// --- lines under a row ---

static size_t frames_of(struct writer *writer, size_t count, uintptr_t pc)
{
    uintptr_t start = 0;
    size_t lines = writer->symbols == NULL
                       ? 0
                       : symbols_find(writer->symbols, pc, writer->found, LINES_MAX, &start);
    if (lines == 0 && count < FRAMES_MAX) {
        writer->frames[count++] = (struct proftext_frame){.address = pc};
    }
    for (size_t i = 0; i < lines && count < FRAMES_MAX; i++) {
        const struct symbol_line *line = &writer->found[i];
        writer->frames[count++] = (struct proftext_frame){
            .address = pc,
            .function = line->function,
            .offset = pc - start,
            .offset_known = start != 0,
            .file = line->file,
            .line = line->line,
        };
    }
    return count;
}

static void write_frames(struct writer *writer, const struct profile_sample *sample)
{
    size_t count = 0;
    for (uint32_t i = 0; i < sample->depth; i++) {
        bool exact = i == 0 && sample->leaf_exact;
        count = frames_of(writer, count, sample->stack[i] - (exact ? 0 : 1));
    }
    proftext_frames(&writer->out, writer->frames, count, writer->widths);
    proftext_str(&writer->out, "\n");
}

// A reader wants at least one address: without a stack it gets 0x1, of which it takes 1.
static void write_stack(struct writer *writer, const struct profile_sample *sample)
{
    proftext_str(&writer->out, " @");
    for (uint32_t i = 0; i < sample->depth; i++) {
        bool exact = i == 0 && sample->leaf_exact;
        proftext_str(&writer->out, " ");
        proftext_hex(&writer->out, sample->stack[i] + (exact ? 1 : 0));
    }
    proftext_str(&writer->out, sample->depth == 0 ? " 0x1\n" : "\n");
}

static void write_quoted(struct proftext_out *out, const char *text)
{
    proftext_str(out, "\"");
    for (; *text != '\0'; text++) {
        unsigned char c = (unsigned char)*text;
        char plain[2] = {*text, '\0'};
        if (c == '"' || c == '\\') {
            proftext_str(out, "\\");
            proftext_str(out, plain);
        } else if (c < ' ' || c == 127) {
            char escape[5] = {'\\', 'x', "0123456789abcdef"[c >> 4], "0123456789abcdef"[c & 15]};
            proftext_str(out, escape);
        } else {
            proftext_str(out, plain);
        }
    }
    proftext_str(out, "\"");
}

// Sorted by key, as Go prints a label set. The heap text leaves out numbers: the size of the blocks
// is in the row.
static void write_labels(struct writer *writer, const struct profile_sample *sample)
{
    struct proftext_out *out = &writer->out;
    const struct profile_label *sorted[PROFILE_LABEL_MAX];
    uint32_t count = 0;
    for (uint32_t i = 0; i < sample->label_count; i++) {
        const struct profile_label *label = &sample->labels[i];
        if (label->text == NULL && writer->set->kind->text == PROFILE_TEXT_HEAP) {
            continue;
        }
        uint32_t at = count++;
        for (; at > 0 && strcmp(sorted[at - 1]->key, label->key) > 0; at--) {
            sorted[at] = sorted[at - 1];
        }
        sorted[at] = label;
    }
    for (uint32_t i = 0; i < count; i++) {
        proftext_str(out, i == 0 ? "# labels: {" : ", ");
        write_quoted(out, sorted[i]->key);
        proftext_str(out, ":");
        if (sorted[i]->text != NULL) {
            write_quoted(out, sorted[i]->text);
        } else {
            proftext_i64(out, sorted[i]->number);
        }
    }
    proftext_str(out, count == 0 ? "" : "}\n");
}

static void write_comments(struct writer *writer)
{
    for (size_t i = 0; i < writer->set->comment_count; i++) {
        proftext_str(&writer->out, "# ");
        proftext_str(&writer->out, writer->set->comments[i]);
        proftext_str(&writer->out, "\n");
    }
}

// --- the forms ---

static void heap_numbers(struct proftext_out *out, const int64_t *values, int64_t more)
{
    proftext_i64(out, values[HEAP_INUSE_OBJECTS]);
    proftext_str(out, ": ");
    proftext_i64(out, values[HEAP_INUSE_BYTES]);
    proftext_str(out, " [");
    proftext_i64(out, values[HEAP_ALLOC_OBJECTS]);
    proftext_str(out, ": ");
    proftext_i64(out, values[HEAP_ALLOC_BYTES] + more);
    proftext_str(out, "]");
}

static void write_heap(struct writer *writer, const struct ebb_memstats *stats)
{
    struct proftext_out *out = &writer->out;
    // Equal sums would be read as a profile of two columns.
    bool equal = writer->totals[HEAP_ALLOC_BYTES] == writer->totals[HEAP_INUSE_BYTES];
    proftext_str(out, "heap profile: ");
    heap_numbers(out, writer->totals, equal ? 1 : 0);
    proftext_str(out, " @ heap/");
    proftext_i64(out, 2 * writer->set->period);
    proftext_str(out, "\n");
    write_comments(writer);
    for (size_t i = 0; i < writer->count; i++) {
        const struct profile_sample *sample = &writer->rows[i].entry->sample;
        heap_numbers(out, writer->rows[i].values, 0);
        write_stack(writer, sample);
        write_labels(writer, sample);
        write_frames(writer, sample);
    }
    if (stats != NULL) {
        struct rusage usage = {.ru_maxrss = 0};
        sys_call2(SYS_getrusage, RUSAGE_SELF, &usage);
        proftext_memstats(out, stats, (uint64_t)usage.ru_maxrss * KIB);
    }
}

static void write_count(struct writer *writer)
{
    struct proftext_out *out = &writer->out;
    proftext_str(out, writer->set->kind->name);
    proftext_str(out, " profile: total ");
    proftext_i64(out, writer->totals[0]);
    proftext_str(out, "\n");
    write_comments(writer);
    for (size_t i = 0; i < writer->count; i++) {
        const struct profile_sample *sample = &writer->rows[i].entry->sample;
        proftext_i64(out, writer->rows[i].values[0]);
        write_stack(writer, sample);
        write_labels(writer, sample);
        write_frames(writer, sample);
    }
}

// A cycle is a nanosecond here. The values are estimates of the truth: a period of 1 keeps them.
static void write_contention(struct writer *writer)
{
    struct proftext_out *out = &writer->out;
    bool mutex = strcmp(writer->set->kind->name, "mutex") == 0;
    proftext_str(out, mutex ? "--- mutex:\ncycles/second=1000000000\nsampling period=1\n"
                            : "--- contention:\ncycles/second=1000000000\n");
    write_comments(writer);
    for (size_t i = 0; i < writer->count; i++) {
        const struct profile_sample *sample = &writer->rows[i].entry->sample;
        proftext_i64(out, writer->rows[i].values[1]);
        proftext_str(out, " ");
        proftext_i64(out, writer->rows[i].values[0]);
        write_stack(writer, sample);
        write_labels(writer, sample);
        write_frames(writer, sample);
    }
}

static void write_cell(struct proftext_out *out, const char *text, size_t width)
{
    for (size_t length = strlen(text); length < width; length++) {
        proftext_str(out, " ");
    }
    proftext_str(out, text);
}

static size_t number_text(char *buf, size_t cap, int64_t value)
{
    struct fmt text;
    fmt_init(&text, buf, cap);
    fmt_i64(&text, value);
    return text.len;
}

static void write_table(struct writer *writer)
{
    struct proftext_out *out = &writer->out;
    const struct profile_kind *kind = writer->set->kind;
    size_t widths[PROFILE_VALUE_MAX];
    char buf[128];
    proftext_str(out, kind->name);
    proftext_str(out, " profile: ");
    proftext_u64(out, writer->count);
    proftext_str(out, " stacks\n");
    write_comments(writer);
    for (uint32_t i = 0; i < kind->type_count; i++) {
        struct fmt title;
        fmt_init(&title, buf, sizeof(buf));
        fmt_str(&title, kind->types[i].type);
        fmt_str(&title, "/");
        fmt_str(&title, kind->types[i].unit);
        widths[i] = max_size(title.len, number_text((char[24]){0}, 24, writer->totals[i]));
        for (size_t j = 0; j < writer->count; j++) {
            char number[24];
            size_t length = number_text(number, sizeof(number), writer->rows[j].values[i]);
            widths[i] = max_size(widths[i], length);
        }
        proftext_str(out, i == 0 ? "" : "  ");
        write_cell(out, buf, widths[i]);
    }
    proftext_str(out, "\n");
    for (size_t j = 0; j <= writer->count; j++) {
        const int64_t *values = j == 0 ? writer->totals : writer->rows[j - 1].values;
        for (uint32_t i = 0; i < kind->type_count; i++) {
            number_text(buf, sizeof(buf), values[i]);
            proftext_str(out, i == 0 ? "" : "  ");
            write_cell(out, buf, widths[i]);
        }
        if (j == 0) {
            proftext_str(out, " total\n\n");
            continue;
        }
        write_stack(writer, &writer->rows[j - 1].entry->sample);
        write_labels(writer, &writer->rows[j - 1].entry->sample);
        write_frames(writer, &writer->rows[j - 1].entry->sample);
    }
}

bool proftext_write(const struct profile_set *set, const struct ebb_memstats *stats,
                    struct profile_sink *sink)
{
    struct region region;
    struct region names;
    region_init(&region, SIZE_MAX);
    region_init(&names, symbols_limit(set->names_limit_bytes));
    struct writer *writer = region_alloc(&region, sizeof(*writer));
    bool good = writer != NULL;
    if (good) {
        writer->set = set;
        writer->out.sink = sink;
        good = rows_make(writer, &region);
    }
    if (good) {
        writer->symbols = symbols_open(&names);
        switch (set->kind->text) {
        case PROFILE_TEXT_HEAP:
            write_heap(writer, stats);
            break;
        case PROFILE_TEXT_COUNT:
            write_count(writer);
            break;
        case PROFILE_TEXT_CONTENTION:
            write_contention(writer);
            break;
        case PROFILE_TEXT_TABLE:
            write_table(writer);
            break;
        }
        if (writer->symbols != NULL) {
            symbols_close(writer->symbols);
        }
        good = proftext_flush(&writer->out);
    }
    region_end(&names);
    region_end(&region);
    return good;
}
