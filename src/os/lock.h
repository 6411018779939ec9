// SPDX-License-Identifier: MIT
//
// Locks: a word and a futex, with a rank. Small, usable before constructors, fair enough.
//
// Model
//   word 0 free, 1 held, 2 held and somebody waits, 3 held for a fork (lock_freeze).
//   While a thread forks, it holds every lock below the MALLOC line in state 3 and passes them
//   freely: other libraries' fork handlers run meanwhile and may call malloc (docs/design/003).
//
// Locking
//   Ranks in os/lockrank.h. Not recursive, except in state 3 for the forking thread.
//
// Flow
//   lock_acquire -> lock_acquire_slow: spins some turns, then sleeps in the kernel.
//
// Why this way
//   pthread_mutex_t is not usable in the releaser's bare thread, cannot be re-made in a forked
//   child in a defined way, and has no rank.
//
// Go       1.16 lock_futex.go, lockrank.go. Unlike Go: state 3.
// Tests    test/unit/lock_test.c  test/race/lock_race.c
#ifndef EBB_OS_LOCK_H
#define EBB_OS_LOCK_H

#include "base/atomic.h"
#include "base/check.h"
#include "os/lockrank.h"

#define LOCK_FREE 0u
#define LOCK_HELD 1u
#define LOCK_WAITED 2u
#define LOCK_FROZEN 3u

struct lock {
    atomic_u32 word; // (A)
    uint32_t rank;   // (C) enum lockrank
};

#define LOCK_INIT(rank_name)                                                                       \
    {                                                                                              \
        .word = {LOCK_FREE}, .rank = LOCKRANK_##rank_name                                          \
    }

void lock_init(struct lock *lock, enum lockrank rank);
void lock_acquire_slow(struct lock *lock);
void lock_wake_one(struct lock *lock);

// Rank bookkeeping, compiled in when CHECK_LEVEL >= 1.
void lock_note_acquire(const struct lock *lock);
void lock_note_release(const struct lock *lock);
bool lock_held_by_me(const struct lock *lock);

// lock_acquire takes the lock; may sleep. Pairs with lock_release of the thread that held it.
ATTR_INLINE void lock_acquire(struct lock *lock)
{
    if (CHECK_LEVEL >= 1) {
        lock_note_acquire(lock);
    }
    uint32_t expected = LOCK_FREE;
    if (unlikely(!cas_acquire(&lock->word, &expected, LOCK_HELD))) {
        lock_acquire_slow(lock);
    }
}

// try_lock_acquire takes the lock if it is free, and never waits. Its swap pairs with lock_release.
ATTR_INLINE bool try_lock_acquire(struct lock *lock)
{
    uint32_t expected = LOCK_FREE;
    if (!cas_acquire(&lock->word, &expected, LOCK_HELD)) {
        return false;
    }
    if (CHECK_LEVEL >= 1) {
        lock_note_acquire(lock);
    }
    return true;
}

// lock_release pairs with the next lock_acquire.
ATTR_INLINE void lock_release(struct lock *lock)
{
    if (CHECK_LEVEL >= 1) {
        lock_note_release(lock);
    }
    if (unlikely(load_relaxed(&lock->word) == LOCK_FROZEN)) {
        return; // the forking thread passed it; lock_thaw opens it
    }
    if (unlikely(swap_release(&lock->word, LOCK_FREE) == LOCK_WAITED)) {
        lock_wake_one(lock);
    }
}

ATTR_INLINE void lock_assert_held(const struct lock *lock)
{
    if (CHECK_LEVEL >= 1) {
        CHECK(lock_held_by_me(lock), "lock: must be held here");
    }
}

// lock_freeze takes the lock for a fork, as the thread named by lock_set_freezer.
// lock_thaw gives it back, in the parent and in the child.
void lock_freeze(struct lock *lock);
void lock_thaw(struct lock *lock);

// lock_set_freezer names the calling thread as the one that passes frozen locks; lock_clear_freezer
// ends that. Only one thread at a time (the caller holds the WORLD lock by then).
void lock_set_freezer(void);
void lock_clear_freezer(void);
bool lock_am_freezer(void);

#endif
