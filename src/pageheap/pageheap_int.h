// SPDX-License-Identifier: MIT
//
// Page heap, what only its own files share: summaries, ranges over arenas, growth.
//
// Go  1.16 mpagealloc.go pallocSum, chunkIndex.
#ifndef EBB_PAGEHEAP_PAGEHEAP_INT_H
#define EBB_PAGEHEAP_PAGEHEAP_INT_H

#include "base/bitops.h"
#include "pageheap/pageheap.h"

// A summary packs three counts of free pages: at the start, the longest, at the end.
#define SUMMARY_BITS 21
#define SUMMARY_MASK ((UINT64_C(1) << SUMMARY_BITS) - 1)

ATTR_INLINE uint64_t summary_pack(size_t start, size_t longest, size_t end)
{
    return (uint64_t)start | (uint64_t)longest << SUMMARY_BITS |
           (uint64_t)end << (2 * SUMMARY_BITS);
}

ATTR_INLINE size_t summary_start(uint64_t s)
{
    return s & SUMMARY_MASK;
}

ATTR_INLINE size_t summary_longest(uint64_t s)
{
    return (s >> SUMMARY_BITS) & SUMMARY_MASK;
}

ATTR_INLINE size_t summary_end(uint64_t s)
{
    return (s >> (2 * SUMMARY_BITS)) & SUMMARY_MASK;
}

// summary_of_bits describes 512 bits, where a clear bit is a free page.
uint64_t summary_of_bits(const uint64_t *words);

// summary_merge describes count neighbours of span_pages each.
uint64_t summary_merge(const uint64_t *summaries, size_t count, size_t span_pages);

// summary_update brings the summaries above the chunks [first_page, first_page + page_count) of one
// arena up to date.
void summary_update(struct pageheap *heap, struct arena *arena, size_t first_page,
                    size_t page_count);

// summary_find returns the address of the lowest run of page_count free pages, or 0.
uintptr_t summary_find(struct pageheap *heap, size_t page_count);

// summary_find_inside returns the address of the lowest run of page_count free pages that lies in
// one arena, of those from index arena_index on, or 0.
uintptr_t summary_find_inside(struct pageheap *heap, size_t arena_index, size_t page_count);

// pageheap_tick is the present time in ticks of page ages.
ATTR_INLINE uint8_t pageheap_tick(const struct pageheap *heap)
{
    return (uint8_t)(heap->clock_ns() / PAGE_TICK_NS);
}

// A run of pages cut at arena borders: the piece in one arena.
struct piece {
    struct arena *arena;
    size_t first; // page in the arena
    size_t count;
};

// piece_next cuts the next piece from [*addr, end) and moves *addr behind it. False at the end.
ATTR_INLINE bool piece_next(struct pageheap *heap, uintptr_t *addr, uintptr_t end,
                            struct piece *piece)
{
    if (*addr >= end) {
        return false;
    }
    piece->arena = pageheap_arena(heap, (*addr - heap->window_start) >> ARENA_SHIFT);
    piece->first = (*addr >> PAGE_SHIFT) & (ARENA_PAGES - 1);
    piece->count = min_size(ARENA_PAGES - piece->first, (end - *addr) >> PAGE_SHIFT);
    *addr += piece->count << PAGE_SHIFT;
    return true;
}

// arena_grow prepares at least page_count new pages in one piece, as free and released. Caller
// holds the lock. False when the kernel gives no more.
bool arena_grow(struct pageheap *heap, size_t page_count);

#endif
