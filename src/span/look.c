// SPDX-License-Identifier: MIT
//
// Looks: what the releaser does with spans whose threads know nothing of it, piece by piece.
//
// Model
//   A look goes over every cache and then over central. A step claims one cache (or takes the lock
//   of one class of central), works for about STEP_NS, and lets it go; the next step goes on there.
//   In a cache it goes through the lists class by class; a span that stays is moved to the end of
//   its list, and the span that was last when the class was begun ends it. Where the owner has
//   changed the list in between, a count ends it.
//   A span is cold if nothing was allocated from it or freed into it since the last look.
//     LOOK_REST  cold and empty: deleted. Cold, and never searched since it changed: hole_make;
//                then it goes to the holey list, if it has holes. A span that has changed goes back
//                from there. In idle caches also: gathered and remote frees, the page cache, empty
//                spans.
//     LOOK_ALL   the same, as if everything were cold and idle.
//     LOOK_GIVE  the resident holes of spans on holey lists, and of current spans, are given back,
//                in batches, while the cache is still claimed: so nobody can reopen them meanwhile.
//   A cache in which the last look found nothing to do, and whose owner has taken no slow path
//   since, is passed over without a claim. So every free that a look should hear of must take a
//   slow path: the first free into a cold span does, having no tag. Other threads' frees set the
//   owner's mark (cache->heard), since the owner may be asleep.
//
// Locking
//   WORLD during a step, or CENTRAL of a class. PAGEHEAP below, for deletes. The kernel is called
//   under WORLD and the claim, for at most BATCH_RANGES ranges: a thread that needs its own cache,
//   or begins or ends, waits for some 50 us.
//
// Why this way
//   Cold spans and not cold caches: a server that never rests has spans that it has not touched
//   since its peak. A claim for the search and the call together needs no state between the two.
//
// Go       none; the nearest is 1.21 mgcscavenge.go, whose dense chunks are left alone for a cycle.
// Tests    test/unit/look_test.c  test/model/hole_model.c  test/race/hole_race.c
#include "os/clock.h"
#include "os/thread.h"
#include "span/span_int.h"

// How long a cache is kept claimed, as far as one span more or less allows; and what a batch takes.
#define STEP_NS (50 * NS_PER_US)
#define BATCH_RANGES ((size_t)96)
#define BATCH_BYTES ((uint64_t)MIB)

// Spans between two looks at the clock.
#define CLOCK_SPANS 16

// A thread that took fewer slow paths than this since the last look, a second ago, counts as idle:
// a server's timers should not protect the memory of its last peak.
#define IDLE_TICKS 1000

struct piece {
    struct heap *heap;
    struct look *look;
    struct cache *cache; // NULL in central
    uint64_t until_ns;
    unsigned spans; // since the clock was read
    bool full;      // time is over
    // The batch of LOOK_GIVE.
    struct vm_range ranges[BATCH_RANGES];
    struct span *spans_of[BATCH_RANGES];
    size_t range_count;
    uint64_t batch_bytes;
};

static void piece_tick(struct piece *piece, unsigned spans)
{
    piece->spans += spans;
    if (piece->spans >= CLOCK_SPANS) {
        piece->spans = 0;
        piece->full = piece->full || clock_now_ns() >= piece->until_ns;
    }
}

static void batch_give(struct piece *piece)
{
    struct look *look = piece->look;
    bool refused[BATCH_RANGES];
    if (piece->range_count == 0) {
        return;
    }
    vm_unused_batch(piece->heap->pages->vm, piece->ranges, piece->range_count, VM_ADVICE_DONTNEED,
                    refused);
    for (size_t i = 0; i < piece->range_count; i++) {
        if (refused[i]) {
            look->refused_bytes += piece->ranges[i].bytes;
            continue;
        }
        look->given_bytes += piece->ranges[i].bytes;
        hole_given(piece->heap, piece->spans_of[i], &piece->ranges[i]);
    }
    look->range_count += (uint32_t)piece->range_count;
    piece->range_count = 0;
    piece->batch_bytes = 0;
    piece->full = true; // the calls took their time
}

