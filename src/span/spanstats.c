// SPDX-License-Identifier: MIT
//
// Statistics and verification of spans and caches, by walking a frozen heap.
//
// Go  1.16 mstats.go readmemstats_m.
#include <string.h>

#include "span/span_int.h"

static void visit_stats(struct span *span, void *arg)
{
    struct heap_stats *out = arg;
    if (span->size_class == 0) {
        if (span_state(span) == SPAN_LARGE) {
            out->large_used_pages += span->page_count;
        } else {
            out->cached_pages += span->page_count;
        }
        return;
    }
    uint64_t live = span_used(span) - remote_count(load_relaxed(&span->remote));
    out->alloc_count[span->size_class] += span_allocs(span);
    out->live_count[span->size_class] += live;
    out->span_pages += span->page_count;
    uint64_t given_bytes = hole_bytes_given(&heap_main, span);
    out->hole_bytes += given_bytes;
    out->candidate_bytes += hole_bytes_resident(&heap_main, span);
    if (live == 0) {
        out->empty_bytes += ((uint64_t)span->page_count << PAGE_SHIFT) - given_bytes;
    }
}

void heap_stats_read(struct heap *heap, struct heap_stats *out)
{
    memset(out, 0, sizeof(*out));
    uint64_t large_free_count = 0;
    uint64_t large_free_bytes = 0;
    for (struct cache *c = heap_first_cache(heap); c != NULL; c = c->all_next) {
        if (c->midway) {
            out->skipped++;
            continue;
        }
        gather_flush(heap, c);
        pending_drain(heap, c);
        out->cache_count += load_relaxed(&c->state) == CACHE_LIVE;
        out->alloc_count[0] += c->large_alloc_count;
        out->large_alloc_bytes += c->large_alloc_bytes;
        large_free_count += c->large_free_count;
        large_free_bytes += c->large_free_bytes;
    }
    out->live_count[0] = out->alloc_count[0] - large_free_count;
    out->large_live_bytes = out->large_alloc_bytes - large_free_bytes;
    for (unsigned i = 1; i < SIZECLASS_COUNT; i++) {
        out->alloc_count[i] = load_relaxed(&heap->central[i].alloc_count);
    }
    pageheap_walk(heap->pages, visit_stats, out);
    for (unsigned i = 1; i < SIZECLASS_COUNT; i++) {
        out->alloc_count[i] -= load_relaxed(&heap->central[i].extra_allocs);
        out->live_count[i] -= load_relaxed(&heap->central[i].extra_live);
    }
}

void span_free_read(const struct span *span, uint64_t *free_bytes, uint64_t *used)
{
    *free_bytes = 0;
    *used = 1;
    if (span->size_class != 0) {
        *used = span_used(span) - remote_count(load_relaxed(&span->remote));
        // Blocks that were never threaded hold no memory yet.
        uint64_t bytes = (span->threaded - *used) * span->block_bytes;
        *free_bytes = bytes - min_u64(bytes, hole_bytes_given(&heap_main, span));
    }
}

struct verify {
    struct heap *heap;
    const char *wrong;
    uint64_t large_pages;
};

static size_t list_length(const struct block *block, size_t bound)
{
    size_t count = 0;
    for (; block != NULL && count <= bound; block = block->next) {
        count++;
    }
    return count;
}

static const char *verify_blocks(const struct heap *heap, const struct span *span)
{
    size_t threaded = span->threaded;
    if (threaded > span->capacity) {
        return "span: more blocks threaded than there are";
    }
    uint64_t word = load_relaxed(&span->remote);
    const struct block *remote = (const struct block *)(uintptr_t)(word & REMOTE_ADDR_MASK);
    if (list_length(remote, threaded) != remote_count(word)) {
        return "span: remote list and its count differ";
    }
    uint32_t holed = hole_blocks(heap, span);
    if (list_length(span->free, threaded) + span_used(span) + holed != threaded) {
        return "span: blocks in use and free blocks are not the blocks threaded";
    }
    if (remote_count(word) > span_used(span)) {
        return "span: more remote frees than blocks in use";
    }
    const struct block *lists[] = {span->free, remote};
    for (size_t i = 0; i < ARRAY_COUNT(lists); i++) {
        for (const struct block *block = lists[i]; block != NULL; block = block->next) {
            if (!span_holds_block(span, block)) {
                return "span: a free list leaves the span";
            }
            if (block->key != (heap->secret ^ (uintptr_t)block)) {
                return "span: a free block was written to";
            }
        }
    }
    return hole_verify(heap, span);
}

static const char *verify_span(const struct heap *heap, const struct span *span)
{
    const struct sizeclass *sc = &sizeclass_table[span->size_class];
    if (span->block_bytes != sc->block_bytes || span->magic != sc->magic ||
        (size_t)span->capacity * sc->block_bytes > (size_t)span->page_count << PAGE_SHIFT) {
        return "span: does not fit its size class";
    }
    const struct cache *owner = load_relaxed(&span->owner);
    enum span_state state = span_state(span);
    uint32_t tag = load_relaxed(&span->tag);
    if (state != SPAN_CURRENT && state != SPAN_PARTIAL && state != SPAN_EMPTY &&
        state != SPAN_HOLEY && state != SPAN_FULL) {
        return "span: in no state";
    }
    if (load_relaxed(&span->holes) != 0 && (state == SPAN_FULL || state == SPAN_EMPTY)) {
        return "span: full or empty, and has holes";
    }
    uint32_t unowned = state == SPAN_FULL ? TAG_NONE : TAG_CENTRAL | span->size_class;
    if (tag != (owner == NULL ? unowned : state == SPAN_FULL ? TAG_NONE : span_tag(owner, span))) {
        return "span: tag does not fit owner and state";
    }
    if (state == SPAN_CURRENT && (owner == NULL || owner->current[span->size_class] != span)) {
        return "span: current, but not of its owner";
    }
    if ((load_relaxed(&span->remote) & REMOTE_FULL) != 0 && state != SPAN_FULL) {
        return "span: flag FULL without the state";
    }
    return verify_blocks(heap, span);
}

