// SPDX-License-Identifier: MIT
//
// Doctor, layouts of known versions of Go: for programs without DWARF, or with too much of it.
//
// Offsets are those of the version. Addresses come from the symbols. A stripped program has none,
// but it has the names of its functions, and their code names variables by their addresses: a
// variable is at the address that most of its witnesses refer to. Nothing of it is believed before
// memory agrees (go_check.c): a vendor's Go may have other offsets.
//
// Go  src/runtime/symtab.go moduledata; the table is made by tools/mkgolayouts.py.
#include <stdlib.h>
#include <string.h>

#include "go_look.h"

#define NONE                                                                                       \
    {                                                                                              \
        GO_ROOT_NONE, 0, 0                                                                         \
    }
struct known {
    int minor;
    const struct go_shape *shape;
    const struct go_witness *witnesses;
    size_t witnesses_count;
};
#include "go_known.inc"

#define REFERENCES_MAX 256
#define CODE_BYTES_MAX (16 * KIB)
// Larger symbol tables cost more than the way without them.
#define SYMBOLS_BYTES_MAX (4 * MIB)
#define MODULE_BYTES_MAX (4 * MIB)
#define WINDOW_BYTES (64 * KIB)
#define CHECK_EVERY 4096
#define FIND_COST_NS (UINT64_C(5) * NS_PER_MS)

static const struct known *known_of(int minor)
{
    for (size_t i = 0; i < ARRAY_COUNT(knowns); i++) {
        if (knowns[i].minor == minor && knowns[i].shape != NULL) {
            return &knowns[i];
        }
    }
    return NULL;
}

const struct go_shape *go_known_shape(int minor)
{
    const struct known *known = known_of(minor);
    return known == NULL ? NULL : known->shape;
}

// ---- references ---------------------------------------------------------------------------------

static size_t reference_add(const struct go_file *file, uint64_t addr, uint64_t *found,
                            size_t count, size_t cap)
{
    for (size_t i = 0; i < count; i++) {
        if (found[i] == addr) {
            return count;
        }
    }
    if (count < cap && go_segments_hold(file, addr, GO_SEGMENT_WRITTEN)) {
        found[count++] = addr;
    }
    return count;
}

#if defined(__aarch64__)

#define MACHINE EM_AARCH64

// ADRP, and behind it ADD, or a load or a store, by the same register.
size_t go_references(const struct go_file *file, const uint8_t *code, size_t len, uint64_t addr,
                     uint64_t *found, size_t cap)
{
    size_t count = 0;
    for (size_t i = 0; i + 8 <= len; i += 4) {
        uint32_t word;
        uint32_t then;
        memcpy(&word, code + i, sizeof(word));
        memcpy(&then, code + i + 4, sizeof(then));
        if ((word & 0x9f000000u) != 0x90000000u || (then >> 5 & 31) != (word & 31)) {
            continue;
        }
        uint32_t high = (word >> 5 & 0x7ffff) << 2 | (word >> 29 & 3);
        int64_t pages = (int64_t)(high ^ 1u << 20) - (1 << 20);
        uint64_t page = ((addr + i) & ~UINT64_C(0xfff)) + (uint64_t)pages * 4096;
        uint64_t low = then >> 10 & 0xfff;
        if ((then & 0xffc00000u) == 0x91000000u) {
            count = reference_add(file, page + low, found, count, cap);
        } else if ((then & 0x3b000000u) == 0x39000000u) {
            unsigned scale = (then & 0x04800000u) == 0x04800000u ? 4 : then >> 30;
            count = reference_add(file, page + (low << scale), found, count, cap);
        }
    }
    return count;
}

#else

#define MACHINE EM_X86_64

// Bytes of a constant behind an operand in memory, by the instruction that ends before `at`.
static uint64_t constant_bytes(const uint8_t *code, size_t at)
{
    uint8_t op = code[at - 1];
    uint8_t before = at >= 2 ? code[at - 2] : 0;
    bool first = (code[at] & 0x38) == 0; // test, of the group that it shares with not and neg
    if (before == 0x0f) {
        return 0;
    }
    switch (op) {
    case 0x80:
    case 0x83:
    case 0xc0:
    case 0xc1:
    case 0xc6:
    case 0x6b:
        return 1;
    case 0x81:
    case 0xc7:
        return before == 0x66 ? 2 : 4;
    case 0x69:
        return 4;
    case 0xf6:
        return first ? 1 : 0;
    case 0xf7:
        return first ? 4 : 0;
    default:
        return 0;
    }
}

