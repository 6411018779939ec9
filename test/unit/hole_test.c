// SPDX-License-Identifier: MIT
// Tier  quick
//
// Holes, function by function, on spans made by hand: which kernel pages become holes, which blocks
// stay on the free list, what comes back and how. Everything is compared with a naive picture of
// the span that marks single bytes. Random courses of the whole heap are in
// test/model/hole_model.c.
//
// Model
//   A hand is a span without owner or list, and what the test knows of it: for each block whether
//   it is in use, and for each kernel page whether it is a hole and whether that is still resident.
//   What hole.c says must follow from the hand alone.
//
// Go  none; runtime/mgcscavenge_test.go for runs.
#include "support/unit.h"

#include <string.h>

#include "base/bitops.h"
#include "span/span_int.h"
#include "support/heapbox.h"

#define SPAN_BYTES_MAX ((size_t)128 * KIB)
#define BLOCKS_MAX (SPAN_BYTES_MAX / 16)

static struct heapbox box;
static size_t unit_bytes;

struct hand {
    struct span *span;
    bool used[BLOCKS_MAX];
    uint32_t holes; // what they should be, by kernel page from the first whole one
    uint32_t resident;
};

static void open_box(size_t page_bytes)
{
    unit_bytes = page_bytes;
    heapbox_adopt_main(&box, page_bytes, GIB, 1);
}

// --- the naive picture ---

static size_t span_bytes(const struct span *span)
{
    return (size_t)span->page_count << PAGE_SHIFT;
}

static uintptr_t block_addr(const struct span *span, size_t index)
{
    return span->base + index * span->block_bytes;
}

// Kernel page number of the span: its bytes, or false if the span has no such whole page.
static bool unit_at(const struct span *span, unsigned index, uintptr_t *start)
{
    uintptr_t first = span->base;
    while (first % unit_bytes != 0) {
        first += PAGE_BYTES;
    }
    *start = first + index * unit_bytes;
    return *start + unit_bytes <= span->base + span_bytes(span);
}

static bool overlap(uintptr_t a, size_t a_bytes, uintptr_t b, size_t b_bytes)
{
    return a < b + b_bytes && b < a + a_bytes;
}

// The kernel pages none of whose bytes belongs to a block in use, but not those behind all blocks.
static uint32_t naive_holes(const struct hand *hand)
{
    static uint8_t busy[SPAN_BYTES_MAX];
    const struct span *span = hand->span;
    memset(busy, 0, sizeof(busy));
    for (size_t i = 0; i < span->capacity; i++) {
        if (hand->used[i]) {
            memset(busy + i * span->block_bytes, 1, span->block_bytes);
        }
    }
    uint32_t mask = 0;
    uintptr_t start;
    for (unsigned unit = 0; unit_at(span, unit, &start); unit++) {
        bool behind = start >= block_addr(span, span->capacity);
        if (!behind && memchr(busy + (start - span->base), 1, unit_bytes) == NULL) {
            mask |= UINT32_C(1) << unit;
        }
    }
    return mask;
}

// Whether a block overlaps a page of the mask.
static bool in_units(const struct span *span, size_t index, uint32_t mask)
{
    uintptr_t start;
    for (unsigned unit = 0; unit_at(span, unit, &start); unit++) {
        if ((mask >> unit & 1) != 0 &&
            overlap(block_addr(span, index), span->block_bytes, start, unit_bytes)) {
            return true;
        }
    }
    return false;
}

static uint64_t mask_bytes(uint32_t mask)
{
    return (uint64_t)bit_popcount(mask) * unit_bytes;
}

