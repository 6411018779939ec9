// SPDX-License-Identifier: MIT
//
// Page heap: allocating and freeing runs of pages, their records and the page map.
//
// Flow
//   pageheap_alloc -> alloc_locked -> find_run -> pages_take, record_alloc, map_set. pages_take and
//   pages_give are the only places where a page changes between used and free outside runs.c.
//
// Go  1.16 mheap.go allocSpan, freeSpanLocked; mpagealloc.go alloc, free.
#include "pageheap/pageheap.h"

#include <string.h>

#include "os/clock.h"
#include "pageheap/pageheap_int.h"

struct pageheap pageheap_main;
struct span span_none;

// Released pages are populated in bulk from this many pages on, and once the heap is this large: a
// small program should not pay for pages it may not touch. Populating costs 0.93 us per 4 KiB,
// touching 1.4 us (measured, docs/design/001).
#define POPULATE_MIN_PAGES ((size_t)4)
#define POPULATE_MAX_PAGES ((size_t)32)
#define POPULATE_HEAP_PAGES ((size_t)1024)

void pageheap_init(struct pageheap *heap, const struct vm *vm, struct meta *meta, uintptr_t hint)
{
    lock_init(&heap->lock, LOCKRANK_PAGEHEAP);
    heap->vm = vm;
    heap->meta = meta;
    heap->hint = hint;
    heap->ring_ready_pages = UINT64_MAX;
    heap->look_bytes = heap->hard_bytes = UINT64_MAX;
    store_relaxed(&heap->gate_bytes, UINT64_MAX);
    heap->clock_ns = clock_coarse_ns;
    heap->unit_pages = (uint32_t)max_size(vm->page_bytes >> PAGE_SHIFT, 1);
}

void pageheap_set_grow_hook(struct pageheap *heap, void (*hook)(void))
{
    heap->grow_hook = hook;
}

void pageheap_set_ring(struct pageheap *heap, uint64_t ready_pages)
{
    lock_acquire(&heap->lock);
    heap->ring_ready_pages = ready_pages;
    lock_release(&heap->lock);
}

void pageheap_set_gate_hook(struct pageheap *heap, void (*hook)(void))
{
    heap->gate_hook = hook;
}

void pageheap_set_gate(struct pageheap *heap, uint64_t look_bytes, uint64_t hard_bytes)
{
    lock_acquire(&heap->lock);
    heap->look_bytes = look_bytes;
    heap->hard_bytes = hard_bytes;
    store_relaxed(&heap->gate_bytes, min_u64(look_bytes, hard_bytes));
    lock_release(&heap->lock);
}

// What so many pages and more bytes come to as the gate counts: with our tables, without holes.
// Holes are made without the lock, but while there is a gate they end under it only, and with a
// span only together with its pages; so what is read is never too much.
static uint64_t gate_sum(struct pageheap *heap, uint64_t pages, uint64_t more_bytes)
{
    uint64_t bytes = (pages << PAGE_SHIFT) - load_relaxed(&heap->hole_bytes);
    bytes += load_relaxed(&heap->meta->reserved_bytes) + heap->meta->first_bytes;
    return more_bytes > UINT64_MAX - bytes ? UINT64_MAX : bytes + more_bytes;
}

static uint64_t pages_bytes(size_t page_count)
{
    return page_count > UINT64_MAX >> PAGE_SHIFT ? UINT64_MAX : (uint64_t)page_count << PAGE_SHIFT;
}

bool pageheap_gate_refuses(struct pageheap *heap, size_t page_count)
{
    lock_acquire(&heap->lock);
    bool refuses =
        heap->hard_bytes != UINT64_MAX &&
        gate_sum(heap, heap->stats.used_pages, pages_bytes(page_count)) > heap->hard_bytes;
    lock_release(&heap->lock);
    return refuses;
}

enum gate { GATE_PASS, GATE_LOOK, GATE_REFUSE };

// What the gate says to so many more bytes in use. Caller holds the lock.
static ATTR_NOINLINE enum gate gate_ask(struct pageheap *heap, uint64_t bytes)
{
    const struct pageheap_stats *stats = &heap->stats;
    if (heap->hard_bytes != UINT64_MAX &&
        gate_sum(heap, stats->used_pages, bytes) > heap->hard_bytes) {
        heap->stats.gate_refused_count++;
        return GATE_REFUSE;
    }
    // As if all came from released memory; the hook looks again when they have been taken.
    bool look = gate_sum(heap, pageheap_mapped_pages(stats), bytes) > heap->look_bytes;
    return look ? GATE_LOOK : GATE_PASS;
}