static void visit_verify(struct span *span, void *arg)
{
    struct verify *verify = arg;
    if (verify->wrong != NULL) {
        return;
    }
    if (span->size_class != 0) {
        verify->wrong = verify_span(verify->heap, span);
    } else if (span_state(span) == SPAN_LARGE && span->alloc_end == 0) {
        verify->large_pages += span->page_count;
    }
}

static const char *verify_lists(const struct cache *cache)
{
    size_t empty_pages = 0;
    size_t span_pages = 0;
    for (unsigned size_class = 1; size_class < SIZECLASS_COUNT; size_class++) {
        const struct span *current = cache->current[size_class];
        span_pages += current != &span_empty ? current->page_count : 0;
        size_t count = cache->current[size_class] != &span_empty;
        for (const struct span *s = cache->partial[size_class].head; s != NULL; s = s->next) {
            bool empty = span_state(s) == SPAN_EMPTY;
            if (s->size_class != size_class || (span_state(s) != SPAN_PARTIAL && !empty) ||
                (empty && span_used(s) != 0) || load_relaxed(&s->owner) != cache) {
                return "cache: a span is on the wrong partial list";
            }
            span_pages += s->page_count;
            empty_pages += empty ? s->page_count : 0;
            count++;
        }
        for (const struct span *s = cache->holey[size_class].head; s != NULL; s = s->next) {
            if (s->size_class != size_class || span_state(s) != SPAN_HOLEY ||
                load_relaxed(&s->holes) == 0 || load_relaxed(&s->owner) != cache) {
                return "cache: a span is on the wrong holey list";
            }
            span_pages += s->page_count;
            count++;
        }
        for (const struct span *s = cache->full.head; s != NULL; s = s->next) {
            if (span_state(s) != SPAN_FULL || load_relaxed(&s->owner) != cache) {
                return "cache: a span is on the full list that is not full";
            }
            count += s->size_class == size_class;
            span_pages += s->size_class == size_class ? s->page_count : 0;
        }
        if (count != cache->span_count[size_class]) {
            return "cache: spans of a class are miscounted";
        }
    }
    if (empty_pages != cache->empty_pages || span_pages != cache->span_pages) {
        return "cache: pages of spans, or of empty ones, are miscounted";
    }
    size_t pages = 0;
    for (size_t i = 1; i <= PAGECACHE_PAGES; i++) {
        for (const struct span *s = cache->runs[i]; s != NULL; s = s->next) {
            if (s->page_count != i || span_state(s) != SPAN_CACHED) {
                return "cache: a run of the page cache is not one";
            }
            pages += i;
        }
    }
    return pages == cache->run_pages ? NULL : "cache: pages of the page cache are miscounted";
}

static void visit_sample(void *arg, const struct heap_sample *sample)
{
    struct verify *verify = arg;
    const struct span *span = span_of(verify->heap->pages, (void *)sample->addr);
    if (span == NULL || span->page_count == 0) {
        verify->wrong = "profile: a sampled block lies nowhere";
    } else if (span->size_class == 0) {
        bool extra = sample->addr != sample->place;
        if (span_state(span) != SPAN_LARGE || span->base != sample->addr || span->free == NULL ||
            (span->alloc_end != 0) != extra) {
            verify->wrong = "profile: a large block is marked wrongly";
        }
        if (!extra) {
            return;
        }
    } else if (span_holds_block(span, (void *)sample->addr)) {
        verify->wrong = "profile: a sampled block looks like others";
    }
    const struct span *place = span_of(verify->heap->pages, (void *)sample->place);
    if (place == NULL || place->size_class == 0 ||
        !span_holds_block(place, (void *)sample->place)) {
        verify->wrong = "profile: the place of a sampled block is no block";
    }
}

const char *span_verify_all(struct heap *heap)
{
    struct verify verify = {.heap = heap};
    struct heap_stats stats;
    heap_stats_read(heap, &stats); // also moves gathered and pending blocks to their spans
    if (stats.skipped != 0) {
        return NULL; // a thread was caught midway: what it holds fits nothing
    }
    pageheap_walk(heap->pages, visit_verify, &verify);
    if (verify.wrong != NULL) {
        return verify.wrong;
    }
    if (stats.hole_bytes != load_relaxed(&heap->pages->hole_bytes) ||
        stats.candidate_bytes != load_relaxed(&heap->candidate_bytes)) {
        return "span: bytes in holes are miscounted";
    }
    if (stats.large_live_bytes != verify.large_pages << PAGE_SHIFT) {
        return "span: large bytes differ from the large spans";
    }
    for (struct cache *c = heap_first_cache(heap); c != NULL; c = c->all_next) {
        const char *wrong = verify_lists(c);
        if (wrong != NULL) {
            return wrong;
        }
    }
    heap_sample_each(visit_sample, &verify);
    return verify.wrong != NULL ? verify.wrong : heap_sample_verify();
}