// LOOK_GIVE of one span.
static void span_give(struct piece *piece, struct span *span)
{
    const struct look *look = piece->look;
    if (span->resident == 0) {
        return;
    }
    if (piece->range_count + HOLE_RANGES > BATCH_RANGES) {
        batch_give(piece);
    }
    size_t count = hole_ranges(piece->heap, span, &piece->ranges[piece->range_count]);
    for (size_t i = 0; i < count; i++) {
        piece->spans_of[piece->range_count + i] = span;
        piece->batch_bytes += piece->ranges[piece->range_count + i].bytes;
    }
    piece->range_count += count;
    // A batch may be some MiB, and the policy wants to keep the rest.
    piece->full = piece->full || piece->batch_bytes >= BATCH_BYTES ||
                  look->given_bytes + piece->batch_bytes >= look->want_bytes;
}

// What of a span is free and cannot be given back.
static uint64_t span_pinned_bytes(const struct heap *heap, const struct span *span)
{
    uint64_t bytes = (uint64_t)span->page_count << PAGE_SHIFT;
    bytes -= span_used(span) * span->block_bytes;
    return bytes - hole_bytes_given(heap, span) - hole_bytes_resident(heap, span);
}

// Looks at a span that has blocks in use: notes its activity and makes holes if it is at rest.
// Returns whether it has holes and is at rest: its place is the holey list.
static bool span_search(struct piece *piece, struct span *span)
{
    uint32_t activity = span_activity(span);
    bool seen = (span->looked & ~UINT32_C(1)) == activity;
    bool searched = seen && span_cold(span);
    if (!seen && piece->look->kind != LOOK_ALL) {
        span->looked = activity;
        piece->look->fresh_count++;
        return false;
    }
    span->looked = activity | 1;
    if (!searched && hole_possible(piece->heap, span)) {
        hole_make(piece->heap, span);
        piece_tick(piece, CLOCK_SPANS);
    }
    // Also those found in another cache, whose thread has ended.
    if (span->resident != 0 && piece->cache != NULL) {
        piece->cache->candidates = true;
    }
    if (piece->look->kind == LOOK_ALL) {
        piece->look->pinned_bytes += span_pinned_bytes(piece->heap, span);
    }
    return load_relaxed(&span->holes) != 0;
}

// --- caches ---

// A PARTIAL, EMPTY or HOLEY span, which is on no list now. True if it stays, and is to be listed.
static void cache_span_look(struct piece *piece, struct span *span)
{
    struct cache *cache = piece->cache;
    struct look *look = piece->look;
    bool was_holey = span_state(span) == SPAN_HOLEY;
    cache_unlist(cache, span);
    remote_collect(span);
    if (span_used(span) == 0) {
        bool cold = (span->looked & ~UINT32_C(1)) == span_activity(span);
        if (cache->place.idle || cold || load_relaxed(&span->holes) != 0) {
            look->flushed_pages += span->page_count;
            cache_disown(cache, span);
            span_delete(piece->heap, span);
        } else {
            span->looked = span_activity(span);
            store_relaxed(&span->tag, span_tag(cache, span));
            span_set_state(span, SPAN_EMPTY);
            cache->empty_pages += span->page_count;
            span_list_append(&cache->partial[span->size_class], span);
        }
        return;
    }
    bool holey = span_search(piece, span);
    store_relaxed(&span->tag, span_tag(cache, span));
    if (holey) {
        span_set_state(span, SPAN_HOLEY);
        // New holes come first: they are still resident.
        if (!was_holey) {
            span_list_push(&cache->holey[span->size_class], span);
        } else {
            span_list_append(&cache->holey[span->size_class], span);
        }
    } else {
        span_list_append(&cache->partial[span->size_class], span);
    }
}

static void current_look(struct piece *piece, unsigned size_class)
{
    struct cache *cache = piece->cache;
    struct span *span = cache->current[size_class];
    if (span == &span_empty) {
        return;
    }
    if (piece->look->kind == LOOK_GIVE) {
        span_give(piece, span);
        return;
    }
    remote_collect(span);
    if (span_used(span) != 0) {
        span_search(piece, span);
        store_relaxed(&span->tag, span_tag(cache, span));
    } else if (cache->place.idle) {
        piece->look->flushed_pages += span->page_count;
        span->used--;
        span_set_state(span, SPAN_PARTIAL);
        cache_set_current(cache, size_class, &span_empty);
        cache_disown(cache, span);
        span_delete(piece->heap, span);
    }
}

