// SPDX-License-Identifier: MIT
//
// Remote frees: blocks that come back from threads that do not own their span.
//
// Model
//   span->remote packs the address of a chain of blocks, their count, and the flag FULL. The flag
//   says: this span is on no list that its owner looks at, so whoever frees into it must say so.
//   The thread whose push clears the flag is the one notifier: it puts the span on its owner's
//   pending stack. Until the owner has taken it from there (or central has been told) the span
//   stays FULL, so there is never more than one notification under way for a span, and its link is
//   not shared. If the owner ends meanwhile, its spans have gone to central (owner NULL); whoever
//   drains its stack passes the notification on to where the span is then.
//
//   operation          who                         may run together with
//   remote_push        any thread in its bracket   everything
//   remote_collect     the owner (X)               remote_push
//   remote_mark_full   the owner (X)               remote_push
//   remote_clear_full  the owner (X)               remote_push
//   pending push       the one notifier            pending push of other spans, drain
//   pending_drain      the owner; anybody if the cache is dead
//   (X: needs outside exclusion: the owner's bracket, a claim, or the CENTRAL lock if owner is
//   NULL)
//
//   Ordering: a block's contents as the freeing thread left them are seen by the collector (release
//   by the push, acquire by the collect). Progress: all loops are lock-free.
//
// Locking
//   None here; telling central takes its lock (inside the bracket: CENTRAL is never held by
//   somebody who waits for a bracket).
//
// Why this way
//   Blocks are gathered by span and pushed as a chain: one compare-and-swap per block costs 1.4 to
//   1.7 times as much in producer-consumer programs. The count in the word lets the owner
//   take a chain without walking it.
//
// Go       none: Go frees by sweeping. Notification after mimalloc's thread_delayed_free, with the
//          span instead of the block as the message.
// Tests    test/race/heap_race.c  test/model/malloc_model.c
#include "span/span_int.h"

// remote_collect moves the chain to the free list. True if the span has free blocks then.
bool remote_collect(struct span *span)
{
    if (load_relaxed(&span->remote) == 0) {
        return span->free != NULL;
    }
    // Pairs with cas_release in remote_push. The flag is clear: the span is not FULL, or its one
    // notification has arrived.
    uint64_t word = swap_acquire(&span->remote, 0);
    struct block *head = (struct block *)(uintptr_t)(word & REMOTE_ADDR_MASK);
    if (head == NULL) {
        return span->free != NULL;
    }
    if (span->free != NULL) {
        struct block *tail = head;
        while (tail->next != NULL) {
            tail = tail->next;
        }
        tail->next = span->free;
    }
    span->free = head;
    span->used -= (uint32_t)remote_count(word);
    return true;
}

// remote_mark_full says that the owner will not look at the span until told. False if there are
// remote frees already.
bool remote_mark_full(struct span *span)
{
    uint64_t expected = 0;
    return cas_release(&span->remote, &expected, REMOTE_FULL); // pairs with the swap of a push
}

// remote_clear_full takes the duty to notify back. False if a notifier is under way.
bool remote_clear_full(struct span *span)
{
    uint64_t expected = REMOTE_FULL;
    return cas_acquire(&span->remote, &expected, 0); // pairs with cas_release in remote_push
}

static void remote_notify(struct heap *heap, struct span *span)
{
    for (;;) {
        // Pairs with store_release in central_put, or nothing: a stale owner is caught below.
        struct cache *owner = load_acquire(&span->owner);
        if (owner == NULL) {
            central_notify(heap, span);
            return;
        }
        void *top = load_relaxed(&owner->pending);
        do {
            span->pending_next = top;
        } while (!cas_seq(&owner->pending, &top, (void *)span));
        // Either the ending owner sees our span when it drains after saying DEAD, or we see DEAD
        // (pairs with store_seq in cache_exit). Then the stack is drained here and passed on.
        if (load_seq(&owner->state) != CACHE_DEAD) {
            return;
        }
        struct span *taken = swap_seq(&owner->pending, NULL);
        if (taken == NULL) {
            return; // somebody else drains it
        }
        while (taken->pending_next != NULL) {
            struct span *next = taken->pending_next;
            remote_notify(heap, taken);
            taken = next;
        }
        span = taken;
    }
}

void remote_push(struct heap *heap, struct span *span, struct block *head, struct block *tail,
                 uint32_t count)
{
    unsigned size_class = span->size_class;
    uint64_t old = load_relaxed(&span->remote);
    uint64_t word;
    do {
        tail->next = (struct block *)(uintptr_t)(old & REMOTE_ADDR_MASK);
        word = (uint64_t)(uintptr_t)head | (remote_count(old) + count) << REMOTE_COUNT_SHIFT;
    } while (!cas_acq_rel(&span->remote, &old, word)); // pairs with swap_acquire in remote_collect
    if ((old & REMOTE_FULL) != 0) {
        remote_notify(heap, span);
        return;
    }
    struct cache *owner = load_relaxed(&span->owner);
    if (owner == NULL) {
        // Nobody looks at central's spans by itself. The record may be another span's by now, which
        // central_collect can tell.
        central_collect(heap, span, size_class);
    } else {
        // The owner may be asleep, and nothing else tells the next look. A stale owner: caches
        // never go, and one look too many is harmless.
        store_relaxed(&owner->heard, 1);
    }
}

void gather_push(struct heap *heap, struct cache *cache, struct gather *entry)
{
    uint32_t count = entry->limit - entry->room;
    uint64_t freed_bytes = (uint64_t)count * entry->span->block_bytes;
    remote_push(heap, entry->span, entry->head, entry->tail, count);
    entry->span = NULL;
    cache_count_freed(heap, cache, freed_bytes);
}

void gather_evict(struct heap *heap, struct cache *cache, struct gather *entry, struct span *span,
                  struct block *tail)
{
    if (entry->span != NULL) {
        gather_push(heap, cache, entry);
    }
    entry->span = span;
    entry->head = NULL;
    entry->tail = tail;
    uint32_t fitting = GATHER_BYTES / span->block_bytes;
    entry->limit = fitting < 1 ? 1 : fitting > GATHER_BLOCKS ? GATHER_BLOCKS : fitting;
    entry->room = entry->limit;
}

void gather_flush(struct heap *heap, struct cache *cache)
{
    for (size_t i = 0; i < GATHER_COUNT; i++) {
        if (cache->gather[i].span != NULL) {
            gather_push(heap, cache, &cache->gather[i]);
        }
    }
}

void pending_drain(struct heap *heap, struct cache *cache)
{
    struct span *span = swap_seq(&cache->pending, NULL); // pairs with cas_seq in remote_notify
    while (span != NULL) {
        struct span *next = span->pending_next;
        if (load_relaxed(&span->owner) == cache) {
            cache_full_to_partial(heap, cache, span);
        } else {
            remote_notify(heap, span);
        }
        span = next;
    }
}
