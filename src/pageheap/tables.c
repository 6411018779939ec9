// SPDX-License-Identifier: MIT
//
// Tables of arenas that nothing needs go back, too: after a peak of 1 GiB they are 2 MiB and more.
//
// Model
//   A unit is a small kernel page of an arena's tables. It is idle when all that it could describe
//   is free: then its content is zero, or means nothing, and a zero page in its place is the same.
//   Touched units are remembered, so that an idle one goes back once.
//
// Locking
//   The arena is hidden, under the heap's lock, while its units go: nobody allocates in it, so that
//   no unit becomes needed. Spans in it may be freed meanwhile; their units are not idle. Whoever
//   frees a bad pointer may read an idle unit, before and after: it reads that there is no span.
//
// Go       none: Go keeps its heap arena metadata for good.
// Tests    test/unit/pageheap_test.c  test/model/pageheap_model.c
#include "pageheap/pageheap_int.h"

// So many ranges at a step: an arena is hidden for some ten microseconds.
#define STEP_RANGES ((size_t)16)

struct step {
    struct vm_range ranges[STEP_RANGES];
    bool refused[STEP_RANGES];
    size_t count;
};

static bool unit_is_idle(const struct arena *arena, size_t unit)
{
    if (unit < TABLE_MAP) {
        return arena->ready_pages == 0; // the age of a page that is not ready means nothing
    }
    if (unit < TABLE_RECORDS) {
        size_t chunk = unit - TABLE_MAP;
        return (arena->prepared_chunks >> chunk & 1) == 0 ||
               !bits_any_in_range(arena->allocated, chunk * CHUNK_PAGES, CHUNK_PAGES);
    }
    size_t first = (unit - TABLE_RECORDS) * TABLE_UNIT_RECORDS;
    // Record 0 is marked as used and is not.
    first = max_size(first, 1);
    size_t end = min_size((unit - TABLE_RECORDS + 1) * TABLE_UNIT_RECORDS, ARENA_PAGES + 1);
    return !bits_any_in_range(arena->record_used, first, end - first);
}

// The kernel page around a unit goes as a whole or stays: [unit, unit + count) is one.
static bool group_goes(const struct arena *arena, size_t unit, size_t count)
{
    if (unit + count > TABLE_UNITS) {
        return false;
    }
    bool touched = false;
    for (size_t i = unit; i < unit + count; i++) {
        if (!unit_is_idle(arena, i)) {
            return false;
        }
        touched |= bits_test(arena->table_touched, i);
    }
    return touched;
}

// Collects idle units as ranges, from *unit on, and takes them for untouched.
static void arena_collect(struct arena *arena, size_t page_bytes, size_t *unit, struct step *step)
{
    char *base = (char *)arena->freed_tick;
    size_t group = max_size(page_bytes / TABLE_UNIT_BYTES, 1);
    // Kernel pages need not begin where the tables do.
    size_t skew = ((uintptr_t)base / TABLE_UNIT_BYTES) % group;
    step->count = 0;
    for (size_t u = max_size(*unit, (group - skew) % group); u < TABLE_UNITS; u += group) {
        *unit = u;
        if (!group_goes(arena, u, group)) {
            continue;
        }
        char *addr = base + u * TABLE_UNIT_BYTES;
        struct vm_range *last = step->count != 0 ? &step->ranges[step->count - 1] : NULL;
        if (last != NULL && (char *)last->addr + last->bytes == addr) {
            last->bytes += group * TABLE_UNIT_BYTES;
        } else if (step->count < STEP_RANGES) {
            step->ranges[step->count++] = (struct vm_range){addr, group * TABLE_UNIT_BYTES};
        } else {
            return;
        }
        bits_clear_range(arena->table_touched, u, group);
    }
    *unit = TABLE_UNITS;
}

static void arena_hide(struct pageheap *heap, struct arena *arena, bool hide)
{
    arena->hidden = hide;
    heap->hidden_count += hide ? 1 : UINT32_MAX; // minus 1
    summary_update(heap, arena, 0, ARENA_PAGES);
}

static void record_high_lower(struct arena *arena)
{
    while (arena->record_high > 1 && !bits_test(arena->record_used, arena->record_high - 1)) {
        arena->record_high--;
    }
}

static size_t arena_release_tables(struct pageheap *heap, struct arena *arena)
{
    size_t bytes = 0;
    size_t unit = 0;
    struct step step;
    lock_acquire(&heap->lock);
    record_high_lower(arena);
    while (unit < TABLE_UNITS) {
        arena_collect(arena, heap->vm->page_bytes, &unit, &step);
        if (step.count == 0) {
            continue;
        }
        arena_hide(heap, arena, true);
        lock_release(&heap->lock);
        vm_unused_batch(heap->vm, step.ranges, step.count, VM_ADVICE_DONTNEED, step.refused);
        for (size_t i = 0; i < step.count; i++) {
            bytes += step.refused[i] ? 0 : step.ranges[i].bytes;
        }
        lock_acquire(&heap->lock);
        arena_hide(heap, arena, false);
    }
    lock_release(&heap->lock);
    return bytes;
}

size_t pageheap_release_tables(struct pageheap *heap)
{
    size_t bytes = 0;
    lock_acquire(&heap->lock);
    size_t index = heap->arena_lo;
    size_t end = heap->arena_hi;
    lock_release(&heap->lock);
    for (; index < end; index++) {
        struct arena *arena = pageheap_arena(heap, index);
        if (arena != NULL) {
            bytes += arena_release_tables(heap, arena);
        }
    }
    return bytes;
}