// Everything that can be said of the span: its masks, its free list, its counts.
static void hand_check(const struct hand *hand, const char *when)
{
    static bool listed[BLOCKS_MAX];
    const struct span *span = hand->span;
    uint32_t in_holes = 0;
    cr_assert(load_relaxed(&span->holes) == hand->holes,
              "%s: class %u, %u pages: holes %#x, not %#x", when, span->size_class,
              span->page_count, load_relaxed(&span->holes), hand->holes);
    cr_assert(span->resident == hand->resident, "%s: class %u: resident %#x, not %#x", when,
              span->size_class, span->resident, hand->resident);
    memset(listed, 0, sizeof(listed));
    for (const struct block *b = span->free; b != NULL; b = b->next) {
        size_t index = ((uintptr_t)b - span->base) / span->block_bytes;
        cr_assert(index < span->threaded && (uintptr_t)b == block_addr(span, index));
        cr_assert(!listed[index], "%s: a block is listed twice", when);
        cr_assert(b->key == (heap_main.secret ^ (uintptr_t)b), "%s: no key", when);
        listed[index] = true;
    }
    for (size_t i = 0; i < span->capacity; i++) {
        bool holed = in_units(span, i, hand->holes);
        cr_assert(hole_holds(&heap_main, span, (void *)block_addr(span, i)) == holed,
                  "%s: class %u block %zu", when, span->size_class, i);
        cr_assert(!holed || !hand->used[i]);
        if (i < span->threaded) {
            in_holes += holed;
            cr_assert(listed[i] == (!hand->used[i] && !holed), "%s: class %u block %zu is %slisted",
                      when, span->size_class, i, listed[i] ? "" : "not ");
        }
    }
    cr_assert(hole_blocks(&heap_main, span) == in_holes, "%s: class %u", when, span->size_class);
    cr_assert(hole_verify(&heap_main, span) == NULL, "%s: %s", when, hole_verify(&heap_main, span));
    uint64_t given = mask_bytes(hand->holes & ~hand->resident);
    uint64_t resident = mask_bytes(hand->resident);
    cr_assert(hole_bytes_given(&heap_main, span) == given);
    cr_assert(hole_bytes_resident(&heap_main, span) == resident);
    cr_assert(load_relaxed(&pageheap_main.hole_bytes) == given, "%s", when);
    cr_assert(load_relaxed(&heap_main.candidate_bytes) == resident, "%s", when);
}

// --- a span by hand ---

// A span of the class that nobody owns, as central has them.
static struct hand *hand_make(unsigned size_class, size_t pages)
{
    static struct hand hand;
    const struct sizeclass *sc = &sizeclass_table[size_class];
    struct span *span = pageheap_alloc(&pageheap_main, pages, 1, PAGEHEAP_SMALL);
    cr_assert(span != NULL);
    span->size_class = (uint8_t)size_class;
    span->block_bytes = sc->block_bytes;
    span->magic = sc->magic;
    span->magic_limit = sc->magic;
    span->capacity = (uint16_t)((pages << PAGE_SHIFT) / sc->block_bytes);
    store_relaxed(&span->tag, TAG_CENTRAL | size_class);
    store_relaxed(&span->state, SPAN_PARTIAL);
    memset(&hand, 0, sizeof(hand));
    hand.span = span;
    return &hand;
}

// The holes that the next span_extend opens: those under the blocks it threads.
static void hand_expect_extended(struct hand *hand, uint32_t before)
{
    for (size_t i = before; i < hand->span->threaded; i++) {
        uintptr_t start;
        for (unsigned unit = 0; unit_at(hand->span, unit, &start); unit++) {
            if (overlap(block_addr(hand->span, i), hand->span->block_bytes, start, unit_bytes)) {
                hand->holes &= ~(UINT32_C(1) << unit);
            }
        }
    }
    hand->resident &= hand->holes;
}

static bool hand_extend(struct hand *hand)
{
    uint32_t before = hand->span->threaded;
    bool done = span_extend(&heap_main, hand->span);
    hand_expect_extended(hand, before);
    return done;
}

// Takes the first free block and writes all of it. False if there is none.
static bool hand_take(struct hand *hand)
{
    struct span *span = hand->span;
    struct block *block = span->free;
    if (block == NULL) {
        return false;
    }
    size_t index = ((uintptr_t)block - span->base) / span->block_bytes;
    cr_assert(!hand->used[index] && !in_units(span, index, hand->holes), "class %u: block %zu",
              span->size_class, index);
    span->free = block->next;
    span->used++;
    span->alloc_end++;
    hand->used[index] = true;
    memset(block, 0x5a, span->block_bytes);
    return true;
}

static void hand_put(struct hand *hand, size_t index)
{
    struct span *span = hand->span;
    struct block *block = (struct block *)block_addr(span, index);
    cr_assert(hand->used[index]);
    block->next = span->free;
    block->key = heap_main.secret ^ (uintptr_t)block;
    span->free = block;
    span->used--;
    hand->used[index] = false;
}

// Takes until so many blocks are in use, or there is nothing more without opening a hole.
static void hand_fill(struct hand *hand, size_t count)
{
    while (hand->span->used < count && (hand_take(hand) || hand_extend(hand))) {
    }
}

