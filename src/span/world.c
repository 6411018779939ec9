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

void claim_mark(struct cache *cache)
{
    if (RACE_BUILD) {
        lock_acquire(&cache->race_lock);
    }
    store_seq(&cache->claimed, 1); // pairs with the look at it inside a bracket
    store_relaxed(&cache->tag, TAG_CLAIMED);
}

void claim_end(struct cache *cache)
{
    store_release(&cache->tag, cache->id); // pairs with load_acquire in cache_free
    store_release(&cache->claimed, 0);     // pairs with load_acquire in cache_enter_slow
    if (RACE_BUILD) {
        lock_release(&cache->race_lock);
    }
}

// claim_wait is true when the owner is outside its bracket, and so stays outside.
bool claim_wait(struct cache *cache)
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
    barrier_prepare();
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
    heap_sample_freeze();
    labels_freeze();
    wait_sample_freeze();
    lock_freeze(&heap->meta.lock);
    return skipped;
}

void world_thaw(struct heap *heap)
{
    lock_thaw(&heap->meta.lock);
    wait_sample_thaw();
    labels_thaw();
    heap_sample_thaw();
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
