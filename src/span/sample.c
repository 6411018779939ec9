// SPDX-License-Identifier: MIT
//
// Sampling: what happens when a countdown has come to its end, and to sampled blocks afterwards.
//
// Model
//   Every span counts down to its next sample; a cache does for large blocks, in bytes. The block
//   whose turn it is gets allocated larger by its alignment, at least 16 bytes, and the program is
//   given the address behind that gap. So a sampled block is one whose address is not the start of
//   a block: free notices by the check that it makes anyway, and all other blocks of the span, and
//   the spans themselves, are as ever. A large block keeps its address; its span is marked.
//   allocs of a span, modulo 2^32, are alloc_end - alloc_left.
//
// Locking
//   The bracket for countdowns. Stacks are unwound outside of it; the table's lock is a leaf.
//
// Flow
//   cache_alloc_small -> cache_alloc_due -> sample_alloc -> unwind_stack -> heap_sample_add
//   cache_free -> cache_free_slow -> block_check -> sample_base; heap_sample_remove
//
// Why this way
//   Marking the span instead, by its tag, sends every free into such a span the slow way: with
//   spans of 64 KiB that is one free in eight (docs/design/009).
//
// Go       1.19 malloc.go mallocgc, profilealloc. Unlike Go: a countdown for each span, whose sum
//          is the same chance for each byte.
// Tests    test/unit/sample_test.c  test/model/malloc_model.c
#include <string.h>

#include "base/rand.h"
#include "os/clock.h"
#include "span/span_int.h"

#define STACK_MAX 64

// How long a thread's time for stacks is added up before its interval may change.
#define PACE_NS (100 * NS_PER_MS)

// What is taken off a span's count of allocations before it can overflow.
#define ALLOCS_FOLD ((uint32_t)1 << 31)

// --- countdowns ---

// Starts a new countdown for a span that has had so many allocations.
static void span_draw(struct heap *heap, struct cache *cache, struct span *span, uint32_t allocs)
{
    if (allocs >= ALLOCS_FOLD) {
        allocs -= ALLOCS_FOLD; // twice that is 0 modulo 2^32: its activity stays the same
        add_relaxed(&heap->central[span->size_class].alloc_count, ALLOCS_FOLD);
    }
    uint64_t random = rand_splitmix64(&cache->sample_random);
    span->alloc_left = heap_sample_draw(random, cache->sample_interval, span->block_bytes);
    span->alloc_end = allocs + span->alloc_left;
}

void sample_redraw(struct heap *heap, struct cache *cache, struct span *span)
{
    span_draw(heap, cache, span, span_allocs(span));
}

bool sample_restart(struct heap *heap, struct cache *cache, struct span *span)
{
    span_draw(heap, cache, span, span_allocs(span) - 1); // it has not been allocated yet
    return cache->sample_interval != 0;
}

static void large_draw(struct cache *cache)
{
    uint64_t random = rand_splitmix64(&cache->sample_random);
    cache->large_left = heap_sample_draw_bytes(random, cache->sample_interval);
}

bool sample_large_due(struct cache *cache, uint64_t bytes)
{
    cache->large_left -= (int64_t)bytes;
    if (likely(cache->large_left > 0)) {
        return false;
    }
    large_draw(cache);
    return cache->sample_interval != 0;
}

void sample_begin(struct heap *heap, struct cache *cache)
{
    uint64_t seed = heap->secret + cache->id;
    cache->sample_random = rand_splitmix64(&seed);
    cache->sample_interval = load_relaxed(&heap->sample_interval);
    large_draw(cache);
}

// Draws anew whatever a cache may allocate from before it takes a slow path.
static void cache_redraw(struct heap *heap, struct cache *cache)
{
    large_draw(cache);
    for (unsigned i = 1; i < SIZECLASS_COUNT; i++) {
        if (cache->current[i] != &span_empty) {
            sample_redraw(heap, cache, cache->current[i]);
        }
    }
}

