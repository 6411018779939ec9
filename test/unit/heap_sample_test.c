// SPDX-License-Identifier: MIT
// Tier  quick
//
// Sampling: the chances as numbers and as they come out, the tables, and what becomes of a sampled
// block when it is freed, moved, resized and freed twice. Random courses with everything else are
// in test/model/malloc_model.c.
//
// Go  runtime/mprof_test.go, malloc_test.go TestAllocProfile.
#include "support/unit.h"

#include <math.h>
#include <pthread.h>
#include <string.h>

#include "base/rand.h"
#include "malloc/malloc.h"
#include "span/span_int.h"
#include "support/heapbox.h"

static struct heapbox box;

static void open_box(uint64_t interval_bytes)
{
    heapbox_adopt_main(&box, 4 * KIB, GIB, 1);
    sample_set_interval(&heap_main, interval_bytes);
}

static uint64_t live_samples(void)
{
    struct heap_sample_totals totals;
    heap_sample_totals(&totals);
    return totals.live_count;
}

static struct heap_stack_count stacks[4096];

// How many blocks the samples of a size stand for, and how far off that may be. A thread whose
// stacks take too long has fewer samples, of more weight each.
struct estimate {
    double blocks;
    double variance;
};

static struct estimate estimate_of(size_t bytes, bool live)
{
    size_t count = heap_sample_stacks(stacks, ARRAY_COUNT(stacks));
    struct estimate sum = {0, 1};
    cr_assert(count <= ARRAY_COUNT(stacks));
    for (size_t i = 0; i < count; i++) {
        // A sampled block is in a class that has room for 16 bytes more.
        uint64_t have = stacks[i].stack->block_bytes;
        if (have < bytes || have > bytes + bytes / 4 + 16) {
            continue;
        }
        double blocks = (double)(stacks[i].alloc_count - (live ? stacks[i].free_count : 0));
        double p = heap_sample_chance(stacks[i].stack->interval_bytes, (double)bytes);
        sum.blocks += blocks / p;
        sum.variance += blocks * (1 - p) / (p * p);
    }
    return sum;
}

static void expect_estimate(size_t bytes, double blocks, bool live)
{
    struct estimate have = estimate_of(bytes, live);
    cr_assert(fabs(have.blocks - blocks) < 6 * sqrt(have.variance) + blocks / 100,
              "%zu bytes: %g blocks, not %g", bytes, have.blocks, blocks);
}

// --- chance ---

EBB_TEST(heap_sample, chance_is_one_minus_exp)
{
    const double sizes[] = {1, 16, 48, 1000, 4096, 65536, 524288, 1e6, 1e7, 1e9};
    for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) {
        double want = -expm1(-sizes[i] / 524288);
        double have = heap_sample_chance(524288, sizes[i]);
        cr_assert(fabs(have - want) <= 1e-7 * want, "%g: %.12g, not %.12g", sizes[i], have, want);
    }
    cr_assert(heap_sample_chance(1, 16) == 1 && heap_sample_chance(0, 16) == 1);
}

EBB_TEST(heap_sample, draws_are_geometric)
{
    uint64_t seed = frame_seed();
    const uint64_t sizes[] = {16, 1024, 32768};
    for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) {
        double p = heap_sample_chance(65536, (double)sizes[i]);
        const int draws = 200000;
        double sum = 0;
        int ones = 0;
        for (int k = 0; k < draws; k++) {
            uint32_t n = heap_sample_draw(rand_splitmix64(&seed), 65536, sizes[i]);
            cr_assert(n >= 1);
            sum += n;
            ones += n == 1;
        }
        // Mean 1 / p, deviation sqrt(1 - p) / p: six of them.
        double deviation = sqrt(1 - p) / p / sqrt(draws);
        cr_assert(fabs(sum / draws - 1 / p) < 6 * deviation, "%llu bytes: mean %g, not %g",
                  (unsigned long long)sizes[i], sum / draws, 1 / p);
        double one_deviation = sqrt(p * (1 - p) / draws);
        cr_assert(fabs((double)ones / draws - p) < 6 * one_deviation);
    }
}

