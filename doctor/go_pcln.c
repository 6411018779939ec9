// SPDX-License-Identifier: MIT
//
// Doctor, functions and lines of a Go program by its own table of them (.gopclntab), which stripped
// programs have too.
//
// A pc may be in code that was inlined, several deep: the innermost function is named, and its
// line. Before 1.18 the function that holds the code is named instead.
// Every offset comes from the file and is bounded by the table. Of a table of tens of megabytes
// only the chunks that are asked for are read. In position-independent programs up to 1.17 the
// addresses in it are filled in at start: there it is read from the process.
//
// Go  src/runtime/symtab.go, src/debug/gosym/pclntab.go.
#include <gelf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "go_look.h"

#define MAGIC_12 0xfffffffbu // up to 1.15
#define MAGIC_116 0xfffffffau
#define MAGIC_118 0xfffffff0u
#define MAGIC_120 0xfffffff1u
#define TABLE_BYTES_MAX (256 * MIB)
#define PIECE_BYTES (16 * KIB)
#define TEXT_BYTES_MAX (4 * KIB) // of a name
// A function has as many steps as it has lines, about.
#define STEPS_MAX 100000
// Inlined into one another.
#define INLINES_MAX 32
#define INLINE_INDEX 2 // PCDATA_InlTreeIndex
#define INLINE_TREE 3  // FUNCDATA_InlTree

struct go_chunks {
    const struct exam *exam; // NULL: the file has it
    uint64_t offset, addr;   // in the file, in the process
    uint8_t *copy;           // of all, as far as it was read
    uint8_t have[TABLE_BYTES_MAX / PIECE_BYTES];
};

static bool chunk_read(const struct go_pcln *pcln, size_t at, size_t bytes)
{
    const struct go_chunks *chunks = pcln->chunks;
    if (chunks->exam != NULL) {
        return exam_read(chunks->exam, chunks->copy + at, chunks->addr + at, bytes) == 0;
    }
    return pread(pcln->file->fd, chunks->copy + at, bytes, (off_t)(chunks->offset + at)) ==
           (ssize_t)bytes;
}

// present sees to it that bytes of the table, which lie in it, can be looked at.
static bool present(const struct go_pcln *pcln, uint64_t at, size_t bytes)
{
    struct go_chunks *chunks = pcln->chunks;
    size_t last = ((size_t)at + bytes - 1) / PIECE_BYTES;
    for (size_t i = (size_t)at / PIECE_BYTES; bytes != 0 && i <= last; i++) {
        size_t start = i * PIECE_BYTES;
        if (chunks->have[i] == 0) {
            if (!chunk_read(pcln, start, min_size(PIECE_BYTES, pcln->bytes.len - start))) {
                return false;
            }
            chunks->have[i] = 1;
        }
    }
    return true;
}

static uint64_t number_at(const struct go_pcln *pcln, uint64_t at, size_t bytes)
{
    uint64_t value = 0;
    if (at <= pcln->bytes.len && pcln->bytes.len - at >= bytes && present(pcln, at, bytes)) {
        memcpy(&value, pcln->bytes.at + at, bytes);
    }
    return value;
}

static const char *text_at(const struct go_pcln *pcln, uint64_t at)
{
    size_t most =
        at >= pcln->bytes.len ? 0 : min_size(pcln->bytes.len - (size_t)at, TEXT_BYTES_MAX);
    if (most == 0 || !present(pcln, at, most) || memchr(pcln->bytes.at + at, '\0', most) == NULL) {
        return NULL;
    }
    return (const char *)pcln->bytes.at + at;
}

static bool head_read_old(struct go_pcln *pcln)
{
    pcln->functions = 16;
    pcln->functions_count = number_at(pcln, 8, 8);
    if (pcln->functions_count > pcln->bytes.len / 16) {
        return false;
    }
    // One address more ends the last function; behind it is where the files are.
    pcln->files = number_at(pcln, 16 + pcln->functions_count * 16 + 8, 4);
    return true;
}

