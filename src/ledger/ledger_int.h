// SPDX-License-Identifier: MIT
//
// Ledger, what only its own files share: scratch memory, intervals, the walk.
//
// Go  none.
#ifndef EBB_LEDGER_LEDGER_INT_H
#define EBB_LEDGER_LEDGER_INT_H

#include "ledger/ledger.h"
#include "os/procmaps.h"

// The unit in which residency is noted: no kernel has smaller pages.
#define UNIT_SHIFT 12
#define UNIT_BYTES ((size_t)1 << UNIT_SHIFT)
#define PAGE_UNITS (PAGE_BYTES / UNIT_BYTES)
#define ARENA_UNITS (ARENA_BYTES / UNIT_BYTES)
#define ARENA_HEAD_BYTES (offsetof(struct arena, freed_tick))
#define HEAP_HEAD_BYTES (offsetof(struct pageheap, group_summary))

#define RECORD_BATCH 512
#define MAP_BATCH 512
#define REGION_BATCH 1024
#define CACHE_COUNT_MAX ((size_t)1 << 20)

// Classes of memory that is Ebb's and lies outside the heap.
enum own_kind {
    OWN_TABLES, // arenas: bits, page map, records
    OWN_CACHES, // thread caches
    OWN_OTHER,  // meta memory that is neither
    OWN_DATA,   // the library's variables, stacks of its threads
};

// An interval of addresses, sorted by start; also a gathered chain: span, count.
struct interval {
    uint64_t start;
    uint64_t end;
    uint64_t kind;
};

struct interval_list {
    struct interval *items;
    size_t count;
    size_t cap;
};

// interval_add drops what does not fit.
void interval_add(struct interval_list *list, uint64_t start, uint64_t end, uint64_t kind);
void interval_sort(struct interval_list *list);
// interval_after returns the index of the first interval whose end lies above addr.
size_t interval_after(const struct interval_list *list, uint64_t addr);
// interval_find returns the one that starts at addr, or NULL.
const struct interval *interval_find(const struct interval_list *list, uint64_t addr);

// A span, or the rest of one that crosses into the next arena, while its pages are given a class.
struct placing {
    uint64_t base;
    uint64_t pos;
    uint64_t end;
    uint64_t live_bytes;           // not placed yet
    uint64_t remote_bytes;         // not placed yet
    uint64_t block_bytes;          // 0: a large span
    uint64_t used_count, capacity; // blocks
    uint32_t holes;
    uint32_t ready_holes; // of these: not given back
    bool cached;          // nothing in use in it: belongs to a thread's cache
};

struct walk {
    const struct ledger_target *target;
    struct residency *residency; // NULL: numbers only
    struct ebb_ledger *ledger;   // NULL without residency
    struct ebb_memstats *stats;
    struct ledger_extra *extra;
    long error;           // of the reader: the walk is over
    size_t scratch_bytes; // of the mapping that this is the start of

    struct heap heap;            // as read first
    struct pageheap *pages;      // HEAP_HEAD_BYTES of it
    struct interval_list own;    // Ebb's memory outside of the heap
    struct interval_list arenas; // addresses of the heap
    struct interval_list caches; // start: address
    struct interval_list gather; // start: span, end: blocks on their way
    uint64_t sys_pages, released_pages, lazy_pages, withdrawn_pages, inuse_bytes;

    uint64_t gathered_count;         // blocks in gather
    uint64_t midway_count;           // of these: their thread is in its bracket
    uint64_t midway_caches;          // of such threads
    uint64_t capacity_max;           // blocks of the span that has most
    uint64_t moved[SIZECLASS_COUNT]; // allocations in spans deleted during this walk
    uint64_t raw_mallocs, raw_frees; // of this walk alone
    struct {
        struct ebb_memstats_class counts;
        uint64_t moved;      // when they were read
    } best[SIZECLASS_COUNT]; // over all walks

    struct arena *arena; // ARENA_HEAD_BYTES of the one at hand
    uint64_t claimed[ARENA_WORDS];
    uint64_t resident[ARENA_UNITS / 64];
    uint64_t huge[ARENA_UNITS / 64];
    struct placing carry; // end: 0, or beyond the last arena
    struct span records[RECORD_BATCH];
    uint64_t maps[MAP_BATCH];
    ATTR_TABLE char arena_head[ARENA_HEAD_BYTES]; // as struct arena lies
    char pages_head[HEAP_HEAD_BYTES] ATTR_CACHELINE;
    struct cache cache;
    char regions[REGION_BATCH * 24];
    char text[16384];
};

// walk_begin maps scratch memory and makes a walk in it; NULL when there is none.
struct walk *walk_begin(const struct ledger_target *target);
void walk_end(struct walk *walk);
// walk_run fills stats, extra, the list of own memory, and with a residency the heap's classes.
long walk_run(struct walk *walk);

// Its parts. walk_get copies from the process; false, and walk->error, if that is not possible.
bool walk_get(struct walk *walk, void *to, uint64_t addr, size_t bytes);
void walk_totals(struct walk *walk);
void walk_own_ranges(struct walk *walk);

// walk_outside gives every resident page outside of the heap its class.
long walk_outside(struct walk *walk);

// ledger_read_pieces copies count pieces of the same size, at most PIECES_MAX, in one call.
#define PIECES_MAX 64
long ledger_read_pieces(const struct ledger_reader *reader, void *to, const uint64_t *addrs,
                        size_t count, size_t bytes);

#endif