static void hand_thin(struct hand *hand, uint64_t *random, unsigned kept_of_1000)
{
    for (size_t i = 0; i < hand->span->capacity; i++) {
        if (hand->used[i] && frame_below(random, 1000) >= kept_of_1000) {
            hand_put(hand, i);
        }
    }
}

static void hand_search(struct hand *hand)
{
    uint32_t expected = naive_holes(hand) & ~hand->holes;
    cr_assert(expected == 0 || hole_possible(&heap_main, hand->span), "it is possible");
    uint32_t found = hole_make(&heap_main, hand->span);
    cr_assert(found == expected, "class %u, %u pages: found %#x, not %#x", hand->span->size_class,
              hand->span->page_count, found, expected);
    hand->holes |= expected;
    hand->resident |= expected;
    hand_check(hand, "after a search");
}

// Gives some of the resident holes back; the ranges must be those of the mask, in order and whole.
static void hand_give(struct hand *hand, uint64_t *random)
{
    struct vm_range ranges[HOLE_RANGES];
    size_t count = hole_ranges(&heap_main, hand->span, ranges);
    uint32_t mask = hand->resident;
    uint32_t seen = 0;
    for (size_t i = 0; i < count; i++) {
        uintptr_t start;
        uint32_t range_mask = 0;
        for (unsigned unit = 0; unit_at(hand->span, unit, &start); unit++) {
            if (overlap(start, unit_bytes, (uintptr_t)ranges[i].addr, ranges[i].bytes)) {
                range_mask |= UINT32_C(1) << unit;
            }
        }
        cr_assert(mask_bytes(range_mask) == ranges[i].bytes && (range_mask & seen) == 0);
        cr_assert((uintptr_t)ranges[i].addr % unit_bytes == 0);
        seen |= range_mask;
        // Also a part of a range: two holes may lie in one block, with a page between that is none.
        size_t units = ranges[i].bytes / unit_bytes;
        size_t from = frame_below(random, units);
        size_t given = frame_below(random, units - from + 1);
        if (given != 0) {
            struct vm_range part = {(char *)ranges[i].addr + from * unit_bytes, given * unit_bytes};
            cr_assert(vm_unused(&box.fail.vm, part.addr, part.bytes, VM_ADVICE_DONTNEED) == 0);
            hole_given(&heap_main, hand->span, &part);
            unsigned first = bit_ctz(range_mask) + (unsigned)from;
            hand->resident &= ~(uint32_t)bit_mask(first, (unsigned)given);
        }
    }
    cr_assert(seen == mask, "the ranges are not the resident holes: %#x, not %#x", seen, mask);
    hand_check(hand, "after giving back");
}

// Opens holes and sees that these were the right ones.
static void hand_reopen(struct hand *hand, enum hole_reopen which)
{
    struct span *span = hand->span;
    uint32_t holes = hand->holes;
    bool within = false; // a hole below what was threaded
    for (size_t i = 0; i < span->threaded; i++) {
        within = within || in_units(span, i, holes);
    }
    bool free_before = span->free != NULL;
    bool done = hole_reopen(&heap_main, span, which);
    hand->holes = load_relaxed(&span->holes);
    hand->resident = span->resident;
    cr_assert((hand->holes & ~holes) == 0 && done == (span->free != NULL));
    if (which == HOLE_REOPEN_RESIDENT) {
        uint32_t opened = holes & ~hand->holes;
        cr_assert((opened & (hand->holes & ~hand->resident)) == 0);
    } else {
        cr_assert(done == (free_before || within), "class %u: nothing came back", span->size_class);
        cr_assert(hand->holes != holes || !within);
    }
    hand_check(hand, "after opening");
}

// Every block of the span can be in use: none was lost.
static void hand_fill_all(struct hand *hand)
{
    struct span *span = hand->span;
    while (span->used < span->capacity) {
        if (!hand_take(hand) && !hand_extend(hand)) {
            cr_assert(hand->holes != 0, "class %u, %u pages: %u of %u blocks come back",
                      span->size_class, span->page_count, span->used, span->capacity);
            hand_reopen(hand, HOLE_REOPEN_ANY);
        }
    }
    cr_assert(hand->holes == 0 && span->threaded == span->capacity);
    hand_check(hand, "filled");
}

