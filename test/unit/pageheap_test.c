// SPDX-License-Identifier: MIT
// Tier  quick
//
// The page heap: summaries against counting, placement, the page map, growth and its limits, the
// doorbell, tables that go back. Random courses are in test/model/pageheap_model.c.
//
// Go  runtime/mpagealloc_test.go, mpallocbits_test.go.
#include "support/unit.h"

#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "base/rand.h"
#include "pageheap/pageheap_int.h"
#include "support/heapbox.h"

// --- summaries ---

struct counts {
    size_t start;
    size_t longest;
    size_t end;
};

static struct counts count_bits(const uint64_t *words, size_t bits)
{
    struct counts c = {0, 0, 0};
    size_t run = 0;
    bool seen = false;
    for (size_t i = 0; i < bits; i++) {
        run = (words[i / 64] >> (i % 64) & 1) == 0 ? run + 1 : 0;
        if (run == 0) {
            seen = true;
        }
        c.start += !seen;
        c.longest = run > c.longest ? run : c.longest;
    }
    c.end = run;
    return c;
}

static void expect_summary(uint64_t summary, struct counts c)
{
    cr_assert(summary_start(summary) == c.start);
    cr_assert(summary_longest(summary) == c.longest);
    cr_assert(summary_end(summary) == c.end);
}

EBB_TEST(pageheap, summary_of_every_single_run)
{
    for (size_t first = 0; first < CHUNK_PAGES; first++) {
        for (size_t count = 1; first + count <= CHUNK_PAGES; count += 1 + count / 5) {
            uint64_t words[CHUNK_WORDS] = {0};
            bits_set_range(words, first, count);
            expect_summary(summary_of_bits(words), count_bits(words, CHUNK_PAGES));
            for (size_t w = 0; w < CHUNK_WORDS; w++) {
                words[w] = ~words[w];
            }
            expect_summary(summary_of_bits(words), count_bits(words, CHUNK_PAGES));
        }
    }
}

EBB_TEST(pageheap, summary_of_random_bits_and_their_merge)
{
    struct rand rand;
    rand_seed(&rand, frame_seed());
    for (int turn = 0; turn < 4000; turn++) {
        static uint64_t words[8 * CHUNK_WORDS];
        uint64_t summaries[8];
        uint64_t one_in = (uint64_t)1 << rand_below(&rand, 10);
        for (size_t chunk = 0; chunk < 8; chunk++) {
            bool empty = rand_below(&rand, 3) == 0;
            for (size_t i = chunk * CHUNK_PAGES; i < (chunk + 1) * CHUNK_PAGES; i++) {
                if (!empty && rand_below(&rand, one_in) == 0) {
                    bits_set(words, i);
                } else {
                    bits_clear(words, i);
                }
            }
            summaries[chunk] = summary_of_bits(&words[chunk * CHUNK_WORDS]);
            expect_summary(summaries[chunk], count_bits(&words[chunk * CHUNK_WORDS], CHUNK_PAGES));
        }
        expect_summary(summary_merge(summaries, 8, CHUNK_PAGES),
                       count_bits(words, 8 * CHUNK_PAGES));
    }
}

// --- allocation ---

