// SPDX-License-Identifier: MIT
// Tier  commit
//
// Holes in the whole heap: peaks of random blocks, random kills, looks of every kind at random
// moments, and growing again into what has been given back.
//
// Model
//   The test has a list of the live blocks, each stamped to its last byte. After every step the
//   heap is frozen and verified, and seen from outside: no two live blocks overlap, none lies on a
//   kernel page that is marked as a hole, what is marked as given back has no memory on the
//   simulated machine, and at random moments all stamps are read. Which kernel page a mark means is
//   computed here anew. A step is a burst of allocations of a few classes, a kill that leaves 1, 10
//   or 50 of 100 blocks, or a look. Another thread kills and looks too, one at a time, so that
//   remote frees, central and adopted spans are met, and the run still depends on its seed alone.
//   Kernel pages of 4, 16 and 64 KiB; machines that refuse to take memory back, once or always.
//
// Go  none
#include "support/unit.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bitops.h"
#include "base/fatal.h"
#include "boot/boot.h"
#include "malloc/malloc.h"
#include "release/release.h"
#include "span/span_int.h"
#include "stats/stats.h"
#include "support/heapbox.h"

#define LIVE_MAX 60000
#define BURST_BYTES (3 * MIB)
#define STEPS 120u

struct live {
    unsigned char *block;
    size_t bytes;
    uint64_t seed;
};

static struct live lives[LIVE_MAX];
static size_t live_count;
static struct heapbox box;
static uint64_t round_seed;
static size_t step_number;
static uint64_t holes_seen_bytes;   // the most that was given back in holes at a time
static uint64_t refused_seen_bytes; // what looks said was refused

static void say_seed(void)
{
    fprintf(stderr, "  in step %zu, EBB_SEED=%llu replays it\n", step_number,
            (unsigned long long)round_seed);
}

static void check_failed(const char *cond, int line)
{
    fprintf(stderr, "hole_model line %d: %s\n", line, cond);
    say_seed();
    _exit(1);
}

#define CHECK_MODEL(cond) ((cond) ? (void)0 : check_failed(#cond, __LINE__))

// --- blocks ---

static uint64_t word_of(uint64_t seed, size_t index)
{
    return (seed + index) * UINT64_C(0x9e3779b97f4a7c15);
}

static void stamp(const struct live *live)
{
    for (size_t pos = 0; pos < live->bytes; pos += 8) {
        uint64_t word = word_of(live->seed, pos / 8);
        memcpy(live->block + pos, &word, min_size(live->bytes - pos, 8));
    }
}

static void check_stamp(const struct live *live)
{
    for (size_t pos = 0; pos < live->bytes; pos += 8) {
        uint64_t word = word_of(live->seed, pos / 8);
        CHECK_MODEL(memcmp(live->block + pos, &word, min_size(live->bytes - pos, 8)) == 0);
    }
}

static void check_stamps(void)
{
    for (size_t i = 0; i < live_count; i++) {
        check_stamp(&lives[i]);
    }
}

static void live_add(size_t bytes, uint64_t *random)
{
    struct live *live = &lives[live_count];
    if (live_count == LIVE_MAX) {
        return;
    }
    bool zero = frame_below(random, 8) == 0;
    live->block = zero ? ebb_calloc(1, bytes) : ebb_malloc(bytes);
    CHECK_MODEL(live->block != NULL);
    for (size_t i = 0; zero && i < bytes; i++) {
        CHECK_MODEL(live->block[i] == 0);
    }
    live->bytes = bytes;
    live->seed = frame_random(random);
    stamp(live);
    live_count++;
}

static void live_free(size_t index)
{
    check_stamp(&lives[index]);
    ebb_free(lives[index].block);
    lives[index] = lives[--live_count];
}

// Grows by some MiB of a few classes, so that spans are full before they are thinned out.
static void burst(uint64_t *random)
{
    unsigned classes[3];
    size_t sum = 0;
    for (size_t i = 0; i < ARRAY_COUNT(classes); i++) {
        classes[i] = 1 + (unsigned)frame_below(random, SIZECLASS_COUNT - 1);
    }
    while (sum < BURST_BYTES && live_count < LIVE_MAX) {
        size_t most =
            sizeclass_table[classes[frame_below(random, ARRAY_COUNT(classes))]].block_bytes;
        size_t bytes = most - frame_below(random, 16);
        live_add(bytes, random);
        sum += bytes;
    }
}

