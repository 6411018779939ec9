// SPDX-License-Identifier: MIT
//
// Hole race: hole_race [SECONDS [THREADS]]. Threads that build peaks, thin them out and free one
// another's blocks, while another makes holes in their spans, gives them back and verifies. Commit
// and long tier.
//
// Model
//   A worker fills its table, hands half of the blocks to the others, frees nearly everything in
//   its table and what it was handed, and rests for a moment, so that its spans are found at rest
//   with few blocks in use. Then it looks at every survivor and begins anew: it grows into the
//   holes. A block is stamped, and looked at before it is freed: a page that was given back under
//   it reads zero.
//   The looker takes looks of all kinds without pause. At the end nothing is live.
//
// Go       none
#include <pthread.h>
#include <unistd.h>

#include "base/option.h"
#include "boot/boot.h"
#include "malloc/malloc.h"
#include "race.h"
#include "release/release.h"
#include "span/span.h"
#include "stats/stats.h"

#define THREADS_MAX 16
#define SLOT_COUNT 3000
#define HANDED_COUNT 512

struct worker {
    uint64_t random;
    void *slots[SLOT_COUNT];
    atomic_ptr handed[HANDED_COUNT]; // by others, to be freed here
};

static struct worker workers[THREADS_MAX];
static unsigned worker_count;
static atomic_u64 number_next = {1};
static atomic_u32 stopping;
static atomic_u64 peaks_done;
static atomic_u64 blocks_handed;
static uint64_t looks_done;
static uint64_t given_bytes;

static void block_end(void *block)
{
    if (block != NULL) {
        FRAME_CHECK(race_intact(block, race_block_bytes(block)));
        ebb_free(block);
    }
}

// Few sizes at a time: spans fill up, and what is freed are neighbours.
static void slots_fill(struct worker *w)
{
    size_t most = (size_t)32 << frame_below(&w->random, frame_below(&w->random, 8) == 0 ? 11 : 7);
    for (size_t i = 0; i < SLOT_COUNT; i++) {
        if (w->slots[i] == NULL) {
            size_t bytes = most - frame_below(&w->random, most / 4);
            w->slots[i] = ebb_malloc(bytes);
            FRAME_CHECK(w->slots[i] != NULL);
            race_stamp(w->slots[i], bytes, add_relaxed(&number_next, 1));
        }
        if (most > 4096 && i > 400) {
            return;
        }
    }
}

static void slots_hand_over(struct worker *w)
{
    for (size_t i = 0; i < SLOT_COUNT / 2; i++) {
        size_t slot = frame_below(&w->random, SLOT_COUNT);
        struct worker *other = &workers[frame_below(&w->random, worker_count)];
        atomic_ptr *box = &other->handed[frame_below(&w->random, HANDED_COUNT)];
        // Acquire and release: the contents go with the block.
        block_end(__atomic_exchange_n(&box->v_, w->slots[slot], __ATOMIC_ACQ_REL));
        w->slots[slot] = NULL;
        add_relaxed(&blocks_handed, 1);
    }
}

static void slots_thin(struct worker *w, uint64_t kept_of_100)
{
    for (size_t i = 0; i < SLOT_COUNT; i++) {
        if (frame_below(&w->random, 100) >= kept_of_100) {
            block_end(w->slots[i]);
            w->slots[i] = NULL;
        }
    }
    for (size_t i = 0; i < HANDED_COUNT; i++) {
        block_end(__atomic_exchange_n(&w->handed[i].v_, NULL, __ATOMIC_ACQ_REL));
    }
}

static void slots_check(const struct worker *w)
{
    for (size_t i = 0; i < SLOT_COUNT; i++) {
        FRAME_CHECK(w->slots[i] == NULL || race_intact(w->slots[i], race_block_bytes(w->slots[i])));
    }
}

static void *worker_run(void *arg)
{
    static const uint64_t kept_of_100[] = {1, 2, 10, 50};
    struct worker *w = arg;
    while (load_relaxed(&stopping) == 0) {
        slots_fill(w);
        slots_hand_over(w);
        slots_thin(w, kept_of_100[frame_below(&w->random, ARRAY_COUNT(kept_of_100))]);
        race_sleep_us((unsigned)frame_below(&w->random, 4000));
        slots_check(w);
        add_relaxed(&peaks_done, 1);
    }
    slots_thin(w, 0);
    return NULL;
}

// Threads that end with holes in their spans, which pass to central and to others.
static void *guest_run(void *arg)
{
    struct worker *w = arg;
    slots_fill(w);
    slots_hand_over(w);
    slots_thin(w, 2);
    race_sleep_us((unsigned)frame_below(&w->random, 3000));
    slots_thin(w, 0);
    return NULL;
}

