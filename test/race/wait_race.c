// SPDX-License-Identifier: MIT
//
// Wait race: wait_race [SECONDS]. Threads wait for few locks in the same lines and unlock them, as
// preload/wait.c has them do, while others read the profiles, change the rates and freeze as a fork
// does. Commit and long tier.
//
// Model
//   The locks are spin locks of the test. At the end nobody is in a line, and what the mutex
//   profile says was waited for is not more than the threads have spent waiting.
//
// Go       none
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <unistd.h>

#include "malloc/malloc.h"
#include "os/clock.h"
#include "profile/profile.h"
#include "race.h"
#include "span/span.h"

#define THREADS 4
#define LOCKS 3

static atomic_u32 locks[LOCKS];
static atomic_u32 stopping;
static atomic_u64 spent_ns; // waiting

static void switched(bool on)
{
    (void)on;
}

static void spin_lock(atomic_u32 *lock)
{
    uint32_t free = 0;
    if (cas_acquire(lock, &free, 1)) { // pairs with store_release in spin_unlock
        return;
    }
    uint64_t began_ns = clock_now_ns();
    struct wait wait;
    wait_begin(&wait, lock, WAIT_MUTEX);
    do {
        sched_yield();
        free = 0;
    } while (!cas_acquire(lock, &free, 1)); // as above
    wait_end(&wait, true, true);
    add_relaxed(&spent_ns, clock_now_ns() - began_ns);
}

static void spin_unlock(atomic_u32 *lock)
{
    uint64_t waited_ns = wait_unlocking(lock);
    store_release(lock, 0); // pairs with cas_acquire in spin_lock
    if (waited_ns != 0) {
        wait_unlocked(waited_ns);
    }
}

static void *worker(void *arg)
{
    uint64_t random = 1 + (uintptr_t)arg;
    while (load_relaxed(&stopping) == 0) {
        atomic_u32 *lock = &locks[frame_below(&random, LOCKS)];
        spin_lock(lock);
        if (frame_below(&random, 10) == 0) {
            sched_yield();
        }
        spin_unlock(lock);
        if (frame_below(&random, 50) == 0) {
            wait_over(wait_now(), WAIT_COND);
            wait_thread_made();
        }
    }
    return NULL;
}

static void sums_of(const char *name, int64_t *count, int64_t *delay_ns)
{
    struct profile_set set;
    const char *why;
    *count = 0;
    *delay_ns = 0;
    FRAME_CHECK(profile_collect(profile_find(name, strlen(name)), &set, 64 * MIB, &why));
    for (const struct profile_entry *e = set.first; e != NULL; e = e->next) {
        *count += e->sample.values[0];
        *delay_ns += e->sample.values[1];
    }
    profile_set_end(&set);
}

int main(int argc, char **argv)
{
    unsigned seconds = race_argument(argc, argv, 1, 5, 60);
    alarm(seconds * 4 + 60);
    pthread_t threads[THREADS];
    int64_t count;
    int64_t delay_ns;
    heap_init();
    wait_sample_start(switched);
    FRAME_CHECK(wait_sample_set_mutex(1) && wait_sample_set_block(1));
    for (size_t i = 0; i < THREADS; i++) {
        FRAME_CHECK(pthread_create(&threads[i], NULL, worker, (void *)i) == 0);
    }
    uint64_t end_ns = clock_now_ns() + seconds * NS_PER_S;
    for (uint64_t rounds = 0; clock_now_ns() < end_ns; rounds++) {
        sums_of(rounds % 2 == 0 ? "mutex" : "block", &count, &delay_ns);
        sums_of("threadcreate", &count, &delay_ns);
        wait_sample_set_block(rounds % 3);
        world_freeze(&heap_main);
        world_thaw(&heap_main);
    }
    store_relaxed(&stopping, 1);
    for (size_t i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    sums_of("mutex", &count, &delay_ns);
    uint64_t spent = load_relaxed(&spent_ns);
    printf("%lld unlockings that others waited for, %lld ns of %llu\n", (long long)count,
           (long long)delay_ns, (unsigned long long)spent);
    FRAME_CHECK(count > 0 && delay_ns > 0 && (uint64_t)delay_ns <= spent);
    for (size_t i = 0; i < LOCKS; i++) {
        FRAME_CHECK(wait_unlocking(&locks[i]) == 0);
    }
    return 0;
}