EBB_TEST(pageheap, spans_have_their_pages)
{
    struct heapbox box;
    heapbox_open(&box, 4 * KIB, 256 * MIB, 1);
    struct span *small = pageheap_alloc(box.pages, 8, 1, PAGEHEAP_SMALL);
    struct span *large = pageheap_alloc(box.pages, 8, 1, PAGEHEAP_LARGE);
    cr_assert(small != NULL && large != NULL);
    small->size_class = 1; // as span_new does
    cr_assert(small->base == (uintptr_t)box.sim.space &&
              large->base == small->base + 8 * PAGE_BYTES);
    cr_assert(small->zero && large->zero && small->page_count == 8);
    for (size_t i = 0; i < 8; i++) {
        char *in_small = (char *)small->base + i * PAGE_BYTES + 17;
        char *in_large = (char *)large->base + i * PAGE_BYTES + 17;
        cr_assert(span_of(box.pages, in_small) == small);
        cr_assert(span_of(box.pages, in_large) == (i == 0 ? large : &span_none));
        cr_assert(pageheap_find(box.pages, in_large) == large);
    }
    cr_assert(span_of(box.pages, (char *)large->base + 8 * PAGE_BYTES) == &span_none);
    cr_assert(span_of(box.pages, &box) == NULL);
    cr_assert(span_of(box.pages, NULL) == NULL);
    cr_assert(span_of(box.pages, (void *)UINTPTR_MAX) == NULL);
    uintptr_t base = small->base;
    pageheap_free(box.pages, small);
    cr_assert(span_of(box.pages, (void *)base) == &span_none);
    cr_assert(pageheap_find(box.pages, (void *)base) == NULL);
    small = pageheap_alloc(box.pages, 8, 1, PAGEHEAP_SMALL);
    cr_assert(small->base == base && !small->zero, "the lowest run, used before");
    heapbox_verify(&box, "at the end");
    heapbox_close(&box);
}

EBB_TEST(pageheap, lowest_address_first)
{
    struct heapbox box;
    struct span *spans[100];
    heapbox_open(&box, 4 * KIB, 256 * MIB, 1);
    for (size_t i = 0; i < 100; i++) {
        spans[i] = pageheap_alloc(box.pages, 10, 1, PAGEHEAP_LARGE);
    }
    pageheap_free(box.pages, spans[70]);
    pageheap_free(box.pages, spans[30]);
    pageheap_free(box.pages, spans[31]);
    uintptr_t base = (uintptr_t)box.sim.space;
    cr_assert(pageheap_alloc(box.pages, 11, 1, PAGEHEAP_LARGE)->base == base + 300 * PAGE_BYTES);
    cr_assert(pageheap_alloc(box.pages, 10, 1, PAGEHEAP_LARGE)->base == base + 700 * PAGE_BYTES);
    cr_assert(pageheap_alloc(box.pages, 9, 1, PAGEHEAP_LARGE)->base == base + 311 * PAGE_BYTES);
    cr_assert(pageheap_alloc(box.pages, 1, 1, PAGEHEAP_LARGE)->base == base + 1000 * PAGE_BYTES);
    heapbox_close(&box);
}

EBB_TEST(pageheap, large_spans_cross_arenas_and_small_do_not)
{
    struct heapbox box;
    heapbox_open(&box, 4 * KIB, 512 * MIB, 1);
    struct span *first = pageheap_alloc(box.pages, ARENA_PAGES - 4, 1, PAGEHEAP_LARGE);
    struct span *small = pageheap_alloc(box.pages, 8, 1, PAGEHEAP_SMALL);
    struct span *large = pageheap_alloc(box.pages, 3 * ARENA_PAGES, 1, PAGEHEAP_LARGE);
    cr_assert(first != NULL && small != NULL && large != NULL);
    small->size_class = 1;
    cr_assert(small->base % ARENA_BYTES == 0, "4 pages are left before the border");
    cr_assert(large->base >> ARENA_SHIFT != (large->base + 3 * ARENA_BYTES - 1) >> ARENA_SHIFT);
    char *end = (char *)large->base + 3 * ARENA_BYTES - 1;
    memset((void *)large->base, 0x5a, PAGE_BYTES);
    *end = 1;
    cr_assert(pageheap_find(box.pages, end) == large);
    heapbox_verify(&box, "with a span over four arenas");
    pageheap_free(box.pages, large);
    pageheap_free(box.pages, first);
    pageheap_free(box.pages, small);
    heapbox_verify(&box, "at the end");
    heapbox_close(&box);
}

