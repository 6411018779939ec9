// SPDX-License-Identifier: MIT
// Tier  commit
//
// The malloc family against a table of blocks: random calls, every byte checked, the heap frozen
// and verified again and again.
//
// Model
//   A slot holds a block, its size and the seed of its contents. Whoever has a slot's lock checks
//   the contents and then allocates, resizes, frees or leaves it: so in the test with threads any
//   thread frees any other's blocks. After some operations everything stops, and the live blocks
//   that MemStats tells by class must be those of the table, exactly. Sizes crowd at the borders of
//   size classes. With one thread the run depends on the seed alone, on simulated machines with
//   kernel pages of 4, 16 and 64 KiB. With threads, on the real kernel: threads come and go, while
//   another flushes caches, releases, freezes and verifies. Round r of seed s is round 0 of seed s
//   + r (one thread).
//
// Go  runtime/malloc_test.go, which has no model.
#include "support/unit.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/fatal.h"
#include "boot/boot.h"
#include "malloc/malloc.h"
#include "release/release.h"
#include "support/heapbox.h"

#define SLOT_COUNT 3000

struct slot {
    pthread_mutex_t lock;
    unsigned char *block;
    size_t bytes;
    uint64_t seed;
};

static struct slot slots[SLOT_COUNT];
static uint64_t round_seed;
static size_t round_op;

static void say_seed(void)
{
    fprintf(stderr, "  in operation %zu, EBB_SEED=%llu replays it\n", round_op,
            (unsigned long long)round_seed);
}

// Not cr_assert: that is for the test's main thread only.
static void check_failed(const char *cond, int line)
{
    fprintf(stderr, "malloc_model line %d: %s\n", line, cond);
    say_seed();
    _exit(1);
}

#define CHECK_MODEL(cond) ((cond) ? (void)0 : check_failed(#cond, __LINE__))

static uint64_t below(uint64_t *random, uint64_t limit)
{
    return frame_below(random, limit);
}

// --- contents: word i of a block is a function of its seed and i ---

static uint64_t word_of(uint64_t seed, size_t index)
{
    return (seed + index) * UINT64_C(0x9e3779b97f4a7c15);
}

static void fill(struct slot *slot, size_t from)
{
    for (size_t pos = from & ~(size_t)7; pos < slot->bytes; pos += 8) {
        uint64_t word = word_of(slot->seed, pos / 8);
        size_t len = slot->bytes - pos < 8 ? slot->bytes - pos : 8;
        memcpy(slot->block + pos, &word, len);
    }
}

static void check_contents(const struct slot *slot, size_t bytes)
{
    for (size_t pos = 0; pos < bytes; pos += 8) {
        uint64_t word = word_of(slot->seed, pos / 8);
        size_t len = bytes - pos < 8 ? bytes - pos : 8;
        CHECK_MODEL(memcmp(slot->block + pos, &word, len) == 0);
    }
}

static bool all_zero(const unsigned char *block, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        if (block[i] != 0) {
            return false;
        }
    }
    return true;
}

// --- operations on a slot ---

static size_t near(uint64_t *random, size_t bytes)
{
    size_t shifted = bytes + below(random, 3);
    return shifted == 0 ? 0 : shifted - 1;
}

static size_t random_bytes(uint64_t *random)
{
    uint64_t kind = below(random, 100);
    if (kind < 35) {
        return below(random, 300);
    }
    if (kind < 75) {
        return near(random, sizeclass_table[below(random, SIZECLASS_COUNT)].block_bytes);
    }
    if (kind < 83) {
        return near(random, DIRECT_MAX_BYTES);
    }
    if (kind < 88) {
        return near(random, SMALL_MAX_BYTES);
    }
    if (kind < 91) {
        return near(random, PAGECACHE_PAGES << PAGE_SHIFT);
    }
    if (kind < 98) {
        return near(random, (1 + below(random, 30)) << PAGE_SHIFT);
    }
    return below(random, 2 * MIB);
}

static void slot_alloc(struct slot *slot, uint64_t *random)
{
    size_t bytes = random_bytes(random);
    size_t align = 16;
    bool zero = false;
    errno = 4711;
    switch (below(random, 5)) {
    case 0:
        align = (size_t)1 << below(random, 18);
        slot->block = ebb_aligned_alloc(align, bytes);
        break;
    case 1:
        zero = true;
        slot->block = ebb_calloc(1, bytes);
        break;
    default:
        slot->block = ebb_malloc(bytes);
        break;
    }
    CHECK_MODEL(slot->block != NULL);
    CHECK_MODEL(errno == 4711);
    CHECK_MODEL(((uintptr_t)slot->block & (max_size(align, 16) - 1)) == 0);
    CHECK_MODEL(!zero || all_zero(slot->block, bytes));
    CHECK_MODEL(ebb_malloc_usable_size(slot->block) >= bytes);
    slot->bytes = bytes;
    slot->seed = frame_random(random);
    fill(slot, 0);
}

