// SPDX-License-Identifier: MIT
//
// Spans: objects of one size in a run of pages, allocated by a cache for each thread.
//
// Model
//   A small span belongs to one cache (its owner) or to central (owner NULL). States:
//     CURRENT   the one span of its class its owner allocates from
//     PARTIAL   has free blocks, or may have; on its owner's list, or on central's
//     HOLEY     has holes (span/hole.c): was found at rest; on its owner's holey list, which is
//               used after the other
//     EMPTY     a PARTIAL span without a block in use that its owner keeps for a while, and counts
//     FULL      no block known to be free; on its owner's full list, or on no list in central
//   A block is in exactly one place: in use by the program; on its span's free list; in the span's
//   remote list (freed by another thread); in the gather table of a thread that is about to put it
//   there; or never threaded (beyond span->threaded: its memory is untouched); or in a hole: a
//   kernel page without a block in use, whose blocks are on no list.
//   A free block holds its link in word 0 and its key, secret ^ address, in word 1; malloc clears
//   the key. A free that finds the key looks closer: double free (span/badfree.c).
//   span->used counts the blocks in use, and one more while the span is CURRENT, so that a span
//   that alternates between 0 and 1 blocks is not emptied each time.
//   A large span is one block; its owner is nobody. Up to 256 KiB it may rest in a page cache.
//   span_verify_all checks all of that on a frozen heap.
//
// Locking
//   (T) fields belong to the owner inside its bracket: cache_enter sets busy, cache_leave clears
//   it, two plain stores. Whoever wants a cache that is not his (releaser, fork, exact statistics)
//   claims it under the WORLD lock: sets claimed, and the tag to one that no span has, passes a
//   barrier on all processors (os/thread.h barrier_others) and waits until busy is 0. From then on
//   malloc's look at claimed and free's look at the tag send the owner to the slow path, where it
//   waits for the WORLD lock. So owners use no atomic read-modify-write at all.
//   (S) fields: the owner inside its bracket; in central, the CENTRAL lock of the class.
//   Ranks: WORLD, CENTRAL, PAGEHEAP, META. Nobody waits for WORLD inside a bracket.
//
// Flow
//   cache_alloc -> cache_alloc_slow -> refill: pending, remote, threading more blocks, the next
//   partial span, central, the page heap.
//   cache_free  -> cache_free_slow -> own full span: back to partial; other's span: gather, and
//               when
//   the table's entry is needed or long, remote_push of the whole chain with one compare-and-swap.
//
// Why this way
//   Measured alternatives to the claim cost 17 ns a pair (compare-and-swap flag) or fail in fork
//   (locks alone catch half of the threads midway). Chains instead of one swap per block: remote.c.
//
// Go       1.16 mcache.go, mcentral.go. Unlike Go: frees go to the block's span at once, no sweep;
//          remote lists by span after mimalloc (Leijen, Zorn, de Moura 2019).
// Tests    test/unit/span_test.c  test/model/malloc_model.c  test/race/heap_race.c
#ifndef EBB_SPAN_SPAN_H
#define EBB_SPAN_SPAN_H

#include "pageheap/pageheap.h"
#include "profile/profile.h"
#include "span/sizeclass.h"

#define TAG_NONE 0u             // no cache has it: frees into such a span go the slow way
#define TAG_CLAIMED UINT32_MAX  // no span has it
#define TAG_CENTRAL 0x80000000u // and the class: on central's list (span/central.c)
#define GATHER_COUNT 32
#define PAGECACHE_PAGES ((size_t)32) // runs up to 256 KiB rest in page caches

struct block {
    struct block *next;
    uint64_t key;
};

struct span_list {
    struct span *head;
    struct span *tail;
};

// Frees of one span's blocks, on their way to its remote list.
struct gather {
    struct span *span;
    struct block *head;
    struct block *tail;
    uint32_t limit; // blocks of a full chain: 32, or 4 KiB of them
    uint32_t room;  // how many more the chain may take
};