// A run that only a large span could take must not hide those above it.
EBB_TEST(pageheap, small_spans_pass_over_a_run_across_a_border)
{
    struct heapbox box;
    struct pageheap_stats before;
    struct pageheap_stats after;
    struct span *above[40];
    heapbox_open(&box, 4 * KIB, 512 * MIB, 1);
    struct span *below = pageheap_alloc(box.pages, ARENA_PAGES - 4, 1, PAGEHEAP_LARGE);
    struct span *across = pageheap_alloc(box.pages, 8, 1, PAGEHEAP_LARGE);
    cr_assert(below != NULL && across != NULL);
    for (size_t i = 0; i < ARRAY_COUNT(above); i++) {
        above[i] = pageheap_alloc(box.pages, 8, 1, PAGEHEAP_LARGE);
    }
    pageheap_stats_read(box.pages, &before);
    uint64_t rest = before.sys_pages - before.used_pages;
    cr_assert(rest != 0 && pageheap_alloc(box.pages, rest, 1, PAGEHEAP_LARGE) != NULL, "all used");
    pageheap_free(box.pages, across);
    for (size_t i = 1; i < ARRAY_COUNT(above); i += 2) {
        uintptr_t base = above[i]->base;
        pageheap_free(box.pages, above[i]);
        struct span *small = pageheap_alloc(box.pages, 8, 1, PAGEHEAP_SMALL);
        cr_assert(small != NULL && small->base == base, "the run above the border");
        small->size_class = 1;
    }
    pageheap_stats_read(box.pages, &after);
    cr_assert(after.sys_pages == before.sys_pages, "nothing had to grow");
    heapbox_verify(&box, "at the end");
    heapbox_close(&box);
}

EBB_TEST(pageheap, alignment_up_to_an_arena)
{
    struct heapbox box;
    heapbox_open(&box, 4 * KIB, 2 * GIB, 1);
    for (size_t align = 1; align <= ARENA_PAGES; align *= 2) {
        struct span *span = pageheap_alloc(box.pages, 3, align, PAGEHEAP_LARGE);
        cr_assert(span != NULL && span->base % (align << PAGE_SHIFT) == 0, "%zu pages", align);
        heapbox_verify(&box, "after an aligned span");
    }
    heapbox_close(&box);
}

// --- growth and limits ---

EBB_TEST(pageheap, grows_by_chunks_within_arenas)
{
    struct heapbox box;
    struct pageheap_stats stats;
    heapbox_open(&box, 4 * KIB, 512 * MIB, 1);
    pageheap_alloc(box.pages, 1, 1, PAGEHEAP_LARGE);
    pageheap_stats_read(box.pages, &stats);
    cr_assert(stats.sys_pages == CHUNK_PAGES);
    pageheap_alloc(box.pages, CHUNK_PAGES, 1, PAGEHEAP_LARGE);
    pageheap_stats_read(box.pages, &stats);
    cr_assert(stats.sys_pages == 2 * CHUNK_PAGES, "the rest of the first chunk is used");
    cr_assert(vm_sim_is_sparse(&box.sim, box.sim.space), "no huge pages");
    cr_assert(vm_sim_state_at(&box.sim, box.sim.space + 3 * CHUNK_BYTES) == VM_SIM_RESERVED,
              "an arena is reserved at a time");
    heapbox_close(&box);
}

EBB_TEST(pageheap, takes_less_address_space_where_it_is_short)
{
    const size_t limits[] = {6, 20, 40, 70, 100, 150};
    for (size_t i = 0; i < ARRAY_COUNT(limits); i++) {
        size_t limit = limits[i];
        struct heapbox box;
        struct pageheap_stats stats;
        heapbox_open(&box, 4 * KIB, 512 * MIB, 1);
        box.sim.space_limit_bytes = limit * MIB;
        while (pageheap_alloc(box.pages, 100, 1, PAGEHEAP_LARGE) != NULL) {
        }
        heapbox_verify(&box, "where address space ends");
        pageheap_stats_read(box.pages, &stats);
        // Records cost 1.1 MiB for each 64 MiB; less than a chunk cannot be used.
        size_t tables = (limit / 64 + 2) * 5 / 4;
        cr_assert((stats.sys_pages << PAGE_SHIFT) + (tables + 4) * MIB >= limit * MIB,
                  "of %zu MiB only %llu pages were used", limit,
                  (unsigned long long)stats.sys_pages);
        heapbox_close(&box);
    }
}

