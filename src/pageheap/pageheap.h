// SPDX-License-Identifier: MIT
//
// Page heap: hands out runs of pages as spans and remembers which free pages are resident.
//
// Model
//   A page is 8 KiB, a chunk 512 pages (4 MiB), an arena 64 MiB of address space, aligned. Each
//   page of an arena is in one state:
//     absent       its chunk is not prepared yet (counted nowhere)
//     used         in exactly one span; the page map names it
//     ready        free, may be backed by memory
//     released     free, given back or never touched; lazy besides if given back by MADV_FREE
//     withdrawn    with the releaser: about to become released
//   Bits: absent, used and withdrawn pages have their allocated bit set; released and lazy are
//   subsets of the free pages.
//   Always:  sys = used + ready + released + withdrawn, each counter equal to the bits
//            every summary describes the bits below it
//            a page of a small span maps to its record; of a large span, the first page does
//   pageheap_verify checks all of that.
//
// Locking
//   heap->lock, rank PAGEHEAP, below the MALLOC line: nothing here may allocate from the heap.
//   Held across reserve and prepare (growth: rare, 4 MiB and more at a time); never across advice.
//   span_of takes no lock: see there. Field letters: (C) constant after init, (L) heap->lock,
//   (A) atomic, (T) owner of the span only, (S) see span/span.h.
//
// Flow
//   pageheap_alloc -> summary_find -> bits set, record and page map filled; grows if nothing fits.
//   pageheap_free  -> map cleared, bits cleared; nothing goes to the kernel here.
//   pageheap_release -> withdraws the ready pages of one chunk, advises, publishes
//   (docs/design/002).
//
// Why this way
//   First fit by address keeps high addresses empty. One index for ready and released runs, so that
//   they merge. Records live out of line, in a sparse table of their arena: a freed page
//   holds nothing of ours, and the table of an empty arena goes back to the kernel too. The page
//   map holds 8 bytes per page, a difference of addresses that is 0 where no span is, so that free
//   needs neither a multiplication nor a test (2 bytes and an index were two instructions more).
//
// Go       1.16 mpagealloc.go, mheap.go. Unlike Go: records by arena, window of 16 TiB instead of a
//          summary tree over the whole address space (RLIMIT_AS: docs/design/001).
// Tests    test/unit/pageheap_test.c  test/model/pageheap_model.c  test/fault/heap_fault.c
#ifndef EBB_PAGEHEAP_PAGEHEAP_H
#define EBB_PAGEHEAP_PAGEHEAP_H

#include "base/atomic.h"
#include "os/lock.h"
#include "os/meta.h"
#include "os/vm.h"

#define PAGE_SHIFT 13
#define PAGE_BYTES ((size_t)1 << PAGE_SHIFT)
#define CHUNK_PAGES ((size_t)512)
#define CHUNK_BYTES (CHUNK_PAGES * PAGE_BYTES)
#define ARENA_SHIFT 26
#define ARENA_BYTES ((size_t)1 << ARENA_SHIFT)
#define ARENA_PAGES (ARENA_BYTES / PAGE_BYTES)
#define ARENA_CHUNKS (ARENA_PAGES / CHUNK_PAGES)
#define ARENA_WORDS (ARENA_PAGES / 64)
#define CHUNK_WORDS (CHUNK_PAGES / 64)

// All arenas lie within a window of 16 TiB; the table of arenas is indexed by the offset in it.
#define WINDOW_ARENAS ((size_t)1 << 18)
#define GROUP_ARENAS ((size_t)64)
#define WINDOW_GROUPS (WINDOW_ARENAS / GROUP_ARENAS)

enum span_state {
    SPAN_NONE = 0, // record not in use
    SPAN_CURRENT,  // small, owned, the one its class allocates from
    SPAN_PARTIAL,  // small, on the partial list of its owner or of central
    SPAN_EMPTY,    // small, on its owner's partial list, without a block in use, counted as such
    SPAN_HOLEY,    // small, on its owner's holey list: has holes, was found at rest
    SPAN_FULL,     // small, on the full list: no block known to be free (span/remote.c)
    SPAN_LARGE,    // one block
    SPAN_CACHED,   // large, free, in a thread's page cache
};

