// SPDX-License-Identifier: MIT
//
// Ledger, what a walk ends with: counts of each class put together with those of earlier walks, the
// fields of MemStats, and what must hold between them.
//
// Go  1.16 mstats.go readmemstats_m.
#include "ledger/ledger_int.h"

// A class of which no span was deleted meanwhile has the truth of some moment of this walk. So each
// class takes its counts from the calmest walk there was. The sampler's own blocks are slack.
static void classes_merge(struct walk *walk)
{
    struct ebb_memstats *stats = walk->stats;
    for (unsigned i = 0; i < SIZECLASS_COUNT; i++) {
        struct ebb_memstats_class *now = &stats->by_size[i];
        const struct central *central = &walk->heap.central[i];
        uint64_t gone = i == 0 ? 0 : central->alloc_count.v_;
        uint64_t extra = i == 0 ? 0 : min_u64(central->extra_allocs.v_, now->mallocs + gone);
        uint64_t extra_live = i == 0 ? 0 : min_u64(central->extra_live.v_, extra);
        now->bytes = sizeclass_table[i].block_bytes;
        if (walk->residency != NULL) {
            uint64_t bytes = min_u64(extra_live * now->bytes, walk->ledger->live);
            walk->ledger->live -= bytes;
            walk->ledger->slack += bytes;
        }
        now->mallocs += gone - extra;
        now->frees = min_u64(now->frees + gone - (extra - extra_live), now->mallocs);
        walk->raw_mallocs += now->mallocs;
        walk->raw_frees += now->frees;
        if (walk->moved[i] <= walk->best[i].moved) {
            walk->best[i].counts = *now;
            walk->best[i].moved = walk->moved[i];
        }
        *now = walk->best[i].counts;
        walk->extra->moved_count += walk->best[i].moved;
    }
}

static void fields_fill(struct walk *walk)
{
    struct ebb_memstats *stats = walk->stats;
    struct ledger_extra *extra = walk->extra;
    const struct meta *meta = &walk->heap.meta;
    stats->heap_alloc = stats->large_bytes;
    for (unsigned i = 0; i < SIZECLASS_COUNT; i++) {
        const struct ebb_memstats_class *by_size = &stats->by_size[i];
        stats->mallocs += by_size->mallocs;
        stats->frees += by_size->frees;
        stats->total_alloc += by_size->mallocs * by_size->bytes; // bytes of large ones: 0
        stats->heap_alloc += (by_size->mallocs - by_size->frees) * by_size->bytes;
    }
    stats->heap_objects = stats->mallocs - stats->frees;
    stats->heap_sys = walk->sys_pages << PAGE_SHIFT;
    stats->heap_inuse = walk->inuse_bytes;
    stats->heap_released = (walk->released_pages << PAGE_SHIFT) + extra->hole_bytes;
    stats->heap_holes = extra->hole_bytes;
    stats->heap_lazy = walk->lazy_pages << PAGE_SHIFT;
    uint64_t arena = meta->bytes[META_ARENA].v_;
    uint64_t cache = meta->bytes[META_CACHE].v_;
    uint64_t profile = meta->bytes[META_PROFILE].v_;
    uint64_t blocks = meta->reserved_bytes.v_ + meta->first_bytes;
    stats->mspan_sys = arena;
    stats->mspan_inuse = min_u64(stats->span_count * sizeof(struct span), arena);
    stats->mcache_sys = cache;
    stats->mcache_inuse = min_u64(stats->thread_count * sizeof(struct cache), cache);
    stats->buck_hash_sys = profile;
    stats->other_sys = blocks - min_u64(blocks, arena + cache + profile);
    extra->withdrawn_bytes = walk->withdrawn_pages << PAGE_SHIFT;
    extra->ops_count = walk->pages->stats.ops_count;
}

// Holds a torn reading to what must hold between its numbers: large blocks are counted by caches
// and placed by records, which are read at different moments. heap_sys is certain, and stays.
static void stats_settle(struct ebb_memstats *s, struct ledger_extra *extra)
{
    s->heap_alloc = min_u64(s->heap_alloc, s->heap_sys);
    s->heap_inuse = min_u64(max_u64(s->heap_inuse, s->heap_alloc), s->heap_sys);
    s->heap_idle = s->heap_sys - s->heap_inuse;
    s->heap_released = min_u64(s->heap_released, s->heap_idle);
    s->heap_holes = min_u64(s->heap_holes, s->heap_released);
    s->heap_lazy = min_u64(s->heap_lazy, s->heap_released);
    s->heap_cached = min_u64(s->heap_cached, s->heap_idle);
    s->alloc = s->heap_alloc;
    s->total_alloc = max_u64(s->total_alloc, s->alloc);
    s->sys = s->heap_sys + s->stack_sys + s->mspan_sys + s->mcache_sys + s->buck_hash_sys +
             s->gc_sys + s->other_sys;
    extra->retained_bytes = s->heap_sys - s->heap_released;
}

// How many allocations of each class went to central while we walked: with spans that were deleted,
// and are now missing, or counted and deleted after.
static void deleted_meanwhile(struct walk *walk)
{
    const struct heap *before = &walk->heap;
    struct central after[SIZECLASS_COUNT];
    uint64_t addr = walk->target->page.heap + offsetof(struct heap, central);
    if (walk_get(walk, after, addr, sizeof(after))) {
        for (unsigned i = 1; i < SIZECLASS_COUNT; i++) {
            walk->moved[i] = after[i].alloc_count.v_ - before->central[i].alloc_count.v_;
        }
    }
}

void walk_totals(struct walk *walk)
{
    deleted_meanwhile(walk);
    classes_merge(walk);
    walk->extra->moved_count += walk->midway_count + walk->midway_caches * walk->capacity_max;
    fields_fill(walk);
    stats_settle(walk->stats, walk->extra);
}
