// SPDX-License-Identifier: MIT
//
// Arenas: where address space comes from. It is reserved 64 MiB at a time, or less where the limit
// of address space is near, and prepared 4 MiB at a time, so that neither RLIMIT_AS nor the commit
// limit pays for memory that nobody asked for.
//
// Go  1.16 malloc.go sysAlloc; mheap.go grow (4 MiB steps since 1.17).
#include "pageheap/pageheap_int.h"

// arena_make returns the record of the arena at index, made if need be, or NULL.
static struct arena *arena_make(struct pageheap *heap, size_t index)
{
    struct arena *arena = pageheap_arena(heap, index);
    if (arena != NULL) {
        return arena;
    }
    arena = meta_reserve(heap->meta, sizeof(*arena), META_ARENA);
    if (arena == NULL) {
        return NULL;
    }
    arena->start = heap->window_start + (index << ARENA_SHIFT);
    arena->index = (uint32_t)index;
    arena->record_high = 1;
    bits_set(arena->record_used, 0);
    bits_set_range(arena->record_used, ARENA_PAGES + 1, RECORD_WORDS * 64 - ARENA_PAGES - 1);
    bits_set_range(arena->allocated, 0, ARENA_PAGES); // absent
    // Whoever looks a block up got it from somebody who got it after this store.
    heap->maps[index] = (atomic_u64 *)((uintptr_t)arena->map -
                                       (arena->start >> PAGE_SHIFT) * sizeof(arena->map[0]));
    size_t group = index / GROUP_ARENAS;
    if (heap->group_lo >= heap->group_hi) {
        heap->group_lo = group;
        heap->group_hi = group + 1;
        heap->arena_lo = index;
        heap->arena_hi = index + 1;
    } else {
        heap->arena_lo = min_size(heap->arena_lo, index);
        heap->arena_hi = max_size(heap->arena_hi, index + 1);
        heap->group_lo = min_size(heap->group_lo, group);
        heap->group_hi = max_size(heap->group_hi, group + 1);
    }
    return arena;
}

static bool window_holds(const struct pageheap *heap, uintptr_t addr, size_t bytes)
{
    return addr >= heap->window_start && addr - heap->window_start + bytes <= WINDOW_ARENAS
                                                                                  << ARENA_SHIFT;
}

// Reserves at least need bytes behind what is reserved now, or elsewhere. When the kernel refuses a
// whole arena, no more than the need: others want address space too.
static bool region_reserve(struct pageheap *heap, size_t need)
{
    size_t unit = heap->vm->reserve_bytes != 0 ? heap->vm->reserve_bytes : ARENA_BYTES;
    size_t wish = align_up(need, unit);
    uintptr_t hint = heap->grow_end != 0 ? heap->grow_end : heap->hint;
    uintptr_t start = 0;
    while (start == 0) {
        size_t align = wish >= ARENA_BYTES ? ARENA_BYTES : CHUNK_BYTES;
        start = (uintptr_t)vm_reserve(heap->vm, (void *)(hint & ~(align - 1)), wish, align);
        if (start == 0) {
            if (wish == need) {
                return false;
            }
            wish = need;
        }
    }
    if (heap->unit_pages == VM_HUGE_BYTES >> PAGE_SHIFT) {
        vm_dense(heap->vm, (void *)start, wish);
    } else {
        vm_sparse(heap->vm, (void *)start, wish);
    }
    if (heap->window_start == 0) {
        // Half the window below the first arena, as far as there is anything below.
        uintptr_t below = (WINDOW_ARENAS / 2) << ARENA_SHIFT;
        uintptr_t first = align_down(start, ARENA_BYTES);
        heap->window_start = first > below ? first - below : ARENA_BYTES;
    }
    if (!window_holds(heap, start, wish)) {
        return false; // 16 TiB are used up, or the kernel placed it out of reach
    }
    if (start != heap->grow_end) {
        heap->grow_pos = start;
    }
    heap->grow_end = start + wish;
    return true;
}

// Makes records for the pages [addr, addr + bytes) first, so that preparing cannot be left half
// done.
static bool region_prepare(struct pageheap *heap, uintptr_t addr, size_t bytes)
{
    for (uintptr_t a = align_down(addr, ARENA_BYTES); a < addr + bytes; a += ARENA_BYTES) {
        if (arena_make(heap, (a - heap->window_start) >> ARENA_SHIFT) == NULL) {
            return false;
        }
    }
    if (!vm_prepare(heap->vm, (void *)addr, bytes)) {
        return false;
    }
    struct piece piece;
    uintptr_t pos = addr;
    while (piece_next(heap, &pos, addr + bytes, &piece)) {
        bits_clear_range(piece.arena->allocated, piece.first, piece.count);
        bits_set_range(piece.arena->released, piece.first, piece.count);
        for (size_t page = piece.first; page < piece.first + piece.count; page += CHUNK_PAGES) {
            piece.arena->prepared_chunks |= 1u << (page / CHUNK_PAGES);
        }
        summary_update(heap, piece.arena, piece.first, piece.count);
    }
    heap->stats.sys_pages += bytes >> PAGE_SHIFT;
    heap->stats.released_pages += bytes >> PAGE_SHIFT;
    return true;
}

void pageheap_dense(struct pageheap *heap)
{
    lock_acquire(&heap->lock);
    heap->unit_pages = VM_HUGE_BYTES >> PAGE_SHIFT;
    for (size_t index = heap->arena_lo; index < heap->arena_hi; index++) {
        const struct arena *arena = pageheap_arena(heap, index);
        if (arena != NULL) {
            uintptr_t end = arena->start + ARENA_BYTES;
            end = heap->grow_end > arena->start && heap->grow_end < end ? heap->grow_end : end;
            vm_dense(heap->vm, (void *)arena->start, end - arena->start);
        }
    }
    lock_release(&heap->lock);
}

bool arena_grow(struct pageheap *heap, size_t page_count)
{
    lock_assert_held(&heap->lock);
    if (page_count > (WINDOW_ARENAS << ARENA_SHIFT) >> PAGE_SHIFT) {
        return false;
    }
    size_t bytes = align_up(page_count << PAGE_SHIFT, CHUNK_BYTES);
    if (heap->grow_end - heap->grow_pos < bytes) {
        uintptr_t old_pos = heap->grow_pos;
        uintptr_t old_end = heap->grow_end;
        // Continuing where the last region ends needs only the difference.
        size_t rest = old_end - old_pos;
        if (!region_reserve(heap, bytes - rest)) {
            return false;
        }
        if (heap->grow_pos != old_pos) {
            // It came elsewhere: the rest of the old region is used too, and the new one may be
            // short of what is needed in one piece.
            if (rest != 0 && !region_prepare(heap, old_pos, rest)) {
                return false;
            }
            if (heap->grow_end - heap->grow_pos < bytes && !region_reserve(heap, bytes)) {
                return false;
            }
        }
    }
    if (heap->grow_end - heap->grow_pos < bytes) {
        return false;
    }
    if (!region_prepare(heap, heap->grow_pos, bytes)) {
        return false;
    }
    heap->grow_pos += bytes;
    return true;
}