struct redraw {
    struct heap *heap;
    struct cache *cache;
};

static void visit_redraw(struct span *span, void *arg)
{
    struct redraw *redraw = arg;
    if (span->size_class != 0) {
        sample_redraw(redraw->heap, redraw->cache, span);
    }
}

void sample_set_interval(struct heap *heap, uint64_t bytes)
{
    struct cache *last = NULL;
    world_freeze(heap);
    store_relaxed(&heap->sample_interval, bytes);
    for (struct cache *c = heap_first_cache(heap); c != NULL; c = c->all_next) {
        if (!c->midway) {
            c->sample_interval = bytes;
            large_draw(c);
            last = c;
        }
    }
    if (last != NULL) {
        struct redraw redraw = {heap, last};
        pageheap_walk(heap->pages, visit_redraw, &redraw);
    }
    world_thaw(heap);
}

// Inside the bracket: what the stack has cost, and what follows from it for the thread's interval.
static void cache_pace(struct heap *heap, struct cache *cache, uint64_t began_ns, uint64_t now_ns)
{
    cache->sample_spent_ns += now_ns - began_ns;
    uint64_t elapsed_ns = now_ns - cache->sample_since_ns;
    if (elapsed_ns < PACE_NS) {
        return;
    }
    uint64_t interval =
        heap_sample_pace(cache->sample_interval, load_relaxed(&heap->sample_interval),
                         cache->sample_spent_ns, elapsed_ns);
    cache->sample_spent_ns = 0;
    cache->sample_since_ns = now_ns;
    if (interval != cache->sample_interval) {
        cache->sample_interval = interval;
        cache->sample_adapted = true;
        cache_redraw(heap, cache);
    }
}

// --- sampled blocks ---

// A block that no countdown sees, at an address aligned to align, for small and large; its span in
// *span. NULL: no memory.
static void *plain_alloc(struct heap *heap, size_t bytes, size_t align, struct span **span)
{
    struct cache_hold hold = cache_hold();
    size_t rounded = align_up(bytes, align);
    void *block = NULL;
    if (rounded <= SMALL_MAX_BYTES && align <= PAGE_BYTES) {
        block = cache_alloc_owned(heap, hold.cache, sizeclass_of(rounded), NULL);
        *span = block == NULL ? NULL : span_of(heap->pages, block);
    } else {
        *span = large_alloc_owned(heap, hold.cache, bytes, align);
        block = *span == NULL ? NULL : (void *)(*span)->base;
    }
    cache_unhold(hold);
    return block;
}

// Where the program's part of a block starts.
static void *block_shifted(const struct span *span, void *block, size_t gap)
{
    return span->size_class == 0 ? block : (char *)block + gap;
}

// Whether a block that takes the place of a smaller one is sampled: only the bytes it grows by
// have not had their chance yet.
static bool growth_chance(struct cache *cache, uint64_t interval, size_t bytes)
{
    size_t from = cache->growing_from;
    if (from == 0) {
        return true;
    }
    if (bytes <= from) {
        return false;
    }
    double taken = heap_sample_chance(interval, (double)bytes);
    double wanted = heap_sample_chance(interval, (double)(bytes - from));
    double random = (double)(rand_splitmix64(&cache->sample_random) >> 11);
    return random * taken < wanted * (double)((uint64_t)1 << 53);
}

static void cache_pay(struct heap *heap, uint64_t began_ns)
{
    struct cache_hold hold = cache_hold();
    cache_pace(heap, hold.cache, began_ns, clock_now_ns());
    cache_unhold(hold);
}