static void thin(uint64_t *random, uint64_t kept_of_100)
{
    for (size_t i = live_count; i > 0; i--) {
        if (frame_below(random, 100) >= kept_of_100) {
            live_free(i - 1);
        }
    }
}

// --- looks ---

static void look_once(enum look_kind kind, uint64_t want_bytes)
{
    struct look look;
    look_begin(&heap_main, &look, kind);
    look.want_bytes = want_bytes;
    while (look_step(&heap_main, &look)) {
    }
    refused_seen_bytes += look.refused_bytes;
    uint64_t hole_bytes = load_relaxed(&pageheap_main.hole_bytes);
    holes_seen_bytes = max_u64(holes_seen_bytes, hole_bytes);
}

static void look_some(uint64_t *random)
{
    switch (frame_below(random, 6)) {
    case 0:
        look_once(LOOK_REST, UINT64_MAX);
        break;
    case 1:
        look_once(LOOK_REST, UINT64_MAX);
        look_once(LOOK_REST, UINT64_MAX);
        break;
    case 2:
        look_once(LOOK_ALL, UINT64_MAX);
        break;
    case 3:
        look_once(LOOK_GIVE, 1 + frame_below(random, 256 * KIB));
        break;
    case 4:
        look_once(LOOK_GIVE, UINT64_MAX);
        break;
    default:
        releaser_release_now("model", NULL);
        break;
    }
}

// --- the heap from outside ---

static int compare_lives(const void *a, const void *b)
{
    uintptr_t x = (uintptr_t)((const struct live *)a)->block;
    uintptr_t y = (uintptr_t)((const struct live *)b)->block;
    return (x > y) - (x < y);
}

// The first live block that ends behind addr; they are in order.
static size_t live_behind(uintptr_t addr)
{
    size_t low = 0;
    size_t high = live_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if ((uintptr_t)lives[middle].block + lives[middle].bytes > addr) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return low;
}

static void visit_holes(struct span *span, void *arg)
{
    size_t unit_bytes = box.sim.vm.page_bytes;
    uint64_t *sums = arg; // given, resident
    if (span->size_class == 0) {
        return;
    }
    uintptr_t start = (span->base + unit_bytes - 1) / unit_bytes * unit_bytes;
    for (unsigned i = 0; i < 32; i++, start += unit_bytes) {
        if ((load_relaxed(&span->holes) >> i & 1) == 0) {
            continue;
        }
        size_t next = live_behind(start);
        CHECK_MODEL(next == live_count || (uintptr_t)lives[next].block >= start + unit_bytes);
        bool resident = (span->resident >> i & 1) != 0;
        sums[resident] += unit_bytes;
        CHECK_MODEL(resident ||
                    vm_sim_resident_bytes(&box.sim, (const void *)start, unit_bytes) == 0);
    }
}

static void check_outside(void)
{
    uint64_t sums[2] = {0, 0};
    qsort(lives, live_count, sizeof(lives[0]), compare_lives);
    for (size_t i = 1; i < live_count; i++) {
        CHECK_MODEL(lives[i - 1].block + lives[i - 1].bytes <= lives[i].block);
    }
    CHECK_MODEL(world_freeze(&heap_main) == 0);
    pageheap_walk(&pageheap_main, visit_holes, sums);
    world_thaw(&heap_main);
    CHECK_MODEL(sums[0] == load_relaxed(&pageheap_main.hole_bytes));
    CHECK_MODEL(sums[1] == load_relaxed(&heap_main.candidate_bytes));
    struct ebb_memstats stats;
    memstats_read(&stats);
    CHECK_MODEL(stats.heap_objects == live_count && stats.heap_holes == sums[0]);
}

// --- steps ---

static const unsigned kept_of_100[] = {1, 10, 50, 0};

static void step(uint64_t *random)
{
    switch (frame_below(random, 5)) {
    case 0:
    case 1:
        burst(random);
        break;
    case 2:
        thin(random, kept_of_100[frame_below(random, ARRAY_COUNT(kept_of_100))]);
        break;
    default:
        look_some(random);
        break;
    }
}