// A span record. Line one is what malloc writes; line two is read by frees of any thread.
struct span {
    void *free;            // (T) free blocks, linked by their first word
    uint32_t alloc_left;   // (T) allocations to the next sample (span/spansample.c)
    uint32_t alloc_end;    // (T) less alloc_left: allocations ever, modulo 2^32
    uint32_t used;         // (T) blocks in use, one more while the span is CURRENT (span/span.h)
    uint16_t threaded;     // (T) blocks that have ever been on a free list; the rest is untouched
    uint16_t alloc_pace;   // (T) sample_pace of the cache that drew alloc_left
    uint16_t capacity;     // (C) blocks in the span
    uint16_t record_index; // (C) in its arena
    uint32_t looked;       // (T) what span/look.c saw at its last look
    struct span *next;     // (S) list links
    struct span *prev;     // (S)
    struct span *pending_next;     // (S) in its owner's pending stack
    atomic_u32 holes;              // (S) bit i: kernel page i has no block in use, and none that is
                                   //     on a free list (span/hole.c)
    uint32_t resident;             // (T) of holes: not yet given back
    ATTR_CACHELINE atomic_u32 tag; // (S) the owner's tag when frees may go the fast way
    uint8_t size_class;            // (C) 0 for large
    atomic_u8 state;               // (S) enum span_state
    atomic_u8 holed;               // (S) holes is not 0: for frees of other threads
    uint8_t zero;                  // (C) pages were known to be zero when the span was made
    uintptr_t base;                // (C) address of the first block
    uint64_t magic;                // (C) for the division by block_bytes
    uint64_t magic_limit;          // (C) the same: two memory operands instead of a register
    atomic_ptr owner;              // (A) struct cache *, NULL: central
    atomic_u64 remote;             // (A) frees by other threads (span/remote.c)
    uint32_t page_count;           // (L)
    uint32_t block_bytes;          // (C) 0 for large
    struct arena *arena;           // (C)
};

_Static_assert(sizeof(struct span) == 128, "two cache lines");

#define ATTR_TABLE __attribute__((aligned(4096)))
#define RECORD_WORDS (ARENA_PAGES / 64 + 1)

// An arena's tables, in units of a small kernel page: what goes back when nothing needs it
// (pageheap/tables.c). The ticks count while pages are ready; a unit of the map describes a chunk.
#define TABLE_UNIT_BYTES ((size_t)4096)
#define TABLE_UNIT_RECORDS (TABLE_UNIT_BYTES / sizeof(struct span))
enum {
    TABLE_TICKS = 0,
    TABLE_MAP = ARENA_PAGES / TABLE_UNIT_BYTES,
    TABLE_RECORDS = TABLE_MAP + ARENA_CHUNKS,
    TABLE_UNITS = TABLE_RECORDS + ARENA_PAGES / TABLE_UNIT_RECORDS + 1,
    TABLE_WORDS = (TABLE_UNITS + 63) / 64,
};

struct arena {
    uintptr_t start;          // (C)
    uint32_t index;           // (C) in the window
    uint32_t span_count;      // (L) records in use
    uint32_t record_high;     // (L) no record from here on is in use
    uint32_t record_hint;     // (L) no word of record_used before this one has a clear bit
    uint32_t ready_pages;     // (L)
    uint32_t prepared_chunks; // (L) a bit for each
    bool hidden;              // (L) tables are being given back: allocate nothing here
    uint16_t chunk_ready[ARENA_CHUNKS];         // (L) ready pages by chunk
    uint64_t chunk_summary[ARENA_CHUNKS];       // (L) summary.c
    uint64_t summary;                           // (L)
    uint64_t table_touched[TABLE_WORDS];        // (L) units touched since they were last given back
    uint64_t record_used[RECORD_WORDS];         // (L)
    uint64_t allocated[ARENA_WORDS];            // (L)
    uint64_t released[ARENA_WORDS];             // (L)
    ATTR_TABLE uint64_t lazy[ARENA_WORDS];      // (L)
    ATTR_TABLE uint8_t freed_tick[ARENA_PAGES]; // (L) of ready pages: when they became so
    ATTR_TABLE atomic_u64 map[ARENA_PAGES];     // (A) the page's span minus &span_none; 0: none
    struct span records[ARENA_PAGES + 1];       // [0] is never used
};