ATTR_INLINE enum gate gate_check(struct pageheap *heap, size_t page_count)
{
    if (likely(load_relaxed(&heap->gate_bytes) == UINT64_MAX)) {
        return GATE_PASS;
    }
    return gate_ask(heap, pages_bytes(page_count));
}

static void gate_look_if(struct pageheap *heap, enum gate gate)
{
    if (unlikely(gate == GATE_LOOK) && heap->gate_hook != NULL) {
        heap->gate_hook(); // before the pages are touched
    }
}

// Who has seen no gate counts without the lock: that was before the gate was set, and an allocation
// that asks the gate in the same moment may see these holes still.
bool pageheap_fill(struct pageheap *heap, uint64_t bytes)
{
    if (likely(load_relaxed(&heap->gate_bytes) == UINT64_MAX)) {
        sub_relaxed(&heap->hole_bytes, bytes);
        return true;
    }
    lock_acquire(&heap->lock);
    enum gate gate = gate_ask(heap, bytes);
    if (gate != GATE_REFUSE) {
        sub_relaxed(&heap->hole_bytes, bytes);
    }
    lock_release(&heap->lock);
    gate_look_if(heap, gate);
    return gate != GATE_REFUSE;
}

// record_clear zeroes a record, the atomic fields as such: a thread that has just pushed the last
// block of the span that was here may still look at them.
static void record_clear(struct span *span)
{
    memset(span, 0, offsetof(struct span, tag));
    store_relaxed(&span->tag, 0);
    span->size_class = 0;
    store_relaxed(&span->state, SPAN_NONE);
    span->base = 0;
    span->magic = 0;
    span->magic_limit = 0;
    store_relaxed(&span->owner, NULL);
    store_relaxed(&span->remote, 0);
    span->page_count = 0;
    span->block_bytes = 0;
}

// record_alloc takes the lowest record of the arena that is free, so that few are touched. There is
// one: an arena has one more than pages.
static struct span *record_alloc(struct arena *arena)
{
    size_t word = arena->record_hint;
    while (arena->record_used[word] == UINT64_MAX) {
        word++;
    }
    arena->record_hint = (uint32_t)word;
    size_t index = word * 64 + bit_ctz(~arena->record_used[word]);
    bits_set(arena->record_used, index);
    bits_set(arena->table_touched, TABLE_RECORDS + index / TABLE_UNIT_RECORDS);
    arena->record_high = (uint32_t)max_size(arena->record_high, index + 1);
    struct span *span = &arena->records[index];
    record_clear(span);
    span->record_index = (uint16_t)index;
    span->arena = arena;
    arena->span_count++;
    return span;
}

static void record_free(struct span *span)
{
    struct arena *arena = span->arena;
    size_t index = span->record_index;
    record_clear(span);
    bits_clear(arena->record_used, index);
    arena->record_hint = (uint32_t)min_size(arena->record_hint, index / 64);
    arena->span_count--;
}

struct taken {
    size_t released; // of the pages taken
    size_t lazy;
};

// pages_take moves [addr, end) from free to used.
static struct taken pages_take(struct pageheap *heap, uintptr_t addr, uintptr_t end)
{
    struct taken taken = {0, 0};
    struct piece piece;
    while (piece_next(heap, &addr, end, &piece)) {
        struct arena *arena = piece.arena;
        ASSERT(!bits_any_in_range(arena->allocated, piece.first, piece.count),
               "pageheap: run not free");
        bits_set_range(arena->allocated, piece.first, piece.count);
        size_t pos = piece.first;
        size_t stop = piece.first + piece.count;
        while (pos < stop) {
            size_t chunk = pos / CHUNK_PAGES;
            size_t count = min_size(stop, (chunk + 1) * CHUNK_PAGES) - pos;
            size_t released = bits_count_range(arena->released, pos, count);
            arena->chunk_ready[chunk] = (uint16_t)(arena->chunk_ready[chunk] - (count - released));
            arena->ready_pages -= (uint32_t)(count - released);
            taken.released += released;
            pos += count;
        }
        if (heap->stats.lazy_pages != 0) {
            taken.lazy += bits_count_range(arena->lazy, piece.first, piece.count);
            bits_clear_range(arena->lazy, piece.first, piece.count);
        }
        bits_clear_range(arena->released, piece.first, piece.count);
        summary_update(heap, arena, piece.first, piece.count);
    }
    return taken;
}

