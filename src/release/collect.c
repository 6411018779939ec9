// SPDX-License-Identifier: MIT
//
// Collecting MemStats: freeze, walk, thaw; each field from its own count.
//
// Go  1.16 mstats.go ReadMemStats.
#include <string.h>

#include "base/check.h"
#include "base/option.h"
#include "release/release.h"
#include "span/span.h"
#include "stats/stats.h"

static void fill_blocks(struct ebb_memstats *out, const struct heap_stats *heap)
{
    out->total_alloc = heap->large_alloc_bytes;
    out->alloc = heap->large_live_bytes;
    for (unsigned i = 0; i < SIZECLASS_COUNT; i++) {
        uint64_t bytes = sizeclass_table[i].block_bytes;
        out->by_size[i].bytes = (uint32_t)bytes;
        out->by_size[i].mallocs = heap->alloc_count[i];
        out->by_size[i].frees = heap->alloc_count[i] - heap->live_count[i];
        out->mallocs += heap->alloc_count[i];
        out->frees += out->by_size[i].frees;
        out->total_alloc += heap->alloc_count[i] * bytes;
        out->alloc += heap->live_count[i] * bytes;
    }
    out->heap_alloc = out->alloc;
    out->heap_objects = out->mallocs - out->frees;
    out->large_count = heap->live_count[0];
    out->large_bytes = heap->large_live_bytes;
    out->thread_count = heap->cache_count;
    out->skipped_count = heap->skipped;
}

static void fill_pages(struct ebb_memstats *out, const struct pageheap_stats *pages,
                       const struct heap_stats *heap)
{
    // Spans without a live block and cached runs are idle by Go's definition, though no span is
    // free.
    uint64_t inuse_pages = pages->used_pages - heap->cached_pages;
    out->heap_sys = pages->sys_pages << PAGE_SHIFT;
    // A hole is idle and released, though its span is in use.
    out->heap_inuse = (inuse_pages << PAGE_SHIFT) - heap->empty_bytes - heap->hole_bytes;
    out->heap_idle = out->heap_sys - out->heap_inuse;
    out->heap_released = (pages->released_pages << PAGE_SHIFT) + heap->hole_bytes;
    out->heap_holes = heap->hole_bytes;
    out->heap_lazy = pages->lazy_pages << PAGE_SHIFT;
    out->heap_cached = heap->cached_pages << PAGE_SHIFT;
    out->heap_reinflated = min_u64(releaser_reinflated_bytes(), out->heap_released);
    out->span_count = pages->span_count;
}

static void fill_meta(struct ebb_memstats *out, const struct meta *meta,
                      const struct heap_stats *heap)
{
    uint64_t arena = load_relaxed(&meta->bytes[META_ARENA]);
    uint64_t cache = load_relaxed(&meta->bytes[META_CACHE]);
    uint64_t profile = load_relaxed(&meta->bytes[META_PROFILE]);
    out->mspan_sys = arena;
    out->mspan_inuse = out->span_count * sizeof(struct span);
    out->mcache_sys = cache;
    out->mcache_inuse = heap->cache_count * sizeof(struct cache);
    uint64_t blocks = load_relaxed(&meta->reserved_bytes) + meta->first_bytes;
    out->buck_hash_sys = profile;
    out->other_sys = blocks - arena - cache - profile;
    out->sys = out->heap_sys + out->stack_sys + out->mspan_sys + out->mcache_sys +
               out->buck_hash_sys + out->gc_sys + out->other_sys;
}

void memstats_read(struct ebb_memstats *out)
{
    struct heap *heap = &heap_main;
    struct heap_stats walked;
    struct pageheap_stats pages;
    memset(out, 0, sizeof(*out));
    out->size = sizeof(*out);
    world_freeze(heap);
    heap_stats_read(heap, &walked);
    pageheap_stats_read(heap->pages, &pages);
    world_thaw(heap);
    fill_blocks(out, &walked);
    fill_pages(out, &pages, &walked);
    fill_meta(out, &heap->meta, &walked);
    if (options_main.check >= 1 && out->skipped_count == 0) {
        const char *wrong = memstats_verify(out);
        if (wrong != NULL) {
            fatal(wrong);
        }
    }
}