_Static_assert(sizeof(uint64_t) * CHUNK_PAGES == TABLE_UNIT_BYTES, "a unit of the map is a chunk");

struct pageheap_stats {
    uint64_t sys_pages;  // prepared
    uint64_t used_pages; // in spans
    uint64_t ready_pages;
    uint64_t released_pages; // of these lazily: lazy_pages
    uint64_t lazy_pages;
    uint64_t withdrawn_pages;
    uint64_t span_count;
    uint64_t ops_count;            // allocations and frees of spans: the heap's activity
    uint64_t freed_total_pages;    // ever freed by spans
    uint64_t released_total_pages; // ever given back
    uint64_t refused_total_pages;  // ever refused by the kernel (locked memory)
    int64_t owed_pages;            // grown and not offset (pageheap_owed); below 0: credit
    uint64_t gate_refused_count;   // times the gate refused pages or holes
};

struct pageheap {
    struct lock lock;            // rank PAGEHEAP
    const struct vm *vm;         // (C)
    struct meta *meta;           // (C)
    uintptr_t hint;              // (C) where the first arena is asked for; 0: anywhere
    uintptr_t grow_pos;          // (L) reserved and not prepared: [grow_pos, grow_end)
    uintptr_t grow_end;          // (L)
    size_t arena_lo;             // (L) arenas that exist lie in [lo, hi)
    size_t arena_hi;             // (L)
    size_t group_lo;             // (L) groups that have arenas: [lo, hi)
    size_t group_hi;             // (L)
    uint32_t hidden_count;       // (L) arenas whose tables are on their way back
    struct pageheap_stats stats; // (L)
    uint64_t ring_ready_pages;   // (L) the hook rings when so many pages are ready
    void (*grow_hook)(void);     // (C) see pageheap_set_grow_hook
    atomic_u64 gate_bytes;       // (A) written under the lock, the lower of the two below
    uint64_t look_bytes;         // (L) see pageheap_set_gate
    uint64_t hard_bytes;         // (L)
    atomic_u64 hole_bytes;       // (A) given back inside spans in use; falls as pageheap_fill says
    void (*gate_hook)(void);     // (C)
    uint64_t (*clock_ns)(void);  // (C) coarse: for the ages of ready pages
    uint32_t unit_pages;         // (C) what goes back together: a kernel page, or a huge one
    bool populate;               // (C) populate released pages in bulk when they are taken
    uintptr_t window_start;      // (C) after the first reservation
    uint64_t group_summary[WINDOW_GROUPS]; // (L)
    // (C) each, once set: the arena's map, moved back so that it is indexed by the page's own
    // number.
    atomic_u64 *maps[WINDOW_ARENAS];
};

extern struct pageheap pageheap_main ATTR_HIDDEN;

// span_none stands for the span of a page that has none: tag TAG_NONE, no pages.
extern struct span span_none ATTR_HIDDEN;

enum pageheap_kind {
    PAGEHEAP_SMALL, // every page maps to the span
    PAGEHEAP_LARGE, // the first page does
};

void pageheap_init(struct pageheap *heap, const struct vm *vm, struct meta *meta, uintptr_t hint);

// pageheap_set_grow_hook names who is told that ready pages have grown past ring_ready_pages. The
// page heap holds no lock then, but the caller of the page heap may: the hook takes none, rings a
// doorbell and returns (release/releaser.c).
void pageheap_set_grow_hook(struct pageheap *heap, void (*hook)(void));
void pageheap_set_ring(struct pageheap *heap, uint64_t ready_pages);

// pageheap_ring rings the doorbell because of memory that is free but not yet in the page heap.
void pageheap_ring(struct pageheap *heap);

// pageheap_mapped_pages is what may be held of physical memory: Go's quantity for the memory limit
// (I8), less our own tables.
ATTR_INLINE uint64_t pageheap_mapped_pages(const struct pageheap_stats *stats)
{
    return stats->sys_pages - stats->released_pages;
}

