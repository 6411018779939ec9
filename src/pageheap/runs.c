// SPDX-License-Identifier: MIT
//
// Runs: giving ready pages back to the kernel, chunk by chunk from the highest address.
//
// Model
//   A pass holds a cursor. Each step takes the ready pages of one chunk: withdraw (allocated bit
//   set, under the lock), advise (no lock), publish (bit cleared, released set, under the lock).
//   Between the steps nobody else can be given the pages, because they look allocated; and nobody
//   can free them, because no span holds them.
//
// Locking
//   heap->lock for withdrawing and publishing. One pass at a time: the caller has the release
//   round.
//
// Go       1.18 mgcscavenge.go scavengeOne (marks the pages allocated while the lock is dropped).
// Tests    test/model/pageheap_model.c
#include "pageheap/pageheap_int.h"

struct withdrawal {
    struct arena *arena;
    size_t chunk;
    uint64_t mask[CHUNK_WORDS]; // pages taken
    size_t count;
};

struct pageheap_cursor pageheap_cursor_top(struct pageheap *heap)
{
    lock_acquire(&heap->lock);
    struct pageheap_cursor cursor = {heap->arena_hi, ARENA_CHUNKS};
    lock_release(&heap->lock);
    return cursor;
}

// Where the kernel's page is larger than ours, only whole pages of the kernel can go back.
static void mask_whole_kernel_pages(uint64_t *mask, size_t kernel_pages)
{
    if (kernel_pages <= 1) {
        return;
    }
    for (size_t first = 0; first < CHUNK_PAGES; first += kernel_pages) {
        if (!bits_all_in_range(mask, first, kernel_pages)) {
            bits_clear_range(mask, first, kernel_pages);
        }
    }
}

// Keeps the highest max_pages of the mask, or a little more, so that a run is not cut in two.
static void mask_limit(uint64_t *mask, size_t max_pages)
{
    size_t left = max_pages;
    for (size_t w = CHUNK_WORDS; w-- > 0;) {
        size_t here = bit_popcount(mask[w]);
        if (left == 0) {
            mask[w] = 0;
        }
        left -= min_size(left, here);
    }
}

// Moves the cursor down to the next chunk with ready pages and withdraws them.
static bool withdraw(struct pageheap *heap, struct pageheap_cursor *cursor, size_t max_pages,
                     struct withdrawal *out)
{
    size_t kernel_pages = heap->vm->page_bytes >> PAGE_SHIFT;
    for (; cursor->arena != 0; cursor->arena--, cursor->chunk = ARENA_CHUNKS) {
        struct arena *arena = pageheap_arena(heap, cursor->arena - 1);
        if (arena == NULL || arena->ready_pages == 0) {
            continue;
        }
        while (cursor->chunk != 0) {
            size_t chunk = --cursor->chunk;
            if (arena->chunk_ready[chunk] == 0) {
                continue;
            }
            out->arena = arena;
            out->chunk = chunk;
            out->count = 0;
            for (size_t w = 0; w < CHUNK_WORDS; w++) {
                size_t word = chunk * CHUNK_WORDS + w;
                out->mask[w] = ~arena->allocated[word] & ~arena->released[word];
            }
            mask_whole_kernel_pages(out->mask, kernel_pages);
            mask_limit(out->mask, max_pages);
            for (size_t w = 0; w < CHUNK_WORDS; w++) {
                arena->allocated[chunk * CHUNK_WORDS + w] |= out->mask[w];
                out->count += bit_popcount(out->mask[w]);
            }
            if (out->count == 0) {
                continue;
            }
            arena->chunk_ready[chunk] = (uint16_t)(arena->chunk_ready[chunk] - out->count);
            arena->ready_pages -= (uint32_t)out->count;
            heap->stats.ready_pages -= out->count;
            heap->stats.withdrawn_pages += out->count;
            if (out->count >= max_pages) {
                cursor->chunk = chunk + 1; // the bound cut it: the rest comes next
            }
            summary_update(heap, arena, chunk * CHUNK_PAGES, CHUNK_PAGES);
            return true;
        }
    }
    return false;
}