EBB_TEST(heap_sample, draws_at_the_borders)
{
    cr_assert(heap_sample_draw(0, 0, 16) == HEAP_SAMPLE_BLOCKS_MAX);
    cr_assert(heap_sample_draw(UINT64_MAX, 1, 16) == 1 && heap_sample_draw(0, 1, 16) == 1);
    cr_assert(heap_sample_draw(UINT64_MAX, 524288, 32768) == 1, "as good as 0 bytes");
    uint32_t most = heap_sample_draw(0, 524288, 16);
    cr_assert(most > 32768 * 40 && most < 32768 * 50, "2^-64: 44 times the mean, %u", most);
    cr_assert(heap_sample_draw(0, GIB, 1) == HEAP_SAMPLE_BLOCKS_MAX);
    cr_assert(heap_sample_draw_bytes(UINT64_MAX, 524288) == 1);
    cr_assert(heap_sample_draw_bytes(5, 0) > (int64_t)1 << 61);
    cr_assert(heap_sample_draw_bytes(0, UINT64_MAX) > 0);
}

EBB_TEST(heap_sample, the_pace_follows_the_cost)
{
    uint64_t second = NS_PER_S;
    cr_assert(heap_sample_pace(1000, 1000, second / 200, second) == 1000);
    cr_assert(heap_sample_pace(1000, 1000, second / 200 + 1, second) == 2000);
    cr_assert(heap_sample_pace(2000, 1000, second / 1000, second) == 2000);
    cr_assert(heap_sample_pace(2000, 1000, second / 1000 - 1, second) == 1000);
    cr_assert(heap_sample_pace(1000, 1000, 0, second) == 1000, "not below what was asked for");
    cr_assert(heap_sample_pace(1000u << 16, 1000, second, second) == 1000u << 16);
    cr_assert(heap_sample_pace(1, 1, second, second) == 1, "everything stays everything");
    cr_assert(heap_sample_pace(0, 0, second, second) == 0);
    cr_assert(heap_sample_pace(500, 1000, 0, second) == 1000, "asked for more meanwhile");
}

// --- blocks ---

EBB_TEST(heap_sample, every_block_is_sampled_at_interval_one)
{
    open_box(1);
    for (size_t bytes = 0; bytes < 100000; bytes += bytes / 16 + 1) {
        uint64_t before = live_samples();
        char *block = ebb_malloc(bytes);
        cr_assert(live_samples() == before + 1 && heap_sample_has((uintptr_t)block));
        cr_assert((uintptr_t)block % 16 == 0 && ebb_malloc_usable_size(block) >= bytes);
        memset(block, 1, ebb_malloc_usable_size(block));
        heap_main_verify("with a sample");
        ebb_free(block);
        cr_assert(live_samples() == before);
    }
    heap_main_verify("without");
}

EBB_TEST(heap_sample, alignment_holds)
{
    open_box(1);
    for (size_t align = 16; align <= 65536; align *= 2) {
        for (size_t bytes = 1; bytes < 40000; bytes = bytes * 3 + 1) {
            char *block = ebb_aligned_alloc(align, bytes);
            cr_assert((uintptr_t)block % align == 0, "%zu", align);
            cr_assert(heap_sample_has((uintptr_t)block));
            memset(block, 1, bytes);
            ebb_free(block);
        }
    }
    heap_main_verify("aligned");
}

EBB_TEST(heap_sample, calloc_is_zero)
{
    open_box(1);
    for (int round = 0; round < 100; round++) {
        unsigned char *block = ebb_calloc(1, 500);
        for (size_t i = 0; i < 500; i++) {
            cr_assert(block[i] == 0);
        }
        memset(block, 0xff, 500);
        ebb_free(block);
    }
}

EBB_TEST(heap_sample, as_many_samples_as_the_chance_says)
{
    const size_t sizes[] = {32, 448, 1024, 8192, 49152};
    open_box(65536);
    for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) {
        size_t blocks = 400 * MIB / sizes[i];
        for (size_t k = 0; k < blocks; k++) {
            ebb_free(ebb_malloc(sizes[i]));
        }
        expect_estimate(sizes[i], (double)blocks, false);
    }
    cr_assert(live_samples() == 0);
}

// What a block grows by has its chance once, however many steps it takes.
EBB_TEST(heap_sample, growing_blocks_are_sampled_as_their_last_size)
{
    enum { BLOCKS = 20000, LAST = 16384 };
    static void *blocks[BLOCKS];
    open_box(65536);
    for (size_t i = 0; i < BLOCKS; i++) {
        blocks[i] = ebb_malloc(64);
        for (size_t bytes = 128; bytes <= LAST; bytes *= 2) {
            blocks[i] = ebb_realloc(blocks[i], bytes);
        }
    }
    expect_estimate(LAST, BLOCKS, true);
    // And shrinking ones as theirs.
    for (size_t i = 0; i < BLOCKS; i++) {
        blocks[i] = ebb_realloc(blocks[i], 1024);
    }
    expect_estimate(1024, BLOCKS, true);
    for (size_t i = 0; i < BLOCKS; i++) {
        ebb_free(blocks[i]);
    }
    cr_assert(live_samples() == 0);
    heap_main_verify("at the end");
}

