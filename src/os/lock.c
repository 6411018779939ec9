// SPDX-License-Identifier: MIT
//
// Locks, the slow half: waiting, freezing for a fork, rank checks.
//
// Go  1.16 lock_futex.go lock2; lockrank_on.go.
#include "os/lock.h"

#include "base/fatal.h"
#include "os/futex.h"
#include "os/thread.h"

#define SPIN_TURNS 100

// The thread that forks, by its thread pointer; 0 when nobody does.
static atomic_u64 freezer;

void lock_init(struct lock *lock, enum lockrank rank)
{
    store_relaxed(&lock->word, LOCK_FREE);
    lock->rank = (uint32_t)rank;
}

ATTR_NOINLINE void lock_acquire_slow(struct lock *lock)
{
    for (int turn = 0; turn < SPIN_TURNS; turn++) {
        uint32_t seen = load_relaxed(&lock->word);
        if (seen == LOCK_FROZEN && lock_am_freezer()) {
            return;
        }
        if (seen == LOCK_FREE && cas_acquire(&lock->word, &seen, LOCK_HELD)) {
            return;
        }
        cpu_relax();
    }
    for (;;) {
        uint32_t seen = load_relaxed(&lock->word);
        if (seen == LOCK_FROZEN) {
            if (lock_am_freezer()) {
                return;
            }
            futex_wait(&lock->word, LOCK_FROZEN, 0);
            continue;
        }
        // Whoever wakes takes the lock as "waited for": others may still sleep behind it.
        // Pairs with swap_release in lock_release.
        if (seen == LOCK_FREE) {
            if (cas_acquire(&lock->word, &seen, LOCK_WAITED)) {
                return;
            }
            continue;
        }
        if (seen == LOCK_HELD && !cas_acquire(&lock->word, &seen, LOCK_WAITED)) {
            continue;
        }
        futex_wait(&lock->word, LOCK_WAITED, 0);
    }
}

ATTR_NOINLINE void lock_wake_one(struct lock *lock)
{
    futex_wake(&lock->word, 1);
}

void lock_freeze(struct lock *lock)
{
    lock_acquire(lock);
    if (CHECK_LEVEL >= 1) {
        lock_note_release(lock); // state 3 is passed by rank-free code from here on
    }
    store_relaxed(&lock->word, LOCK_FROZEN);
}

void lock_thaw(struct lock *lock)
{
    // Waiters sleep on 3 or on 2 (those who came before the freeze): wake all, they sort it out.
    // Pairs with cas_acquire in lock_acquire.
    swap_release(&lock->word, LOCK_FREE);
    futex_wake(&lock->word, INT32_MAX);
}

void lock_set_freezer(void)
{
    store_relaxed(&freezer, thread_pointer());
}

void lock_clear_freezer(void)
{
    store_relaxed(&freezer, 0);
}

bool lock_am_freezer(void)
{
    // Relaxed: only the freezer itself ever sees its own thread pointer here.
    return load_relaxed(&freezer) == thread_pointer();
}

// Held ranks of this thread, a bit each. Central locks share a rank and are never nested.
#if CHECK_LEVEL >= 1
static __thread uint32_t held_ranks;
#else
static uint32_t held_ranks; // never touched at this level
#endif

void lock_note_acquire(const struct lock *lock)
{
    // A claimer holds many caches at once, each of which nobody else waits for while holding
    // another.
    if (lock_am_freezer() || lock->rank == LOCKRANK_CACHE) {
        return;
    }
    uint32_t bit = 1u << lock->rank;
    CHECK(held_ranks < bit, "lock: taken out of rank order");
    held_ranks |= bit;
}

void lock_note_release(const struct lock *lock)
{
    if (lock_am_freezer()) {
        return;
    }
    held_ranks &= ~(1u << lock->rank);
}

bool lock_held_by_me(const struct lock *lock)
{
    return lock_am_freezer() || (held_ranks & (1u << lock->rank)) != 0;
}
