// SPDX-License-Identifier: MIT
//
// Doctor, parts: what a foreign allocator's own tables say of its address space, piece by piece.
//
// Model
//   Who can read an allocator's tables notes each piece as a part of one kind: in use, free, ...
//   Before pages are counted the parts claim their mappings for the heap; the scan of pages puts
//   what is resident down to them. So a heap is divided by what the kernel has, and the parts of it
//   add up to its resident memory. Where there is no time for the pieces, the allocator's counters
//   divide it instead; then live is what they leave of it.
//
// Locking
//   None.
//
// Flow
//   evidence_allocators -> heap_*_find -> parts_add, parts_claim; evidence_pages
//   -> parts_visit; evidence_allocators_divide -> parts_divide.
//
// Go     none.
// Tests  test/unit/parts_test.c  test/system/doctor_heaps.py
#ifndef EBB_DOCTOR_PARTS_H
#define EBB_DOCTOR_PARTS_H

#include "doctor_int.h"

enum part_kind {
    PART_LARGE, // a block of its own, in use
    PART_SLAB,  // cut into small blocks of which some are in use
    PART_FREE,  // whole free pages
    PART_LAZY,  // given back with MADV_FREE
    PART_BACK,  // given back, or never used
    PART_META,  // tables
    PART_KINDS,
};

struct part {
    uint64_t start, end;
    enum part_kind kind;
};

// At most 2^20 pieces, after neighbours of one kind were joined.
#define PARTS_MAX ((size_t)1 << 20)
struct parts {
    struct parts *next; // of exam->parts
    enum heap_kind heap;
    struct part *list;
    size_t count, cap;
    bool cut;  // there were too many, or no time to claim them all
    size_t at; // the first part that does not end below what was visited last
    uint64_t resident_bytes[PART_KINDS];
    // Where the pieces would take too long: what the allocator counts.
    bool counted;
    uint64_t counted_kept_bytes, counted_pinned_bytes, counted_meta_bytes;
    uint64_t small_bytes;  // in use inside of PART_SLAB, by the allocator's count
    uint64_t cached_bytes; // of these: in caches of threads, free
};

// parts_new makes an empty set for a heap and hangs it into the examination. NULL without memory.
struct parts *parts_new(struct exam *exam, enum heap_kind heap);
// parts_of returns the set of a heap, or NULL.
struct parts *parts_of(const struct exam *exam, enum heap_kind heap);
void parts_free(struct exam *exam);
// parts_add notes [start, end), in any order. Empty and wrapped ranges are left out.
void parts_add(struct parts *parts, uint64_t start, uint64_t end, enum part_kind kind);
// parts_claim sorts the parts, drops what overlaps an earlier one, and claims the anonymous
// memory under them. Pointers to vmas are stale afterwards.
void parts_claim(struct exam *exam, struct parts *parts, size_t heap_index);
// parts_affords tells whether there is time to look through tables that cost so much for each GiB
// of anonymous memory, and for the scan of pages after it.
bool parts_affords(const struct exam *exam, uint64_t per_gib_ns);
// parts_visit puts resident memory of a claimed vma down to its parts; in order of address.
void parts_visit(const struct exam *exam, const struct vma *vma, uint64_t start, uint64_t end);
// parts_divide fills the heap's division from what is resident and small_bytes.
void parts_divide(struct facts_heap *heap, const struct parts *parts);

// ---- modules ------------------------------------------------------------------------------------

struct range {
    uint64_t start, end;
};
// More variables than any program has that is worth searching.
#define MODULE_BYTES_MAX (16 * MIB)
#define MODULE_RANGES_MAX 8

// The variables of a library or of the program, found by the path of its file.
struct module {
    const char *path;
    uint64_t base; // where the file's start is mapped
    struct range ranges[MODULE_RANGES_MAX];
    size_t ranges_count;
};
void module_find(const struct exam *exam, const char *path, struct module *module);
// module_copy copies a range; the caller frees. NULL if it cannot be read or is too large.
uint64_t *module_copy(const struct exam *exam, const struct range *range, size_t *words_count);
bool module_holds(const struct module *module, uint64_t addr);

// file_symbols visits what the symbol tables of a file, named as for elf_open, define; false if not
// all of them, because they are too many or there is no time.
typedef void symbol_visit(void *arg, const char *name, uint64_t value);
bool file_symbols(const struct exam *exam, const char *file, symbol_visit *visit, void *arg);
// module_symbol returns the address of a symbol, 0 if there is none.
uint64_t module_symbol(const struct exam *exam, const struct module *module, const char *name);

// read_resident copies memory as exam_read does, but what is not resident is zeros and stays alone:
// reading it would give the process a page table, or a huge page of zeros.
long read_resident(const struct exam *exam, void *to, uint64_t addr, size_t bytes);
// peek_u64 is the word at addr; 0 where nothing is resident, or nothing can be read.
uint64_t peek_u64(const struct exam *exam, uint64_t addr);
// memory_refused returns the error that any reading of the process's memory ends with, or 0: who
// may look at the mappings may not always read what is in them.
long memory_refused(const struct exam *exam);
// is_unclaimed tells anonymous memory of no heap yet. The place it was given by the look of the
// mappings does not count: right behind a library's variables, or above a small gap, a heap looks
// like variables or like a stack.
bool is_unclaimed(const struct vma *vma);
// in_anonymous tells whether [addr, addr + bytes) is in private memory that can be written.
bool in_anonymous(const struct exam *exam, uint64_t addr, uint64_t bytes);

// ---- JVM ----------------------------------------------------------------------------------------

struct jvm_counters {
    char version[64], policy[32], args[512];
    uint64_t capacity_bytes, used_bytes;
    uint64_t max_most_bytes, max_sum_bytes; // of the generations
    uint64_t max_bytes;                     // of the heap, by the rule of its collector
};
// jvm_counters_parse reads an hsperfdata file, whatever is in it. False: it is none.
bool jvm_counters_parse(const unsigned char *buf, size_t bytes, struct jvm_counters *out);
// evidence_jvm_divide divides the JVM's heap once its pages are counted.
void evidence_jvm_divide(struct exam *exam);

// evidence_python finds the arenas of a CPython; heap_python_find does in the variables of one
// whose minor version is known.
void evidence_python(struct exam *exam);
enum source_state heap_python_find(struct exam *exam, const struct module *module, unsigned minor);

// ---- allocators ---------------------------------------------------------------------------------

// Each looks for its structures in the module's variables and claims what is its own: SOURCE_READ.
// Else why says what is amiss. The heap has been added.
enum source_state heap_jemalloc_find(struct exam *exam, const struct module *module,
                                     size_t heap_index, char *why, size_t why_cap);
enum source_state heap_mimalloc_find(struct exam *exam, const struct module *module,
                                     size_t heap_index, char *why, size_t why_cap);
enum source_state heap_tcmalloc_find(struct exam *exam, const struct module *module,
                                     size_t heap_index, char *why, size_t why_cap);

#endif