void *sample_alloc(size_t bytes, size_t align)
{
    struct heap *heap = &heap_main;
    struct span *span;
    size_t gap = max_size(align, 16);
    struct cache_hold hold = cache_hold();
    uint64_t interval = hold.cache->sample_interval;
    bool wanted = growth_chance(hold.cache, interval, bytes);
    cache_unhold(hold);
    if (!wanted) {
        return plain_alloc(heap, bytes, align, &span);
    }
    uintptr_t stack[STACK_MAX];
    uint64_t began_ns = clock_now_ns();
    uint32_t depth = unwind_stack(stack, STACK_MAX);
    // One byte at least: the address behind the gap must lie in the block.
    char *block = plain_alloc(heap, max_size(bytes, 1) + gap, align, &span);
    if (block == NULL) {
        return plain_alloc(heap, bytes, align, &span);
    }
    void *addr = block_shifted(span, block, gap);
    if (!heap_sample_add((uintptr_t)addr, span_block_bytes(span), interval, stack, depth)) {
        return block;
    }
    if (span->size_class == 0) {
        span->free = span; // large_free_owned asks the table
    }
    cache_pay(heap, began_ns);
    return addr;
}

void *cache_alloc_due(size_t bytes, struct cache *cache, struct span *span)
{
    bool due = sample_restart(&heap_main, cache, span);
    cache_leave(cache);
    void *block = due ? sample_alloc(bytes, 16) : NULL;
    return block != NULL ? block : cache_alloc_slow(bytes);
}

void sample_large(struct span *span)
{
    struct heap *heap = &heap_main;
    uintptr_t stack[STACK_MAX];
    uint64_t began_ns = clock_now_ns();
    struct cache_hold hold = cache_hold();
    uint64_t interval = hold.cache->sample_interval;
    bool wanted = growth_chance(hold.cache, interval, span_block_bytes(span));
    cache_unhold(hold);
    if (!wanted) {
        return;
    }
    uint32_t depth = unwind_stack(stack, STACK_MAX);
    if (heap_sample_add(span->base, span_block_bytes(span), interval, stack, depth)) {
        span->free = span;
    }
    cache_pay(heap, began_ns);
}

void *sample_base(const struct span *span, const void *addr)
{
    uintptr_t offset = (uintptr_t)addr - span->base;
    if (!heap_sample_has((uintptr_t)addr)) {
        return NULL;
    }
    return (void *)(span->base + offset / span->block_bytes * span->block_bytes);
}

// The chance that a smaller block would have had, given that the larger one was sampled.
static bool shrink_chance(size_t have, size_t bytes)
{
    struct cache_hold hold = cache_hold();
    uint64_t interval = hold.cache->sample_interval;
    double random = (double)(rand_splitmix64(&hold.cache->sample_random) >> 11);
    cache_unhold(hold);
    double now = heap_sample_chance(interval, (double)bytes);
    double before = heap_sample_chance(interval, (double)have);
    return bytes >= have || random * before < now * (double)((uint64_t)1 << 53);
}

void *sample_move(struct span *span, void *addr, size_t have, size_t bytes)
{
    struct heap *heap = &heap_main;
    struct span *new_span;
    if (bytes > SIZE_MAX / 2 || !shrink_chance(have, bytes)) {
        return NULL;
    }
    char *block = plain_alloc(heap, bytes + 16, 16, &new_span);
    if (block == NULL) {
        return NULL;
    }
    void *new_addr = block_shifted(new_span, block, 16);
    memcpy(new_addr, addr, min_size(have, bytes));
    heap_sample_move((uintptr_t)addr, (uintptr_t)new_addr, span_block_bytes(new_span));
    if (new_span->size_class == 0) {
        new_span->free = new_span;
    }
    void *base = addr;
    if (span->size_class == 0) {
        span->free = NULL;
    } else {
        uintptr_t offset = (uintptr_t)addr - span->base;
        base = (void *)(span->base + offset / span->block_bytes * span->block_bytes);
    }
    cache_free_slow(base);
    return new_addr;
}

void sample_growing_from(size_t bytes)
{
    struct cache *cache = cache_self;
    if (cache != &cache_none) {
        cache->growing_from = bytes; // only its own thread reads it
    }
}