static void slot_free(struct slot *slot)
{
    check_contents(slot, slot->bytes);
    errno = 4712;
    ebb_free(slot->block);
    CHECK_MODEL(errno == 4712);
    slot->block = NULL;
}

static void slot_resize(struct slot *slot, uint64_t *random)
{
    size_t bytes = random_bytes(random);
    size_t kept = min_size(bytes, slot->bytes);
    check_contents(slot, slot->bytes);
    unsigned char *moved = ebb_realloc(slot->block, bytes);
    if (bytes == 0) {
        CHECK_MODEL(moved == NULL);
        slot->block = NULL;
        return;
    }
    CHECK_MODEL(moved != NULL);
    CHECK_MODEL(ebb_malloc_usable_size(moved) >= bytes);
    slot->block = moved;
    check_contents(slot, kept);
    slot->bytes = bytes;
    fill(slot, kept);
}

// The table fills and empties by turns, so that spans and arenas do.
static void slot_step(uint64_t *random, bool filling)
{
    struct slot *slot = &slots[below(random, SLOT_COUNT)];
    if (pthread_mutex_trylock(&slot->lock) != 0) {
        return; // another thread is busy with it
    }
    uint64_t choice = below(random, 10);
    if (slot->block == NULL) {
        if (choice < (filling ? 9u : 2u)) {
            slot_alloc(slot, random);
        }
    } else if (choice < (filling ? 2u : 7u)) {
        slot_free(slot);
    } else if (choice < 9) {
        slot_resize(slot, random);
    }
    pthread_mutex_unlock(&slot->lock);
}

static void free_all(void)
{
    for (size_t i = 0; i < SLOT_COUNT; i++) {
        if (slots[i].block != NULL) {
            slot_free(&slots[i]);
        }
    }
}

// --- the whole ---

static const struct heap_sample *sample_find(const struct heap_sample *samples, size_t count,
                                             const void *block)
{
    for (size_t i = 0; i < count; i++) {
        if (samples[i].addr == (uintptr_t)block) {
            return &samples[i];
        }
    }
    return NULL;
}

// Nobody else is at work: MemStats and the table agree, as if nothing were sampled.
static void check_live(void)
{
    uint64_t count[SIZECLASS_COUNT] = {0};
    uint64_t bytes = 0;
    uint64_t total = 0;
    uint64_t found = 0;
    static struct heap_sample samples[SLOT_COUNT];
    size_t sampled = heap_sample_live(samples, SLOT_COUNT);
    CHECK_MODEL(sampled <= SLOT_COUNT);
    for (size_t i = 0; i < SLOT_COUNT; i++) {
        if (slots[i].block != NULL) {
            const struct heap_sample *sample = sample_find(samples, sampled, slots[i].block);
            void *place = sample != NULL ? (void *)sample->place : slots[i].block;
            const struct span *span = span_of(&pageheap_main, place);
            count[span->size_class]++;
            bytes += span_block_bytes(span);
            found += sample != NULL;
            total++;
        }
    }
    struct heap_sample_totals totals;
    heap_sample_totals(&totals);
    CHECK_MODEL(totals.live_count == sampled && found == sampled && totals.dropped_count == 0);
    struct ebb_memstats stats;
    memstats_read(&stats);
    CHECK_MODEL(stats.skipped_count == 0);
    CHECK_MODEL(stats.heap_objects == total);
    CHECK_MODEL(stats.heap_alloc == bytes);
    for (unsigned i = 0; i < SIZECLASS_COUNT; i++) {
        CHECK_MODEL(stats.by_size[i].mallocs - stats.by_size[i].frees == count[i]);
    }
}

static void look_once(enum look_kind kind)
{
    struct look look;
    look_begin(&heap_main, &look, kind);
    while (look_step(&heap_main, &look)) {
    }
}

// From no samples to nothing but samples.
static const uint64_t intervals[] = {0, 1, 1000, 30000, 1000000};

static void disturb(uint64_t *random)
{
    switch (below(random, 10)) {
    case 0:
        releaser_release_now("model", NULL);
        break;
    case 1:
    case 2:
        world_flush(&heap_main, NULL);
        break;
    case 3:
    case 4:
        look_once(LOOK_REST);
        break;
    case 5:
        look_once(LOOK_REST);
        look_once(LOOK_REST); // nothing was done in between: everything is cold now
        look_once(LOOK_GIVE);
        break;
    case 6:
        sample_set_interval(&heap_main, intervals[below(random, ARRAY_COUNT(intervals))]);
        break;
    default:
        break;
    }
    heap_main_verify("malloc model");
}

static void slots_init(void)
{
    for (size_t i = 0; i < SLOT_COUNT; i++) {
        slots[i] = (struct slot){.block = NULL};
        pthread_mutex_init(&slots[i].lock, NULL);
    }
    fatal_set_hook(say_seed);
}

