// SPDX-License-Identifier: MIT
//
// Runs: giving ready pages back to the kernel, some chunks at a time from the highest address.
//
// Model
//   A pass holds a cursor. Each step takes ready pages of one chunk, or of several while they are
//   few: withdraw (allocated bit set, under the lock), advise (no lock, as a batch), publish (bit
//   cleared, released set, under the lock). Between the steps nobody else can be given the pages,
//   because they look allocated; and nobody can free them, because no span holds them.
//   A lazy pass does the same with pages that were given back lazily: they leave released and come
//   back to it without the mark.
//
// Locking
//   heap->lock for withdrawing and publishing. One pass at a time: the caller has the release
//   round.
//
// Go       1.18 mgcscavenge.go scavengeOne (marks the pages allocated while the lock is dropped).
// Tests    test/model/pageheap_model.c
#include <string.h>

#include "pageheap/pageheap_int.h"

// A step looks at so many chunks at most, takes from so many, and in so many ranges: the lock is
// held for some microseconds.
#define STEP_LOOKS 64
#define STEP_CHUNKS 8
#define STEP_RANGES ((size_t)256)

struct withdrawal {
    struct arena *arena;
    size_t chunk;
    uint64_t mask[CHUNK_WORDS];    // pages taken
    uint64_t refused[CHUNK_WORDS]; // of these: the kernel said no
    size_t count;
};

struct step {
    struct withdrawal taken[STEP_CHUNKS];
    size_t taken_count;
    size_t pages;
    struct vm_range ranges[STEP_RANGES];
    bool refused[STEP_RANGES];
    size_t range_count;
    bool cut; // a chunk had more than the step could take
};

struct pageheap_cursor pageheap_cursor_top(struct pageheap *heap)
{
    lock_acquire(&heap->lock);
    struct pageheap_cursor cursor = {heap->arena_hi, ARENA_CHUNKS};
    lock_release(&heap->lock);
    return cursor;
}

// Where the unit is larger than our page, only whole units can go back.
static void mask_whole_units(uint64_t *mask, size_t unit_pages)
{
    if (unit_pages <= 1) {
        return;
    }
    for (size_t first = 0; first < CHUNK_PAGES; first += unit_pages) {
        if (!bits_all_in_range(mask, first, unit_pages)) {
            bits_clear_range(mask, first, unit_pages);
        }
    }
}

// Keeps only runs of at least so many pages.
static void mask_long_runs(uint64_t *mask, size_t min_run_pages)
{
    if (min_run_pages <= 1) {
        return;
    }
    size_t pos = bits_find_set(mask, CHUNK_PAGES, 0);
    while (pos != SIZE_MAX) {
        size_t end = min_size(bits_find_zero(mask, CHUNK_PAGES, pos), CHUNK_PAGES);
        if (end - pos < min_run_pages) {
            bits_clear_range(mask, pos, end - pos);
        }
        pos = end == CHUNK_PAGES ? SIZE_MAX : bits_find_set(mask, CHUNK_PAGES, end);
    }
}

static void mask_old_pages(uint64_t *mask, const uint8_t *freed_tick, uint8_t now_tick,
                           uint8_t min_age_ticks)
{
    for (size_t w = 0; w < CHUNK_WORDS; w++) {
        for (uint64_t left = mask[w]; left != 0; left &= left - 1) {
            unsigned bit = bit_ctz(left);
            if ((uint8_t)(now_tick - freed_tick[w * 64 + bit]) <= min_age_ticks) {
                mask[w] &= ~(UINT64_C(1) << bit);
            }
        }
    }
}

// The pages that mask_limit keeps or drops together: a word, or a unit if that is larger.
static size_t limit_words(const struct pageheap *heap)
{
    return max_size(heap->unit_pages / 64, 1);
}

// Keeps the highest max_pages of the mask, or a little more, so that few runs are cut in two; and
// no more than max_runs runs. Goes by groups of words. True if it cut something off.
static bool mask_limit(uint64_t *mask, size_t group, size_t max_pages, size_t max_runs)
{
    bool cut = false;
    size_t pages_left = max_pages;
    size_t runs_left = max_runs;
    for (size_t end = CHUNK_WORDS; end != 0; end -= group) {
        size_t pages = 0;
        size_t runs = 0;
        for (size_t w = end - group; w < end; w++) {
            pages += bit_popcount(mask[w]);
            // Each word begins at most so many runs that the words above have not.
            runs += bit_popcount(mask[w] & ~(mask[w] << 1));
        }
        if (pages_left == 0 || runs_left < runs) {
            cut |= pages != 0;
            memset(&mask[end - group], 0, group * sizeof(mask[0]));
            pages_left = 0;
            continue;
        }
        pages_left -= min_size(pages_left, pages);
        runs_left -= runs;
    }
    return cut;
}