static void *host_run(void *arg)
{
    struct worker *w = arg; // nobody hands anything to it
    while (load_relaxed(&stopping) == 0) {
        pthread_t thread;
        FRAME_CHECK(pthread_create(&thread, NULL, guest_run, w) == 0);
        FRAME_CHECK(pthread_join(thread, NULL) == 0);
    }
    return NULL;
}

static void look_once(enum look_kind kind, uint64_t want_bytes)
{
    struct look look;
    look_begin(&heap_main, &look, kind);
    look.want_bytes = want_bytes;
    while (look_step(&heap_main, &look)) {
    }
    given_bytes += look.given_bytes;
    looks_done++;
}

static void verify_frozen(void)
{
    unsigned skipped = world_freeze(&heap_main);
    const char *wrong = skipped == 0 ? span_verify_all(&heap_main) : NULL;
    if (wrong == NULL && skipped == 0) {
        wrong = pageheap_verify(&pageheap_main);
    }
    world_thaw(&heap_main);
    if (wrong != NULL) {
        fprintf(stderr, "%s\n", wrong);
    }
    FRAME_CHECK(wrong == NULL);
}

static void *looker_run(void *arg)
{
    uint64_t random = *(uint64_t *)arg;
    while (load_relaxed(&stopping) == 0) {
        switch (frame_below(&random, 8)) {
        case 0:
        case 1:
            look_once(LOOK_REST, UINT64_MAX);
            break;
        case 2:
            look_once(LOOK_ALL, UINT64_MAX);
            break;
        case 3:
        case 4:
            look_once(LOOK_ALL, UINT64_MAX);
            look_once(LOOK_GIVE, UINT64_MAX);
            break;
        case 5:
            look_once(LOOK_GIVE, 1 + frame_below(&random, MIB));
            break;
        case 6:
            releaser_release_now("hole_race", NULL);
            break;
        default:
            verify_frozen();
            break;
        }
        race_sleep_us((unsigned)frame_below(&random, 300));
    }
    return NULL;
}

static void finish(void)
{
    struct ebb_memstats stats;
    for (unsigned i = 0; i < worker_count; i++) {
        slots_thin(&workers[i], 0);
    }
    verify_frozen();
    world_flush(&heap_main, NULL);
    verify_frozen();
    memstats_read(&stats);
    fprintf(stderr, "%llu peaks, %llu blocks handed over, %llu looks, %llu MiB given in holes\n",
            (unsigned long long)load_relaxed(&peaks_done),
            (unsigned long long)load_relaxed(&blocks_handed), (unsigned long long)looks_done,
            (unsigned long long)given_bytes / MIB);
    FRAME_CHECK(stats.heap_objects == 0 && stats.heap_inuse == 0 && stats.heap_holes == 0);
    FRAME_CHECK(load_relaxed(&heap_main.candidate_bytes) == 0);
    FRAME_CHECK(given_bytes > 4 * MIB); // or nothing was shown
}

int main(int argc, char **argv)
{
    static struct worker host;
    pthread_t threads[THREADS_MAX];
    pthread_t others[2];
    unsigned seconds = race_argument(argc, argv, 1, 10, 120);
    worker_count = (unsigned)min_size(race_argument(argc, argv, 2, 6, 8), THREADS_MAX);
    uint64_t random = frame_seed();
    uint64_t looker_seed = frame_random(&random);
    alarm(seconds * 4 + 60); // a hang ends by a signal
    if (RACE_BUILD) {
        options_main.releaser = false;
        releaser_init();
    }
    host.random = frame_random(&random);
    for (unsigned i = 0; i < worker_count; i++) {
        workers[i].random = frame_random(&random);
        FRAME_CHECK(pthread_create(&threads[i], NULL, worker_run, &workers[i]) == 0);
    }
    FRAME_CHECK(pthread_create(&others[0], NULL, looker_run, &looker_seed) == 0);
    FRAME_CHECK(pthread_create(&others[1], NULL, host_run, &host) == 0);
    race_sleep_us(seconds * 1000000);
    store_relaxed(&stopping, 1);
    for (unsigned i = 0; i < worker_count; i++) {
        FRAME_CHECK(pthread_join(threads[i], NULL) == 0);
    }
    for (size_t i = 0; i < ARRAY_COUNT(others); i++) {
        FRAME_CHECK(pthread_join(others[i], NULL) == 0);
    }
    finish();
    return 0;
}
