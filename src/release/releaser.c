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
#include "release/limit_int.h"

#include <sys/prctl.h>
#include <unistd.h>

#include "base/fmt.h"
#include "base/option.h"
#include "os/clock.h"
#include "os/futex.h"
#include "os/sys.h"
#include "os/thread.h"
#include "span/span.h"

enum { RELEASER_NONE, RELEASER_RUNNING };

// How often the thread looks while the heap is in motion, and how long it stays when it is not.
#define LOOK_NS NS_PER_S
#define STAY_NS (3 * NS_PER_S)

// Where there is no thread, whoever rings releases so much at a time: about half a millisecond.
#define ASSIST_PAGES CHUNK_PAGES

static struct releaser {
    atomic_ptr policy_ptr;        // (A) const struct release_policy *; NULL before init
    enum vm_advice advice;        // (round)
    bool thread_allowed;          // (C) but for releaser_restrict
    atomic_u32 restricted;        // (A) no thread: a filter may be in force
    atomic_u32 state;             // (A)
    atomic_u32 bell;              // (A)
    atomic_u32 stop;              // (A) releaser_pause wants the thread gone
    atomic_u32 round;             // (A)
    struct bare_thread thread;    // (state)
    struct release_epoch epoch;   // (round)
    struct release_budget budget; // (round)
    uint64_t trace_count;         // (round)
    uint64_t worked_ns;           // (round) time spent in releasing, ever
    uint64_t flushed_ns;          // (round) when idle caches were last flushed
} releaser;

static const struct release_policy *policy_now(void)
{
    // Constant tables: whichever is seen, it is whole.
    return load_relaxed(&releaser.policy_ptr);
}

