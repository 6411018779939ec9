// SPDX-License-Identifier: MIT
//
// Large blocks: a span each, straight from the page heap; those up to 256 KiB rest in the page
// cache of the thread that freed them, so that the page-heap lock is not asked every time.
//
// Go  1.16 mcache.go allocLarge; mpagecache.go.
#include "span/span_int.h"

// What one thread's page cache may hold.
#define RUNS_MAX_PAGES ((size_t)128)

static size_t pages_for(size_t bytes)
{
    return (bytes >> PAGE_SHIFT) + ((bytes & (PAGE_BYTES - 1)) != 0);
}

static struct span *runs_take(struct cache *cache, size_t pages)
{
    if (pages > PAGECACHE_PAGES) {
        return NULL;
    }
    struct span *span = cache->runs[pages];
    if (span == NULL) {
        return NULL;
    }
    cache->runs[pages] = span->next;
    cache->run_pages -= pages;
    span->next = NULL;
    span->zero = 0;
    return span;
}

struct span *large_alloc_owned(struct heap *heap, struct cache *cache, size_t bytes, size_t align)
{
    store_relaxed(&cache->ticks, load_relaxed(&cache->ticks) + 1);
    size_t pages = pages_for(bytes);
    pages += pages == 0;
    size_t align_pages = align > PAGE_BYTES ? align >> PAGE_SHIFT : 1;
    struct span *span = align_pages == 1 ? runs_take(cache, pages) : NULL;
    if (span == NULL) {
        span = pageheap_alloc(heap->pages, pages, align_pages, PAGEHEAP_LARGE);
    }
    if (span == NULL) {
        return NULL;
    }
    span_set_state(span, SPAN_LARGE);
    cache->large_alloc_count++;
    cache->large_alloc_bytes += (uint64_t)span->page_count << PAGE_SHIFT;
    return span;
}

void large_free_owned(struct heap *heap, struct cache *cache, struct span *span)
{
    store_relaxed(&cache->ticks, load_relaxed(&cache->ticks) + 1);
    size_t pages = span->page_count;
    cache->large_free_count++;
    cache->large_free_bytes += (uint64_t)pages << PAGE_SHIFT;
    if (unlikely(span->free != NULL)) {
        sample_large_free(heap, cache, span);
    }
    span_set_state(span, SPAN_CACHED);
    if (pages <= PAGECACHE_PAGES && cache->run_pages + pages <= RUNS_MAX_PAGES) {
        span->next = cache->runs[pages];
        cache->runs[pages] = span;
        cache->run_pages += pages;
        return;
    }
    pageheap_free(heap->pages, span);
}

// A block keeps its pages while at least half of them are wanted; growing takes the pages behind.
bool large_resize_owned(struct heap *heap, struct cache *cache, struct span *span, size_t bytes)
{
    size_t pages = pages_for(bytes);
    size_t have = span->page_count;
    if (pages > have) {
        if (!pageheap_extend(heap->pages, span, pages)) {
            return false;
        }
        cache->large_alloc_bytes += (uint64_t)(pages - have) << PAGE_SHIFT;
    } else if (pages < have) {
        pageheap_shrink(heap->pages, span, pages);
        cache->large_free_bytes += (uint64_t)(have - pages) << PAGE_SHIFT;
    }
    return true;
}

size_t runs_flush(struct heap *heap, struct cache *cache)
{
    size_t pages = cache->run_pages;
    for (size_t i = 1; i <= PAGECACHE_PAGES; i++) {
        struct span *span = cache->runs[i];
        while (span != NULL) {
            struct span *next = span->next;
            pageheap_free(heap->pages, span);
            span = next;
        }
        cache->runs[i] = NULL;
    }
    cache->run_pages = 0;
    return pages;
}
