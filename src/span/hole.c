// SPDX-License-Identifier: MIT
//
// Holes: kernel pages of a span in use without a block in use go back to the kernel, and their
// blocks come back on demand.
//
// Model
//   The whole kernel pages of a span are its units, numbered from its start. Bit i of span->holes
//   says that unit i is a hole: none of its bytes is in use or on a free list. Bit i of
//   span->resident says that it has not been given back yet. Always:
//     H  a block below span->threaded that overlaps a hole is free and on no list (a hole block);
//        every other block is where span.h says. So which blocks are hole blocks need not be kept.
//   hole_make finds the units all of whose bytes are free blocks, hole blocks, blocks never
//   threaded, or the rest at the span's end, and takes their blocks from the free list: resident
//   holes. hole_given: they have been given back.
//   hole_reopen threads the blocks of some holes again; span_extend, when it comes to blocks in
//   holes, opens theirs. Holes that have been given back are memory in use again then: a memory
//   limit is asked first (pageheap_fill), and may refuse.
//   A span with holes has no tag: frees of its blocks go the slow way, where a free into a hole is
//   found out as a double free (the key that shows it elsewhere is gone with the page).
//
// Locking
//   All by the owner in its bracket, or by who has claimed the cache, or under CENTRAL. Frees by
//   other threads meet only blocks in use, which lie in no hole.
//
// Flow
//   span/look.c LOOK_REST -> hole_make; LOOK_GIVE -> hole_ranges -> vm_unused_batch -> hole_given.
//   span/cache.c refill -> hole_reopen -> pageheap_fill -> (memory limit: release/limiter.c).
//
// Why this way
//   After a peak with one survivor in a hundred blocks nearly all memory is here, not in free runs.
//   No record of hole blocks: two bits per kernel page are enough. The free list is walked once, at
//   the time of the search: giving back then needs to touch no memory, and what the policy keeps is
//   threaded again without a fault. The heads of all blocks are read in address order first: then
//   the walk, which is in no order, finds them in the processor's cache (84 ms for 1 GiB, not 240).
//   Holes are always given back at once (MADV_DONTNEED), whatever option madvise says: what the
//   kernel has not taken yet could not be told from what it has when the blocks come back.
//
// Go       none. Go gives back only whole spans.
// Tests    test/unit/hole_test.c  test/model/hole_model.c  test/race/hole_race.c
#include "base/bitops.h"
#include "base/fmt.h"
#include "span/span_int.h"

// Holes that are opened together, if they are neighbours: a fault each, but one slow path.
#define REOPEN_UNITS 4

struct units {
    uintptr_t start; // of the first whole kernel page
    uintptr_t end;
    unsigned shift; // log2 of the kernel's page
    unsigned count;
};

static struct units units_of(const struct heap *heap, const struct span *span)
{
    size_t page_bytes = heap->pages->vm->page_bytes;
    struct units units;
    units.shift = bit_ctz(page_bytes);
    units.start = align_up(span->base, page_bytes);
    units.end = align_down(span->base + ((uintptr_t)span->page_count << PAGE_SHIFT), page_bytes);
    units.count =
        units.end > units.start ? (unsigned)((units.end - units.start) >> units.shift) : 0;
    return units;
}

// The units that [addr, addr + bytes) overlaps, as a mask.
static uint32_t units_overlapped(const struct units *units, uintptr_t addr, size_t bytes)
{
    uintptr_t lo = addr > units->start ? addr : units->start;
    uintptr_t hi = addr + bytes < units->end ? addr + bytes : units->end;
    if (lo >= hi) {
        return 0;
    }
    unsigned first = (unsigned)((lo - units->start) >> units->shift);
    unsigned last = (unsigned)((hi - 1 - units->start) >> units->shift);
    return (uint32_t)bit_mask(first, last - first + 1);
}

static uintptr_t threaded_end(const struct span *span)
{
    return span->base + (uintptr_t)span->threaded * span->block_bytes;
}

// The next run of set bits at or after *pos: [*pos, *end). False if there is none.
static bool mask_run(uint32_t mask, unsigned *pos, unsigned *end)
{
    uint32_t left = *pos < 32 ? mask >> *pos << *pos : 0;
    if (left == 0) {
        return false;
    }
    *pos = bit_ctz(left);
    uint64_t above = ~(uint64_t)left >> *pos;
    *end = *pos + bit_ctz(above);
    return true;
}