enum cache_state {
    CACHE_LIVE,
    CACHE_DEAD, // its thread has ended; spans have gone to central
    CACHE_LOST, // of a thread that was midway when the process forked: nobody touches it again
};

// Where a look that was cut into pieces goes on.
struct look_place {
    uint64_t look_id;    // of another look: begin anew
    uint32_t size_class; // next
    uint32_t left;       // spans of the class still to look at; 0: not begun
    struct span *last;   // where the list ended when the class was begun
    uint32_t ticks;      // (cache) of its owner when the look came to it
    bool idle;           // (cache) as it was then
    bool fresh;          // not idle, or a span was not at rest: another look could find more
};

struct cache {
    atomic_u32 busy;    // (A) inside the bracket; written by the owner, read by a claimer
    atomic_u32 tag;     // (A) the spans' tag, or TAG_CLAIMED
    uint64_t secret;    // (C)
    atomic_u32 claimed; // (A) somebody else acts as the owner
    uint32_t id;        // (C) the tag when not claimed
    struct span *direct[DIRECT_COUNT];         // (T) current span by size / 16
    struct span *current[SIZECLASS_COUNT];     // (T) never NULL: span_empty if there is none
    atomic_u32 state;                          // (A) enum cache_state
    atomic_u32 ticks;                          // (A) slow paths taken: activity
    atomic_ptr pending;                        // (A) FULL spans with remote frees (span/remote.c)
    atomic_u32 heard;                          // (A) frees by others since the last look
    struct span_list partial[SIZECLASS_COUNT]; // (T)
    struct span_list holey[SIZECLASS_COUNT];   // (T) at rest and with holes: used after partial
    struct span_list full;                     // (T)
    uint32_t span_count[SIZECLASS_COUNT];      // (T) spans owned, by class
    size_t span_pages;                         // (T) pages of all spans owned
    size_t empty_pages;                     // (T) of these, of PARTIAL spans without a used block
    struct span *runs[PAGECACHE_PAGES + 1]; // (T) page cache: cached large spans by pages
    size_t run_pages;                       // (T) in the page cache
    uint64_t freed_bytes; // (T) freed without a page coming free, since the doorbell last rang
    uint64_t large_alloc_count;         // (T) large blocks, for MemStats
    uint64_t large_alloc_bytes;         // (T)
    uint64_t large_free_count;          // (T)
    uint64_t large_free_bytes;          // (T)
    struct gather gather[GATHER_COUNT]; // (T)
    uint64_t sample_random;             // (T) state of its draws (span/spansample.c)
    uint64_t sample_interval;           // (T) mean bytes between two samples
    int64_t large_left;                 // (T) bytes of large blocks to the next sample
    uint64_t sample_spent_ns;           // (T) on stacks, since
    uint64_t sample_since_ns;           // (T)
    const struct labels *labels;        // (T) of the thread; a signal handler of its reads it
    size_t growing_from;                // (T) bytes of the block that realloc is replacing, or 0
    uint16_t sample_pace;               // (T) sample_interval is the heap's times 2 to this power
    bool sample_slow;                   // (T) stacks took too long when that was last looked at
    struct quarantine *quarantine;      // (T) check=2 only (span/harden.c)
    struct cache *all_next;             // (C) list of all caches ever
    struct cache *dead_next;            // (WORLD lock)
    uint32_t ticks_seen;     // (WORLD lock) of the owner, when the releaser's last look came
    bool candidates;         // (WORLD lock) may have resident holes
    bool clean;              // (WORLD lock) the last look found nothing that another would need
    struct look_place place; // (WORLD lock) where a look goes on (span/look.c)
    bool midway;             // (WORLD lock) frozen, its owner did not leave
    struct lock race_lock;   // stands for the bracket in a RACE_BUILD
};

struct central {
    struct lock lock;         // rank CENTRAL
    struct span_list partial; // (L)
    atomic_u32 count;         // (A) spans on the list; written under the lock
    atomic_u64 alloc_count;   // (A) allocations in spans that no longer exist, and what they fold
    struct look_place place;  // (L)
    atomic_u64 extra_allocs;  // (A) of the sampler, ever: not the program's (span/spansample.c)
    atomic_u64 extra_live;    // (A) of these, in use
};