// pages_give moves [addr, end) from used to ready.
static void pages_give(struct pageheap *heap, uintptr_t addr, uintptr_t end)
{
    uint8_t tick = pageheap_tick(heap);
    struct piece piece;
    while (piece_next(heap, &addr, end, &piece)) {
        struct arena *arena = piece.arena;
        ASSERT(bits_all_in_range(arena->allocated, piece.first, piece.count),
               "pageheap: run freed twice");
        bits_clear_range(arena->allocated, piece.first, piece.count);
        size_t pos = piece.first;
        size_t stop = piece.first + piece.count;
        while (pos < stop) {
            size_t chunk = pos / CHUNK_PAGES;
            size_t count = min_size(stop, (chunk + 1) * CHUNK_PAGES) - pos;
            arena->chunk_ready[chunk] = (uint16_t)(arena->chunk_ready[chunk] + count);
            pos += count;
        }
        arena->ready_pages += (uint32_t)piece.count;
        memset(&arena->freed_tick[piece.first], tick, piece.count);
        size_t last = piece.first + piece.count - 1;
        bits_set(arena->table_touched, TABLE_TICKS + piece.first / TABLE_UNIT_BYTES);
        bits_set(arena->table_touched, TABLE_TICKS + last / TABLE_UNIT_BYTES);
        summary_update(heap, arena, piece.first, piece.count);
    }
}

// pages_mark_released: of the ready pages from addr on, those of the mask hold no memory. A small
// span lies in one arena.
static void pages_mark_released(struct pageheap *heap, struct arena *arena, uintptr_t addr,
                                uint32_t mask)
{
    size_t first = (addr >> PAGE_SHIFT) & (ARENA_PAGES - 1);
    for (; mask != 0; mask &= mask - 1) {
        size_t page = first + bit_ctz(mask);
        bits_set(arena->released, page);
        arena->chunk_ready[page / CHUNK_PAGES]--;
        arena->ready_pages--;
        heap->stats.ready_pages--;
        heap->stats.released_pages++;
    }
}

// map_set maps pages of a span's first arena to target. A small span lies in one arena.
static void map_set(struct span *span, uintptr_t addr, size_t page_count, const struct span *target)
{
    uint64_t value = (uint64_t)((uintptr_t)target - (uintptr_t)&span_none);
    size_t first = (addr >> PAGE_SHIFT) & (ARENA_PAGES - 1);
    for (size_t page = first; page < first + page_count; page++) {
        store_relaxed(&span->arena->map[page], value);
    }
    bits_set(span->arena->table_touched, TABLE_MAP + first / CHUNK_PAGES);
    bits_set(span->arena->table_touched, TABLE_MAP + (first + page_count - 1) / CHUNK_PAGES);
}

static void stats_take(struct pageheap *heap, size_t page_count, struct taken taken)
{
    struct pageheap_stats *stats = &heap->stats;
    stats->used_pages += page_count;
    stats->ready_pages -= page_count - taken.released;
    stats->released_pages -= taken.released;
    stats->lazy_pages -= taken.lazy;
    stats->owed_pages = pageheap_owed(stats->owed_pages, taken.released, stats->ready_pages);
    stats->ops_count++;
}

void pageheap_repay(struct pageheap *heap, int64_t pages)
{
    lock_acquire(&heap->lock);
    heap->stats.owed_pages -= pages;
    lock_release(&heap->lock);
}

// find_run returns the lowest fitting run, aligned; the pages before it stay free. A small span
// never crosses an arena, because its record and map are of one arena. So if the lowest run lies
// across a border, those behind the border come next: growing instead would leave them unused for
// as long as that run lies there.
static uintptr_t find_run(struct pageheap *heap, size_t page_count, size_t align_pages,
                          enum pageheap_kind kind)
{
    size_t need = page_count + align_pages - 1;
    uintptr_t addr = summary_find(heap, need);
    uintptr_t last = addr + (need << PAGE_SHIFT) - 1;
    if (addr != 0 && kind == PAGEHEAP_SMALL && (addr >> ARENA_SHIFT) != (last >> ARENA_SHIFT)) {
        addr = summary_find_inside(heap, (last - heap->window_start) >> ARENA_SHIFT, need);
    }
    return align_up(addr, align_pages << PAGE_SHIFT);
}