// Advises run by run; what the kernel refuses leaves the mask and goes into refused.
static void advise(struct pageheap *heap, struct withdrawal *w, enum vm_advice advice,
                   uint64_t *refused, struct pageheap_release_result *result)
{
    uintptr_t chunk_start = w->arena->start + w->chunk * CHUNK_BYTES;
    size_t pos = bits_find_set(w->mask, CHUNK_PAGES, 0);
    while (pos != SIZE_MAX) {
        size_t end = bits_find_zero(w->mask, CHUNK_PAGES, pos);
        end = end == SIZE_MAX ? CHUNK_PAGES : end;
        long ret = vm_unused(heap->vm, (void *)(chunk_start + (pos << PAGE_SHIFT)),
                             (end - pos) << PAGE_SHIFT, advice);
        result->call_count++;
        result->run_count++;
        if (ret != 0) {
            bits_set_range(refused, pos, end - pos);
            result->refused += end - pos;
        } else {
            result->pages += end - pos;
        }
        pos = end == CHUNK_PAGES ? SIZE_MAX : bits_find_set(w->mask, CHUNK_PAGES, end);
    }
}

static void publish(struct pageheap *heap, const struct withdrawal *w, const uint64_t *refused,
                    enum vm_advice advice)
{
    struct arena *arena = w->arena;
    size_t refused_count = 0;
    for (size_t i = 0; i < CHUNK_WORDS; i++) {
        size_t word = w->chunk * CHUNK_WORDS + i;
        uint64_t released = w->mask[i] & ~refused[i];
        arena->allocated[word] &= ~w->mask[i];
        arena->released[word] |= released;
        if (advice == VM_ADVICE_FREE) {
            arena->lazy[word] |= released;
        }
        refused_count += bit_popcount(w->mask[i] & refused[i]);
    }
    size_t done = w->count - refused_count;
    arena->chunk_ready[w->chunk] = (uint16_t)(arena->chunk_ready[w->chunk] + refused_count);
    arena->ready_pages += (uint32_t)refused_count;
    heap->stats.withdrawn_pages -= w->count;
    heap->stats.ready_pages += refused_count;
    heap->stats.released_pages += done;
    heap->stats.released_total_pages += done;
    heap->stats.refused_total_pages += refused_count;
    if (advice == VM_ADVICE_FREE) {
        heap->stats.lazy_pages += done;
    }
    summary_update(heap, arena, w->chunk * CHUNK_PAGES, CHUNK_PAGES);
}

bool pageheap_release(struct pageheap *heap, struct pageheap_cursor *cursor, size_t max_pages,
                      enum vm_advice advice, struct pageheap_release_result *result)
{
    struct withdrawal w;
    uint64_t refused[CHUNK_WORDS] = {0};
    lock_acquire(&heap->lock);
    bool found = withdraw(heap, cursor, max_pages, &w);
    lock_release(&heap->lock);
    if (!found) {
        return false;
    }
    size_t refused_before = result->refused;
    advise(heap, &w, advice, refused, result);
    if (result->refused != refused_before) {
        cursor->chunk = w.chunk; // they would be refused again: the pass goes on below
    }
    lock_acquire(&heap->lock);
    publish(heap, &w, refused, advice);
    lock_release(&heap->lock);
    return true;
}

// Hides an arena that holds no span, so that the lock need not be held while its tables go back.
static struct arena *arena_hide_next(struct pageheap *heap, size_t *index)
{
    struct arena *found = NULL;
    lock_acquire(&heap->lock);
    size_t end = heap->arena_hi;
    for (; *index < end && found == NULL; (*index)++) {
        struct arena *arena = pageheap_arena(heap, *index);
        if (arena == NULL || arena->span_count != 0 || !arena->tables_used) {
            continue;
        }
        arena->hidden = true;
        heap->hidden_count++;
        summary_update(heap, arena, 0, ARENA_PAGES);
        found = arena;
    }
    lock_release(&heap->lock);
    return found;
}

size_t pageheap_release_tables(struct pageheap *heap)
{
    size_t bytes = 0;
    size_t index = heap->arena_lo;
    struct arena *arena;
    while ((arena = arena_hide_next(heap, &index)) != NULL) {
        // From the first whole kernel page of the map to the end of the records in use.
        uintptr_t start = align_up((uintptr_t)arena->map, heap->vm->page_bytes);
        uintptr_t end =
            align_up((uintptr_t)&arena->records[arena->record_high], heap->vm->page_bytes);
        bool done = vm_unused(heap->vm, (void *)start, end - start, VM_ADVICE_DONTNEED) == 0;
        lock_acquire(&heap->lock);
        if (done) {
            bytes += end - start;
            // The free list of records is gone with them; those before start stay zero or unused.
            arena->record_high = 1;
            arena->record_free = 0;
        }
        arena->tables_used = false;
        arena->hidden = false;
        heap->hidden_count--;
        summary_update(heap, arena, 0, ARENA_PAGES);
        lock_release(&heap->lock);
    }
    return bytes;
}
