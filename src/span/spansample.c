// SPDX-License-Identifier: MIT
//
// Sampling: what happens when a countdown has come to its end, and to sampled blocks afterwards.
//
// Model
//   Every span counts down to its next sample; a cache does for large blocks, in bytes. The program
//   is given an address behind a gap, of its alignment and at least 16 bytes. So a sampled block is
//   one whose address is not the start of a block: free notices by the check that it makes anyway,
//   and all other blocks of the span, and the spans themselves, are as ever.
//   place   the block that was taken from the span whose turn it was. If it has room for the gap,
//           the address lies in it. If not, the address lies in another block, an extra one, which
//           is not the program's and in no count; the place stays empty as long, so that counts and
//           the neighbourhood are those of a program that is not sampled (profile pins).
//   A large block keeps its address: its span is marked by free, and an extra one by alloc_end
//   too. allocs of a small span, modulo 2^32, are alloc_end - alloc_left.
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
// Tests    test/unit/heap_sample_test.c  test/model/malloc_model.c
#include <string.h>

#include "base/rand.h"
#include "os/clock.h"
#include "span/span_int.h"

// How long a thread's time for stacks is added up before its interval may change. Short, since a
// thread that does nothing but allocate large blocks spends 2 % on stacks until it has changed.
#define PACE_NS (20 * NS_PER_MS)

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
    span->alloc_pace = cache->sample_pace;
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
    cache->sample_interval = load_relaxed(&heap->sample_interval);
    cache->sample_pace = 0;
    cache->sample_slow = false;
    cache->labels = NULL;
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
            c->sample_pace = 0;
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
    uint64_t base = load_relaxed(&heap->sample_interval);
    uint64_t interval =
        heap_sample_pace(cache->sample_interval, base, cache->sample_spent_ns, elapsed_ns);
    cache->sample_spent_ns = 0;
    cache->sample_since_ns = now_ns;
    // Once is not enough: the first stacks of a loop are unwound by tables that nobody has read.
    bool was_slow = cache->sample_slow;
    cache->sample_slow = interval > cache->sample_interval;
    if (cache->sample_slow && !was_slow) {
        return;
    }
    if (interval != cache->sample_interval) {
        int step = interval > cache->sample_interval ? 1 : -1;
        cache->sample_interval = interval;
        cache->sample_pace = interval == base ? 0 : (uint16_t)(cache->sample_pace + step);
        cache_redraw(heap, cache);
    }
}

// --- sampled blocks ---

// Takes a large block of the sampler's own out of the program's counts, or puts it back before it
// is freed as others are.
static void large_uncount(struct cache *cache, struct span *span, bool ours)
{
    uint64_t one = ours ? UINT64_MAX : 1; // added: minus 1, or plus 1
    cache->large_alloc_count += one;
    cache->large_alloc_bytes += one * ((uint64_t)span->page_count << PAGE_SHIFT);
    span->alloc_end = ours;
}

// A block that no countdown sees. Inside the bracket; NULL: no memory.
static void *plain_small(struct heap *heap, struct cache *cache, size_t bytes)
{
    return cache_alloc_owned(heap, cache, sizeclass_of(bytes), NULL);
}

// The same of any size up to SMALL_MAX_BYTES + PAGE_BYTES, as the sampler's own.
static void *extra_alloc(struct heap *heap, struct cache *cache, size_t bytes, size_t align)
{
    if (bytes > SMALL_MAX_BYTES) {
        struct span *span = large_alloc_owned(heap, cache, bytes, align);
        if (span == NULL) {
            return NULL;
        }
        large_uncount(cache, span, true);
        span->free = span; // as sample_large
        return (void *)span->base;
    }
    void *block = plain_small(heap, cache, bytes);
    if (block != NULL) {
        struct central *central = &heap->central[sizeclass_of(bytes)];
        add_relaxed(&central->extra_allocs, 1);
        add_relaxed(&central->extra_live, 1);
    }
    return block;
}

static void extra_free(struct heap *heap, struct cache *cache, struct span *span, void *block)
{
    if (span->size_class == 0) {
        span->free = NULL; // no sample, or none any more
        large_uncount(cache, span, false);
        large_free_owned(heap, cache, span);
        return;
    }
    sub_relaxed(&heap->central[span->size_class].extra_live, 1);
    cache_free_small(heap, cache, span, block);
}

// What a sampled block is made of.
struct sampled {
    char *addr;         // for the program; NULL: no memory for anything but the place
    void *place;        // the block it would be; NULL: no memory
    struct span *span;  // of the place
    void *extra;        // the sampler's own block around addr, or NULL: the place has room
    size_t block_bytes; // of the place
};