static struct span *alloc_locked(struct pageheap *heap, size_t page_count, size_t align_pages,
                                 enum pageheap_kind kind, struct taken *taken)
{
    uintptr_t addr = find_run(heap, page_count, align_pages, kind);
    if (addr == 0) {
        if (heap->hidden_count != 0) {
            return NULL; // growing could mean the hidden arena: the caller waits
        }
        // Twice the pages contain a run on one side of a border.
        size_t want = page_count + align_pages - 1;
        want = kind == PAGEHEAP_SMALL ? 2 * want : want;
        if (want < page_count || !arena_grow(heap, want)) {
            return NULL;
        }
        addr = find_run(heap, page_count, align_pages, kind);
        CHECK(addr != 0, "pageheap: no run after growing");
    }
    uintptr_t end = addr + (page_count << PAGE_SHIFT);
    *taken = pages_take(heap, addr, end);
    stats_take(heap, page_count, *taken);
    heap->stats.span_count++;
    struct arena *arena = pageheap_arena(heap, (addr - heap->window_start) >> ARENA_SHIFT);
    struct span *span = record_alloc(arena);
    span->base = addr;
    span->page_count = (uint32_t)page_count;
    span->zero = taken->released == page_count && taken->lazy == 0;
    map_set(span, addr, kind == PAGEHEAP_SMALL ? page_count : 1, span);
    return span;
}

struct span *pageheap_alloc(struct pageheap *heap, size_t page_count, size_t align_pages,
                            enum pageheap_kind kind)
{
    struct taken taken;
    lock_acquire(&heap->lock);
    enum gate gate = gate_check(heap, page_count);
    if (unlikely(gate == GATE_REFUSE)) {
        lock_release(&heap->lock);
        return NULL;
    }
    struct span *span = alloc_locked(heap, page_count, align_pages, kind, &taken);
    while (span == NULL && (heap->stats.withdrawn_pages != 0 || heap->hidden_count != 0)) {
        // Memory is at its end, but the releaser holds some for a moment.
        lock_release(&heap->lock);
        cpu_relax();
        lock_acquire(&heap->lock);
        span = alloc_locked(heap, page_count, align_pages, kind, &taken);
    }
    bool populate = span != NULL && heap->populate && heap->vm->page_bytes <= PAGE_BYTES &&
                    taken.released == page_count && page_count >= POPULATE_MIN_PAGES &&
                    page_count <= POPULATE_MAX_PAGES &&
                    heap->stats.used_pages >= POPULATE_HEAP_PAGES;
    lock_release(&heap->lock);
    gate_look_if(heap, gate);
    if (populate) {
        vm_used(heap->vm, (void *)span->base, page_count << PAGE_SHIFT);
    }
    return span;
}

// Rings the doorbell after the lock is gone. The ring is set again by who hears it.
static void ring_if(struct pageheap *heap, bool ring)
{
    if (ring && heap->grow_hook != NULL) {
        heap->grow_hook();
    }
}

void pageheap_ring(struct pageheap *heap)
{
    ring_if(heap, true);
}

static bool ring_due_locked(struct pageheap *heap)
{
    if (likely(heap->stats.ready_pages < heap->ring_ready_pages)) {
        return false;
    }
    heap->ring_ready_pages = UINT64_MAX;
    return true;
}

void pageheap_free_holed(struct pageheap *heap, struct span *span, uint32_t released_mask,
                         uint64_t hole_bytes)
{
    struct arena *arena = span->arena;
    uintptr_t addr = span->base;
    size_t page_count = span->page_count;
    bool small = span->size_class != 0;
    lock_acquire(&heap->lock);
    map_set(span, addr, small ? page_count : 1, &span_none);
    record_free(span);
    pages_give(heap, addr, addr + (page_count << PAGE_SHIFT));
    heap->stats.used_pages -= page_count;
    heap->stats.ready_pages += page_count;
    heap->stats.freed_total_pages += page_count;
    if (unlikely(hole_bytes != 0)) {
        sub_relaxed(&heap->hole_bytes, hole_bytes);
    }
    pages_mark_released(heap, arena, addr, released_mask);
    heap->stats.span_count--;
    heap->stats.ops_count++;
    bool ring = ring_due_locked(heap);
    lock_release(&heap->lock);
    ring_if(heap, ring);
}

