// SPDX-License-Identifier: MIT
//
// Releaser: the thread that looks, asks the policy, does, and sleeps.
//
// Model
//   state  NONE -> RUNNING by whoever rings first; RUNNING -> NONE by the thread itself when it
//          ends.
//   bell   counts rings; the thread sleeps on it.
//   round  1 while somebody releases (or forks).
//   The thread ends by: state = NONE, then another look at the bell; a ring that came in between
//   has either seen NONE and started a new thread, or is seen here, and the thread goes on.
//
// Locking
//   None of its own but round. The thread takes WORLD, CENTRAL and PAGEHEAP through the folders
//   below.
//
// Go       1.16 mgcscavenge.go bgscavenge, wakeScavenger.
// Tests    test/system/gives_back.py  test/race/heap_race.c
#include "release/release.h"

#include <sys/prctl.h>

#include "base/option.h"
#include "ledger/ledger.h"
#include "os/clock.h"
#include "os/futex.h"
#include "os/sys.h"
#include "os/thread.h"
#include "release/limit_int.h"
#include "release/release_int.h"
#include "span/span.h"

enum { RELEASER_NONE, RELEASER_RUNNING };

// Where there is no thread, whoever rings releases so much at a time: about half a millisecond.
#define ASSIST_BYTES CHUNK_BYTES

// How long releaser_pause waits: a busy machine may need this long to run the thread to its end.
#define PAUSE_NS (5 * NS_PER_S)

static struct releaser {
    bool thread_allowed;       // (C) but for releaser_restrict
    atomic_u32 restricted;     // (A) no thread: a filter may be in force
    atomic_u32 state;          // (A)
    atomic_u32 bell;           // (A)
    atomic_u32 dozing;         // (A) the thread sleeps for longer than a look
    atomic_u32 stop;           // (A) releaser_pause wants the thread gone
    atomic_u32 round;          // (A) 1: somebody holds round_main
    struct bare_thread thread; // (state)
} releaser;

static uint64_t ring_growth_pages(void)
{
    uint64_t bytes = round_policy()->ring_bytes;
    bytes = bytes != 0 ? bytes : options_main.release_min_bytes;
    bytes = min_u64(bytes, limiter_ring_bytes());
    return bytes == UINT64_MAX ? UINT64_MAX : bytes >> PAGE_SHIFT;
}

static void ring_arm(uint64_t ready_pages)
{
    uint64_t growth = ring_growth_pages();
    pageheap_set_ring(&pageheap_main,
                      growth == UINT64_MAX ? UINT64_MAX : ready_pages + max_u64(growth, 1));
}

static bool round_try(void)
{
    uint32_t expected = 0;
    return cas_acquire(&releaser.round, &expected, 1); // pairs with round_end
}

static void round_wait(void)
{
    while (!round_try()) {
        futex_wait(&releaser.round, 1, NS_PER_MS);
    }
}

static void round_end(void)
{
    store_release(&releaser.round, 0); // pairs with round_try
    futex_wake(&releaser.round, 1);
}

static void releaser_sleep(uint32_t bell, uint64_t until_ns)
{
    uint64_t now_ns = clock_now_ns();
    if (until_ns > now_ns) {
        // A ring before this is seen has changed the bell. Pairs with load_seq in releaser_ring.
        store_seq(&releaser.dozing, until_ns - now_ns > LOOK_NS);
        futex_wait(&releaser.bell, bell, until_ns - now_ns);
        store_relaxed(&releaser.dozing, 0);
    }
}

// True if the thread ends; false if somebody rang in the last moment.
static bool releaser_end(uint32_t bell)
{
    store_seq(&releaser.state, RELEASER_NONE); // pairs with cas_seq in releaser_ring
    if (load_seq(&releaser.bell) == bell || load_relaxed(&releaser.stop) != 0) {
        return true;
    }
    uint32_t expected = RELEASER_NONE;
    return !cas_seq(&releaser.state, &expected, RELEASER_RUNNING);
}

static void releaser_run(void *arg)
{
    (void)arg;
    sys_call2(SYS_prctl, PR_SET_NAME, "ebb-releaser");
    for (;;) {
        uint32_t bell = load_seq(&releaser.bell); // pairs with add_seq in releaser_ring
        uint64_t ready_pages = 0;
        uint64_t again_ns = clock_now_ns() + LOOK_NS;
        if (round_try()) {
            again_ns = round_look(&ready_pages);
            round_end();
        }
        if (again_ns == 0 || again_ns > clock_now_ns() + LOOK_NS ||
            round_policy()->ring_bytes != 0 || limiter_alert()) {
            ring_arm(ready_pages); // otherwise the next look comes by itself
        }
        if (again_ns == 0 || load_relaxed(&releaser.stop) != 0) {
            if (releaser_end(bell)) {
                return;
            }
            continue;
        }
        releaser_sleep(bell, again_ns);
    }
}

// Without a thread: a bounded piece of work by the thread that rang.
static void releaser_assist(void)
{
    if (!round_try()) {
        return;
    }
    ring_arm(round_assist(ASSIST_BYTES));
    round_end();
}

bool releaser_may_start(void)
{
    return releaser.thread_allowed && load_relaxed(&releaser.restricted) == 0;
}