EBB_TEST(pageheap, refuses_the_impossible)
{
    struct heapbox box;
    heapbox_open(&box, 4 * KIB, 256 * MIB, 1);
    cr_assert(pageheap_alloc(box.pages, (size_t)1 << 31, 1, PAGEHEAP_LARGE) == NULL);
    cr_assert(pageheap_alloc(box.pages, (size_t)1 << 50, 1, PAGEHEAP_LARGE) == NULL);
    cr_assert(pageheap_alloc(box.pages, 1, (size_t)1 << 49, PAGEHEAP_LARGE) == NULL);
    cr_assert(pageheap_alloc(box.pages, SIZE_MAX >> PAGE_SHIFT, 2, PAGEHEAP_LARGE) == NULL);
    cr_assert(pageheap_alloc(box.pages, 1, 1, PAGEHEAP_LARGE) != NULL);
    heapbox_verify(&box, "after refusing");
    heapbox_close(&box);
}

EBB_TEST(pageheap, populates_in_bulk_once_it_is_large)
{
    struct heapbox box;
    heapbox_open(&box, 4 * KIB, 256 * MIB, 1);
    box.pages->populate = true;
    pageheap_alloc(box.pages, 8, 1, PAGEHEAP_LARGE);
    cr_assert(box.sim.used_count == 0, "a small heap does not pay for pages it may not touch");
    pageheap_alloc(box.pages, 1100, 1, PAGEHEAP_LARGE);
    struct span *span = pageheap_alloc(box.pages, 8, 1, PAGEHEAP_LARGE);
    cr_assert(box.sim.used_count == 1);
    cr_assert(vm_sim_resident_bytes(&box.sim, (void *)span->base, 8 * PAGE_BYTES) ==
              8 * PAGE_BYTES);
    pageheap_alloc(box.pages, 3, 1, PAGEHEAP_LARGE);
    pageheap_alloc(box.pages, 33, 1, PAGEHEAP_LARGE);
    cr_assert(box.sim.used_count == 1, "neither few pages nor many");
    heapbox_close(&box);
}

// --- the doorbell ---

static int rings;

static void ring(void)
{
    rings++;
}

EBB_TEST(pageheap, doorbell_rings_once_until_it_is_set_again)
{
    struct heapbox box;
    struct span *spans[10];
    heapbox_open(&box, 4 * KIB, 256 * MIB, 1);
    pageheap_set_grow_hook(box.pages, ring);
    for (size_t i = 0; i < 10; i++) {
        spans[i] = pageheap_alloc(box.pages, 10, 1, PAGEHEAP_LARGE);
    }
    pageheap_free(box.pages, spans[0]);
    cr_assert(rings == 0, "nobody has set the ring");
    pageheap_set_ring(box.pages, 30);
    pageheap_free(box.pages, spans[1]);
    cr_assert(rings == 0, "20 pages are ready");
    pageheap_free(box.pages, spans[2]);
    cr_assert(rings == 1, "30 pages are ready");
    pageheap_free(box.pages, spans[3]);
    cr_assert(rings == 1);
    pageheap_set_ring(box.pages, 45);
    pageheap_shrink(box.pages, spans[4], 6);
    cr_assert(rings == 1);
    pageheap_shrink(box.pages, spans[4], 5);
    cr_assert(rings == 2);
    pageheap_ring(box.pages);
    cr_assert(rings == 3);
    heapbox_close(&box);
}

// --- release ---