// The two lists of a class, one after the other; the place says where. True when both are done.
static bool list_look(struct piece *piece, struct span_list *list, struct look_place *place)
{
    while (place->left != 0 && list->head != NULL) {
        struct span *span = list->head;
        bool end = span == place->last;
        place->left--;
        if (piece->look->kind == LOOK_GIVE) {
            span_list_remove(list, span);
            span_list_append(list, span);
            span_give(piece, span);
        } else {
            cache_span_look(piece, span);
        }
        if (end) {
            break;
        }
        piece_tick(piece, 1);
        if (piece->full) {
            return place->left == 0;
        }
    }
    return true;
}

// Classes have two steps each: 2 * class is the partial list, the next one the holey list.
static bool cache_lists_look(struct piece *piece)
{
    struct cache *cache = piece->cache;
    struct look_place *place = &cache->place;
    for (; place->size_class < 2 * SIZECLASS_COUNT; place->size_class++) {
        unsigned size_class = place->size_class / 2;
        bool holey = place->size_class % 2 != 0;
        struct span_list *list = holey ? &cache->holey[size_class] : &cache->partial[size_class];
        if (place->left == 0) {
            if (!holey) {
                current_look(piece, size_class);
            }
            if (piece->look->kind == LOOK_GIVE && !holey) {
                continue;
            }
            place->left = cache->span_count[size_class];
            place->last = list->tail;
        }
        if (!list_look(piece, list, place)) {
            return false;
        }
        place->left = 0;
    }
    return true;
}

// LOOK_REST and LOOK_ALL come to a cache. What others have freed arrives first.
static void cache_look_begin(struct piece *piece)
{
    struct cache *cache = piece->cache;
    // Before any remote list is read, so that a later free is heard anew. Pairs with the store in
    // remote_push, which comes after its push.
    (void)swap_seq(&cache->heard, 0);
    if (cache->place.idle) {
        gather_flush(piece->heap, cache);
        piece->look->flushed_pages += runs_flush(piece->heap, cache);
    }
    pending_drain(piece->heap, cache);
}

static bool cache_is_idle(const struct look *look, const struct cache *cache, uint32_t ticks)
{
    // Frees of others that its owner has not collected are a reason whatever the owner does.
    return look->kind == LOOK_ALL || ticks - cache->ticks_seen < IDLE_TICKS ||
           load_relaxed(&cache->pending) != NULL;
}

// A piece of work in a claimed cache. True when the look is through with it.
static bool cache_look(struct piece *piece)
{
    struct cache *cache = piece->cache;
    struct look *look = piece->look;
    bool give = look->kind == LOOK_GIVE;
    if (cache->place.look_id != look->id) {
        // What the owner did up to here is what this look knows of, however many pieces it takes:
        // the first one changes the very things by which a cache counts as idle.
        uint32_t ticks = load_relaxed(&cache->ticks);
        bool idle = cache_is_idle(look, cache, ticks);
        cache->place = (struct look_place){.look_id = look->id,
                                           .size_class = 2 /* class 1 */,
                                           .ticks = ticks,
                                           .idle = idle,
                                           .fresh = !idle};
        if (!give) {
            cache_look_begin(piece);
        }
    }
    uint32_t fresh_before = look->fresh_count;
    uint64_t refused_before = look->refused_bytes;
    bool done = cache_lists_look(piece);
    batch_give(piece);
    if (look->fresh_count != fresh_before) {
        cache->place.fresh = true;
    }
    if (!give) {
        cache->clean = done && !cache->place.fresh; // a look that is cut was none
    } else if (done && look->refused_bytes == refused_before) {
        cache->candidates = false;
    }
    return done;
}

// A cache that the look need not go into.
static bool cache_skip(const struct look *look, struct cache *cache)
{
    if (load_relaxed(&cache->state) != CACHE_LIVE || load_relaxed(&cache->claimed) != 0) {
        return true;
    }
    if (look->kind == LOOK_GIVE) {
        return !cache->candidates;
    }
    return look->kind == LOOK_REST && cache->place.look_id != look->id && cache->clean &&
           load_relaxed(&cache->ticks) == cache->ticks_seen &&
           load_relaxed(&cache->pending) == NULL && load_relaxed(&cache->heard) == 0;
}

