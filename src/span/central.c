// SPDX-License-Identifier: MIT
//
// Central: spans whose thread has ended, one list and one lock for each class. Caches adopt them
// before they ask the page heap.
//
// Go  1.16 mcentral.go cacheSpan, uncacheSpan.
#include "span/span_int.h"

// A span on the list has a tag that says so, and which list. It changes only under the lock of that
// class, so that who holds the lock can tell by one look whether a record is such a span.
static void link_locked(struct central *central, struct span *span)
{
    lock_assert_held(&central->lock);
    span_list_push(&central->partial, span);
    store_relaxed(&central->count, load_relaxed(&central->count) + 1);
    store_relaxed(&span->tag, TAG_CENTRAL | span->size_class);
}

static void unlink_locked(struct central *central, struct span *span)
{
    lock_assert_held(&central->lock);
    span_list_remove(&central->partial, span);
    store_relaxed(&central->count, load_relaxed(&central->count) - 1);
    store_relaxed(&span->tag, TAG_NONE);
}

struct span *central_get(struct heap *heap, struct cache *cache, unsigned size_class)
{
    struct central *central = &heap->central[size_class];
    if (load_relaxed(&central->count) == 0) {
        return NULL; // a hint: a span that comes this moment is found next time
    }
    lock_acquire(&central->lock);
    struct span *span = central->partial.head;
    if (span != NULL) {
        unlink_locked(central, span);
        store_release(&span->owner, cache); // pairs with load_acquire in remote_notify
        store_relaxed(&span->tag, span_tag(cache, span));
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
            unlink_locked(central, span);
        }
        span_set_state(span, SPAN_NONE); // off the list, before the lock goes
        return false;
    }
    if (!linked) {
        link_locked(central, span);
    }
    return true;
}

// central_put takes a span from an owner that gives it up: PARTIAL or FULL, on no list.
void central_put(struct heap *heap, struct span *span)
{
    struct central *central = &heap->central[span->size_class];
    lock_acquire(&central->lock);
    store_relaxed(&span->tag, TAG_NONE);
    // Sequential: either we see in settle_locked what was pushed, or the pusher sees that the span
    // is central's (remote_push).
    (void)swap_seq(&span->owner, NULL); // pairs with load_acquire in remote_notify
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
    if (load_relaxed(&span->tag) == (TAG_CENTRAL | size_class)) {
        keep = settle_locked(central, span, true);
    }
    lock_release(&central->lock);
    if (!keep) {
        span_delete(heap, span);
    }
}

bool central_settle(struct central *central, struct span *span)
{
    return settle_locked(central, span, true);
}
