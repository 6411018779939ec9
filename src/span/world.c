// SPDX-License-Identifier: MIT
//
// The world: acting on caches whose threads know nothing of it. One mechanism, the claim, serves
// idle caches, fork and exact statistics (docs/design/003).
//
// Model
//   A claimed cache belongs to the claimer: claimed is 1, the tag is one that no span has, and the
//   owner is outside its bracket, or on its way out of it without having touched anything.
//
// Locking
//   The WORLD lock is held from the first mark to the end of the claim. The owner, when it notices,
//   waits for that lock, outside its bracket.
//
// Flow
//   claim_mark (each cache) -> barrier_others (once) -> claim_wait (each) -> work -> claim_end
//   (each).
//
// Why this way
//   See span/span.h and docs/design/003 for the alternatives that were measured.
//
// Go       1.16 proc.go stopTheWorldWithSema, mcache.go flushallmcaches. Unlike Go: threads run on
//          until they come to a slow path.
// Tests    test/race/heap_race.c  test/race/claim_model.c  test/system/forkstorm.py
#include "os/futex.h"
#include "os/thread.h"
#include "span/span_int.h"

// A bracket lasts well under a microsecond, or as long as a system call for memory. A thread that
// does not leave it for this long is stopped, or runs a signal handler that interrupted malloc.
#define CLAIM_SPINS 2000
#define CLAIM_SLEEPS 1000
#define CLAIM_SLEEP_NS (100 * NS_PER_US)

// Caches claimed with one barrier, and spans looked at in each idle cache at a time.
#define CLAIM_BATCH 64
#define FLUSH_SPANS 4096

// A thread that took fewer slow paths than this since the last look, a second ago, counts as idle:
// a server's timers should not protect the memory of its last peak.
#define IDLE_TICKS 1000

static void claim_mark(struct cache *cache)
{
    if (RACE_BUILD) {
        lock_acquire(&cache->race_lock);
    }
    store_seq(&cache->claimed, 1); // pairs with the look at it inside a bracket
    store_relaxed(&cache->tag, TAG_CLAIMED);
}

static void claim_end(struct cache *cache)
{
    store_release(&cache->tag, cache->id); // pairs with load_acquire in cache_free
    store_release(&cache->claimed, 0);     // pairs with load_acquire in cache_enter_slow
    if (RACE_BUILD) {
        lock_release(&cache->race_lock);
    }
}

// True when the owner is outside its bracket, and so stays outside.
static bool claim_wait(struct cache *cache)
{
    if (RACE_BUILD) {
        return true;
    }
    for (int i = 0; i < CLAIM_SPINS; i++) {
        if (load_acquire(&cache->busy) == 0) { // pairs with store_release in cache_leave
            return true;
        }
        cpu_relax();
    }
    for (int i = 0; i < CLAIM_SLEEPS; i++) {
        futex_wait(&cache->busy, 1, CLAIM_SLEEP_NS);
        if (load_acquire(&cache->busy) == 0) {
            return true;
        }
    }
    return false;
}

// --- freezing ---

unsigned world_freeze(struct heap *heap)
{
    unsigned skipped = 0;
    heap_init();
    lock_freeze(&heap->world);
    lock_set_freezer();
    for (struct cache *c = heap_first_cache(heap); c != NULL; c = c->all_next) {
        if (c != cache_self && load_relaxed(&c->state) != CACHE_LOST) {
            claim_mark(c);
        }
    }
    barrier_others();
    for (struct cache *c = heap_first_cache(heap); c != NULL; c = c->all_next) {
        // Remembered, because busy says nothing later: an owner that only looks whether it is
        // claimed sets it too.
        c->midway = load_relaxed(&c->state) == CACHE_LOST || (c != cache_self && !claim_wait(c));
        skipped += c->midway;
    }
    for (unsigned i = 1; i < SIZECLASS_COUNT; i++) {
        lock_freeze(&heap->central[i].lock);
    }
    lock_freeze(&heap->pages->lock);
    lock_freeze(&heap->meta.lock);
    return skipped;
}

void world_thaw(struct heap *heap)
{
    lock_thaw(&heap->meta.lock);
    lock_thaw(&heap->pages->lock);
    for (unsigned i = SIZECLASS_COUNT - 1; i > 0; i--) {
        lock_thaw(&heap->central[i].lock);
    }
    for (struct cache *c = heap_first_cache(heap); c != NULL; c = c->all_next) {
        if (load_relaxed(&c->claimed) != 0 && load_relaxed(&c->state) != CACHE_LOST) {
            claim_end(c);
        }
    }
    lock_clear_freezer();
    lock_thaw(&heap->world);
}