static void *step_elsewhere(void *arg)
{
    step(arg);
    return NULL;
}

// A step of a thread that ends then: its frees are remote, its spans go to central.
static void step_in_thread(uint64_t *random)
{
    pthread_t thread;
    CHECK_MODEL(pthread_create(&thread, NULL, step_elsewhere, random) == 0);
    CHECK_MODEL(pthread_join(thread, NULL) == 0);
}

static void steps(uint64_t seed, unsigned count)
{
    round_seed = seed;
    uint64_t random = seed;
    for (step_number = 0; step_number < count; step_number++) {
        if (frame_below(&random, 6) == 0) {
            step_in_thread(&random);
        } else {
            step(&random);
        }
        heap_main_verify("after a step");
        check_outside();
        if (frame_below(&random, 4) == 0) {
            check_stamps();
        }
    }
    check_stamps();
}

static void open_box(size_t page_bytes)
{
    heapbox_adopt_main(&box, page_bytes, 4 * GIB, frame_seed());
    fatal_set_hook(say_seed);
}

static void check_empty(void)
{
    thin(&round_seed, 0);
    CHECK_MODEL(live_count == 0);
    world_flush(&heap_main, NULL);
    heap_main_verify("everything freed");
    struct ebb_memstats stats;
    memstats_read(&stats);
    CHECK_MODEL(stats.heap_inuse == 0 && stats.heap_objects == 0 && stats.heap_holes == 0);
    CHECK_MODEL(load_relaxed(&heap_main.candidate_bytes) == 0);
}

static void course(size_t page_bytes)
{
    uint64_t seed = frame_seed();
    open_box(page_bytes);
    unsigned rounds = frame_rounds(6);
    for (unsigned round = 0; round < rounds; round++) {
        steps(seed + round, STEPS);
        check_empty();
    }
    fprintf(stderr, "at most %llu KiB in holes\n", (unsigned long long)holes_seen_bytes / KIB);
    // A page of 64 KiB hardly fits into a span: there a run may have none.
    cr_assert(page_bytes == 64 * KIB || holes_seen_bytes > MIB / 4, "hardly a hole");
}

EBB_TEST(hole_model, page_4_kib)
{
    course(4 * KIB);
}

EBB_TEST(hole_model, page_16_kib)
{
    course(16 * KIB);
}

EBB_TEST(hole_model, page_64_kib)
{
    course(64 * KIB);
}

// --- what must go back, does ---

// Of blocks of one class, one in kept stays. Returns the kernel pages that hold one.
static size_t peak_thinned(size_t bytes, size_t sum_bytes, unsigned kept)
{
    size_t unit_bytes = box.sim.vm.page_bytes;
    uint64_t random = round_seed = frame_seed();
    while (live_count * bytes < sum_bytes && live_count < LIVE_MAX) {
        live_add(bytes, &random);
    }
    for (size_t i = live_count; i > 0; i--) {
        if (frame_below(&random, kept) != 0) {
            live_free(i - 1);
        }
    }
    qsort(lives, live_count, sizeof(lives[0]), compare_lives);
    size_t units = 0;
    uintptr_t counted = 0; // pages below have been
    for (size_t i = 0; i < live_count; i++) {
        uintptr_t first = (uintptr_t)lives[i].block / unit_bytes;
        uintptr_t last = ((uintptr_t)lives[i].block + lives[i].bytes - 1) / unit_bytes;
        first = first > counted ? first : counted;
        units += last >= first ? last - first + 1 : 0;
        counted = last >= counted ? last + 1 : counted;
    }
    return units;
}

static uint64_t resident_bytes(void)
{
    uint64_t sum = 0;
    for (size_t i = pageheap_main.arena_lo; i < pageheap_main.arena_hi; i++) {
        const struct arena *arena = pageheap_arena(&pageheap_main, i);
        if (arena != NULL) {
            sum += vm_sim_resident_bytes(&box.sim, (const void *)arena->start,
                                         (size_t)1 << ARENA_SHIFT);
        }
    }
    return sum;
}

