// SPDX-License-Identifier: MIT
//
// Doctor, functions and lines of a Go program by its own table of them (.gopclntab), which stripped
// programs have too.
//
// A pc may be in code that was inlined, several deep: the innermost function is named, and its
// line. Before 1.18 the function that holds the code is named instead.
// Every offset comes from the file and is bounded by the table.
//
// Go  src/runtime/symtab.go, src/debug/gosym/pclntab.go.
#include <gelf.h>
#include <stdio.h>
#include <string.h>

#include "go_look.h"

#define MAGIC_12 0xfffffffbu // up to 1.15
#define MAGIC_116 0xfffffffau
#define MAGIC_118 0xfffffff0u
#define MAGIC_120 0xfffffff1u
#define TABLE_BYTES_MAX (256 * MIB)
// A function has as many steps as it has lines, about.
#define STEPS_MAX 100000
// Inlined into one another.
#define INLINES_MAX 32
#define INLINE_INDEX 2 // PCDATA_InlTreeIndex
#define INLINE_TREE 3  // FUNCDATA_InlTree

static uint64_t number_at(const struct go_pcln *pcln, uint64_t at, size_t bytes)
{
    uint64_t value = 0;
    if (at <= pcln->bytes.len && pcln->bytes.len - at >= bytes) {
        memcpy(&value, pcln->bytes.at + at, bytes);
    }
    return value;
}

static const char *text_at(const struct go_pcln *pcln, uint64_t at)
{
    if (at >= pcln->bytes.len ||
        memchr(pcln->bytes.at + at, '\0', pcln->bytes.len - (size_t)at) == NULL) {
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
    pcln->files_count = number_at(pcln, pcln->files, 4);
    return true;
}

static bool head_read(struct go_pcln *pcln)
{
    uint64_t at = pcln->age == 1 ? 24 : 32;
    pcln->functions_count = number_at(pcln, 8, 8);
    pcln->files_count = number_at(pcln, 16, 8);
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

bool go_pcln_open(struct go_pcln *pcln, struct go_bytes bytes, uint64_t bias)
{
    *pcln = (struct go_pcln){.bytes = bytes, .bias = bias};
    uint64_t magic = number_at(pcln, 0, 4);
    pcln->quantum = number_at(pcln, 6, 1);
    if (bytes.len < 80 || number_at(pcln, 7, 1) != 8) {
        return false;
    }
    switch (magic) {
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

bool go_pcln_file(struct go_pcln *pcln, const struct go_file *file, uint64_t bias)
{
    static const char *const names[] = {"runtime.text", "go:func.*", "go.func.*"};
    uint64_t addrs[ARRAY_COUNT(names)];
    struct go_bytes bytes;
    *pcln = (struct go_pcln){0};
    if (!go_section(file, ".gopclntab", TABLE_BYTES_MAX, &bytes) &&
        !go_section(file, ".data.rel.ro.gopclntab", TABLE_BYTES_MAX, &bytes)) {
        return false;
    }
    if (!go_pcln_open(pcln, bytes, bias)) {
        return false;
    }
    if (pcln->age < 2) {
        return true;
    }
    go_symbols(file, names, addrs, ARRAY_COUNT(names));
    pcln->file = file;
    pcln->inlines = addrs[1] != 0 ? addrs[1] : addrs[2];
    if (pcln->text == 0) {
        // Filled in at start, or, in the newest, by nobody.
        pcln->text = addrs[0] != 0 ? addrs[0] : go_section_addr(file, ".text");
    }
    return true;
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

// inline_at tells whether the code at pc was inlined: the innermost function's name, and the place
// of the call to it in the function around. pc and outer are without bias.
static const char *inline_at(const struct go_pcln *pcln, uint64_t pc, uint64_t *outer)
{
    uint64_t record;
    uint64_t entry;
    uint64_t fixed = pcln->age == 2 ? 40 : 44;
    if (pcln->inlines == 0 || !function_find(pcln, pc, &record, &entry)) {
        return NULL;
    }
    uint64_t values_count = number_at(pcln, fields_at(pcln, record) + 24, 4);
    uint64_t trees_count = number_at(pcln, record + fixed - 1, 1);
    if (values_count <= INLINE_INDEX || trees_count <= INLINE_TREE) {
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

const char *go_pcln_name(const struct go_pcln *pcln, uint64_t pc)
{
    uint64_t record;
    uint64_t entry;
    uint64_t outer;
    const char *inner = inline_at(pcln, pc - pcln->bias, &outer);
    if (inner != NULL) {
        return inner;
    }
    if (!function_find(pcln, pc - pcln->bias, &record, &entry)) {
        return NULL;
    }
    return text_at(pcln, pcln->names + number_at(pcln, fields_at(pcln, record), 4));
}

uint64_t go_pcln_own(const struct go_pcln *pcln, uint64_t pc)
{
    for (size_t i = 0; i < INLINES_MAX; i++) {
        uint64_t outer;
        const char *name = go_pcln_name(pcln, pc);
        if (name != NULL && !go_is_runtime(name)) {
            return pc;
        }
        if (name == NULL || inline_at(pcln, pc - pcln->bias, &outer) == NULL) {
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

// What a program says must not command a terminal. Names of Go may hold any letter; beyond ASCII
// they are left as they are.
static void printable(char *text)
{
    for (; *text != '\0'; text++) {
        if ((unsigned char)*text < ' ' || *text == 0x7f) {
            *text = '?';
        }
    }
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
    printable(text);
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
