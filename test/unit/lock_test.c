// SPDX-License-Identifier: MIT
// Tier  quick
//
// Locks: exclusion with sleepers, trying, freezing for a fork, and the check of ranks where it is
// compiled in.
//
// Go  runtime/runtime_test.go, lockrank tested by use.
#include "support/unit.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "os/lock.h"

#define THREADS 4
#define TURNS 20000

static struct lock lock = LOCK_INIT(PAGEHEAP);
static uint64_t counter; // (L) lock: not atomic on purpose
static atomic_u32 passed;

static void *count_up(void *arg)
{
    for (int i = 0; i < TURNS; i++) {
        lock_acquire(&lock);
        uint64_t seen = counter;
        if (i % 1000 == 0) {
            usleep(1); // the others go to sleep meanwhile
        }
        counter = seen + 1;
        lock_release(&lock);
    }
    return arg;
}

EBB_TEST(lock, one_at_a_time, .timeout = 60)
{
    pthread_t threads[THREADS];
    frame_allow_mappings(40);
    for (size_t i = 0; i < THREADS; i++) {
        cr_assert(pthread_create(&threads[i], NULL, count_up, NULL) == 0);
    }
    for (size_t i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    cr_assert(counter == (uint64_t)THREADS * TURNS);
    cr_assert(load_relaxed(&lock.word) == LOCK_FREE);
}

EBB_TEST(lock, trying_does_not_wait)
{
    cr_assert(try_lock_acquire(&lock));
    cr_assert(!try_lock_acquire(&lock));
    lock_release(&lock);
    cr_assert(try_lock_acquire(&lock));
    lock_release(&lock);
    lock_init(&lock, LOCKRANK_META);
    cr_assert(lock.rank == LOCKRANK_META && load_relaxed(&lock.word) == LOCK_FREE);
}

static void *take_once(void *arg)
{
    lock_acquire(&lock);
    add_relaxed(&passed, 1);
    lock_release(&lock);
    return arg;
}

// The thread that forks holds the lock frozen: it passes, as often as it likes; others wait till
// thaw.
EBB_TEST(lock, frozen_passes_its_freezer_only)
{
    pthread_t threads[THREADS];
    frame_allow_mappings(40);
    lock_acquire(&lock);
    cr_assert(pthread_create(&threads[0], NULL, take_once, NULL) == 0);
    usleep(20000); // it sleeps on "held"
    lock_release(&lock);
    pthread_join(threads[0], NULL);
    cr_assert(load_relaxed(&passed) == 1);

    lock_freeze(&lock);
    cr_assert(load_relaxed(&lock.word) == LOCK_FROZEN);
    cr_assert(!lock_am_freezer());
    lock_set_freezer();
    cr_assert(lock_am_freezer());
    for (size_t i = 0; i < THREADS; i++) {
        cr_assert(pthread_create(&threads[i], NULL, take_once, NULL) == 0);
    }
    for (int i = 0; i < 5; i++) {
        lock_acquire(&lock);
        lock_release(&lock);
        lock_assert_held(&lock);
        usleep(5000);
    }
    cr_assert(load_relaxed(&lock.word) == LOCK_FROZEN, "passing does not open it");
    cr_assert(load_relaxed(&passed) == 1, "another thread came through");
    lock_clear_freezer();
    lock_thaw(&lock);
    for (size_t i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    cr_assert(load_relaxed(&passed) == 1 + THREADS, "a sleeper was not woken");
    cr_assert(load_relaxed(&lock.word) == LOCK_FREE);
}

static struct lock outer = LOCK_INIT(WORLD);
static struct lock inner = LOCK_INIT(META);

EBB_TEST(lock, ranks_in_order_are_fine)
{
    for (int i = 0; i < 3; i++) {
        lock_acquire(&outer);
        lock_acquire(&lock);
        lock_assert_held(&lock);
        lock_acquire(&inner);
        lock_release(&inner);
        lock_release(&outer); // not in order of taking: allowed
        lock_release(&lock);
    }
}

#if CHECK_LEVEL >= 1
EBB_TEST(lock, rank_out_of_order_is_fatal, .signal = SIGABRT)
{
    lock_acquire(&inner);
    lock_acquire(&outer);
}

EBB_TEST(lock, same_rank_twice_is_fatal, .signal = SIGABRT)
{
    struct lock other = LOCK_INIT(PAGEHEAP);
    lock_acquire(&lock);
    lock_acquire(&other);
}

EBB_TEST(lock, assert_held_notices, .signal = SIGABRT)
{
    lock_acquire(&outer);
    lock_assert_held(&lock);
}
#endif