static bool head_read(struct go_pcln *pcln)
{
    uint64_t at = pcln->age == 1 ? 24 : 32;
    pcln->functions_count = number_at(pcln, 8, 8);
    pcln->text = pcln->age == 1 ? 0 : number_at(pcln, 24, 8);
    pcln->names = number_at(pcln, at, 8);
    pcln->units = number_at(pcln, at + 8, 8);
    pcln->files = number_at(pcln, at + 16, 8);
    pcln->values = number_at(pcln, at + 24, 8);
    pcln->functions = number_at(pcln, at + 32, 8);
    pcln->base = pcln->functions;
    uint64_t len = pcln->bytes.len;
    return pcln->functions_count <= len / 8 && pcln->names < len && pcln->units < len &&
           pcln->files < len && pcln->values < len && pcln->functions < len;
}

static bool head_any(struct go_pcln *pcln)
{
    pcln->quantum = number_at(pcln, 6, 1);
    if (pcln->bytes.len < 80 || number_at(pcln, 7, 1) != 8) {
        return false;
    }
    switch (number_at(pcln, 0, 4)) {
    case MAGIC_12:
        return head_read_old(pcln);
    case MAGIC_116:
        pcln->age = 1;
        return head_read(pcln);
    case MAGIC_118:
        pcln->age = 2;
        return head_read(pcln);
    case MAGIC_120:
        pcln->age = 3;
        return head_read(pcln);
    default:
        return false;
    }
}

static bool chunks_make(struct go_pcln *pcln, const struct go_place *place)
{
    struct go_chunks *chunks = place->bytes > TABLE_BYTES_MAX ? NULL : calloc(1, sizeof(*chunks));
    void *copy = chunks == NULL ? MAP_FAILED
                                : mmap(NULL, (size_t)place->bytes, PROT_READ | PROT_WRITE,
                                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (copy == MAP_FAILED) {
        free(chunks);
        return false;
    }
    *chunks =
        (struct go_chunks){.offset = place->offset, .addr = place->addr + pcln->bias, .copy = copy};
    pcln->chunks = chunks;
    pcln->bytes = (struct go_bytes){copy, (size_t)place->bytes};
    return true;
}

bool go_pcln_file(struct go_pcln *pcln, const struct go_file *file, uint64_t bias,
                  const struct exam *exam)
{
    struct go_place place;
    struct go_place text = {0};
    *pcln = (struct go_pcln){.file = file, .bias = bias};
    if ((!go_section_place(file, ".gopclntab", &place) &&
         !go_section_place(file, ".data.rel.ro.gopclntab", &place)) ||
        place.bytes == 0 || !chunks_make(pcln, &place)) {
        return false;
    }
    pcln->addr = place.addr;
    bool good = head_any(pcln);
    if (good && pcln->age < 2 && file->is_pie) {
        // Whole addresses, so with the bias.
        memset(pcln->chunks->have, 0, sizeof(pcln->chunks->have));
        pcln->chunks->exam = exam;
        good = exam != NULL && head_any(pcln);
        pcln->text = 0 - bias;
    }
    if (!good) {
        go_pcln_close(pcln);
        return false;
    }
    if (pcln->age >= 2 && pcln->text == 0 && go_section_place(file, ".text", &text)) {
        // Filled in at start, or, in the newest, by nobody.
        pcln->text = text.addr;
    }
    return true;
}

void go_pcln_module(struct go_pcln *pcln, const struct exam *exam, const struct go_layout *layout)
{
    uint64_t text;
    uint64_t functions;
    if (pcln->age < 2 || !go_value_read(exam, layout, GO_MODULE_TEXT, &text) ||
        !go_segments_hold(pcln->file, text - pcln->bias, GO_SEGMENT_CODE)) {
        return;
    }
    pcln->text = text - pcln->bias;
    if (go_value_read(exam, layout, GO_MODULE_FUNCS, &functions)) {
        pcln->inlines = functions - pcln->bias;
    }
}

void go_pcln_close(struct go_pcln *pcln)
{
    if (pcln->chunks != NULL) {
        munmap(pcln->chunks->copy, pcln->bytes.len);
        free(pcln->chunks);
    }
    *pcln = (struct go_pcln){0};
}

// ---- lookup -------------------------------------------------------------------------------------

static size_t word_bytes(const struct go_pcln *pcln)
{
    return pcln->age >= 2 ? 4 : 8;
}

static uint64_t entry_at(const struct go_pcln *pcln, uint64_t index)
{
    size_t word = word_bytes(pcln);
    return pcln->text + number_at(pcln, pcln->functions + index * 2 * word, word);
}

// function_find gives the offset of the record of the function that holds pc, without bias.
static bool function_find(const struct go_pcln *pcln, uint64_t pc, uint64_t *record,
                          uint64_t *entry)
{
    uint64_t low = 0;
    uint64_t high = pcln->functions_count;
    if (high == 0 || pc < entry_at(pcln, 0) || pc >= entry_at(pcln, high)) {
        return false;
    }
    while (high - low > 1) {
        uint64_t middle = (low + high) / 2;
        if (entry_at(pcln, middle) <= pc) {
            low = middle;
        } else {
            high = middle;
        }
    }
    size_t word = word_bytes(pcln);
    *entry = entry_at(pcln, low);
    *record = pcln->base + number_at(pcln, pcln->functions + low * 2 * word + word, word);
    return *record < pcln->bytes.len;
}

bool go_pcln_function(const struct go_pcln *pcln, uint64_t index, struct go_function *out)
{
    size_t word = word_bytes(pcln);
    if (index >= pcln->functions_count) {
        return false;
    }
    uint64_t record = pcln->base + number_at(pcln, pcln->functions + index * 2 * word + word, word);
    out->name = text_at(pcln, pcln->names + number_at(pcln, record + word, 4));
    out->addr = entry_at(pcln, index);
    out->bytes = entry_at(pcln, index + 1) - out->addr;
    return out->name != NULL;
}

static uint64_t varint_take(const struct go_pcln *pcln, uint64_t *at)
{
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 35; shift += 7) {
        uint64_t byte = number_at(pcln, (*at)++, 1);
        value |= (byte & 0x7f) << shift;
        if ((byte & 0x80) == 0) {
            break;
        }
    }
    return value;
}