EBB_TEST(pageheap, release_empties_memory_from_the_top)
{
    struct heapbox box;
    struct pageheap_release_result result = {0};
    heapbox_open(&box, 4 * KIB, 256 * MIB, 1);
    struct span *low = pageheap_alloc(box.pages, 600, 1, PAGEHEAP_LARGE);
    struct span *high = pageheap_alloc(box.pages, 600, 1, PAGEHEAP_LARGE);
    char *low_addr = (char *)low->base;
    char *high_addr = (char *)high->base;
    memset(low_addr, 1, 600 * PAGE_BYTES);
    memset(high_addr, 1, 600 * PAGE_BYTES);
    pageheap_free(box.pages, low);
    pageheap_free(box.pages, high);
    struct pageheap_cursor cursor = pageheap_cursor_top(box.pages);
    cr_assert(pageheap_release(box.pages, &cursor, &(struct pageheap_filter){.max_pages = SIZE_MAX},
                               VM_ADVICE_DONTNEED, &result));
    cr_assert(result.pages <= CHUNK_PAGES && result.refused == 0 && result.call_count == 1);
    size_t left = (1200 - result.pages) * PAGE_BYTES;
    cr_assert(vm_sim_resident_bytes(&box.sim, low_addr, left) == left, "the highest went first");
    while (pageheap_release(box.pages, &cursor, &(struct pageheap_filter){.max_pages = SIZE_MAX},
                            VM_ADVICE_DONTNEED, &result)) {
        heapbox_verify(&box, "while releasing");
    }
    cr_assert(result.pages == 1200);
    cr_assert(vm_sim_resident_bytes(&box.sim, low_addr, 1200 * PAGE_BYTES) == 0);
    struct span *again = pageheap_alloc(box.pages, 1200, 1, PAGEHEAP_LARGE);
    cr_assert((char *)again->base == low_addr && again->zero, "released and new pages are one run");
    heapbox_close(&box);
}

EBB_TEST(pageheap, release_goes_by_pages_of_the_kernel)
{
    struct heapbox box;
    struct pageheap_release_result result = {0};
    heapbox_open(&box, 64 * KIB, 256 * MIB, 1); // 8 pages of ours
    struct span *spans[64];
    for (size_t i = 0; i < 64; i++) {
        spans[i] = pageheap_alloc(box.pages, 1, 1, PAGEHEAP_LARGE);
    }
    for (size_t i = 0; i < 64; i++) {
        if (i != 3 && i / 8 != 5) {
            pageheap_free(box.pages, spans[i]);
        }
    }
    struct pageheap_cursor cursor = pageheap_cursor_top(box.pages);
    while (pageheap_release(box.pages, &cursor, &(struct pageheap_filter){.max_pages = SIZE_MAX},
                            VM_ADVICE_DONTNEED, &result)) {
    }
    cr_assert(result.pages == 6 * 8, "7 ready pages beside a used one stay");
    heapbox_verify(&box, "after releasing");
    heapbox_close(&box);
}

EBB_TEST(pageheap, a_pass_ends_if_the_kernel_refuses)
{
    const size_t limits[] = {1, 64, CHUNK_PAGES, SIZE_MAX};
    for (size_t i = 0; i < ARRAY_COUNT(limits); i++) {
        struct heapbox box;
        struct pageheap_release_result result = {0};
        heapbox_open(&box, 4 * KIB, 256 * MIB, 1);
        pageheap_free(box.pages, pageheap_alloc(box.pages, 4 * CHUNK_PAGES, 1, PAGEHEAP_LARGE));
        vm_fail_arm(&box.fail, VM_FAIL_UNUSED, VM_FAIL_FROM, 1);
        struct pageheap_cursor cursor = pageheap_cursor_top(box.pages);
        size_t steps = 0;
        while (pageheap_release(box.pages, &cursor,
                                &(struct pageheap_filter){.max_pages = limits[i]},
                                VM_ADVICE_DONTNEED, &result)) {
            cr_assert(++steps <= 4 * CHUNK_PAGES, "at most %zu pages a step: no end", limits[i]);
        }
        cr_assert(result.pages == 0 && result.refused >= 1);
        heapbox_verify(&box, "after refusals");
        heapbox_close(&box);
    }
}

