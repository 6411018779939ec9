// SPDX-License-Identifier: MIT
//
// Central: spans whose thread has ended, one list and one lock for each class. Caches adopt them
// before they ask the page heap.
//
// Go  1.16 mcentral.go cacheSpan, uncacheSpan.
#include "span/span_int.h"

struct span *central_get(struct heap *heap, struct cache *cache, unsigned size_class)
{
    struct central *central = &heap->central[size_class];
    if (__atomic_load_n(&central->partial.head, __ATOMIC_RELAXED) == NULL) {
        return NULL; // a hint: a span that comes this moment is found next time
    }
    lock_acquire(&central->lock);
    struct span *span = central->partial.head;
    if (span != NULL) {
        span_list_remove(&central->partial, span);
        store_release(&span->owner, cache); // pairs with load_acquire in remote_notify
        store_relaxed(&span->tag, cache_span_tag(cache));
    }
    lock_release(&central->lock);
    if (span != NULL) {
        cache_adopt(cache, span);
    }
    return span;
}

// Under the lock: the span is central's, not FULL. Links it, or says that it is empty and unlinked.
static bool settle_locked(struct central *central, struct span *span, bool linked)
{
    lock_assert_held(&central->lock);
    remote_collect(span);
    if (span_used(span) == 0) {
        if (linked) {
            span_list_remove(&central->partial, span);
        }
        span_set_state(span, SPAN_NONE); // off the list, before the lock goes
        return false;
    }
    if (!linked) {
        span_list_push(&central->partial, span);
    }
    return true;
}

// central_put takes a span from an owner that gives it up: PARTIAL or FULL, on no list.
void central_put(struct heap *heap, struct span *span)
{
    struct central *central = &heap->central[span->size_class];
    lock_acquire(&central->lock);
    store_relaxed(&span->tag, TAG_NONE);
    store_release(&span->owner, NULL); // pairs with load_acquire in remote_notify
    // A FULL span stays off the list; its notifier, now or later, comes to central_notify.
    bool keep = span_state(span) == SPAN_FULL || settle_locked(central, span, false);
    lock_release(&central->lock);
    if (!keep) {
        span_delete(heap, span);
    }
}

// central_notify: a FULL span of central has remote frees; called by its one notifier.
void central_notify(struct heap *heap, struct span *span)
{
    struct central *central = &heap->central[span->size_class];
    lock_acquire(&central->lock);
    ASSERT(span_state(span) == SPAN_FULL, "central: notified of a span that is not full");
    span_set_state(span, SPAN_PARTIAL);
    bool keep = settle_locked(central, span, false);
    lock_release(&central->lock);
    if (!keep) {
        span_delete(heap, span);
    }
}

// central_collect takes remote frees of a span that was in central's list of the class a moment
// ago. The record may have changed hands since; under the lock it either is such a span or is left
// alone.
void central_collect(struct heap *heap, struct span *span, unsigned size_class)
{
    struct central *central = &heap->central[size_class];
    lock_acquire(&central->lock);
    bool keep = true;
    // A span that is being made has its owner before its state, one that is being deleted loses its
    // state before its owner: owner, state, owner again rules both out. Pairs with the
    // store_release of state in span_new and span_delete. What is central's changes only under this
    // lock.
    if (load_acquire(&span->owner) == NULL && load_acquire(&span->state) == SPAN_PARTIAL &&
        load_acquire(&span->owner) == NULL && span->size_class == size_class) {
        keep = settle_locked(central, span, true);
    }
    lock_release(&central->lock);
    if (!keep) {
        span_delete(heap, span);
    }
}

// central_flush deletes the empty spans of every class; returns pages.
size_t central_flush(struct heap *heap)
{
    size_t pages = 0;
    for (unsigned size_class = 1; size_class < SIZECLASS_COUNT; size_class++) {
        struct central *central = &heap->central[size_class];
        struct span *empty = NULL;
        lock_acquire(&central->lock);
        struct span *span = central->partial.head;
        while (span != NULL) {
            struct span *next = span->next;
            if (!settle_locked(central, span, true)) {
                span->next = empty;
                empty = span;
            }
            span = next;
        }
        lock_release(&central->lock);
        while (empty != NULL) {
            struct span *next = empty->next;
            pages += empty->page_count;
            span_delete(heap, empty);
            empty = next;
        }
    }
    return pages;
}