// The pages of the chunk that the filter wants.
static void mask_choose(const struct pageheap *heap, const struct arena *arena, size_t chunk,
                        const struct pageheap_filter *filter, uint64_t *mask)
{
    for (size_t w = 0; w < CHUNK_WORDS; w++) {
        size_t word = chunk * CHUNK_WORDS + w;
        mask[w] =
            filter->lazy ? arena->lazy[word] : ~arena->allocated[word] & ~arena->released[word];
    }
    if (filter->min_age_ticks != 0) {
        mask_old_pages(mask, &arena->freed_tick[chunk * CHUNK_PAGES], pageheap_tick(heap),
                       filter->min_age_ticks);
    }
    mask_whole_units(mask, heap->unit_pages);
    mask_long_runs(mask, filter->min_run_pages);
}

// Takes the pages of the withdrawal out of the free ones.
static void withdraw_chunk(struct pageheap *heap, struct withdrawal *w, bool lazy)
{
    struct arena *arena = w->arena;
    for (size_t i = 0; i < CHUNK_WORDS; i++) {
        size_t word = w->chunk * CHUNK_WORDS + i;
        arena->allocated[word] |= w->mask[i];
        if (lazy) {
            arena->released[word] &= ~w->mask[i];
            arena->lazy[word] &= ~w->mask[i];
        }
    }
    if (lazy) {
        heap->stats.released_pages -= w->count;
        heap->stats.lazy_pages -= w->count;
    } else {
        arena->chunk_ready[w->chunk] = (uint16_t)(arena->chunk_ready[w->chunk] - w->count);
        arena->ready_pages -= (uint32_t)w->count;
        heap->stats.ready_pages -= w->count;
    }
    heap->stats.withdrawn_pages += w->count;
    summary_update(heap, arena, w->chunk * CHUNK_PAGES, CHUNK_PAGES);
}

static void step_add_ranges(struct step *step, const struct withdrawal *w)
{
    uintptr_t chunk_start = w->arena->start + w->chunk * CHUNK_BYTES;
    size_t pos = bits_find_set(w->mask, CHUNK_PAGES, 0);
    while (pos != SIZE_MAX) {
        size_t end = min_size(bits_find_zero(w->mask, CHUNK_PAGES, pos), CHUNK_PAGES);
        step->ranges[step->range_count++] = (struct vm_range){
            (void *)(chunk_start + (pos << PAGE_SHIFT)), (end - pos) << PAGE_SHIFT};
        pos = end == CHUNK_PAGES ? SIZE_MAX : bits_find_set(w->mask, CHUNK_PAGES, end);
    }
}

// Chooses and withdraws in one chunk; true if the step is full.
static bool step_take(struct pageheap *heap, struct step *step, struct arena *arena, size_t chunk,
                      const struct pageheap_filter *filter)
{
    struct withdrawal *w = &step->taken[step->taken_count];
    size_t most = min_size(filter->max_pages, CHUNK_PAGES) - step->pages;
    *w = (struct withdrawal){.arena = arena, .chunk = chunk};
    mask_choose(heap, arena, chunk, filter, w->mask);
    size_t group = limit_words(heap);
    // The first chunk may take a group's pages less one too many; then no other may.
    most = step->taken_count == 0 ? most : most - min_size(most, group * 64 - 1);
    step->cut = mask_limit(w->mask, group, most, STEP_RANGES - step->range_count);
    for (size_t i = 0; i < CHUNK_WORDS; i++) {
        w->count += bit_popcount(w->mask[i]);
    }
    if (w->count != 0) {
        withdraw_chunk(heap, w, filter->lazy);
        step_add_ranges(step, w);
        step->taken_count++;
        step->pages += w->count;
    }
    return step->cut || step->taken_count == STEP_CHUNKS ||
           step->pages >= min_size(filter->max_pages, CHUNK_PAGES);
}