// One arena full of spans, of which every keep_every-th stays; none for 0. What is left of the
// tables is what those need, on kernel pages of any size.
static void thin_out(size_t page_bytes, size_t keep_every, size_t most_left)
{
    enum { SPANS = 4000 };
    struct heapbox box;
    static struct span *spans[SPANS];
    heapbox_open(&box, page_bytes, 256 * MIB, 1);
    for (size_t i = 0; i < SPANS; i++) {
        spans[i] = pageheap_alloc(box.pages, 2, 1, i % 2 == 0 ? PAGEHEAP_LARGE : PAGEHEAP_SMALL);
    }
    const struct arena *arena = spans[0]->arena;
    size_t bytes = align_down(sizeof(*arena), page_bytes);
    cr_assert(vm_sim_resident_bytes(&box.sim, arena, bytes) > 500 * KIB, "128 bytes for each span");
    cr_assert(pageheap_release_tables(box.pages) <= 4 * KIB, "all in use but the ages");
    for (size_t i = 0; i < SPANS; i++) {
        if (keep_every == 0 || i % keep_every != 7) {
            pageheap_free(box.pages, spans[i]);
            spans[i] = NULL;
        }
    }
    struct pageheap_cursor cursor = pageheap_cursor_top(box.pages);
    struct pageheap_filter all = {.max_pages = SIZE_MAX};
    struct pageheap_release_result result = {0};
    while (pageheap_release(box.pages, &cursor, &all, VM_ADVICE_DONTNEED, &result)) {
    }
    cr_assert(pageheap_release_tables(box.pages) > 0);
    size_t left = vm_sim_resident_bytes(&box.sim, arena, bytes);
    cr_assert(left <= most_left, "kernel pages of %zu, every %zuth kept: %zu left", page_bytes,
              keep_every, left);
    heapbox_verify(&box, "without tables");
    cr_assert(pageheap_release_tables(box.pages) == 0, "they are gone already");
    for (size_t i = 0; i < SPANS; i++) {
        if (spans[i] != NULL) {
            cr_assert(span_of(box.pages, (void *)spans[i]->base) == spans[i]);
            cr_assert(spans[i]->page_count == 2 && spans[i]->arena == arena);
        } else {
            spans[i] = pageheap_alloc(box.pages, 2, 1, PAGEHEAP_SMALL);
            cr_assert(span_of(box.pages, (void *)spans[i]->base) == spans[i]);
        }
    }
    heapbox_verify(&box, "with tables again");
    heapbox_close(&box);
}

EBB_TEST(pageheap, tables_that_nothing_needs_go_back)
{
    // The head alone; with four spans besides, a page of map and one of records for each.
    thin_out(4 * KIB, 0, 4 * KIB);
    thin_out(4 * KIB, 1000, 4 * KIB + 4 * 8 * KIB);
    thin_out(4 * KIB, 100, 4 * KIB + 16 * 4 * KIB + 40 * 4 * KIB);
    thin_out(16 * KIB, 0, 2 * 16 * KIB);
    thin_out(16 * KIB, 1000, 2 * 16 * KIB + 4 * 2 * 16 * KIB);
    thin_out(64 * KIB, 0, 3 * 64 * KIB);
    thin_out(64 * KIB, 1000, 3 * 64 * KIB + 4 * 2 * 64 * KIB);
}

static size_t page_of_span(const struct span *span)
{
    return (span->base >> PAGE_SHIFT) % ARENA_PAGES;
}