// The span goes: its given pages are those whose every byte lies in a given hole.
static void hand_end(struct hand *hand)
{
    struct span *span = hand->span;
    uint32_t given = hand->holes & ~hand->resident;
    uint32_t expected = 0;
    for (unsigned page = 0; page < span->page_count; page++) {
        size_t covered = 0;
        uintptr_t start;
        for (unsigned unit = 0; unit_at(span, unit, &start); unit++) {
            uintptr_t lo = span->base + page * PAGE_BYTES;
            uintptr_t hi = lo + PAGE_BYTES;
            lo = lo > start ? lo : start;
            hi = hi < start + unit_bytes ? hi : start + unit_bytes;
            covered += (given >> unit & 1) != 0 && lo < hi ? hi - lo : 0;
        }
        expected |= covered == PAGE_BYTES ? UINT32_C(1) << page : 0;
    }
    for (size_t i = 0; i < span->capacity; i++) {
        if (hand->used[i]) {
            hand_put(hand, i);
        }
    }
    uint64_t given_bytes = 0;
    uint32_t mask = hole_forget(&heap_main, span, &given_bytes);
    cr_assert(mask == expected, "class %u: pages %#x, not %#x", span->size_class, mask, expected);
    hand->holes = 0;
    hand->resident = 0;
    cr_assert(given_bytes == mask_bytes(given));
    cr_assert(load_relaxed(&heap_main.candidate_bytes) == 0);
    pageheap_free_holed(&pageheap_main, span, mask, given_bytes);
    cr_assert(load_relaxed(&pageheap_main.hole_bytes) == 0);
    cr_assert(pageheap_verify(&pageheap_main) == NULL, "%s", pageheap_verify(&pageheap_main));
}

// --- every class, every kernel page ---

static void course(unsigned size_class, size_t pages, uint64_t *random)
{
    static const unsigned kept[] = {0, 5, 20, 100, 500, 900};
    struct hand *hand = hand_make(size_class, pages);
    struct span *span = hand->span;
    hand_fill(hand, 1 + frame_below(random, span->capacity));
    for (unsigned round = 0; round < 6; round++) {
        hand_thin(hand, random, kept[frame_below(random, ARRAY_COUNT(kept))]);
        hand_search(hand);
        hand_give(hand, random);
        switch (frame_below(random, 5)) {
        case 0:
            hand_reopen(hand, HOLE_REOPEN_RESIDENT);
            break;
        case 1:
            hand_reopen(hand, HOLE_REOPEN_ANY);
            break;
        case 2:
            hand_extend(hand);
            hand_check(hand, "after threading more");
            break;
        default:
            break;
        }
        hand_fill(hand, frame_below(random, span->capacity + 1u));
        hand_check(hand, "after taking blocks");
    }
    if (frame_below(random, 2) == 0) {
        hand_fill_all(hand);
        hand_thin(hand, random, 20);
        hand_search(hand);
        hand_give(hand, random);
    }
    hand_end(hand);
}

static void all_classes(size_t page_bytes)
{
    uint64_t random = frame_seed();
    open_box(page_bytes);
    unsigned rounds = frame_rounds(60);
    for (unsigned round = 0; round < rounds; round++) {
        // Spans start anywhere in a kernel page.
        struct span *skew =
            pageheap_alloc(&pageheap_main, 1 + frame_below(&random, 8), 1, PAGEHEAP_LARGE);
        for (unsigned i = 1; i < SIZECLASS_COUNT; i++) {
            course(i, sizeclass_table[i].first_pages, &random);
            course(i, sizeclass_table[i].full_pages, &random);
        }
        pageheap_free(&pageheap_main, skew);
    }
}

EBB_TEST(hole, every_class_page_4_kib)
{
    all_classes(4 * KIB);
}

EBB_TEST(hole, every_class_page_16_kib)
{
    all_classes(16 * KIB);
}

EBB_TEST(hole, every_class_page_64_kib)
{
    all_classes(64 * KIB);
}

// --- what is worth a name ---

EBB_TEST(hole, a_page_with_one_byte_of_a_block_in_use_stays)
{
    open_box(4 * KIB);
    // Blocks of 3,072 bytes: block 1 lies on pages 0 and 1, block 2 on pages 1 and 2.
    struct hand *hand = hand_make(sizeclass_of(3072), 8);
    hand_fill(hand, hand->span->capacity);
    for (size_t i = 0; i < hand->span->capacity; i++) {
        if (i != 1) {
            hand_put(hand, i);
        }
    }
    cr_assert((hole_make(&heap_main, hand->span) & 7) == 4, "page 2 and not 0 and 1");
    hand->holes = load_relaxed(&hand->span->holes);
    hand->resident = hand->span->resident;
    hand_check(hand, "with a block that straddles");
    // Block 2 reaches into page 1, which stays: it is in a hole all the same, and on no list.
    cr_assert(hole_holds(&heap_main, hand->span, (void *)block_addr(hand->span, 2)));
    hand_fill_all(hand);
}