EBB_TEST(heap_sample, realloc_keeps_the_sample)
{
    open_box(1);
    unsigned char *block = ebb_malloc(100);
    sample_set_interval(&heap_main, 0);
    memset(block, 7, 100);
    size_t have = 100;
    const size_t sizes[] = {112, 500, 5000, 40000, 400000, 3000000, 2000000, 800000, 700};
    for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) {
        block = ebb_realloc(block, sizes[i]);
        cr_assert(live_samples() == 1 && heap_sample_has((uintptr_t)block), "%zu", sizes[i]);
        cr_assert(ebb_malloc_usable_size(block) >= sizes[i]);
        struct heap_sample sample;
        cr_assert(heap_sample_live(&sample, 1) == 1);
        cr_assert(sample.stack->block_bytes ==
                  span_block_bytes(span_of(&pageheap_main, (void *)sample.place)));
        for (size_t k = 0; k < min_size(have, sizes[i]); k++) {
            cr_assert(block[k] == 7);
        }
        memset(block, 7, sizes[i]);
        have = sizes[i];
        heap_main_verify("moved");
    }
    ebb_free(block);
    cr_assert(live_samples() == 0);
}

// Sampled blocks are poisoned, kept and compared as others are, and so are those behind them.
EBB_TEST(heap_sample, check_2_finds_nothing_wrong_with_samples, .timeout = 60)
{
    static void *blocks[2000];
    uint64_t random = frame_seed();
    open_box(1);
    ebb_free(ebb_malloc(1));
    harden_enable(&heap_main);
    for (int i = 0; i < 20000; i++) {
        size_t k = (size_t)frame_below(&random, ARRAY_COUNT(blocks));
        size_t bytes = (size_t)frame_below(&random, frame_below(&random, 10) == 0 ? 60000 : 600);
        if (frame_below(&random, 4) == 0) {
            blocks[k] = ebb_realloc(blocks[k], bytes + 1);
        } else {
            ebb_free(blocks[k]);
            blocks[k] = ebb_malloc(bytes);
        }
        memset(blocks[k], 1, bytes);
        if (i % 1000 == 0) {
            sample_set_interval(&heap_main, i % 2000 == 0 ? 1 : 1000);
        }
    }
}

static void *free_it(void *block)
{
    ebb_free(block);
    return NULL;
}

EBB_TEST(heap_sample, others_free_sampled_blocks)
{
    open_box(1);
    for (size_t bytes = 16; bytes < 100000; bytes *= 3) {
        pthread_t thread;
        void *block = ebb_malloc(bytes);
        cr_assert(pthread_create(&thread, NULL, free_it, block) == 0);
        pthread_join(thread, NULL);
        cr_assert(!heap_sample_has((uintptr_t)block));
    }
    heap_main_verify("freed by others");
}

// --- intervals ---

EBB_TEST(heap_sample, an_interval_counts_at_once)
{
    enum { COUNT = 1000 };
    void *blocks[COUNT];
    open_box(0);
    for (size_t i = 0; i < COUNT; i++) {
        blocks[i] = ebb_malloc(64);
    }
    cr_assert(live_samples() == 0);
    sample_set_interval(&heap_main, 1);
    void *sampled = ebb_malloc(64);
    void *large = ebb_malloc(100000);
    cr_assert(live_samples() == 2);
    sample_set_interval(&heap_main, 0);
    for (size_t i = 0; i < COUNT; i++) {
        ebb_free(blocks[i]);
        blocks[i] = ebb_malloc(64);
    }
    cr_assert(live_samples() == 2);
    ebb_free(sampled);
    ebb_free(large);
    cr_assert(live_samples() == 0);
}