static void nearly_all_goes(size_t page_bytes, size_t block_bytes)
{
    open_box(page_bytes);
    size_t units = peak_thinned(block_bytes, 16 * MIB, 200);
    uint64_t peak_bytes = resident_bytes();
    look_once(LOOK_REST, UINT64_MAX);
    look_once(LOOK_REST, UINT64_MAX);
    look_once(LOOK_REST, UINT64_MAX);
    look_once(LOOK_GIVE, UINT64_MAX);
    releaser_release_now("model", NULL); // runs
    heap_main_verify("thinned out");
    check_outside();
    check_stamps();
    // A span's first and last part may share a kernel page with another span: such a page stays.
    uint64_t bound = (units * 5 / 4 + 64) * page_bytes;
    bound += page_bytes > PAGE_BYTES ? peak_bytes / 2 : 0;
    cr_assert(resident_bytes() <= bound, "%llu KiB of %llu stay; %zu KiB hold a block",
              (unsigned long long)resident_bytes() / KIB, (unsigned long long)peak_bytes / KIB,
              units * page_bytes / KIB);
}

EBB_TEST(hole_model, small_blocks_leave_only_their_pages)
{
    nearly_all_goes(4 * KIB, 400);
}

EBB_TEST(hole_model, middle_blocks_leave_only_their_pages)
{
    nearly_all_goes(4 * KIB, 3000);
}

EBB_TEST(hole_model, large_kernel_pages_go_as_far_as_they_can)
{
    nearly_all_goes(16 * KIB, 3000);
}

// Spans of 120 KiB, most of which hold a whole kernel page.
EBB_TEST(hole_model, the_largest_kernel_page_goes_too)
{
    open_box(64 * KIB);
    peak_thinned(30720, 24 * MIB, 16);
    look_once(LOOK_ALL, UINT64_MAX);
    look_once(LOOK_GIVE, UINT64_MAX);
    heap_main_verify("thinned out");
    check_outside();
    check_stamps();
    cr_assert(holes_seen_bytes >= 128 * KIB, "%llu KiB",
              (unsigned long long)holes_seen_bytes / KIB);
}

// --- machines that refuse ---

EBB_TEST(hole_model, refusal_once)
{
    open_box(4 * KIB);
    // Of 11 rounds none comes to its call in one run of 300: then there are more.
    for (uint64_t n = 0; n < 11 || (refused_seen_bytes == 0 && n < 66); n++) {
        vm_fail_arm(&box.fail, VM_FAIL_UNUSED, VM_FAIL_ONCE, 1 + n % 11);
        steps(frame_seed() + n, 25);
        vm_fail_disarm(&box.fail);
    }
    CHECK_MODEL(refused_seen_bytes != 0);
    check_empty();
}

EBB_TEST(hole_model, locked_memory_stays_usable)
{
    open_box(4 * KIB);
    // One of 50: so many that hardly a span is left without one, since such a span has no holes.
    peak_thinned(400, 8 * MIB, 50);
    look_once(LOOK_REST, UINT64_MAX);
    look_once(LOOK_REST, UINT64_MAX);
    uint64_t candidate_bytes = load_relaxed(&heap_main.candidate_bytes);
    cr_assert(candidate_bytes > 5 * MIB);
    vm_fail_arm(&box.fail, VM_FAIL_UNUSED, VM_FAIL_FROM, 1);
    look_once(LOOK_GIVE, UINT64_MAX);
    cr_assert(refused_seen_bytes != 0 && refused_seen_bytes <= candidate_bytes);
    cr_assert(load_relaxed(&heap_main.candidate_bytes) == candidate_bytes, "all still resident");
    cr_assert(load_relaxed(&pageheap_main.hole_bytes) == 0);
    struct release_report report;
    releaser_release_now("model", &report);
    cr_assert(report.refused_bytes != 0 && report.holes_bytes == 0);
    check_outside();
    // What was refused is allocated from again, without memory from elsewhere.
    uint64_t random = round_seed;
    uint64_t resident_before = resident_bytes();
    for (size_t sum = 0; sum < 5 * MIB; sum += 400) {
        live_add(400, &random);
    }
    cr_assert(resident_bytes() <= resident_before + 64 * KIB, "the holes are used again");
    check_stamps();
    check_outside();
    vm_fail_disarm(&box.fail);
    steps(round_seed + 1, 20);
    check_empty();
}