struct heap {
    struct pageheap *pages; // (C)
    struct meta meta;
    uint64_t secret;            // (C)
    bool hardened;              // (C) after start-up: check=2 (span/harden.c)
    atomic_ptr caches;          // (A) all caches ever, by all_next; only grows
    struct lock world;          // rank WORLD: claims, dead caches
    struct cache *dead;         // (L) world
    uint32_t cache_count;       // (L) world: caches ever made
    struct cache *fallback;     // (C) used under world by threads without a cache
    atomic_u64 candidate_bytes; // (A) holes that are not yet given back; the others: pages
    uint64_t look_count;        // (L) world: looks ever
    atomic_u64 sample_interval; // (A) mean bytes between two samples, 0: none
    struct central central[SIZECLASS_COUNT];
    bool (*full_hook)(unsigned attempt, size_t page_count); // (C) see heap_set_full_hook
};

extern struct heap heap_main ATTR_HIDDEN;
extern struct span span_empty ATTR_HIDDEN; // no block, never: what current[] holds instead of NULL

// The calling thread's cache: cache_none before its first malloc and after its end. That one has no
// span and no tag, so that the fast paths miss without asking.
extern struct cache cache_none ATTR_HIDDEN;
extern __thread struct cache *cache_self ATTR_HIDDEN __attribute__((tls_model("initial-exec")));

// heap_init makes the heap usable; idempotent, safe from any thread, called by the first slow path.
void heap_init(void);

// heap_set_full_hook names who is asked when an allocation has found no memory, outside of the
// bracket and with no lock held: true lets it try again. attempt counts from 0; page_count is the
// least that would do.
void heap_set_full_hook(struct heap *heap, bool (*hook)(unsigned attempt, size_t page_count));

// cache_flush_self gives the page heap what the calling thread's cache keeps empty; pages. No lock
// held.
size_t cache_flush_self(void);

// cache_alloc_slow serves bytes <= SMALL_MAX_BYTES; NULL and errno ENOMEM. Any thread, no lock
// held.
void *cache_alloc_slow(size_t bytes);

// cache_free_slow frees any non-NULL address that malloc returned, or ends the program with a line
// that names what is wrong with it.
void cache_free_slow(void *addr);

// cache_free_other goes on from cache_free, inside the bracket of cache: the span is another
// thread's, or full, or not one at all. Leaves the bracket.
void cache_free_other(void *addr, struct cache *cache, struct span *span);

// cache_emptied: the owner's free of addr has left its span without a block in use, a moment ago.
void cache_emptied(void *addr);

// cache_alloc_due goes on from cache_alloc_small, inside the bracket of cache: the span's countdown
// has come to its end with this allocation. Leaves the bracket.
void *cache_alloc_due(size_t bytes, struct cache *cache, struct span *span);

// cache_alloc_class is the same by class, 1 to SIZECLASS_COUNT - 1, for bytes at an address aligned
// to align, which the class's blocks are; NULL without errno.
void *cache_alloc_class(unsigned size_class, size_t bytes, size_t align);

// cache_alloc_medium serves DIRECT_MAX_BYTES < bytes <= SMALL_MAX_BYTES.
void *cache_alloc_medium(size_t bytes);

// harden_enable switches check=2 on, for good. Called by boot.
void harden_enable(struct heap *heap);

// large_alloc returns a span of its own for bytes > SMALL_MAX_BYTES or odd alignments, or NULL.
struct span *large_alloc(size_t bytes, size_t align);
void large_free(struct span *span);

// large_resize fits the block to bytes in place if that is possible without moving.
bool large_resize(struct span *span, size_t bytes);

// A block by the address that the program has.
struct block_found {
    struct span *span;
    size_t bytes; // from that address on
    bool sampled;
};