// The gate, for a memory limit. Both numbers count our own tables and count no holes. An
// allocation, an extension or a filling of holes that leaves more than look_bytes mapped calls the
// hook, after the pages are taken and before anybody has touched them; one that would leave more
// than hard_bytes in use is refused. UINT64_MAX: no such limit. One compare where there is none.
// The hook runs without the page heap's lock but with whatever the caller holds: it may take this
// lock, and waits for nothing above it (release/limiter.c).
//
// What the allocation itself adds to the tables comes after the question: the tables of the arenas
// that it has to make (struct arena, for each 64 MiB of address space).
void pageheap_set_gate(struct pageheap *heap, uint64_t look_bytes, uint64_t hard_bytes);
void pageheap_set_gate_hook(struct pageheap *heap, void (*hook)(void));

// pageheap_gate_refuses tells whether the gate would refuse page_count more pages now.
bool pageheap_gate_refuses(struct pageheap *heap, size_t page_count);

// pageheap_fill asks the gate for bytes of holes that are about to be filled again, and counts them
// as holes no more. False: the gate refuses, and they still are. Takes the lock where there is a
// gate; may call its hook. pageheap_unfill takes it back: they have not been touched, or have been
// given back.
bool pageheap_fill(struct pageheap *heap, uint64_t bytes);
ATTR_INLINE void pageheap_unfill(struct pageheap *heap, uint64_t bytes)
{
    add_relaxed(&heap->hole_bytes, bytes);
}

// pageheap_alloc returns a span of page_count pages whose first page is a multiple of align_pages
// (a power of two), or NULL when address space or commit ends, or the gate refuses. Filled: base,
// page_count, record_index, arena, zero (true: every byte is zero); the rest of the record is zero.
struct span *pageheap_alloc(struct pageheap *heap, size_t page_count, size_t align_pages,
                            enum pageheap_kind kind);

// pageheap_free_holed takes the span's pages back. The caller has unlinked it from everywhere. Bit
// i of released_mask: the i-th page (of the first 32) has been given back while the span was in
// use. hole_bytes: what of it counts as holes, and goes with it in one step, so that the gate sees
// neither without the other.
void pageheap_free_holed(struct pageheap *heap, struct span *span, uint32_t released_mask,
                         uint64_t hole_bytes);

ATTR_INLINE void pageheap_free(struct pageheap *heap, struct span *span)
{
    pageheap_free_holed(heap, span, 0, 0);
}

// pageheap_extend grows a large span in place to page_count pages; false if the next run is not
// free, or the gate refuses.
bool pageheap_extend(struct pageheap *heap, struct span *span, size_t page_count);

// pageheap_shrink gives the tail of a large span back to the page heap.
void pageheap_shrink(struct pageheap *heap, struct span *span, size_t page_count);

// pageheap_find is span_of that also resolves the inside of large spans. Slow; NULL if not ours.
struct span *pageheap_find(struct pageheap *heap, const void *addr);

// Where a release pass stands: it goes from high addresses to low ones and ends.
struct pageheap_cursor {
    size_t arena; // next arena to look at, plus one; 0: the pass is over
    size_t chunk; // next chunk in it, plus one
};

// Ready pages know when they became so, in ticks: eight seconds, eight bits. A page that nobody
// releases for half an hour looks young again for a while; go1.11, whom the age is for, has
// released it long before.
#define PAGE_TICK_NS (8 * NS_PER_S)

// What a release pass may take.
struct pageheap_filter {
    size_t max_pages;       // at a step; a little more, so that no run is cut in two
    uint32_t min_run_pages; // only runs of at least so many pages; runs end at borders of chunks
    uint8_t min_age_ticks;  // only pages that have been free for more than so many ticks
    bool lazy;              // instead of ready pages those that were given back lazily
};

struct pageheap_release_result {
    size_t pages;        // given back
    size_t refused;      // the kernel said no
    uint32_t call_count; // system calls made
    uint32_t run_count;
};

// pageheap_cursor_top starts a pass at the highest address.
struct pageheap_cursor pageheap_cursor_top(struct pageheap *heap);

// pageheap_release gives back about filter->max_pages (at most 63 more, and at most a chunk's
// worth) of the next chunks that have any. False when the pass is over. One thread at a time (the
// release round).
bool pageheap_release(struct pageheap *heap, struct pageheap_cursor *cursor,
                      const struct pageheap_filter *filter, enum vm_advice advice,
                      struct pageheap_release_result *result);