// Starts the thread, or lets it know; urgent wakes it if it sleeps.
static void releaser_call(bool urgent)
{
    if (lock_am_freezer()) {
        return; // another library's fork handler: a thread started now would be lost in the child
    }
    add_seq(&releaser.bell, 1);
    if (!releaser_may_start()) {
        releaser_assist();
        return;
    }
    uint32_t expected = RELEASER_NONE;
    // Pairs with store_seq in releaser_end.
    if (!cas_seq(&releaser.state, &expected, RELEASER_RUNNING)) {
        // Urgent, or a thread that would not look for long.
        if (urgent || load_seq(&releaser.dozing) != 0) {
            futex_wake(&releaser.bell, 1); // pairs with store_seq in releaser_sleep
        }
        return;
    }
    // The last thread may still be on its way out, on the stack that is to be used again.
    while (load_relaxed(&releaser.thread.alive) != 0) {
        futex_wait(&releaser.thread.alive, 1, NS_PER_MS / 10);
    }
    if (bare_start(&releaser.thread, &vm_kernel, releaser_run, NULL) != 0) {
        store_relaxed(&releaser.restricted, 1);
        store_seq(&releaser.state, RELEASER_NONE);
        releaser_assist();
        return;
    }
    ledger_page_add_own(releaser.thread.block, releaser.thread.block_bytes);
}

void releaser_ring(void)
{
    if (round_policy() != NULL && ring_growth_pages() != UINT64_MAX) {
        // A policy that wants to act at once, or a limit that is near.
        releaser_call(round_policy()->ring_bytes != 0 || limiter_alert());
    }
}

void releaser_wake(void)
{
    if (round_policy() != NULL) {
        releaser_call(true);
    }
}

bool releaser_assist_limit(uint64_t bytes, uint64_t most_ns, const char *why, uint64_t *released)
{
    *released = 0;
    if (!round_try()) {
        futex_wait(&releaser.round, 1, NS_PER_MS); // somebody is at it: no faster than he is
        return false;
    }
    *released = round_assist_limit(bytes, clock_now_ns() + most_ns, why);
    round_end();
    return true;
}

uint64_t releaser_flush_all(void)
{
    round_wait();
    uint64_t pages = world_flush(&heap_main, NULL);
    round_end();
    return pages;
}

uint64_t releaser_release_now(const char *why, struct release_report *report)
{
    struct release_report own;
    if (report == NULL) {
        report = &own;
    }
    *report = (struct release_report){0};
    if (lock_am_freezer()) {
        return UINT64_MAX; // another library's fork handler: the round is this thread's own
    }
    round_wait();
    round_release_all(why, report);
    round_end();
    return report->runs_bytes + report->holes_bytes + report->tables_bytes;
}

bool releaser_set_policy(size_t index)
{
    if (lock_am_freezer()) {
        return false;
    }
    round_wait();
    round_set_policy(&release_policies[index], clock_now_ns());
    ledger_page_set_policy(release_policies[index].name);
    ring_arm(0);
    round_end();
    releaser_ring();
    return true;
}

uint64_t releaser_reinflated_bytes(void)
{
    return load_relaxed(&round_main.reinflated_bytes);
}

void releaser_totals(struct release_totals *out)
{
    struct pageheap_stats stats;
    pageheap_stats_read(&pageheap_main, &stats);
    out->count = load_relaxed(&round_main.trace_count);
    out->released_bytes =
        (stats.released_total_pages << PAGE_SHIFT) + load_relaxed(&round_main.hole_total_bytes);
    out->refused_bytes = stats.refused_total_pages << PAGE_SHIFT;
}

size_t releaser_policy_index(void)
{
    const struct release_policy *policy = round_policy();
    return policy != NULL ? (size_t)(policy - release_policies) : 0;
}

void releaser_pause(void)
{
    if (load_relaxed(&releaser.thread.alive) == 0) {
        return;
    }
    store_seq(&releaser.stop, 1); // pairs with the looks at stop in the thread
    add_seq(&releaser.bell, 1);
    futex_wake(&releaser.bell, 1);
    uint64_t until_ns = clock_now_ns() + PAUSE_NS;
    // The kernel clears alive and wakes; pairs with nothing of ours.
    while (load_acquire(&releaser.thread.alive) != 0 && clock_now_ns() < until_ns) {
        futex_wait(&releaser.thread.alive, 1, NS_PER_MS / 10);
    }
    store_seq(&releaser.stop, 0);
    ring_arm(0);
}

void releaser_restrict(void)
{
    limiter_restrict();
    store_relaxed(&releaser.restricted, 1);
    store_relaxed(&round_main.restricted, 1);
    releaser_pause();
    barrier_restrict();
    vm_batch_forbid();
}

void releaser_fork_prepare(void)
{
    round_wait();
}

void releaser_fork_parent(void)
{
    round_end();
    if (load_relaxed(&releaser.state) == RELEASER_NONE) {
        ring_arm(0); // a ring during the fork was not heard
    }
}

void releaser_fork_child(void)
{
    bare_forget(&releaser.thread);
    limiter_fork_child();
    store_relaxed(&releaser.stop, 0);
    store_relaxed(&releaser.dozing, 0);
    store_relaxed(&releaser.state, RELEASER_NONE);
    round_end();
    ring_arm(0);
}

void releaser_init(void)
{
    const struct options *o = &options_main;
    round_main.stop = &releaser.stop;
    round_set_policy(&release_policies[o->policy], 0);
    ledger_page_set_policy(release_policies[o->policy].name);
    releaser.thread_allowed = o->releaser;
    release_budget_init(&round_main.budget, (uint32_t)o->release_cpu_percent, 0);
    pageheap_set_grow_hook(&pageheap_main, releaser_ring);
    limiter_init();
    ring_arm(0);
}