// block_find resolves addr if it is a block in use, as far as can be known; otherwise ends the
// program, naming the call (for example "realloc()").
struct block_found block_find(void *addr, const char *call);

// span_free_read tells what of a span was in use once, is free and is not given back, and how many
// blocks are in use in it. The world is frozen.
void span_free_read(const struct span *span, uint64_t *free_bytes, uint64_t *used);

// sample_set_interval says how many bytes lie between two samples on average: 0 none, 1 everything.
// Freezes the world. No lock held.
void sample_set_interval(struct heap *heap, uint64_t bytes);

// sample_move gives a sampled block of have bytes another place and size, as realloc does; it keeps
// its stack. NULL: no memory, or a block so much smaller is not to be sampled.
void *sample_move(struct span *span, void *addr, size_t have, size_t bytes);

// cache_labels returns the calling thread's labels, NULL: none; signal-safe. cache_set_labels sets
// them; false if the thread has ended, or there is no memory for its cache.
const struct labels *cache_labels(void);
bool cache_set_labels(const struct labels *labels);

// sample_growing_from tells the sampler that what the calling thread allocates next replaces a
// block of so many bytes; 0: that is over.
void sample_growing_from(size_t bytes);

// Bytes that a block of the span has.
ATTR_INLINE size_t span_block_bytes(const struct span *span)
{
    return span->size_class != 0 ? span->block_bytes : (size_t)span->page_count << PAGE_SHIFT;
}

// The bracket. In a RACE_BUILD it is a lock, because a sanitizer cannot see membarrier.
ATTR_INLINE void cache_enter(struct cache *cache)
{
    if (RACE_BUILD) {
        lock_acquire(&cache->race_lock);
        return;
    }
    store_relaxed(&cache->busy, 1);
    fence_compiler(); // partner: barrier_others in world.c claim
}

ATTR_INLINE void cache_leave(struct cache *cache)
{
    if (RACE_BUILD) {
        lock_release(&cache->race_lock);
        return;
    }
    store_release(&cache->busy, 0); // pairs with load_acquire in world.c claim
}

ATTR_INLINE uint64_t block_key(const struct cache *cache, const void *addr)
{
    return cache->secret ^ (uintptr_t)addr;
}

// cache_alloc_small serves bytes <= DIRECT_MAX_BYTES.
ATTR_INLINE void *cache_alloc_small(size_t bytes)
{
    struct cache *cache = cache_self;
    cache_enter(cache);
    // First of all: what is read while a claimer works is not to be used after it has gone.
    if (unlikely(load_acquire(&cache->claimed) != 0)) { // pairs with store_release in claim_end
        cache_leave(cache);
        return cache_alloc_slow(bytes);
    }
    struct span *span = cache->direct[(bytes + 15) >> 4];
    struct block *block = span->free;
    if (unlikely(block == NULL)) {
        cache_leave(cache);
        return cache_alloc_slow(bytes);
    }
    if (unlikely(dec_is_zero(&span->alloc_left))) {
        return cache_alloc_due(bytes, cache, span);
    }
    span->free = block->next;
    span->used++;
    block->key = 0;
    cache_leave(cache);
    return block;
}

// span_allocs counts allocations ever, modulo 2^32 (span/spansample.c).
ATTR_INLINE uint32_t span_allocs(const struct span *span)
{
    return span->alloc_end - span->alloc_left;
}

// span_holds_block tells whether addr is where a block of the small span starts.
ATTR_INLINE bool span_holds_block(const struct span *span, const void *addr)
{
    return ((uintptr_t)addr - span->base) * span->magic < span->magic_limit;
}