// pageheap_dense turns to huge pages: the heap asks for them, and gives back only whole ones.
// Called by boot before there is a second thread; what is touched by then stays small until the
// kernel collapses it.
void pageheap_dense(struct pageheap *heap);

// A sample of the released pages, for what the kernel has put behind them all the same (khugepaged,
// or a write to freed memory): one chunk at a call, from low addresses on and round again.
struct pageheap_sample {
    size_t arena; // next, index in the window
    size_t chunk;
    uint64_t looked_pages;   // of the kernel, ever; both halved from time to time
    uint64_t resident_pages; // of these
};

// pageheap_sample_released looks at one chunk with released pages, about 10 us. False if there is
// none, or nothing can be known. One thread at a time.
bool pageheap_sample_released(struct pageheap *heap, struct pageheap_sample *sample);

// pageheap_release_tables gives back what no span needs of the arenas' tables: ages where nothing
// is ready, the map of chunks without spans, pages of records without one in use. Returns bytes.
// Whoever needs a page of an arena whose tables are on their way, and finds none elsewhere, waits
// for some ten microseconds. One thread at a time (the release round).
size_t pageheap_release_tables(struct pageheap *heap);

// pageheap_owed is what is owed after memory has grown, by new pages or by released ones taken
// back, while so much was ready: what could not have been offset when it happened is not owed
// later.
ATTR_INLINE int64_t pageheap_owed(int64_t owed, uint64_t grown, uint64_t ready)
{
    int64_t sum = owed + (int64_t)grown;
    int64_t most = sum < (int64_t)ready ? sum : (int64_t)ready;
    return owed > most ? owed : most;
}

// pageheap_repay takes pages from what is owed.
void pageheap_repay(struct pageheap *heap, int64_t pages);

// pageheap_must_grow tells whether page_count pages would be taken from released memory. Takes the
// lock for a moment: it is about to be taken anyway.
ATTR_INLINE bool pageheap_must_grow(struct pageheap *heap, size_t page_count)
{
    lock_acquire(&heap->lock);
    bool grow = heap->stats.ready_pages < page_count;
    lock_release(&heap->lock);
    return grow;
}

void pageheap_stats_read(struct pageheap *heap, struct pageheap_stats *out);

// pageheap_walk calls visit for every span. The caller holds the lock or has frozen the heap.
void pageheap_walk(struct pageheap *heap, void (*visit)(struct span *span, void *arg), void *arg);

// pageheap_verify recomputes everything from the bits; NULL or what is wrong. Takes the lock.
const char *pageheap_verify(struct pageheap *heap);

// pageheap_arena returns the arena at an index of the window, or NULL.
ATTR_INLINE struct arena *pageheap_arena(const struct pageheap *heap, size_t index)
{
    uintptr_t map = (uintptr_t)heap->maps[index];
    if (map == 0) {
        return NULL;
    }
    uintptr_t start = heap->window_start + (index << ARENA_SHIFT);
    map += (start >> PAGE_SHIFT) * sizeof(atomic_u64);
    return (struct arena *)(map - offsetof(struct arena, map));
}

// The two steps of span_of, which the fast path of free takes one by one.
ATTR_INLINE const atomic_u64 *pageheap_map(const struct pageheap *heap, const void *addr)
{
    size_t index = ((uintptr_t)addr - heap->window_start) >> ARENA_SHIFT;
    return likely(index < WINDOW_ARENAS) ? heap->maps[index] : NULL;
}

ATTR_INLINE struct span *span_at(const atomic_u64 *map, const void *addr)
{
    uintptr_t span = (uintptr_t)&span_none + load_fast(&map[(uintptr_t)addr >> PAGE_SHIFT]);
    __asm__("" : "+r"(span)); // one register for all fields: the compiler would add it up again
    return (struct span *)span;
}

// span_of resolves any address: its span's record, or span_none, or NULL (not in an arena). Two
// dependent loads and no lock: entries of maps[] are set once; the entry of a page
// whose span is alive does not change, and whoever holds a block keeps its span alive.
ATTR_INLINE struct span *span_of(struct pageheap *heap, const void *addr)
{
    const atomic_u64 *map = pageheap_map(heap, addr);
    return likely(map != NULL) ? span_at(map, addr) : NULL;
}

#endif