// The blocks below threaded that overlap units [pos, end): indexes [*first, *last).
static void run_blocks(const struct span *span, const struct units *units, unsigned pos,
                       unsigned end, uint32_t *first, uint32_t *last)
{
    uintptr_t lo = units->start + ((uintptr_t)pos << units->shift) - span->base;
    uintptr_t hi = units->start + ((uintptr_t)end << units->shift) - span->base;
    *first = (uint32_t)(lo / span->block_bytes);
    *last = (uint32_t)((hi + span->block_bytes - 1) / span->block_bytes);
    *last = *last < span->threaded ? *last : span->threaded;
}

// --- searching ---

struct tally {
    const struct units *units;
    uint32_t free_bytes[32]; // by unit
};

static void tally_add(struct tally *tally, uintptr_t addr, uintptr_t end)
{
    const struct units *units = tally->units;
    addr = addr > units->start ? addr : units->start;
    end = end < units->end ? end : units->end;
    while (addr < end) {
        uintptr_t unit = (addr - units->start) >> units->shift;
        uintptr_t border = units->start + ((unit + 1) << units->shift);
        uintptr_t stop = end < border ? end : border;
        tally->free_bytes[unit] += (uint32_t)(stop - addr);
        addr = stop;
    }
}

// The blocks around holes: also where they reach into units that are none.
static void tally_add_holes(struct tally *tally, const struct span *span, uint32_t holes)
{
    unsigned pos = 0;
    unsigned end = 0;
    uint32_t done = 0; // blocks below have been counted: two holes may lie in one block
    for (; mask_run(holes, &pos, &end); pos = end) {
        uint32_t first;
        uint32_t last;
        run_blocks(span, tally->units, pos, end, &first, &last);
        first = first > done ? first : done;
        if (first < last) {
            tally_add(tally, span->base + (uintptr_t)first * span->block_bytes,
                      span->base + (uintptr_t)last * span->block_bytes);
            done = last;
        }
    }
}

// Reads the first line of every block, or every line where blocks are smaller; not in holes, whose
// pages would come back. Loads and not prefetches: those are dropped where the address is not in
// the TLB, and the search took 2.5 times as long (blocks of 64 bytes, 1 GiB).
static void stream_blocks(const struct units *units, const struct span *span, uint32_t holes)
{
    if (RACE_BUILD) {
        return; // blocks in use are read too, and what is read thrown away; a sanitizer cannot know
    }
    size_t step = span->block_bytes < 64 ? 64 : span->block_bytes;
    uintptr_t end = threaded_end(span);
    for (uintptr_t addr = span->base; addr < end; addr += step) {
        if (holes == 0 || (units_overlapped(units, addr, sizeof(uint64_t)) & holes) == 0) {
            (void)*(const volatile uint64_t *)addr;
        }
    }
}

static uint32_t hole_search(const struct heap *heap, const struct span *span)
{
    struct units units = units_of(heap, span);
    struct tally tally = {.units = &units};
    uint32_t holes = load_relaxed(&span->holes);
    uintptr_t span_end = span->base + ((uintptr_t)span->page_count << PAGE_SHIFT);
    stream_blocks(&units, span, holes);
    tally_add(&tally, threaded_end(span), span_end);
    tally_add_holes(&tally, span, holes);
    for (const struct block *block = span->free; block != NULL; block = block->next) {
        tally_add(&tally, (uintptr_t)block, (uintptr_t)block + span->block_bytes);
    }
    uint32_t mask = 0;
    for (unsigned i = 0; i < units.count; i++) {
        if (tally.free_bytes[i] >= (UINT32_C(1) << units.shift)) {
            mask |= UINT32_C(1) << i;
        }
    }
    // A unit behind the last block could not come back with one.
    mask &= units_overlapped(&units, span->base, (size_t)span->capacity * span->block_bytes);
    return mask & ~holes;
}

bool hole_possible(const struct heap *heap, const struct span *span)
{
    if (heap->pages->unit_pages > 32) {
        return false; // huge pages go back whole, and no span is that large
    }
    size_t unit_bytes = heap->pages->vm->page_bytes;
    uint64_t span_bytes = (uint64_t)span->page_count << PAGE_SHIFT;
    uint64_t hole_bytes = (uint64_t)bit_popcount(load_relaxed(&span->holes)) * unit_bytes;
    return span_bytes - span_used(span) * span->block_bytes >= hole_bytes + unit_bytes;
}