// Under WORLD: a piece in the cache the look has come to. True when the look is through with it.
static bool cache_step(struct heap *heap, struct look *look)
{
    struct cache *cache = look->cache;
    if (cache_skip(look, cache)) {
        return true;
    }
    struct piece piece = {.heap = heap, .look = look, .cache = cache};
    uint64_t began_ns = clock_now_ns(); // from the mark on the owner may have to wait
    claim_mark(cache);
    barrier_others();
    piece.until_ns = clock_now_ns() + STEP_NS; // of work: the barrier may take as long
    bool done = true;
    if (claim_wait(cache)) {
        done = cache_look(&piece);
        if (done && look->kind == LOOK_REST) {
            cache->ticks_seen = cache->place.ticks;
        }
    } else {
        cache->clean = false;
        look->skipped_count++;
        look->held_bytes += (uint64_t)(cache->span_pages + cache->run_pages) << PAGE_SHIFT;
    }
    claim_end(cache);
    look->pause_ns_max = max_u64(look->pause_ns_max, clock_now_ns() - began_ns);
    return done;
}

// --- central ---

static bool central_look_locked(struct piece *piece, struct central *central, struct span **emptied)
{
    struct look_place *place = &central->place;
    lock_assert_held(&central->lock);
    if (place->look_id != piece->look->id) {
        place->look_id = piece->look->id;
        place->left = load_relaxed(&central->count);
        place->last = central->partial.tail;
    }
    while (place->left != 0 && central->partial.head != NULL) {
        struct span *span = central->partial.head;
        bool end = span == place->last;
        place->left--;
        if (!central_settle(central, span)) {
            span->next = *emptied;
            *emptied = span;
        } else {
            span_list_remove(&central->partial, span);
            if (piece->look->kind == LOOK_GIVE) {
                span_give(piece, span);
            } else {
                span_search(piece, span);
            }
            span_list_append(&central->partial, span);
        }
        piece_tick(piece, 1);
        if (end) {
            break;
        }
        if (piece->full) {
            return place->left == 0;
        }
    }
    return true;
}

// A piece in one class of central. Under WORLD: a freeze must not see spans that are on no list and
// not yet the page heap's.
static bool central_step(struct heap *heap, struct look *look)
{
    struct central *central = &heap->central[look->size_class];
    struct span *emptied = NULL;
    if (load_relaxed(&central->count) == 0) {
        return true;
    }
    struct piece piece = {.heap = heap, .look = look, .until_ns = clock_now_ns() + STEP_NS};
    lock_acquire(&central->lock);
    bool done = central_look_locked(&piece, central, &emptied);
    batch_give(&piece);
    lock_release(&central->lock);
    while (emptied != NULL) {
        struct span *next = emptied->next;
        look->flushed_pages += emptied->page_count;
        span_delete(heap, emptied);
        emptied = next;
    }
    return done;
}

// --- the look ---

void look_begin(struct heap *heap, struct look *look, enum look_kind kind)
{
    *look = (struct look){.kind = kind, .want_bytes = UINT64_MAX, .size_class = 1};
    barrier_prepare();
    lock_acquire(&heap->world);
    look->id = ++heap->look_count;
    lock_release(&heap->world);
    look->cache = heap_first_cache(heap);
}

bool look_step(struct heap *heap, struct look *look)
{
    if (look->kind == LOOK_GIVE &&
        (look->given_bytes >= look->want_bytes || look->refused_bytes != 0)) {
        return false; // enough; or memory is locked, and the rest would be refused too
    }
    if (look->cache == NULL && look->size_class == SIZECLASS_COUNT) {
        return false;
    }
    lock_acquire(&heap->world);
    if (look->cache == NULL) {
        look->size_class += central_step(heap, look);
    } else if (cache_step(heap, look)) {
        look->cache = look->cache->all_next;
    }
    lock_release(&heap->world);
    return true;
}

size_t world_flush(struct heap *heap, struct look *look)
{
    struct look own;
    size_t pages = 0;
    for (int round = 0; round < 2; round++) {
        look_begin(heap, &own, LOOK_ALL);
        while (look_step(heap, &own)) {
        }
        pages += own.flushed_pages;
    }
    if (look != NULL) {
        *look = own;
    }
    return pages;
}