static void check_empty(void)
{
    struct ebb_memstats stats;
    free_all();
    heap_main_verify("everything freed");
    check_live();
    world_flush(&heap_main, NULL);
    heap_main_verify("everything flushed");
    memstats_read(&stats);
    CHECK_MODEL(stats.heap_objects == 0 && stats.heap_alloc == 0 && stats.heap_inuse == 0);
    CHECK_MODEL(stats.mallocs == stats.frees && stats.heap_cached == 0);
}

// --- one thread, simulated machine ---

#define ONE_THREAD_OPS 30000

static void one_thread(size_t page_bytes)
{
    struct heapbox box;
    uint64_t seed = frame_seed();
    heapbox_adopt_main(&box, page_bytes, 4 * GIB, seed);
    slots_init();
    unsigned rounds = frame_rounds(1);
    for (unsigned round = 0; round < rounds; round++) {
        round_seed = seed + round;
        uint64_t random = round_seed;
        for (round_op = 0; round_op < ONE_THREAD_OPS; round_op++) {
            slot_step(&random, round_op / 5000 % 2 == 0);
            if (round_op % 256 == 0) {
                disturb(&random);
            }
            if (round_op % 1024 == 0) {
                check_live();
            }
        }
        check_empty();
    }
}

EBB_TEST(malloc_model, one_thread_page_4_kib, .timeout = 300)
{
    one_thread(4 * KIB);
}

EBB_TEST(malloc_model, one_thread_page_16_kib, .timeout = 300)
{
    one_thread(16 * KIB);
}

EBB_TEST(malloc_model, one_thread_page_64_kib, .timeout = 300)
{
    one_thread(64 * KIB);
}

// --- threads, real kernel ---

#define STAYERS 3
#define GUESTS 3
#define PHASE_OPS 3000

static pthread_barrier_t phase_begin;
static pthread_barrier_t phase_end;
static atomic_u32 phases_left;
static atomic_u32 phase_number;
static atomic_u32 working;

static void work(uint64_t seed, size_t ops)
{
    uint64_t random = seed;
    bool filling = load_relaxed(&phase_number) % 3 != 2;
    for (size_t i = 0; i < ops; i++) {
        slot_step(&random, filling);
    }
    sub_relaxed(&working, 1);
}

// Stays for all phases; asleep between them, with its cache full.
static void *stayer(void *arg)
{
    uint64_t index = (uint64_t)(uintptr_t)arg;
    while (true) {
        pthread_barrier_wait(&phase_begin);
        if (load_relaxed(&phases_left) == 0) {
            return NULL;
        }
        work(round_seed + 1000 * load_relaxed(&phase_number) + index, PHASE_OPS);
        pthread_barrier_wait(&phase_end);
    }
}

// Comes and goes: its spans and what others free into them stay behind.
static void *guest(void *arg)
{
    work(round_seed + 1000 * load_relaxed(&phase_number) + (uint64_t)(uintptr_t)arg, PHASE_OPS / 3);
    return NULL;
}

static void run_phase(uint64_t *random)
{
    pthread_t guests[GUESTS];
    store_relaxed(&working, STAYERS + GUESTS);
    pthread_barrier_wait(&phase_begin);
    for (uintptr_t i = 0; i < GUESTS; i++) {
        CHECK_MODEL(pthread_create(&guests[i], NULL, guest, (void *)(100 + i)) == 0);
    }
    while (load_relaxed(&working) != 0) {
        disturb(random);
        usleep((useconds_t)below(random, 3000));
    }
    for (size_t i = 0; i < GUESTS; i++) {
        pthread_join(guests[i], NULL);
    }
    pthread_barrier_wait(&phase_end);
    heap_main_verify("end of a phase");
    check_live();
}

EBB_TEST(malloc_model, threads, .timeout = 300)
{
    pthread_t stayers[STAYERS];
    frame_allow_mappings(200);
    round_seed = frame_seed();
    uint64_t random = round_seed;
    slots_init();
    pthread_barrier_init(&phase_begin, NULL, STAYERS + 1);
    pthread_barrier_init(&phase_end, NULL, STAYERS + 1);
    store_relaxed(&phases_left, 1);
    for (uintptr_t i = 0; i < STAYERS; i++) {
        CHECK_MODEL(pthread_create(&stayers[i], NULL, stayer, (void *)i) == 0);
    }
    unsigned phases = frame_rounds(14);
    for (unsigned phase = 0; phase < phases; phase++) {
        store_relaxed(&phase_number, phase);
        run_phase(&random);
    }
    check_empty();
    store_relaxed(&phases_left, 0);
    pthread_barrier_wait(&phase_begin);
    for (size_t i = 0; i < STAYERS; i++) {
        pthread_join(stayers[i], NULL);
    }
    heap_main_end("threads gone");
}
