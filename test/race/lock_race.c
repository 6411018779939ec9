// SPDX-License-Identifier: MIT
//
// Lock race: lock_race [SECONDS [THREADS]]. Threads count under locks of two ranks, with
// lock_acquire and try_lock_acquire, while others freeze both locks as a fork does and pass them.
// Commit and long tier.
//
// Model
//   Each lock guards a pair of plain counters that are equal whenever nobody holds it, and a copy
//   of the steps that each thread made adds up to them at the end. A lost wake-up is a hang, which
//   the alarm ends.
//
// Go       none
#include <pthread.h>
#include <unistd.h>

#include "os/lock.h"
#include "race.h"

#define THREADS_MAX 64
#define INNER_COUNT 3

struct guarded {
    struct lock lock;
    uint64_t first;
    uint64_t second;
};

static struct guarded outer = {.lock = LOCK_INIT(WORLD)};
static struct guarded inner[INNER_COUNT] = {
    {.lock = LOCK_INIT(CENTRAL)}, {.lock = LOCK_INIT(PAGEHEAP)}, {.lock = LOCK_INIT(META)}};
static atomic_u32 stopping;

struct worker {
    uint64_t random;
    uint64_t outer_steps;
    uint64_t inner_steps[INNER_COUNT];
    uint64_t freezes;
    uint64_t refused;
};

static void count(struct guarded *g)
{
    FRAME_CHECK(g->first == g->second);
    g->first++;
    for (volatile int i = 0; i < 20; i++) {
    }
    g->second++;
}

static void inner_step(struct worker *w)
{
    size_t i = frame_below(&w->random, INNER_COUNT);
    if (frame_below(&w->random, 4) != 0) {
        lock_acquire(&inner[i].lock);
    } else if (!try_lock_acquire(&inner[i].lock)) {
        w->refused++;
        return;
    }
    count(&inner[i]);
    if (frame_below(&w->random, 2000) == 0) {
        race_sleep_us(100); // long enough for others to fall asleep behind it
    }
    lock_release(&inner[i].lock);
    w->inner_steps[i]++;
}

static void outer_step(struct worker *w)
{
    lock_acquire(&outer.lock);
    count(&outer);
    w->outer_steps++;
    if (frame_below(&w->random, 2) == 0) {
        inner_step(w);
    }
    lock_release(&outer.lock);
}

// As world_freeze does: the outermost lock first, then the right to pass, then the others; in
// between code that takes locks as always.
static void freeze_step(struct worker *w)
{
    lock_freeze(&outer.lock);
    lock_set_freezer();
    for (size_t i = 0; i < INNER_COUNT; i++) {
        lock_freeze(&inner[i].lock);
    }
    for (size_t i = 0; i < INNER_COUNT; i++) {
        count(&inner[i]); // nobody else is in there
        w->inner_steps[i]++;
    }
    for (int turn = 0; turn < 3; turn++) {
        lock_acquire(&outer.lock);
        size_t i = frame_below(&w->random, INNER_COUNT);
        lock_acquire(&inner[i].lock);
        count(&outer);
        count(&inner[i]);
        w->outer_steps++;
        w->inner_steps[i]++;
        lock_release(&inner[i].lock);
        lock_release(&outer.lock);
    }
    if (frame_below(&w->random, 20) == 0) {
        race_sleep_us(200);
    }
    for (size_t i = INNER_COUNT; i-- > 0;) {
        lock_thaw(&inner[i].lock);
    }
    lock_clear_freezer();
    lock_thaw(&outer.lock);
    w->freezes++;
}

static void *worker_run(void *arg)
{
    struct worker *w = arg;
    while (load_relaxed(&stopping) == 0) {
        uint64_t what = frame_below(&w->random, 100);
        if (what < 4) {
            freeze_step(w);
        } else if (what < 40) {
            outer_step(w);
        } else {
            inner_step(w);
        }
    }
    return NULL;
}

int main(int argc, char **argv)
{
    static struct worker workers[THREADS_MAX];
    static pthread_t threads[THREADS_MAX];
    unsigned seconds = race_argument(argc, argv, 1, 6, 60);
    unsigned thread_count = (unsigned)min_size(race_argument(argc, argv, 2, 8, 8), THREADS_MAX);
    uint64_t random = frame_seed();
    alarm(seconds * 4 + 60);
    for (unsigned i = 0; i < thread_count; i++) {
        workers[i].random = frame_random(&random);
        FRAME_CHECK(pthread_create(&threads[i], NULL, worker_run, &workers[i]) == 0);
    }
    race_sleep_us(seconds * 1000000);
    store_relaxed(&stopping, 1);
    struct worker sum = {0};
    for (unsigned i = 0; i < thread_count; i++) {
        FRAME_CHECK(pthread_join(threads[i], NULL) == 0);
        sum.outer_steps += workers[i].outer_steps;
        sum.freezes += workers[i].freezes;
        sum.refused += workers[i].refused;
        for (size_t k = 0; k < INNER_COUNT; k++) {
            sum.inner_steps[k] += workers[i].inner_steps[k];
        }
    }
    fprintf(stderr, "%llu outer steps, %llu freezes, %llu refused\n",
            (unsigned long long)sum.outer_steps, (unsigned long long)sum.freezes,
            (unsigned long long)sum.refused);
    FRAME_CHECK(outer.first == sum.outer_steps && outer.second == sum.outer_steps);
    for (size_t k = 0; k < INNER_COUNT; k++) {
        FRAME_CHECK(inner[k].first == sum.inner_steps[k]);
        FRAME_CHECK(inner[k].second == sum.inner_steps[k]);
        FRAME_CHECK(load_relaxed(&inner[k].lock.word) == LOCK_FREE);
    }
    FRAME_CHECK(load_relaxed(&outer.lock.word) == LOCK_FREE);
    FRAME_CHECK(sum.freezes != 0 && sum.refused != 0);
    return 0;
}