// The run behind the span, if it is free as far as wanted.
static bool run_is_free(struct pageheap *heap, uintptr_t addr, uintptr_t end)
{
    if (end - heap->window_start > WINDOW_ARENAS << ARENA_SHIFT) {
        return false;
    }
    struct piece piece;
    while (piece_next(heap, &addr, end, &piece)) {
        if (piece.arena == NULL || piece.arena->hidden ||
            bits_any_in_range(piece.arena->allocated, piece.first, piece.count)) {
            return false;
        }
    }
    return true;
}

bool pageheap_extend(struct pageheap *heap, struct span *span, size_t page_count)
{
    uintptr_t end = span->base + ((uintptr_t)span->page_count << PAGE_SHIFT);
    uintptr_t new_end = span->base + (page_count << PAGE_SHIFT);
    bool done = false;
    lock_acquire(&heap->lock);
    enum gate gate = gate_check(heap, page_count - span->page_count);
    if (gate != GATE_REFUSE && page_count <= UINT32_MAX && run_is_free(heap, end, new_end)) {
        struct taken taken = pages_take(heap, end, new_end);
        stats_take(heap, page_count - span->page_count, taken);
        span->page_count = (uint32_t)page_count;
        done = true;
    }
    lock_release(&heap->lock);
    gate_look_if(heap, gate);
    return done;
}

void pageheap_shrink(struct pageheap *heap, struct span *span, size_t page_count)
{
    uintptr_t end = span->base + ((uintptr_t)span->page_count << PAGE_SHIFT);
    uintptr_t new_end = span->base + (page_count << PAGE_SHIFT);
    lock_acquire(&heap->lock);
    pages_give(heap, new_end, end);
    size_t given = span->page_count - page_count;
    heap->stats.used_pages -= given;
    heap->stats.ready_pages += given;
    heap->stats.freed_total_pages += given;
    heap->stats.ops_count++;
    span->page_count = (uint32_t)page_count;
    bool ring = ring_due_locked(heap);
    lock_release(&heap->lock);
    ring_if(heap, ring);
}

struct span *pageheap_find(struct pageheap *heap, const void *addr)
{
    uintptr_t page_addr = align_down((uintptr_t)addr, PAGE_BYTES);
    struct span *found = NULL;
    lock_acquire(&heap->lock);
    while (found == NULL) {
        size_t index = (page_addr - heap->window_start) >> ARENA_SHIFT;
        struct arena *arena = index < WINDOW_ARENAS ? pageheap_arena(heap, index) : NULL;
        size_t page = (page_addr >> PAGE_SHIFT) & (ARENA_PAGES - 1);
        if (arena == NULL || !bits_test(arena->allocated, page)) {
            break;
        }
        struct span *span = span_of(heap, (const void *)page_addr);
        if (span != &span_none) {
            if ((uintptr_t)addr < span->base + ((uintptr_t)span->page_count << PAGE_SHIFT)) {
                found = span;
            }
            break;
        }
        page_addr -= PAGE_BYTES;
    }
    lock_release(&heap->lock);
    return found;
}

void pageheap_stats_read(struct pageheap *heap, struct pageheap_stats *out)
{
    lock_acquire(&heap->lock);
    *out = heap->stats;
    lock_release(&heap->lock);
}

void pageheap_walk(struct pageheap *heap, void (*visit)(struct span *span, void *arg), void *arg)
{
    size_t end = heap->arena_hi;
    for (size_t index = heap->arena_lo; index < end; index++) {
        struct arena *arena = pageheap_arena(heap, index);
        if (arena == NULL || arena->span_count == 0) {
            continue;
        }
        for (uint32_t record = 1; record < arena->record_high; record++) {
            if (bits_test(arena->record_used, record)) {
                visit(&arena->records[record], arg);
            }
        }
    }
}