static struct sampled sampled_alloc(struct heap *heap, struct cache *cache, size_t bytes,
                                    size_t align)
{
    size_t gap = max_size(align, 16);
    // One byte at least: the address behind the gap must lie in the block.
    size_t wanted = max_size(bytes, 1);
    struct sampled made = {.place = plain_small(heap, cache, align_up(wanted, align))};
    if (made.place == NULL) {
        return made;
    }
    made.span = span_of(heap->pages, made.place);
    made.block_bytes = made.span->block_bytes;
    if (wanted + gap <= made.block_bytes) {
        made.addr = (char *)made.place + gap;
        return made;
    }
    made.extra = extra_alloc(heap, cache, align_up(wanted + gap, align), align);
    if (made.extra != NULL) {
        bool large =
            align_up(wanted + gap, align) > SMALL_MAX_BYTES; // found by the mark, without a gap
        made.addr = (char *)made.extra + (large ? 0 : gap);
    }
    return made;
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

void *sample_alloc(size_t bytes, size_t align)
{
    struct heap *heap = &heap_main;
    struct heap_call call;
    uint64_t began_ns = clock_now_ns();
    call.depth = unwind_stack(call.stack, HEAP_DEPTH_MAX);
    struct cache_hold hold = cache_hold();
    struct cache *cache = hold.cache;
    call.interval_bytes = cache->sample_interval;
    call.labels = cache->labels;
    call.block_bytes = 0; // until there is a block
    void *addr;
    bool added = false;
    if (!growth_chance(cache, call.interval_bytes, bytes)) {
        addr = plain_small(heap, cache, align_up(max_size(bytes, 1), align));
    } else {
        struct sampled made = sampled_alloc(heap, cache, bytes, align);
        addr = made.addr;
        call.block_bytes = made.block_bytes;
        added = addr != NULL && heap_sample_add((uintptr_t)addr, (uintptr_t)made.place, &call);
        if (addr != NULL && !added) {
            if (made.extra != NULL) {
                extra_free(heap, cache, span_of(heap->pages, made.extra), made.extra);
            }
            addr = NULL;
        }
        addr = addr != NULL ? addr : made.place;
        cache_pace(heap, cache, began_ns, clock_now_ns());
    }
    cache_unhold(hold);
    // Here, where a tracer that stops the thread costs it neither samples nor others a lock.
    if (added) {
        usdt_alloc(addr, call.block_bytes, call.interval_bytes);
    }
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
    struct heap_call call;
    uint64_t began_ns = clock_now_ns();
    call.depth = unwind_stack(call.stack, HEAP_DEPTH_MAX);
    struct cache_hold hold = cache_hold();
    struct cache *cache = hold.cache;
    call.interval_bytes = cache->sample_interval;
    call.block_bytes = span_block_bytes(span);
    call.labels = cache->labels;
    bool added = growth_chance(cache, call.interval_bytes, call.block_bytes) &&
                 heap_sample_add(span->base, span->base, &call);
    if (added) {
        span->free = span; // large_free_owned asks the table
    }
    cache_pace(heap, cache, began_ns, clock_now_ns());
    cache_unhold(hold);
    if (added) {
        usdt_alloc((const void *)span->base, call.block_bytes, call.interval_bytes);
    }
}

static void *block_around(const struct span *span, const void *addr)
{
    uintptr_t offset = (uintptr_t)addr - span->base;
    return (void *)(span->base + offset / span->block_bytes * span->block_bytes);
}

void *sample_base(const struct span *span, const void *addr)
{
    return heap_sample_has((uintptr_t)addr) ? block_around(span, addr) : NULL;
}

void *sample_free(struct heap *heap, struct cache *cache, struct span *span, void *addr, void *base)
{
    void *place = (void *)heap_sample_remove((uintptr_t)addr);
    if (place == NULL) {
        badfree_check(span, addr, "free()"); // another thread has been here this moment
    }
    if (place != base) {
        extra_free(heap, cache, span, base);
    }
    return place;
}

void sample_large_free(struct heap *heap, struct cache *cache, struct span *span)
{
    uintptr_t place = heap_sample_remove(span->base);
    span->free = NULL;
    if (span->alloc_end != 0) {
        large_uncount(cache, span, false);
        cache_free_small(heap, cache, span_of(heap->pages, (void *)place), (void *)place);
    }
}

// The chance that a smaller block would have had, given that the larger one was sampled.
static bool shrink_chance(struct cache *cache, size_t have, size_t bytes)
{
    double random = (double)(rand_splitmix64(&cache->sample_random) >> 11);
    double now = heap_sample_chance(cache->sample_interval, (double)bytes);
    double before = heap_sample_chance(cache->sample_interval, (double)have);
    return bytes >= have || random * before < now * (double)((uint64_t)1 << 53);
}

void *sample_move(struct span *span, void *addr, size_t have, size_t bytes)
{
    struct heap *heap = &heap_main;
    struct sampled made = {.addr = NULL};
    struct cache_hold hold = cache_hold();
    if (shrink_chance(hold.cache, have, bytes)) {
        if (bytes <= SMALL_MAX_BYTES) {
            made = sampled_alloc(heap, hold.cache, bytes, 16);
        } else {
            made.span = large_alloc_owned(heap, hold.cache, bytes, 16);
            if (made.span != NULL) {
                made.span->free = made.span;
                made.block_bytes = span_block_bytes(made.span);
                made.addr = (char *)made.span->base;
                made.place = made.addr;
            }
        }
    }
    if (made.addr == NULL) {
        if (made.place != NULL) {
            cache_free_small(heap, hold.cache, made.span, made.place);
        }
        cache_unhold(hold);
        return NULL;
    }
    memcpy(made.addr, addr, min_size(have, bytes));
    void *place = (void *)heap_sample_move((uintptr_t)addr, (uintptr_t)made.addr,
                                           (uintptr_t)made.place, made.block_bytes);
    if (span->size_class == 0 && span->alloc_end == 0) {
        span->free = NULL;
        large_free_owned(heap, hold.cache, span);
    } else {
        void *base = span->size_class == 0 ? addr : block_around(span, addr);
        if (place != base) {
            extra_free(heap, hold.cache, span, base);
        }
        cache_free_small(heap, hold.cache, span_of(heap->pages, place), place);
    }
    cache_unhold(hold);
    return made.addr;
}

void sample_growing_from(size_t bytes)
{
    struct cache *cache = cache_self;
    if (cache != &cache_none) {
        cache->growing_from = bytes; // only its own thread reads it
    }
}

const struct labels *cache_labels(void)
{
    return cache_self->labels;
}

bool cache_set_labels(const struct labels *labels)
{
    struct cache_hold hold = cache_hold();
    bool own = !hold.fallback;
    if (own) {
        hold.cache->labels = labels;
    }
    cache_unhold(hold);
    return own;
}
