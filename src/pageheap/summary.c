// SPDX-License-Identifier: MIT
//
// Summaries: how many free pages at the start, in the longest run and at the end, for each chunk,
// arena and group of 64 arenas (4 GiB). A search reads one summary per group and then descends into
// the first that can hold the run.
//
// Go  1.16 mpagealloc.go find, update, mpallocbits.go summarize. Unlike Go: three levels and a
//     linear top, because the window has at most 4,096 groups and few are in use.
#include "pageheap/pageheap_int.h"

uint64_t summary_of_bits(const uint64_t *words)
{
    size_t start = 0;
    size_t longest = 0;
    size_t run = 0;
    bool seen_used = false;
    for (size_t w = 0; w < CHUNK_WORDS; w++) {
        uint64_t used = words[w];
        if (used == 0) {
            run += 64;
            continue;
        }
        // The run that reaches into this word ends at its lowest used page.
        run += bit_ctz(used);
        if (!seen_used) {
            start = run;
            seen_used = true;
        }
        longest = max_size(longest, run);
        // Runs inside the word: shrink every run of zeros by one until none is left. Only if all
        // its zeros together could make the longest.
        if (64 - bit_popcount(used) - bit_ctz(used) - bit_clz(used) <= longest) {
            run = bit_clz(used);
            continue;
        }
        uint64_t inner = ~used >> bit_ctz(used);
        inner &= (UINT64_C(1) << (63 - bit_clz(used) - bit_ctz(used))) - 1;
        size_t inside = 0;
        while (inner != 0) {
            inner &= inner << 1;
            inside++;
        }
        longest = max_size(longest, inside);
        run = bit_clz(used);
    }
    if (!seen_used) {
        return summary_pack(CHUNK_PAGES, CHUNK_PAGES, CHUNK_PAGES);
    }
    return summary_pack(start, max_size(longest, run), run);
}

uint64_t summary_merge(const uint64_t *summaries, size_t count, size_t span_pages)
{
    size_t start = 0;
    size_t longest = 0;
    size_t run = 0;
    bool seen_used = false;
    for (size_t i = 0; i < count; i++) {
        uint64_t s = summaries[i];
        if (summary_start(s) == span_pages) {
            run += span_pages;
            continue;
        }
        run += summary_start(s);
        if (!seen_used) {
            start = run;
            seen_used = true;
        }
        longest = max_size(longest, max_size(run, summary_longest(s)));
        run = summary_end(s);
    }
    if (!seen_used) {
        return summary_pack(run, run, run);
    }
    return summary_pack(start, max_size(longest, run), run);
}

// Only the arenas that exist are looked at; those around them count as used.
static void group_update(struct pageheap *heap, size_t group)
{
    uint64_t summaries[GROUP_ARENAS];
    size_t first = group * GROUP_ARENAS;
    size_t lo = max_size(first, heap->arena_lo) - first;
    size_t hi = min_size(first + GROUP_ARENAS, heap->arena_hi) - first;
    for (size_t i = lo; i < hi; i++) {
        const struct arena *arena = pageheap_arena(heap, first + i);
        summaries[i] = arena == NULL || arena->hidden ? 0 : arena->summary;
    }
    uint64_t s = summary_merge(&summaries[lo], hi - lo, ARENA_PAGES);
    heap->group_summary[group] = summary_pack(lo == 0 ? summary_start(s) : 0, summary_longest(s),
                                              hi == GROUP_ARENAS ? summary_end(s) : 0);
}

void summary_update(struct pageheap *heap, struct arena *arena, size_t first_page,
                    size_t page_count)
{
    size_t last = (first_page + page_count - 1) / CHUNK_PAGES;
    for (size_t chunk = first_page / CHUNK_PAGES; chunk <= last; chunk++) {
        arena->chunk_summary[chunk] = summary_of_bits(&arena->allocated[chunk * CHUNK_WORDS]);
    }
    uint64_t before = arena->summary;
    arena->summary = summary_merge(arena->chunk_summary, ARENA_CHUNKS, CHUNK_PAGES);
    if (arena->summary != before || page_count == ARENA_PAGES) {
        group_update(heap, arena->index / GROUP_ARENAS);
    }
}

static uintptr_t page_address(const struct pageheap *heap, size_t arena_index, size_t page)
{
    return heap->window_start + (arena_index << ARENA_SHIFT) + (page << PAGE_SHIFT);
}

// The run lies in this arena or begins in it; which, the arena's summary has promised.
static uintptr_t find_in_arena(const struct pageheap *heap, const struct arena *arena, size_t need)
{
    size_t run = 0;
    for (size_t chunk = 0; chunk < ARENA_CHUNKS; chunk++) {
        uint64_t s = arena->chunk_summary[chunk];
        if (run + summary_start(s) >= need) {
            return page_address(heap, arena->index, chunk * CHUNK_PAGES - run);
        }
        if (summary_longest(s) >= need) {
            size_t bit =
                bits_find_zero_run(&arena->allocated[chunk * CHUNK_WORDS], CHUNK_PAGES, need);
            return page_address(heap, arena->index, chunk * CHUNK_PAGES + bit);
        }
        run = summary_start(s) == CHUNK_PAGES ? run + CHUNK_PAGES : summary_end(s);
    }
    fatal("pageheap: a summary promised a run that is not there");
}

static uintptr_t find_in_group(const struct pageheap *heap, size_t group, size_t need)
{
    size_t run = 0;
    for (size_t i = 0; i < GROUP_ARENAS; i++) {
        size_t index = group * GROUP_ARENAS + i;
        const struct arena *arena = pageheap_arena(heap, index);
        uint64_t s = arena == NULL || arena->hidden ? 0 : arena->summary;
        if (run + summary_start(s) >= need) {
            return page_address(heap, index, 0) - (run << PAGE_SHIFT);
        }
        if (summary_longest(s) >= need) {
            return find_in_arena(heap, arena, need);
        }
        run = summary_start(s) == ARENA_PAGES ? run + ARENA_PAGES : summary_end(s);
    }
    fatal("pageheap: a group promised a run that is not there");
}

uintptr_t summary_find(struct pageheap *heap, size_t need)
{
    const size_t group_pages = GROUP_ARENAS * ARENA_PAGES;
    size_t run = 0;
    for (size_t group = heap->group_lo; group < heap->group_hi; group++) {
        uint64_t s = heap->group_summary[group];
        if (run + summary_start(s) >= need) {
            return page_address(heap, group * GROUP_ARENAS, 0) - (run << PAGE_SHIFT);
        }
        if (summary_longest(s) >= need) {
            return find_in_group(heap, group, need);
        }
        run = summary_start(s) == group_pages ? run + group_pages : summary_end(s);
    }
    return 0;
}

uintptr_t summary_find_inside(struct pageheap *heap, size_t arena_index, size_t need)
{
    size_t index = max_size(arena_index, heap->arena_lo);
    while (index < heap->arena_hi) {
        if (summary_longest(heap->group_summary[index / GROUP_ARENAS]) < need) {
            index = (index / GROUP_ARENAS + 1) * GROUP_ARENAS;
            continue;
        }
        const struct arena *arena = pageheap_arena(heap, index);
        if (arena != NULL && !arena->hidden && summary_longest(arena->summary) >= need) {
            return find_in_arena(heap, arena, need);
        }
        index++;
    }
    return 0;
}
