// SPDX-License-Identifier: MIT
//
// Sample: do the pages that were given back stay away? One chunk at a time is asked of the kernel,
// so that the cost is bounded and still every chunk's turn comes.
//
// Go  none. Since 1.21.1 khugepaged may fill released memory again (golang#64332), unnoticed.
#include "pageheap/pageheap_int.h"

// Kernel pages of a chunk: 4 KiB is the smallest.
#define SAMPLE_KERNEL_PAGES (CHUNK_BYTES / 4096)

// After so many the past counts half.
#define SAMPLE_WINDOW_PAGES ((uint64_t)64 * SAMPLE_KERNEL_PAGES)

// What is given back for good, page by page of ours.
static bool chunk_mask(const struct arena *arena, size_t chunk, uint64_t *mask)
{
    uint64_t any = 0;
    for (size_t w = 0; w < CHUNK_WORDS; w++) {
        size_t word = chunk * CHUNK_WORDS + w;
        mask[w] = arena->released[word] & ~arena->lazy[word];
        any |= mask[w];
    }
    return any != 0;
}

// Moves to the next prepared chunk with released pages. Caller holds the lock.
static struct arena *sample_next(struct pageheap *heap, struct pageheap_sample *sample,
                                 uint64_t *mask)
{
    size_t steps = (heap->arena_hi - heap->arena_lo + 1) * ARENA_CHUNKS;
    for (size_t i = 0; i < steps; i++) {
        if (++sample->chunk >= ARENA_CHUNKS) {
            sample->chunk = 0;
            sample->arena++;
        }
        if (sample->arena < heap->arena_lo || sample->arena >= heap->arena_hi) {
            sample->arena = heap->arena_lo;
        }
        struct arena *arena = pageheap_arena(heap, sample->arena);
        if (arena != NULL && !arena->hidden && (arena->prepared_chunks >> sample->chunk & 1) != 0 &&
            chunk_mask(arena, sample->chunk, mask)) {
            return arena;
        }
    }
    return NULL;
}

bool pageheap_sample_released(struct pageheap *heap, struct pageheap_sample *sample)
{
    uint64_t before[CHUNK_WORDS];
    uint64_t after[CHUNK_WORDS];
    unsigned char resident[SAMPLE_KERNEL_PAGES];
    lock_acquire(&heap->lock);
    struct arena *arena = sample_next(heap, sample, before);
    lock_release(&heap->lock);
    if (arena == NULL) {
        return false;
    }
    size_t chunk = sample->chunk;
    char *start = (char *)arena->start + chunk * CHUNK_BYTES;
    if (!vm_resident(heap->vm, start, CHUNK_BYTES, resident)) {
        return false;
    }
    // A page that was used in between is not looked at; unless it was given back again since.
    lock_acquire(&heap->lock);
    chunk_mask(arena, chunk, after);
    lock_release(&heap->lock);
    unsigned shift = bit_ctz(heap->vm->page_bytes);
    for (size_t i = 0; i < CHUNK_BYTES >> shift; i++) {
        size_t page = (i << shift) >> PAGE_SHIFT;
        if (bits_test(before, page) && bits_test(after, page)) {
            sample->looked_pages++;
            sample->resident_pages += resident[i] & 1;
        }
    }
    if (sample->looked_pages > SAMPLE_WINDOW_PAGES) {
        sample->looked_pages /= 2;
        sample->resident_pages /= 2;
    }
    return true;
}