EBB_TEST(heap_sample, counts_of_allocations_stay_exact)
{
    open_box(1000);
    struct heap_stats before;
    struct heap_stats after;
    world_freeze(&heap_main);
    heap_stats_read(&heap_main, &before);
    world_thaw(&heap_main);
    enum { COUNT = 50000 };
    for (size_t i = 0; i < COUNT; i++) {
        ebb_free(ebb_malloc(i % 3000));
    }
    world_freeze(&heap_main);
    heap_stats_read(&heap_main, &after);
    world_thaw(&heap_main);
    uint64_t allocs = 0;
    for (unsigned i = 0; i < SIZECLASS_COUNT; i++) {
        allocs += after.alloc_count[i] - before.alloc_count[i];
        cr_assert(after.live_count[i] == before.live_count[i]);
    }
    cr_assert(allocs == COUNT, "%llu", (unsigned long long)allocs);
}

// A span's count is folded before it overflows, and its activity does not notice.
EBB_TEST(heap_sample, a_count_that_would_overflow_is_folded)
{
    open_box(0);
    void *block = ebb_malloc(64);
    struct span *span = span_of(&pageheap_main, block);
    uint64_t central = load_relaxed(&heap_main.central[span->size_class].alloc_count);
    span->alloc_end += UINT32_C(1) << 31;
    uint32_t activity = span_activity(span);
    uint64_t sum = central + span_allocs(span);
    sample_redraw(&heap_main, cache_self, span);
    cr_assert(span_activity(span) == activity && span_allocs(span) < 1000);
    central = load_relaxed(&heap_main.central[span->size_class].alloc_count);
    cr_assert(central + span_allocs(span) == sum);
    ebb_free(block);
}

// Allocates until the span of a block is allocated from again; how its countdown has begun there.
static uint32_t left_when_used(struct span *span, uint16_t pace)
{
    for (int turn = 0; span_of(&pageheap_main, ebb_malloc(1000)) != span; turn++) {
        cr_assert(turn < 5000, "the span is not used again");
    }
    cr_assert(span->alloc_pace == pace, "the countdown has pace %u", span->alloc_pace);
    return span->alloc_left + 1;
}

// What was drawn at one interval goes on while that holds, wherever the span has been meanwhile,
// and is drawn again at another.
EBB_TEST(heap_sample, countdowns_are_of_the_interval_of_who_allocates)
{
    open_box(GIB);
    enum { COUNT = 2000 };
    void *blocks[COUNT];
    for (size_t i = 0; i < COUNT; i++) {
        blocks[i] = ebb_malloc(1000);
    }
    for (size_t i = 0; i < COUNT; i += 2) {
        ebb_free(blocks[i]);
    }
    struct span *same = span_of(&pageheap_main, blocks[1]);
    uint32_t left = same->alloc_left;
    cr_assert(left_when_used(same, 0) == left, "the same interval, and another countdown");
    // As cache_pace does it for a thread that has spent too long on stacks.
    cache_self->sample_interval <<= 4;
    cache_self->sample_pace += 4;
    struct span *other = span_of(&pageheap_main, blocks[COUNT / 2 + 1]);
    ebb_free(blocks[COUNT / 2 + 1]); // it was full again
    cr_assert(other != same && other->alloc_pace == 0);
    left = other->alloc_left;
    cr_assert(left_when_used(other, 4) != left, "another interval, and the same countdown");
    // Back to what all have.
    sample_set_interval(&heap_main, GIB);
    cr_assert(other->alloc_pace == 0 && cache_self->sample_pace == 0);
}

// --- tables ---

EBB_TEST(heap_sample, without_memory_blocks_are_just_not_sampled)
{
    open_box(0);
    ebb_free(ebb_malloc(64)); // the thread has its cache
    uint64_t before = 1;
    for (uint64_t n = 1; before != 0; n++) {
        // What is left of the present block of meta memory goes first.
        struct heap_sample_totals totals;
        sample_set_interval(&heap_main, 1);
        vm_fail_arm(&box.fail, VM_FAIL_PREPARE | VM_FAIL_RESERVE, VM_FAIL_FROM, n);
        void *blocks[600];
        for (size_t i = 0; i < ARRAY_COUNT(blocks); i++) {
            blocks[i] = ebb_malloc(64);
            cr_assert(blocks[i] == NULL || ebb_malloc_usable_size(blocks[i]) >= 64);
        }
        bool failed = vm_fail_disarm(&box.fail);
        heap_sample_totals(&totals);
        for (size_t i = 0; i < ARRAY_COUNT(blocks); i++) {
            ebb_free(blocks[i]);
        }
        heap_main_verify("after failing calls");
        before = failed;
    }
}