// value_at walks a table of (change of value, change of pc) to pc; -1: it does not cover pc.
static int64_t value_at(const struct go_pcln *pcln, uint64_t table, uint64_t entry, uint64_t pc)
{
    uint64_t at = pcln->values + table;
    int64_t value = -1;
    uint64_t end = entry;
    for (size_t i = 0; i < STEPS_MAX && table != 0 && at < pcln->bytes.len; i++) {
        uint64_t change = varint_take(pcln, &at);
        if (change == 0 && i != 0) {
            break;
        }
        value += (change & 1) != 0 ? -(int64_t)(change >> 1) - 1 : (int64_t)(change >> 1);
        end += varint_take(pcln, &at) * pcln->quantum;
        if (pc < end) {
            return value;
        }
    }
    return -1;
}

static const char *file_name(const struct go_pcln *pcln, uint64_t fields, int64_t index)
{
    uint64_t at;
    if (index < 0 || index > UINT32_MAX) {
        return NULL;
    }
    if (pcln->age == 0) {
        at = number_at(pcln, pcln->files + 4 * (uint64_t)index, 4);
    } else {
        uint64_t unit = number_at(pcln, fields + 28, 4);
        at = pcln->files + number_at(pcln, pcln->units + 4 * (unit + (uint64_t)index), 4);
    }
    const char *path = text_at(pcln, at);
    const char *slash = path == NULL ? NULL : strrchr(path, '/');
    return slash == NULL ? path : slash + 1;
}

// The fields of a record behind its entry, which is as wide as a word.
static uint64_t fields_at(const struct go_pcln *pcln, uint64_t record)
{
    return record + word_bytes(pcln);
}