EBB_TEST(hole, a_block_across_two_holes_comes_back_with_the_second)
{
    open_box(4 * KIB);
    struct hand *hand = hand_make(sizeclass_of(6144), 9);
    uint64_t random = 1;
    hand_fill(hand, hand->span->capacity);
    hand_thin(hand, &random, 0);
    hand_search(hand);
    cr_assert(hand->holes == (UINT32_C(1) << 18) - 1, "all 18 pages");
    // Opened one by one and given back in between, none of a block's pages is forgotten.
    hand_reopen(hand, HOLE_REOPEN_ANY);
    cr_assert(hand->span->free != NULL && hand->holes != 0);
    hand_fill_all(hand);
}

EBB_TEST(hole, what_lies_behind_the_last_block_is_no_hole)
{
    open_box(4 * KIB);
    // Blocks of 1,280 bytes in 8 KiB: six, and 512 bytes left, which come back with block 5.
    struct hand *hand = hand_make(sizeclass_of(1280), 1);
    hand_fill(hand, hand->span->capacity);
    hand_put(hand, 4);
    hand_put(hand, 5);
    hand_put(hand, 3);
    hand_search(hand);
    cr_assert(hand->holes == 2, "page 1 is free but for the rest of the span");
    hand_fill_all(hand);
    hand_end(hand);
    // A span that is longer than its blocks by a kernel page and more.
    hand = hand_make(sizeclass_of(1280), 1);
    hand->span->capacity = 2;
    hand_fill(hand, 2);
    hand_put(hand, 0);
    hand_put(hand, 1);
    cr_assert(hole_make(&heap_main, hand->span) == 1, "page 1 would come back with no block");
}

EBB_TEST(hole, blocks_never_threaded_lie_in_holes_too)
{
    open_box(4 * KIB);
    struct hand *hand = hand_make(sizeclass_of(64), 8);
    hand_fill(hand, 1);
    uint32_t threaded = hand->span->threaded;
    cr_assert(threaded == 64);
    hand_search(hand);
    cr_assert(hand->holes == 0xfffe, "all pages but the first: %#x", hand->holes);
    cr_assert(hole_blocks(&heap_main, hand->span) == 0, "no block that was ever threaded");
    hand_fill(hand, 64);
    cr_assert(!hole_reopen(&heap_main, hand->span, HOLE_REOPEN_ANY), "they are span_extend's");
    cr_assert(load_relaxed(&hand->span->holes) == 0xfffe);
    cr_assert(hand_extend(hand));
    cr_assert(hand->holes == 0xfffc);
    hand_check(hand, "after threading a page");
    hand_fill_all(hand);
}

EBB_TEST(hole, resident_holes_come_back_before_given_ones)
{
    open_box(4 * KIB);
    struct hand *hand = hand_make(sizeclass_of(64), 8);
    uint64_t random = 1;
    hand_fill(hand, hand->span->capacity);
    hand_thin(hand, &random, 0);
    hand_search(hand);
    struct vm_range low = {(void *)hand->span->base, 12 * 4 * KIB};
    hole_given(&heap_main, hand->span, &low);
    hand->resident &= ~UINT32_C(0xfff);
    hand_check(hand, "12 of 16 pages given back");
    hand_reopen(hand, HOLE_REOPEN_RESIDENT);
    cr_assert(hand->holes == 0xfff && hand->resident == 0, "the four resident ones");
    cr_assert(hole_reopen(&heap_main, hand->span, HOLE_REOPEN_RESIDENT), "it has free blocks");
    cr_assert(load_relaxed(&hand->span->holes) == 0xfff, "and opens no other");
    hand_fill_all(hand);
}

// A memory limit that leaves room for so many kernel pages more than are in use now.
static void gate_room(size_t units)
{
    struct pageheap_stats stats;
    pageheap_stats_read(&pageheap_main, &stats);
    uint64_t used = (stats.used_pages << PAGE_SHIFT) - load_relaxed(&pageheap_main.hole_bytes);
    uint64_t tables = load_relaxed(&heap_main.meta.reserved_bytes) + heap_main.meta.first_bytes;
    pageheap_set_gate(&pageheap_main, UINT64_MAX, used + tables + units * unit_bytes);
}