static uint64_t ring_growth_pages(void)
{
    uint64_t bytes = policy_now()->ring_bytes;
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

void release_view_read(struct release_view *view)
{
    struct pageheap_stats stats;
    pageheap_stats_read(&pageheap_main, &stats);
    *view = (struct release_view){
        .now_ns = clock_now_ns(),
        .used_bytes = stats.used_pages << PAGE_SHIFT,
        .retained_bytes = (stats.used_pages + stats.ready_pages) << PAGE_SHIFT,
        .ready_bytes = stats.ready_pages << PAGE_SHIFT,
        .mapped_bytes = (pageheap_mapped_pages(&stats) << PAGE_SHIFT) +
                        load_relaxed(&heap_main.meta.reserved_bytes) + heap_main.meta.first_bytes,
        .freed_bytes = stats.freed_total_pages << PAGE_SHIFT,
        .ops_count = stats.ops_count,
        .page_bytes = vm_kernel.page_bytes,
    };
}

static void trace(const struct pageheap_release_result *done, uint64_t took_ns, const char *why)
{
    if (!options_main.releasetrace) {
        return;
    }
    struct pageheap_stats stats;
    pageheap_stats_read(&pageheap_main, &stats);
    char buf[FMT_LINE_BYTES];
    struct fmt line;
    fmt_init(&line, buf, sizeof(buf));
    fmt_str(&line, "ebb: release ");
    fmt_u64(&line, ++releaser.trace_count);
    fmt_str(&line, ": ");
    fmt_u64(&line, done->pages * (PAGE_BYTES / KIB));
    fmt_str(&line, " KiB in ");
    fmt_u64(&line, done->run_count);
    fmt_str(&line, " runs, ");
    fmt_fixed(&line, took_ns / NS_PER_US, 3);
    fmt_str(&line, " ms, ");
    fmt_str(&line, releaser.advice == VM_ADVICE_FREE ? "lazily" : "at once");
    fmt_str(&line, "; ");
    fmt_u64(&line, stats.released_pages * (PAGE_BYTES / KIB));
    fmt_str(&line, " KiB total, ");
    uint64_t retained = stats.used_pages + stats.ready_pages;
    fmt_u64(&line, retained == 0 ? 100 : stats.used_pages * 100 / retained);
    fmt_str(&line, "% util; ");
    fmt_str(&line, policy_now()->name);
    fmt_str(&line, ": ");
    fmt_str(&line, why);
    if (done->refused != 0) {
        fmt_str(&line, "; the kernel refused ");
        fmt_u64(&line, done->refused * (PAGE_BYTES / KIB));
        fmt_str(&line, " KiB");
    }
    fmt_char(&line, '\n');
    fmt_write(&line, STDERR_FILENO);
}

// Who says how much CPU time may be spent.
enum pace { PACE_BUDGET, PACE_LIMIT, PACE_NONE };

static bool pace_allows(enum pace pace, uint64_t now_ns)
{
    return pace == PACE_NONE ||
           (pace == PACE_LIMIT ? limiter_may_spend(now_ns)
                               : release_budget_may_spend(&releaser.budget, now_ns));
}

static enum pace pace_of(const struct release_plan *plan)
{
    return plan->limited ? PACE_LIMIT : plan->unpaced ? PACE_NONE : PACE_BUDGET;
}

// Releases at most bytes, until the pace, until_ns (0: no end) or a newer stop ends it. Caller
// holds round.
static uint64_t release_bytes(uint64_t bytes, enum pace pace, uint64_t until_ns, const char *why)
{
    struct pageheap_release_result done = {0};
    struct pageheap_cursor cursor = pageheap_cursor_top(&pageheap_main);
    uint64_t pages = (bytes >> PAGE_SHIFT) + ((bytes & (PAGE_BYTES - 1)) != 0);
    uint64_t began_ns = clock_now_ns();
    uint64_t before_ns = began_ns;
    while (done.pages + done.refused < pages && load_relaxed(&releaser.stop) == 0) {
        if (!pace_allows(pace, before_ns) || (until_ns != 0 && before_ns >= until_ns)) {
            break;
        }
        size_t most = pace == PACE_LIMIT ? CHUNK_PAGES / 2 : CHUNK_PAGES;
        struct pageheap_filter filter = {.max_pages =
                                             min_size(pages - done.pages - done.refused, most)};
        if (!pageheap_release(&pageheap_main, &cursor, &filter, releaser.advice, &done)) {
            break;
        }
        uint64_t now_ns = clock_now_ns();
        if (pace == PACE_LIMIT) {
            limiter_spend(now_ns, now_ns - before_ns);
        } else {
            release_budget_spend(&releaser.budget, now_ns - before_ns);
        }
        before_ns = now_ns;
    }
    releaser.worked_ns += before_ns - began_ns;
    if (done.pages != 0 || done.refused != 0) {
        trace(&done, before_ns - began_ns, why);
    }
    return done.pages << PAGE_SHIFT;
}

// Idle caches, once a second; all of them, when a limit wants it.
static void releaser_flush(void)
{
    uint64_t began_ns = clock_now_ns();
    if (limiter_begin()) {
        world_flush(&heap_main, FLUSH_ALL);
        uint64_t now_ns = clock_now_ns();
        limiter_spend(now_ns, now_ns - began_ns);
    } else if (began_ns - releaser.flushed_ns >= LOOK_NS / 2) {
        world_flush(&heap_main, FLUSH_IDLE);
    } else {
        return;
    }
    releaser.flushed_ns = began_ns;
}

static struct release_plan releaser_plan(struct release_view *view)
{
    release_view_read(view);
    release_epoch_update(&releaser.epoch, view);
    struct release_plan plan = policy_now()->plan(view);
    limiter_harden(view, &plan);
    return plan;
}

// One look: idle caches, the policy, the release. Tells when to look again (0: the heap is at rest
// and nothing is left to do) and how many pages are ready.
static uint64_t releaser_look(uint64_t *ready_pages)
{
    struct release_view view;
    releaser_flush();
    struct release_plan plan = releaser_plan(&view);
    uint64_t released = 0;
    if (plan.bytes != 0) {
        released = release_bytes(plan.bytes, pace_of(&plan), 0, plan.why);
        plan = releaser_plan(&view);
    }
    bool stay = limiter_end(&view);
    *ready_pages = view.ready_bytes >> PAGE_SHIFT;
    if (plan.bytes != 0 && (released != 0 || plan.limited)) {
        // More to do: when the budget allows, but not before others have had a turn.
        uint64_t ready_ns = plan.limited ? limiter_ready_ns(view.now_ns)
                                         : release_budget_ready_ns(&releaser.budget, view.now_ns);
        return max_u64(ready_ns, view.now_ns + NS_PER_MS);
    }
    if (view.rest_ns >= STAY_NS && !stay) {
        pageheap_release_tables(&pageheap_main);
        return 0;
    }
    return view.now_ns + LOOK_NS;
}

static void releaser_sleep(uint32_t bell, uint64_t until_ns)
{
    uint64_t now_ns = clock_now_ns();
    if (until_ns > now_ns) {
        futex_wait(&releaser.bell, bell, until_ns - now_ns);
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
            again_ns = releaser_look(&ready_pages);
            round_end();
        }
        if (again_ns == 0 || policy_now()->ring_bytes != 0 || limiter_alert()) {
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
    struct release_view view;
    struct release_plan plan = releaser_plan(&view);
    if (plan.bytes != 0) {
        uint64_t bytes = min_u64(plan.bytes, ASSIST_PAGES << PAGE_SHIFT);
        release_bytes(bytes, pace_of(&plan), 0, plan.why);
        release_view_read(&view);
    }
    limiter_end(&view);
    ring_arm(plan.bytes != 0 ? 0 : view.ready_bytes >> PAGE_SHIFT);
    round_end();
}

// Starts the thread, or lets it know; urgent wakes it if it sleeps.
static void releaser_call(bool urgent)
{
    if (lock_am_freezer()) {
        return; // another library's fork handler: a thread started now would be lost in the child
    }
    add_seq(&releaser.bell, 1);
    if (!releaser.thread_allowed || load_relaxed(&releaser.restricted) != 0) {
        releaser_assist();
        return;
    }
    uint32_t expected = RELEASER_NONE;
    // Pairs with store_seq in releaser_end.
    if (!cas_seq(&releaser.state, &expected, RELEASER_RUNNING)) {
        if (urgent) {
            futex_wake(&releaser.bell, 1); // a policy that wants to act at once
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
    }
}

void releaser_ring(void)
{
    if (policy_now() == NULL || ring_growth_pages() == UINT64_MAX) {
        return;
    }
    releaser_call(policy_now()->ring_bytes != 0 || limiter_alert());
}

void releaser_wake(void)
{
    if (policy_now() != NULL) {
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
    *released = release_bytes(bytes, PACE_LIMIT, clock_now_ns() + most_ns, why);
    round_end();
    return true;
}

uint64_t releaser_flush_all(void)
{
    round_wait();
    uint64_t bytes = world_flush(&heap_main, FLUSH_ALL) << PAGE_SHIFT;
    round_end();
    return bytes;
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
    uint64_t began_ns = clock_now_ns();
    report->flushed_bytes = world_flush(&heap_main, FLUSH_ALL) << PAGE_SHIFT;
    report->runs_bytes = release_bytes(UINT64_MAX, PACE_NONE, 0, why);
    report->tables_bytes = pageheap_release_tables(&pageheap_main);
    report->took_ns = clock_now_ns() - began_ns;
    round_end();
    return report->runs_bytes + report->holes_bytes + report->tables_bytes;
}

static enum vm_advice advice_of(const struct release_policy *policy)
{
    (void)policy;
    bool lazily = options_main.madvise == OPTION_MADVISE_FREE;
    return lazily && vm_free_works(&vm_kernel) ? VM_ADVICE_FREE : VM_ADVICE_DONTNEED;
}

bool releaser_set_policy(size_t index)
{
    if (lock_am_freezer()) {
        return false;
    }
    round_wait();
    store_relaxed(&releaser.policy_ptr, (void *)(uintptr_t)&release_policies[index]);
    releaser.advice = advice_of(policy_now());
    ring_arm(0);
    round_end();
    releaser_ring();
    return true;
}

size_t releaser_policy_index(void)
{
    const struct release_policy *policy = policy_now();
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
    for (int i = 0; i < 1000 && load_acquire(&releaser.thread.alive) != 0; i++) {
        futex_wait(&releaser.thread.alive, 1, NS_PER_MS / 10);
    }
    store_seq(&releaser.stop, 0);
    ring_arm(0);
}

void releaser_restrict(void)
{
    limiter_restrict();
    store_relaxed(&releaser.restricted, 1);
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
    store_relaxed(&releaser.stop, 0);
    store_relaxed(&releaser.state, RELEASER_NONE);
    limiter_fork_child();
    round_end();
    ring_arm(0);
}

void releaser_init(void)
{
    const struct options *o = &options_main;
    store_relaxed(&releaser.policy_ptr, (void *)(uintptr_t)&release_policies[o->policy]);
    releaser.advice = advice_of(policy_now());
    releaser.thread_allowed = o->releaser;
    release_budget_init(&releaser.budget, (uint32_t)o->release_cpu_percent, 0);
    pageheap_set_grow_hook(&pageheap_main, releaser_ring);
    limiter_init();
    ring_arm(0);
}