// Operands relative to the instruction pointer: ModRM with mod 0 and rm 5. Where instructions begin
// is not known; what is taken for one by mistake hardly ever points to where variables are.
size_t go_references(const struct go_file *file, const uint8_t *code, size_t len, uint64_t addr,
                     uint64_t *found, size_t cap)
{
    size_t count = 0;
    for (size_t i = 1; i + 5 <= len; i++) {
        if ((code[i] & 0xc7) != 5) {
            continue;
        }
        int32_t distance;
        memcpy(&distance, code + i + 1, sizeof(distance));
        uint64_t end = addr + i + 5 + constant_bytes(code, i);
        count = reference_add(file, end + (uint64_t)(int64_t)distance, found, count, cap);
    }
    return count;
}

#endif

// ---- votes --------------------------------------------------------------------------------------

static size_t votes_for(const struct go_witness *witnesses, const struct go_told *told,
                        size_t count, uint8_t root, uint64_t addr)
{
    size_t votes = 0;
    for (size_t i = 0; i < count; i++) {
        for (size_t k = 0; k < told[i].count && witnesses[i].root == root; k++) {
            if (told[i].addrs[k] - witnesses[i].offset == addr) {
                votes++;
                break;
            }
        }
    }
    return votes;
}

uint64_t go_vote(const struct go_witness *witnesses, const struct go_told *told, size_t count,
                 uint8_t root)
{
    uint64_t best = 0;
    size_t most = 0;
    bool tied = false;
    for (size_t i = 0; i < count; i++) {
        for (size_t k = 0; k < told[i].count && witnesses[i].root == root; k++) {
            uint64_t addr = told[i].addrs[k] - witnesses[i].offset;
            size_t votes = addr == best ? 0 : votes_for(witnesses, told, count, root, addr);
            if (votes > most) {
                best = addr;
                most = votes;
                tied = false;
            } else if (votes == most && votes != 0) {
                tied = true;
            }
        }
    }
    return tied ? 0 : best;
}