// --- making and opening ---

static uint64_t units_bytes(const struct heap *heap, uint32_t mask)
{
    return (uint64_t)bit_popcount(mask) * heap->pages->vm->page_bytes;
}

uint64_t hole_bytes_given(const struct heap *heap, const struct span *span)
{
    return units_bytes(heap, load_relaxed(&span->holes) & ~span->resident);
}

uint64_t hole_bytes_resident(const struct heap *heap, const struct span *span)
{
    return units_bytes(heap, span->resident);
}

// holes_set is the only place where the masks change, and with them the heap's candidate_bytes.
// The page heap's hole_bytes is the caller's: it falls before the masks change, if the gate allows
// it, and rises after.
static void holes_set(struct heap *heap, struct span *span, uint32_t holes, uint32_t resident)
{
    uint64_t resident_before = hole_bytes_resident(heap, span);
    store_relaxed(&span->holes, holes);
    span->resident = resident;
    add_relaxed(&heap->candidate_bytes, hole_bytes_resident(heap, span) - resident_before);
    store_relaxed(&span->holed, holes != 0);
    const struct cache *owner = load_relaxed(&span->owner);
    if (owner != NULL && span_state(span) != SPAN_FULL) {
        store_relaxed(&span->tag, span_tag(owner, span));
    }
}

uint32_t hole_make(struct heap *heap, struct span *span)
{
    struct units units = units_of(heap, span);
    uint32_t mask = hole_search(heap, span);
    if (mask == 0) {
        return 0;
    }
    struct block *kept = NULL;
    struct block **tail = &kept;
    for (struct block *block = span->free; block != NULL; block = block->next) {
        if ((units_overlapped(&units, (uintptr_t)block, span->block_bytes) & mask) == 0) {
            *tail = block;
            tail = &block->next;
        }
    }
    *tail = NULL;
    span->free = kept;
    holes_set(heap, span, load_relaxed(&span->holes) | mask, span->resident | mask);
    return mask;
}

size_t hole_ranges(const struct heap *heap, const struct span *span, struct vm_range *ranges)
{
    struct units units = units_of(heap, span);
    size_t count = 0;
    unsigned pos = 0;
    unsigned end = 0;
    for (; mask_run(span->resident, &pos, &end); pos = end) {
        ranges[count++] = (struct vm_range){
            (void *)(units.start + ((uintptr_t)pos << units.shift)),
            (size_t)(end - pos) << units.shift,
        };
    }
    return count;
}

void hole_given(struct heap *heap, struct span *span, const struct vm_range *range)
{
    struct units units = units_of(heap, span);
    uint32_t mask = units_overlapped(&units, (uintptr_t)range->addr, range->bytes);
    uint64_t bytes = units_bytes(heap, span->resident & mask);
    holes_set(heap, span, load_relaxed(&span->holes), span->resident & ~mask);
    pageheap_unfill(heap->pages, bytes);
}

// Asks the gate for those of the holes that have been given back. True: they count as holes no
// more.
static bool holes_fill(struct heap *heap, const struct span *span, uint32_t mask)
{
    uint64_t bytes = units_bytes(heap, mask & load_relaxed(&span->holes) & ~span->resident);
    return bytes == 0 || pageheap_fill(heap->pages, bytes);
}

// Says that the units of the mask are no holes any more, and threads the blocks that lie in none
// now. Those that were given back have been asked for.
static void holes_open(struct heap *heap, struct span *span, uint32_t mask)
{
    struct units units = units_of(heap, span);
    uint32_t holes = load_relaxed(&span->holes) & ~mask;
    struct block *chain = NULL;
    struct block **tail = &chain;
    unsigned pos = 0;
    unsigned end = 0;
    uint32_t done = 0;
    for (; mask_run(mask, &pos, &end); pos = end) {
        uint32_t first;
        uint32_t last;
        run_blocks(span, &units, pos, end, &first, &last);
        for (uint32_t i = first > done ? first : done; i < last; i++) {
            uintptr_t addr = span->base + (uintptr_t)i * span->block_bytes;
            if ((units_overlapped(&units, addr, span->block_bytes) & holes) != 0) {
                continue;
            }
            struct block *block = (struct block *)addr;
            block->key = heap->secret ^ addr;
            if (unlikely(heap->hardened)) {
                harden_poison(block, span->block_bytes);
            }
            *tail = block;
            tail = &block->next;
        }
        done = last > done ? last : done;
    }
    *tail = span->free;
    span->free = chain;
    holes_set(heap, span, holes, span->resident & holes);
}