void world_forked(struct heap *heap)
{
    for (struct cache *c = heap_first_cache(heap); c != NULL; c = c->all_next) {
        if (c == cache_self || load_relaxed(&c->claimed) == 0) {
            continue;
        }
        if (c->midway) {
            store_relaxed(&c->state, CACHE_LOST); // and it stays claimed
            continue;
        }
        store_relaxed(&c->busy, 0); // its owner may have been about to see that it is claimed
        claim_end(c);
        if (c == heap->fallback || load_relaxed(&c->state) == CACHE_DEAD) {
            continue;
        }
        cache_detach_all(heap, c);
        cache_retire(heap, c);
    }
}

// --- flushing ---

// Looks at bound partial spans of the class, each time from where it stopped, and deletes the
// empty.
static size_t flush_partial(struct heap *heap, struct cache *cache, unsigned size_class,
                            size_t *bound)
{
    size_t pages = 0;
    struct span_list *list = &cache->partial[size_class];
    struct span *last = list->tail;
    while (list->head != NULL && *bound != 0) {
        struct span *span = list->head;
        bool end = span == last;
        (*bound)--;
        span_list_remove(list, span);
        cache_uncount_empty(cache, span);
        remote_collect(span);
        if (span_used(span) == 0) {
            pages += span->page_count;
            cache_disown(cache, span);
            span_delete(heap, span);
        } else {
            span_list_append(list, span);
        }
        if (end) {
            break;
        }
    }
    return pages;
}

static size_t flush_current(struct heap *heap, struct cache *cache, unsigned size_class)
{
    struct span *span = cache->current[size_class];
    if (span == &span_empty) {
        return 0;
    }
    remote_collect(span);
    if (span_used(span) != 0) {
        return 0;
    }
    size_t pages = span->page_count;
    span->used--;
    span_set_state(span, SPAN_PARTIAL);
    cache_set_current(cache, size_class, &span_empty);
    cache_disown(cache, span);
    span_delete(heap, span);
    return pages;
}

static size_t flush_cache(struct heap *heap, struct cache *cache, size_t bound)
{
    gather_flush(heap, cache);
    pending_drain(heap, cache);
    size_t pages = runs_flush(heap, cache);
    for (unsigned size_class = 1; size_class < SIZECLASS_COUNT; size_class++) {
        pages += flush_current(heap, cache, size_class);
        pages += flush_partial(heap, cache, size_class, &bound);
    }
    return pages;
}

// Marks up to CLAIM_BATCH caches from *next on that the scope wants. Caller holds WORLD.
static size_t batch_mark(struct cache **next, enum flush_scope scope, struct cache **batch)
{
    size_t count = 0;
    struct cache *cache = *next;
    for (; cache != NULL && count < CLAIM_BATCH; cache = cache->all_next) {
        uint32_t ticks = load_relaxed(&cache->ticks);
        // Frees of others that its owner has not collected are a reason whatever the owner does.
        bool idle = ticks - cache->ticks_seen < IDLE_TICKS || load_relaxed(&cache->pending) != NULL;
        cache->ticks_seen = ticks;
        if (load_relaxed(&cache->state) != CACHE_LIVE || load_relaxed(&cache->claimed) != 0 ||
            (scope == FLUSH_IDLE && !idle)) {
            continue;
        }
        claim_mark(cache);
        batch[count++] = cache;
    }
    *next = cache;
    return count;
}

size_t world_flush(struct heap *heap, enum flush_scope scope)
{
    struct cache *batch[CLAIM_BATCH];
    struct cache *next = heap_first_cache(heap);
    size_t pages = 0;
    size_t bound = scope == FLUSH_ALL ? SIZE_MAX : FLUSH_SPANS;
    // What caches freed to one another arrives in the second round.
    for (int round = 0; round < (scope == FLUSH_ALL ? 2 : 1); round++) {
        next = heap_first_cache(heap);
        while (next != NULL) {
            lock_acquire(&heap->world);
            size_t count = batch_mark(&next, scope, batch);
            if (count != 0) {
                barrier_others();
            }
            for (size_t i = 0; i < count; i++) {
                if (claim_wait(batch[i])) {
                    pages += flush_cache(heap, batch[i], bound);
                }
                claim_end(batch[i]);
            }
            lock_release(&heap->world);
        }
    }
    // Under WORLD: a freeze must not see spans that are on no list and not yet the page heap's.
    lock_acquire(&heap->world);
    pages += central_flush(heap);
    lock_release(&heap->world);
    return pages;
}