// Three spans stay: on the last page of a chunk, across a border of chunks, and with the last
// record of a unit.
EBB_TEST(pageheap, tables_stay_for_what_lies_at_their_borders)
{
    enum { SPANS = 3000 };
    struct heapbox box;
    static struct span *spans[SPANS];
    heapbox_open(&box, 4 * KIB, 256 * MIB, 1);
    size_t kept = 0;
    for (size_t i = 0; i < SPANS; i++) {
        // Pages one by one up to the last but one of the second chunk, then two at a time.
        size_t pages = i < 2 * CHUNK_PAGES - 1 ? 1 : 2;
        spans[i] = pageheap_alloc(box.pages, pages, 1, PAGEHEAP_SMALL);
    }
    for (size_t i = 0; i < SPANS; i++) {
        size_t page = page_of_span(spans[i]);
        bool last_page = page == CHUNK_PAGES - 1;
        bool across = page == 2 * CHUNK_PAGES - 1 && spans[i]->page_count == 2;
        bool last_record = page > 3 * CHUNK_PAGES && page < 3 * CHUNK_PAGES + 128 &&
                           spans[i]->record_index % TABLE_UNIT_RECORDS == TABLE_UNIT_RECORDS - 1;
        if (last_page || across || last_record) {
            spans[kept++] = spans[i];
        } else {
            pageheap_free(box.pages, spans[i]);
        }
    }
    cr_assert(kept >= 3 && kept < 10, "%zu spans at borders", kept);
    cr_assert(pageheap_release_tables(box.pages) > 300 * KIB);
    heapbox_verify(&box, "without tables");
    for (size_t i = 0; i < kept; i++) {
        cr_assert(span_of(box.pages, (void *)spans[i]->base) == spans[i]);
        pageheap_free(box.pages, spans[i]);
    }
    cr_assert(pageheap_release_tables(box.pages) > 0);
    cr_assert(pageheap_release_tables(box.pages) == 0);
    heapbox_verify(&box, "with nothing");
    heapbox_close(&box);
}

EBB_TEST(pageheap, lowest_record_first)
{
    struct heapbox box;
    struct span *spans[200];
    heapbox_open(&box, 4 * KIB, 256 * MIB, 1);
    for (size_t i = 0; i < 200; i++) {
        spans[i] = pageheap_alloc(box.pages, 1, 1, PAGEHEAP_LARGE);
        cr_assert(spans[i]->record_index == i + 1);
    }
    pageheap_free(box.pages, spans[150]);
    pageheap_free(box.pages, spans[20]);
    pageheap_free(box.pages, spans[80]);
    size_t expected[] = {21, 81, 151, 201};
    for (size_t i = 0; i < ARRAY_COUNT(expected); i++) {
        cr_assert(pageheap_alloc(box.pages, 1, 1, PAGEHEAP_LARGE)->record_index == expected[i]);
    }
    heapbox_verify(&box, "records used again");
    heapbox_close(&box);
}

// --- an allocation while the tables of the only arena are on their way back ---

static struct heapbox hidden_box;
static struct span *hidden_span;
static pthread_t hidden_thread;
static bool hidden_started;

static void *alloc_while_hidden(void *arg)
{
    (void)arg;
    hidden_span = pageheap_alloc(hidden_box.pages, 10, 1, PAGEHEAP_LARGE);
    return NULL;
}

// Inside the advice: the arena is hidden. The other thread waits, or finds memory elsewhere.
static void start_alloc(void *arg, char *addr, size_t bytes)
{
    (void)arg;
    (void)addr;
    (void)bytes;
    if (!hidden_started) {
        hidden_started = true;
        cr_assert(pthread_create(&hidden_thread, NULL, alloc_while_hidden, NULL) == 0);
        usleep(50000);
    }
}

EBB_TEST(pageheap, allocation_while_tables_go_back)
{
    heapbox_open(&hidden_box, 4 * KIB, 256 * MIB, 1);
    pageheap_free(hidden_box.pages, pageheap_alloc(hidden_box.pages, 20, 1, PAGEHEAP_LARGE));
    hidden_box.sim.unused_hook = start_alloc;
    cr_assert(pageheap_release_tables(hidden_box.pages) > 0);
    cr_assert(hidden_started);
    pthread_join(hidden_thread, NULL);
    cr_assert(hidden_span != NULL && hidden_span->page_count == 10);
    cr_assert(span_of(hidden_box.pages, (void *)hidden_span->base) == hidden_span);
    memset((void *)hidden_span->base, 0x5a, 10 * PAGE_BYTES);
    heapbox_verify(&hidden_box, "with a span made meanwhile");
    heapbox_close(&hidden_box);
}