bool hole_reopen(struct heap *heap, struct span *span, enum hole_reopen which)
{
    struct units units = units_of(heap, span);
    // Holes beyond the blocks that were ever threaded are span_extend's.
    uint32_t within = units_overlapped(&units, span->base, threaded_end(span) - span->base);
    uint32_t filled = 0;
    for (unsigned opened = 0; opened < REOPEN_UNITS || span->free == NULL; opened++) {
        uint32_t holes = load_relaxed(&span->holes) & within;
        uint32_t wanted = holes & span->resident;
        wanted = wanted == 0 && which == HOLE_REOPEN_ANY ? holes : wanted;
        wanted &= -wanted;
        if (wanted == 0 || !holes_fill(heap, span, wanted)) {
            break;
        }
        filled |= wanted & ~span->resident;
        holes_open(heap, span, wanted);
    }
    if (unlikely(span->free == NULL) && filled != 0) {
        // The gate refused before the first block was whole. Nobody has touched the pages: they are
        // holes again, and room for others.
        holes_set(heap, span, load_relaxed(&span->holes) | filled, span->resident);
        pageheap_unfill(heap->pages, units_bytes(heap, filled));
    }
    return span->free != NULL;
}

bool hole_open_for(struct heap *heap, struct span *span, uint32_t count)
{
    struct units units = units_of(heap, span);
    uint32_t mask = units_overlapped(&units, threaded_end(span), (size_t)count * span->block_bytes);
    mask &= load_relaxed(&span->holes);
    if (mask == 0) {
        return true;
    }
    if (!holes_fill(heap, span, mask)) {
        return false;
    }
    holes_open(heap, span, mask);
    return true;
}

bool hole_holds(const struct heap *heap, const struct span *span, const void *addr)
{
    struct units units = units_of(heap, span);
    uint32_t overlapped = units_overlapped(&units, (uintptr_t)addr, span->block_bytes);
    return (overlapped & load_relaxed(&span->holes)) != 0;
}

uint32_t hole_blocks(const struct heap *heap, const struct span *span)
{
    struct units units = units_of(heap, span);
    uint32_t holes = load_relaxed(&span->holes);
    uint32_t count = 0;
    uint32_t done = 0;
    unsigned pos = 0;
    unsigned end = 0;
    for (; mask_run(holes, &pos, &end); pos = end) {
        uint32_t first;
        uint32_t last;
        run_blocks(span, &units, pos, end, &first, &last);
        first = first > done ? first : done;
        count += first < last ? last - first : 0;
        done = last > done ? last : done;
    }
    return count;
}

uint32_t hole_forget(struct heap *heap, struct span *span, uint64_t *given_bytes)
{
    uint32_t given = load_relaxed(&span->holes) & ~span->resident;
    *given_bytes = units_bytes(heap, given);
    if (load_relaxed(&span->holes) == 0) {
        return 0;
    }
    struct units units = units_of(heap, span);
    uint32_t mask = 0;
    for (uint32_t page = 0; given != 0 && page < span->page_count; page++) {
        uintptr_t addr = span->base + ((uintptr_t)page << PAGE_SHIFT);
        if (addr >= units.start && addr + PAGE_BYTES <= units.end &&
            (units_overlapped(&units, addr, PAGE_BYTES) & ~given) == 0) {
            mask |= UINT32_C(1) << page;
        }
    }
    holes_set(heap, span, 0, 0);
    return mask;
}

const char *hole_verify(const struct heap *heap, const struct span *span)
{
    struct units units = units_of(heap, span);
    uint32_t holes = load_relaxed(&span->holes);
    if ((load_relaxed(&span->holed) != 0) != (holes != 0) || (span->resident & ~holes) != 0) {
        return "span: the marks of its holes differ";
    }
    if (units.count < 32 && holes >> units.count != 0) {
        return "span: a hole outside its kernel pages";
    }
    for (const struct block *block = span->free; holes != 0 && block != NULL; block = block->next) {
        if (hole_holds(heap, span, block)) {
            return "span: a block on the free list lies in a hole";
        }
    }
    return NULL;
}