// witness_find gives the first witness of that function, or count. They are sorted by function.
static size_t witness_find(const struct known *known, const char *function)
{
    size_t low = 0;
    size_t high = known->witnesses_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (strcmp(known->witnesses[middle].function, function) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < known->witnesses_count && strcmp(known->witnesses[low].function, function) == 0
               ? low
               : known->witnesses_count;
}

// told_by reads the code of one function, for all witnesses of its name from first on; how many.
static size_t told_by(const struct go_file *file, const struct known *known,
                      const struct go_function *function, size_t first, struct go_told *told,
                      uint64_t *addrs)
{
    static uint8_t code[CODE_BYTES_MAX];
    size_t len = (size_t)min_u64(function->bytes, sizeof(code));
    uint64_t *own = addrs + first * REFERENCES_MAX;
    size_t count = go_file_read(file, function->addr, code, len)
                       ? go_references(file, code, len, function->addr, own, REFERENCES_MAX)
                       : 0;
    const char *name = known->witnesses[first].function;
    size_t i = first;
    for (; i < known->witnesses_count && strcmp(known->witnesses[i].function, name) == 0; i++) {
        told[i] = (struct go_told){count, own};
    }
    return i - first;
}

static void witnesses_hear(const struct exam *exam, const struct go_file *file,
                           const struct go_pcln *pcln, const struct known *known,
                           struct go_told *told, uint64_t *addrs)
{
    struct go_function function;
    size_t left = known->witnesses_count;
    for (uint64_t i = 0; i < pcln->functions_count && left != 0; i++) {
        if (i % CHECK_EVERY == 0 && !exam_affords(exam, FIND_COST_NS)) {
            return;
        }
        if (!go_pcln_function(pcln, i, &function) || strncmp(function.name, "runtime.", 8) != 0) {
            continue;
        }
        size_t first = witness_find(known, function.name + 8);
        if (first < known->witnesses_count && told[first].addrs == NULL) {
            // Code that is full of references takes milliseconds.
            if (!exam_affords(exam, FIND_COST_NS)) {
                return;
            }
            left -= told_by(file, known, &function, first, told, addrs);
        }
    }
}

// variables_find finds the addresses of variables without symbols, by the code of functions that
// refer to them; those of others are 0.
static void variables_find(const struct exam *exam, const struct go_file *file,
                           const struct go_pcln *pcln, int minor, uint64_t *addrs)
{
    const struct known *known = known_of(minor);
    memset(addrs, 0, GO_VARIABLES * sizeof(*addrs));
    if (known == NULL || file->machine != MACHINE) {
        return;
    }
    size_t count = known->witnesses_count;
    struct go_told *told = calloc(count, sizeof(*told));
    uint64_t *references = calloc(count, REFERENCES_MAX * sizeof(*references));
    if (told != NULL && references != NULL) {
        witnesses_hear(exam, file, pcln, known, told, references);
        for (uint8_t i = 0; i < GO_VARIABLES; i++) {
            addrs[i] = go_vote(known->witnesses, told, count, i);
        }
    }
    free(told);
    free(references);
}

// ---- moduledata ---------------------------------------------------------------------------------

// The first word of runtime.firstmoduledata is the address of the table of functions.
static uint64_t module_find(const struct exam *exam, const struct go_file *file,
                            const struct go_pcln *pcln, uint32_t offset)
{
    static const char *const sections[] = {".go.module", ".noptrdata", ".data"};
    static uint64_t words[WINDOW_BYTES / 8];
    for (size_t i = 0; i < ARRAY_COUNT(sections); i++) {
        struct go_place place;
        if (!go_section_place(file, sections[i], &place)) {
            continue;
        }
        for (uint64_t at = 0; at < min_u64(place.bytes, MODULE_BYTES_MAX); at += WINDOW_BYTES) {
            size_t len = (size_t)min_u64(place.bytes - at, WINDOW_BYTES);
            if (exam_read(exam, words, place.addr + at + pcln->bias, len) != 0) {
                break;
            }
            for (size_t k = 0; k < len / 8; k++) {
                if (words[k] == pcln->addr + pcln->bias) {
                    return place.addr + at + k * 8 - offset;
                }
            }
        }
    }
    return 0;
}

static enum go_trust layout_known(const struct exam *exam, const struct go_file *file,
                                  struct go_pcln *pcln, struct go_layout *layout, const char **why)
{
    const struct go_shape *shape = go_known_shape(layout->minor);
    uint64_t addrs[GO_VARIABLES] = {0};
    if (shape == NULL || pcln->bytes.len == 0) {
        *why = shape == NULL ? "the layout of this version is not known"
                             : "its table of functions makes no sense";
        return GO_TRUST_NONE;
    }
    if (go_section_size(file, ".symtab", SYMBOLS_BYTES_MAX) <= SYMBOLS_BYTES_MAX) {
        go_symbols(file, go_root_names(), addrs, GO_VARIABLES);
    }
    if (addrs[GO_ROOT_MODULE] == 0) {
        addrs[GO_ROOT_MODULE] = module_find(exam, file, pcln, shape->parts[GO_MODULE_TABLE].offset);
    }
    uint64_t module = addrs[GO_ROOT_MODULE];
    go_layout_join(layout, shape, addrs, pcln->bias);
    go_pcln_module(pcln, exam, layout);
    if (addrs[GO_ROOT_MHEAP] == 0) {
        variables_find(exam, file, pcln, layout->minor, addrs);
        addrs[GO_ROOT_MODULE] = module;
        go_layout_join(layout, shape, addrs, pcln->bias);
    }
    if (!layout->fields[GO_HEAP_INUSE].known || !layout->fields[GO_HEAP_RELEASED].known) {
        *why = "the code of its runtime is not that of a known version";
        return GO_TRUST_NONE;
    }
    enum go_trust trust = go_layout_check(exam, file, pcln->bias, layout);
    if (trust == GO_TRUST_NONE) {
        *why = "its counters contradict what is known of its version";
    }
    return trust;
}

enum go_trust go_known_layout(const struct exam *exam, const struct go_file *file,
                              struct go_pcln *pcln, struct go_layout *layout, const char **why)
{
    enum go_trust trust = layout_known(exam, file, pcln, layout, why);
    if (trust == GO_TRUST_NONE) {
        *layout = (struct go_layout){.minor = layout->minor};
    }
    return trust;
}