// Moves the cursor down over chunks and withdraws, until the step is full or the pass over.
static void withdraw(struct pageheap *heap, struct pageheap_cursor *cursor,
                     const struct pageheap_filter *filter, struct step *step)
{
    size_t looks = 0;
    for (; cursor->arena > heap->arena_lo; cursor->arena--, cursor->chunk = ARENA_CHUNKS) {
        struct arena *arena = pageheap_arena(heap, cursor->arena - 1);
        if (arena == NULL || (arena->ready_pages == 0 && !filter->lazy)) {
            continue;
        }
        while (cursor->chunk != 0) {
            size_t chunk = cursor->chunk - 1;
            if (arena->chunk_ready[chunk] == 0 && !filter->lazy) {
                cursor->chunk--;
                continue;
            }
            bool full = step_take(heap, step, arena, chunk, filter);
            cursor->chunk -= !step->cut; // what was cut off comes next
            if (full || ++looks == STEP_LOOKS) {
                return;
            }
        }
    }
    cursor->arena = 0;
}

// Notes for each withdrawal what the kernel refused.
static void step_note_refused(struct step *step, struct pageheap_release_result *result)
{
    size_t range = 0;
    for (size_t i = 0; i < step->taken_count; i++) {
        struct withdrawal *w = &step->taken[i];
        uintptr_t chunk_start = w->arena->start + w->chunk * CHUNK_BYTES;
        for (; range < step->range_count; range++) {
            uintptr_t offset = (uintptr_t)step->ranges[range].addr - chunk_start;
            if (offset >= CHUNK_BYTES) {
                break; // the next withdrawal's
            }
            size_t pages = step->ranges[range].bytes >> PAGE_SHIFT;
            if (step->refused[range]) {
                bits_set_range(w->refused, offset >> PAGE_SHIFT, pages);
                result->refused += pages;
            } else {
                result->pages += pages;
            }
        }
    }
}

static void publish(struct pageheap *heap, const struct withdrawal *w, bool was_lazy,
                    enum vm_advice advice)
{
    struct arena *arena = w->arena;
    size_t refused_count = 0;
    for (size_t i = 0; i < CHUNK_WORDS; i++) {
        size_t word = w->chunk * CHUNK_WORDS + i;
        uint64_t done = w->mask[i] & ~w->refused[i];
        uint64_t refused = w->mask[i] & w->refused[i];
        arena->allocated[word] &= ~w->mask[i];
        // What was lazy and is refused stays lazy.
        arena->released[word] |= was_lazy ? w->mask[i] : done;
        uint64_t now_lazy = (advice == VM_ADVICE_FREE ? done : 0) | (was_lazy ? refused : 0);
        if (now_lazy != 0) { // else the bits need no memory
            arena->lazy[word] |= now_lazy;
        }
        refused_count += bit_popcount(refused);
    }
    size_t done_count = w->count - refused_count;
    heap->stats.withdrawn_pages -= w->count;
    heap->stats.released_pages += done_count;
    heap->stats.refused_total_pages += refused_count;
    heap->stats.lazy_pages += advice == VM_ADVICE_FREE ? done_count : 0;
    if (was_lazy) {
        heap->stats.released_pages += refused_count;
        heap->stats.lazy_pages += refused_count;
    } else {
        heap->stats.released_total_pages += done_count;
        arena->chunk_ready[w->chunk] = (uint16_t)(arena->chunk_ready[w->chunk] + refused_count);
        arena->ready_pages += (uint32_t)refused_count;
        heap->stats.ready_pages += refused_count;
    }
    summary_update(heap, arena, w->chunk * CHUNK_PAGES, CHUNK_PAGES);
}

bool pageheap_release(struct pageheap *heap, struct pageheap_cursor *cursor,
                      const struct pageheap_filter *filter, enum vm_advice advice,
                      struct pageheap_release_result *result)
{
    struct step step;
    step.taken_count = 0;
    step.pages = 0;
    step.range_count = 0;
    step.cut = false;
    lock_acquire(&heap->lock);
    withdraw(heap, cursor, filter, &step);
    lock_release(&heap->lock);
    if (step.taken_count == 0) {
        return cursor->arena != 0;
    }
    vm_unused_batch(heap->vm, step.ranges, step.range_count, advice, step.refused);
    result->call_count++;
    result->run_count += (uint32_t)step.range_count;
    size_t refused_before = result->refused;
    step_note_refused(&step, result);
    if (step.cut && result->refused != refused_before) {
        cursor->chunk--; // they would be refused again: the pass goes on below
    }
    lock_acquire(&heap->lock);
    for (size_t i = 0; i < step.taken_count; i++) {
        publish(heap, &step.taken[i], filter->lazy, advice);
    }
    lock_release(&heap->lock);
    return true;
}