static void hand_give_all(struct hand *hand)
{
    uint64_t random = 1;
    while (hand->resident != 0) {
        hand_give(hand, &random);
    }
}

// Half a block is of no use: what was opened for it is a hole again, and room for others.
EBB_TEST(hole, the_gate_refuses_and_they_stay)
{
    open_box(4 * KIB);
    uint64_t random = 1;
    struct hand *hand = hand_make(sizeclass_of(20480), 8);
    cr_assert(hand->span->block_bytes == 20480 && hand->span->capacity == 3);
    hand_fill(hand, 3);
    hand_thin(hand, &random, 0);
    hand_search(hand);
    hand_give_all(hand);
    cr_assert(hand->holes == 0x7fff, "%#x", hand->holes);
    for (size_t units = 0; units < 5; units++) {
        gate_room(units);
        cr_assert(!hole_reopen(&heap_main, hand->span, HOLE_REOPEN_ANY), "%zu pages", units);
        hand_check(hand, "refused");
        cr_assert(pageheap_gate_refuses(&pageheap_main, 3), "they are no room");
    }
    gate_room(5);
    hand_reopen(hand, HOLE_REOPEN_ANY);
    cr_assert(hand->holes == 0x7fe0 && hand_take(hand) && !hand_take(hand), "one block");
    cr_assert(!hole_reopen(&heap_main, hand->span, HOLE_REOPEN_ANY));
    hand_check(hand, "at the limit");
    pageheap_set_gate(&pageheap_main, UINT64_MAX, UINT64_MAX);
    hand_fill_all(hand);
    // The same where blocks were never threaded.
    hand = hand_make(sizeclass_of(64), 8);
    hand_fill(hand, 64);
    hand_search(hand);
    hand_give_all(hand);
    gate_room(0);
    cr_assert(!hand_extend(hand));
    hand_check(hand, "not extended");
    gate_room(1);
    cr_assert(hand_extend(hand) && hand->holes == 0xfffc, "%#x", hand->holes);
    hand_check(hand, "extended by a page");
    hand_fill(hand, 128);
    cr_assert(!hand_extend(hand));
    hand_check(hand, "at the limit again");
    pageheap_set_gate(&pageheap_main, UINT64_MAX, UINT64_MAX);
    hand_fill_all(hand);
}

EBB_TEST(hole, without_room_for_a_page_no_search_is_worth_it)
{
    open_box(4 * KIB);
    struct hand *hand = hand_make(sizeclass_of(64), 8);
    hand_fill(hand, hand->span->capacity);
    for (size_t i = 0; i < 63; i++) {
        hand_put(hand, i);
    }
    cr_assert(!hole_possible(&heap_main, hand->span));
    cr_assert(hole_make(&heap_main, hand->span) == 0);
    hand_put(hand, 63);
    cr_assert(hole_possible(&heap_main, hand->span));
    hand_search(hand);
    cr_assert(hand->holes == 1);
    cr_assert(!hole_possible(&heap_main, hand->span), "nothing more is free");
}

EBB_TEST(hole, hardened_blocks_come_back_with_their_pattern)
{
    open_box(4 * KIB);
    cr_assert(cache_alloc_class(1, 16, 16) != NULL); // the thread has a cache
    harden_enable(&heap_main);
    for (unsigned i = 1; i < SIZECLASS_COUNT; i++) {
        struct hand *hand = hand_make(i, sizeclass_table[i].full_pages);
        struct span *span = hand->span;
        uint64_t random = i;
        hand_fill(hand, span->capacity);
        for (size_t k = 0; k < span->capacity; k++) {
            hand_put(hand, k);
            harden_poison((struct block *)block_addr(span, k), span->block_bytes);
        }
        hand_search(hand);
        hand_give(hand, &random);
        size_t count = 0;
        while (span->free != NULL || hole_reopen(&heap_main, span, HOLE_REOPEN_ANY)) {
            struct block *block = span->free;
            span->free = block->next;
            harden_alloc(cache_self, span, block); // ends the program if the pattern is not there
            count++;
        }
        cr_assert(count == span->capacity, "class %u", i);
        cr_assert(load_relaxed(&span->holes) == 0);
    }
}
