// SPDX-License-Identifier: MIT
//
// Wait samples: where threads wait for each other, who makes them wait, and who starts threads. The
// profiles block, mutex and threadcreate.
//
// Model
//   block    the time a thread waits for a lock or a condition, by its own stack. Of a rate of r ns
//            an event of d ns is kept with the probability min(1, d / r), and then stands for
//            max(1, r / d) events of together max(d, r) ns. 0: off. 1: all.
//   mutex    the time others wait for a lock, by the stack that unlocks it; one unlocking in so
//            many (the fraction) is kept, and stands for so many. 0: off. 1: all.
//   line     a lock that somebody waits for now: how many do, and how long they have waited, all
//            together, since it was last unlocked. In a table by the lock's address, one lock in a
//            place; a lock that finds its place taken is not seen, which is counted.
//   stack    one record for all equal ones, with sums; never freed, bounded.
//   Sums are of estimates, as Go has it since 1.20.
//
// Locking
//   The table of stacks has a lock, and so has each line; rank PROFILE, no two at a time. A signal
//   handler that comes in between finds the thread busy and leaves no trace.
//
// Flow
//   preload/wait.c, trylock has failed -> wait_begin -> libc's lock -> wait_end
//   preload/wait.c, unlock -> wait_unlocking -> libc's unlock -> wait_unlocked
//   preload/wait.c, condition -> wait_unlocking, wait_unlocked -> libc's wait -> wait_over
//   profile_collect -> wait_collect
//
// Why this way
//   A stack is unwound before the wait and not after it: then this thread has the lock, and others
//   wait for it. What waiting costs the program is asked of the lines, because a mutex does not
//   know how long it is waited for (docs/design/012).
//
// Go       1.19 mprof.go blockevent, mutexevent, saveblockevent; sema.go semrelease1; 1.20 mprof.go
//          blockProfileInternal. Unlike Go: the leaf is the caller and not the lock's own function,
//          the label "wait" says what was waited for. All who wait count for the mutex profile, not
//          only the one who is next (Go: from 1.22). Getting the lock back at the end of a wait for
//          a condition belongs to that wait.
// Tests    test/unit/wait_sample_test.c  test/race/wait_race.c  test/system/wait_profile.py
#ifndef EBB_PROFILE_WAIT_SAMPLE_H
#define EBB_PROFILE_WAIT_SAMPLE_H

#include "base/atomic.h"
#include "os/meta.h"

#define WAIT_DEPTH_MAX 64

// Places for locks that are waited for at the same time.
#define WAIT_LINE_COUNT 2048

enum wait_what {
    WAIT_MUTEX,
    WAIT_RWLOCK,
    WAIT_COND,
};

// --- chance, pure ---

// What one event stands for.
struct wait_weight {
    double count;
    uint64_t delay_ns;
};

// wait_weigh_block tells whether a wait of delay_ns is kept, for 64 random bits, and what it stands
// for. rate_ns 0: none is.
bool wait_weigh_block(uint64_t random, uint64_t rate_ns, uint64_t delay_ns,
                      struct wait_weight *weight);

// wait_weigh_mutex is the same for an unlocking for which others have waited delay_ns.
bool wait_weigh_mutex(uint64_t random, uint64_t fraction, uint64_t delay_ns,
                      struct wait_weight *weight);

// --- recording ---

// wait_sample_init says where memory comes from. Once, before anything else.
void wait_sample_init(struct meta *meta);

// wait_sample_start registers the kinds; on is called with what the rates come to, now and whenever
// they change: whether waits are watched. Once, at start, by who sees the locks.
void wait_sample_start(void (*on)(bool watch));

// wait_sample_set_block and wait_sample_set_mutex set the rate and the fraction. False: nobody sees
// the locks, or no memory.
bool wait_sample_set_block(uint64_t rate_ns);
bool wait_sample_set_mutex(uint64_t fraction);

// A wait under way, on the stack of who waits.
struct wait {
    uintptr_t object;
    uint64_t began_ns;
    enum wait_what what;
    bool lined;     // it counts in its lock's line
    uint32_t depth; // 0: the block profile was off
    uintptr_t stack[WAIT_DEPTH_MAX];
};

// wait_begin: the caller is about to wait for the lock at object.
void wait_begin(struct wait *wait, const void *object, enum wait_what what);

// wait_end: it has waited; acquired: and has the lock, so that the time counts. (Also a wait that
// ends for lack of time counts, for block only.)
void wait_end(struct wait *wait, bool acquired, bool counts);

// wait_unlocking: the caller is about to unlock. Returns how long others have waited for it since
// it was last unlocked, all together; 0: nobody waits.
uint64_t wait_unlocking(const void *object);

// wait_unlocked records that, by the caller's stack.
void wait_unlocked(uint64_t delay_ns);

// wait_now begins a wait for a condition; wait_over ends it.
uint64_t wait_now(void);
void wait_over(uint64_t began_ns, enum wait_what what);

// wait_thread_made: the caller has made a thread.
void wait_thread_made(void);

// wait_sample_freeze and wait_sample_thaw belong to a fork: see lock_freeze. A child begins at
// nothing: it waits for nobody, and has made no threads.
void wait_sample_freeze(void);
void wait_sample_thaw(void);
void wait_sample_fork_child(void);

#endif
