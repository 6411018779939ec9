// SPDX-License-Identifier: MIT
//
// Spans: making, threading and deleting them, and the lists they are on.
//
// Go  1.16 mheap.go mSpanList, mcentral.go grow.
#include "span/span_int.h"

// How many bytes of blocks are threaded at a time: the rest of the span stays untouched memory.
// More in the spans of a populous class of large blocks, where each call would thread but a few.
#define EXTEND_BYTES ((size_t)4096)
#define EXTEND_FULL_BYTES ((size_t)16384)

// A class takes full-size spans once it owns this many; before, spans of few blocks.
#define FIRST_SPANS 4

void span_list_push(struct span_list *list, struct span *span)
{
    span->prev = NULL;
    span->next = list->head;
    if (list->head != NULL) {
        list->head->prev = span;
    } else {
        list->tail = span;
    }
    list->head = span;
}

void span_list_append(struct span_list *list, struct span *span)
{
    span->next = NULL;
    span->prev = list->tail;
    if (list->tail != NULL) {
        list->tail->next = span;
    } else {
        list->head = span;
    }
    list->tail = span;
}

void span_list_remove(struct span_list *list, struct span *span)
{
    if (span->prev != NULL) {
        span->prev->next = span->next;
    } else {
        list->head = span->next;
    }
    if (span->next != NULL) {
        span->next->prev = span->prev;
    } else {
        list->tail = span->prev;
    }
    span->next = NULL;
    span->prev = NULL;
}

struct span *span_new(struct heap *heap, struct cache *cache, unsigned size_class)
{
    const struct sizeclass *sc = &sizeclass_table[size_class];
    size_t pages = cache->span_count[size_class] < FIRST_SPANS ? sc->first_pages : sc->full_pages;
    struct span *span = pageheap_alloc(heap->pages, pages, 1, PAGEHEAP_SMALL);
    if (span == NULL && pages != sc->first_pages) {
        pages = sc->first_pages;
        span = pageheap_alloc(heap->pages, pages, 1, PAGEHEAP_SMALL);
    }
    if (span == NULL) {
        return NULL;
    }
    span->size_class = (uint8_t)size_class;
    span->block_bytes = sc->block_bytes;
    span->magic = sc->magic;
    span->magic_limit = sc->magic;
    span->capacity = (uint16_t)((pages << PAGE_SHIFT) / sc->block_bytes);
    sample_redraw(heap, cache, span);
    store_relaxed(&span->owner, cache);
    store_relaxed(&span->tag, span_tag(cache, span));
    store_release(&span->state, SPAN_PARTIAL); // after owner: pairs with central_collect
    return span;
}

void span_delete(struct heap *heap, struct span *span)
{
    ASSERT(span_used(span) == 0, "span: deleted with blocks in use");
    struct central *central = &heap->central[span->size_class];
    add_relaxed(&central->alloc_count, span_allocs(span));
    store_release(&span->state, SPAN_NONE); // before owner is wiped: pairs with central_collect
    uint64_t hole_bytes = 0;
    uint32_t released_mask = hole_forget(heap, span, &hole_bytes);
    pageheap_free_holed(heap->pages, span, released_mask, hole_bytes);
}

bool span_extend(struct heap *heap, struct span *span)
{
    uint32_t left = (uint32_t)span->capacity - span->threaded;
    if (left == 0) {
        return false;
    }
    size_t block_bytes = span->block_bytes;
    bool full_size =
        block_bytes > 512 && span->page_count >= sizeclass_table[span->size_class].full_pages;
    uint32_t count = (uint32_t)((full_size ? EXTEND_FULL_BYTES : EXTEND_BYTES) / block_bytes);
    count = count == 0 ? 1 : count < left ? count : left;
    if (unlikely(load_relaxed(&span->holes) != 0) && !hole_open_for(heap, span, count)) {
        return false;
    }
    char *pos = (char *)span->base + (size_t)span->threaded * block_bytes;
    struct block *first = (struct block *)(void *)pos;
    struct block *block = first;
    for (uint32_t i = 0; i < count; i++) {
        block = (struct block *)(void *)pos;
        pos += block_bytes;
        block->next = (struct block *)(void *)pos;
        block->key = heap->secret ^ (uintptr_t)block;
        if (unlikely(heap->hardened)) {
            harden_poison(block, block_bytes);
        }
    }
    block->next = span->free;
    span->free = first;
    span->threaded = (uint16_t)(span->threaded + count);
    return true;
}