// inline_at tells whether the code at pc, in the function of that record, was inlined: the name of
// the innermost function, and the place of the call to it in the function around. Without bias.
static const char *inline_at(const struct go_pcln *pcln, uint64_t pc, uint64_t record,
                             uint64_t entry, uint64_t *outer)
{
    uint64_t fixed = pcln->age == 2 ? 40 : 44;
    uint64_t values_count = number_at(pcln, fields_at(pcln, record) + 24, 4);
    uint64_t trees_count = number_at(pcln, record + fixed - 1, 1);
    if (pcln->inlines == 0 || values_count <= INLINE_INDEX || trees_count <= INLINE_TREE) {
        return NULL;
    }
    uint64_t table = number_at(pcln, record + fixed + 4 * INLINE_INDEX, 4);
    uint64_t tree = number_at(pcln, record + fixed + 4 * (values_count + INLINE_TREE), 4);
    int64_t index = table == 0 || tree == UINT32_MAX ? -1 : value_at(pcln, table, entry, pc);
    // A node: up to 1.19 parent, id, file, line, name, place; since then id, name, place, line.
    uint32_t node[5];
    size_t bytes = pcln->age == 2 ? 20 : 16;
    if (index < 0 || index > UINT16_MAX ||
        !go_file_read(pcln->file, pcln->inlines + tree + (uint64_t)index * bytes, node, bytes)) {
        return NULL;
    }
    *outer = entry + node[pcln->age == 2 ? 4 : 2];
    return text_at(pcln, pcln->names + node[pcln->age == 2 ? 3 : 1]);
}

// name_at is the innermost function at pc, or NULL; outer the place of the call to it, 0 where it
// was not inlined. Without bias.
static const char *name_at(const struct go_pcln *pcln, uint64_t pc, uint64_t *outer)
{
    uint64_t record;
    uint64_t entry;
    *outer = 0;
    if (!function_find(pcln, pc, &record, &entry)) {
        return NULL;
    }
    const char *inner = inline_at(pcln, pc, record, entry, outer);
    if (inner != NULL) {
        return inner;
    }
    *outer = 0;
    return text_at(pcln, pcln->names + number_at(pcln, fields_at(pcln, record), 4));
}

const char *go_pcln_name(const struct go_pcln *pcln, uint64_t pc)
{
    uint64_t outer;
    return name_at(pcln, pc - pcln->bias, &outer);
}

uint64_t go_pcln_own(const struct go_pcln *pcln, uint64_t pc)
{
    for (size_t i = 0; i < INLINES_MAX; i++) {
        uint64_t outer;
        const char *name = name_at(pcln, pc - pcln->bias, &outer);
        if (name != NULL && !go_is_runtime(name)) {
            return pc;
        }
        if (outer == 0) {
            return 0;
        }
        pc = outer + pcln->bias;
    }
    return 0;
}

uint64_t go_pcln_frame_bytes(const struct go_pcln *pcln, uint64_t pc)
{
    uint64_t record;
    uint64_t entry;
    uint64_t plain = pc - pcln->bias;
    if (!function_find(pcln, plain, &record, &entry)) {
        return UINT64_MAX;
    }
    int64_t bytes = value_at(pcln, number_at(pcln, fields_at(pcln, record) + 12, 4), entry, plain);
    return bytes < 0 ? UINT64_MAX : (uint64_t)bytes;
}

void go_pcln_text(const struct go_pcln *pcln, uint64_t pc, char *text, size_t cap)
{
    uint64_t record;
    uint64_t entry;
    uint64_t plain = pc - pcln->bias;
    const char *name = go_pcln_name(pcln, pc);
    if (name == NULL || !function_find(pcln, plain, &record, &entry)) {
        snprintf(text, cap, "0x%llx", (unsigned long long)pc);
        return;
    }
    uint64_t fields = fields_at(pcln, record);
    int64_t line = value_at(pcln, number_at(pcln, fields + 20, 4), entry, plain);
    int64_t index = value_at(pcln, number_at(pcln, fields + 16, 4), entry, plain);
    const char *file = file_name(pcln, fields, index);
    if (file == NULL || line < 0) {
        snprintf(text, cap, "%s", name);
    } else {
        snprintf(text, cap, "%s (%s:%lld)", name, file, (long long)line);
    }
    text_printable(text);
}

bool go_is_runtime(const char *name)
{
    static const char *const prefixes[] = {"runtime.", "runtime/", "sync.",     "internal/",
                                           "sync/",    "syscall.", "time.Sleep"};
    for (size_t i = 0; i < ARRAY_COUNT(prefixes); i++) {
        if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0) {
            return true;
        }
    }
    return false;
}