// cache_free frees addr, or NULL.
ATTR_INLINE void cache_free(void *addr)
{
    const atomic_u64 *map = pageheap_map(&pageheap_main, addr);
    if (unlikely(map == NULL)) {
        cache_free_slow(addr);
        return;
    }
    struct span *span = span_at(map, addr);
    struct cache *cache = cache_self;
    struct block *block = addr;
    cache_enter(cache);
    // The tag before anything that a claimer may change: pairs with store_release in claim_end.
    uint32_t tag = load_acquire(&cache->tag);
    if (unlikely(load_fast(&span->tag) != tag)) {
        cache_free_other(addr, cache, span);
        return;
    }
    if (unlikely(!span_holds_block(span, addr)) || unlikely(block->key == block_key(cache, addr))) {
        cache_leave(cache);
        cache_free_slow(addr);
        return;
    }
    block->next = span->free;
    block->key = block_key(cache, addr);
    span->free = block;
    if (unlikely(dec_is_zero(&span->used))) {
        cache_leave(cache);
        cache_emptied(addr);
        return;
    }
    cache_leave(cache);
}

// --- the world: every cache at once (span/world.c) ---

// world_freeze claims every cache but the caller's and takes every lock of the heap; until
// world_thaw nothing moves, except what the caller itself does. Blocks until running fast paths are
// done. A thread that does not leave its bracket within 100 ms (stopped by a debugger, or in a
// signal handler that interrupted malloc) is skipped and counted in the result.
unsigned world_freeze(struct heap *heap);
void world_thaw(struct heap *heap);

// world_forked makes the frozen heap of a forked child usable: only the calling thread exists.
void world_forked(struct heap *heap);

// A look at all spans that could give something back: of every cache and of central, piece by
// piece, so that nobody waits for long (look.c).
enum look_kind {
    LOOK_REST, // what was at rest since the last look: empty spans go, others get holes
    LOOK_ALL,  // everything, at rest or not
    LOOK_GIVE, // gives holes back to the kernel
};

struct look {
    enum look_kind kind;
    uint64_t id;
    uint64_t want_bytes;    // LOOK_GIVE: stop when so many bytes have been given back
    struct cache *cache;    // next; NULL: central's turn
    uint32_t size_class;    // of central, next
    uint32_t fresh_count;   // spans that were not at rest: another look could find more
    size_t flushed_pages;   // gone to the page heap
    uint64_t given_bytes;   // LOOK_GIVE: given back
    uint64_t refused_bytes; // the kernel said no
    uint64_t pinned_bytes;  // LOOK_ALL: free, on kernel pages with a block in use
    uint64_t held_bytes;    // what caches that could not be claimed may hold
    uint32_t skipped_count; // such caches
    uint32_t range_count;   // given to the kernel
    uint64_t pause_ns_max;  // longest claim
};

// look_begin starts a look; look_step does a piece of it, about 50 us, and returns false when it is
// over. One look at a time (the release round). No lock held.
void look_begin(struct heap *heap, struct look *look, enum look_kind kind);
bool look_step(struct heap *heap, struct look *look);

// world_flush is a whole LOOK_ALL, twice, so that what caches free to one another arrives. Returns
// the pages that went to the page heap. look may be NULL.
size_t world_flush(struct heap *heap, struct look *look);

// Totals over all spans and caches, exact on a frozen heap.
struct heap_stats {
    uint64_t alloc_count[SIZECLASS_COUNT]; // ever, by class; [0]: large
    uint64_t live_count[SIZECLASS_COUNT];
    uint64_t large_alloc_bytes;
    uint64_t large_live_bytes;
    uint64_t large_used_pages;
    uint64_t cached_pages;    // in page caches
    uint64_t span_pages;      // of small spans
    uint64_t empty_bytes;     // of small spans without a block in use, less what is given back
    uint64_t hole_bytes;      // given back inside spans
    uint64_t candidate_bytes; // holes not yet given back
    uint64_t cache_count;     // live
    uint64_t skipped;         // caches that could not be claimed
};
void heap_stats_read(struct heap *heap, struct heap_stats *out);

// span_verify_all walks everything on a frozen heap; NULL or what is wrong. NULL also if
// world_freeze had to skip a cache: then nothing can be said.
const char *span_verify_all(struct heap *heap);

// heap_shutdown_thread takes the calling thread's cache back (thread exit hook).
void cache_exit(void *cache);

#endif
