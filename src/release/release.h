// SPDX-License-Identifier: MIT
//
// Release: when, how much and how memory goes back to the kernel.
//
// Model
//   A policy is a pure function from a view (what the heap looks like now) to a plan (what to do
//   and why). The releaser looks, asks, does, sleeps. It does not decide anything itself: pacing is
//   a token bucket of CPU time, also pure (release_budget).
//   An epoch stands for Go's GC cycle: it ends when as many bytes of pages have been freed as were
//   in use at its start (4 MiB at least), or when the heap has been at rest for a second. At its
//   end the pages in use become the base of the goal; while the heap rests, they are corrected by
//   what looks find to be free inside spans.
//   The releaser's thread exists only while there may be something to do: it is started when ready
//   pages have grown by release_min_bytes, and ends after three seconds at rest. So a process at
//   rest has no wake-ups at all. Where no thread may be started, the round is done in small pieces
//   by whoever rang.
//
// Locking
//   releaser.round: one release round at a time (a try-flag, taken also by fork). Below it WORLD
//   and what the page heap takes. The doorbell takes no lock: who rings may be inside its bracket,
//   or hold WORLD (the fallback cache).
//
// Flow
//   pageheap_free -> grow hook -> releaser_ring -> (thread) releaser_look -> release_view_read ->
//   policy->plan -> pageheap_release -> trace line -> sleep until plan.wake_at_ns or the doorbell.
//
// Why this way
//   The releaser is a thread, because a process that sleeps must give back too; a bare
//   one, because a thread of libc's slows single-threaded programs down (os/thread.h).
//
// Go       1.16 mgcscavenge.go gcPaceScavenger, bgscavenge. Unlike Go: epochs, a token bucket over
//          60 s instead of a sleep after each page, and units of up to 4 MiB.
// Tests    test/policy/*_test.c  test/system/policies.py  test/system/gives_back.py
#ifndef EBB_RELEASE_RELEASE_H
#define EBB_RELEASE_RELEASE_H

#include "base/base.h"
#include "ebb/stats.h"
#include "os/vm.h"

// What became free, by time: for policies that look at more than the present (decay).
#define RELEASE_HISTORY_STEPS 200
struct release_history {
    uint64_t step_ns;    // length of a step
    uint64_t step_start; // when the newest step began
    uint64_t newest;     // index of the newest step in the ring
    uint64_t seen_bytes; // ready + candidates at the last update, or the curve's limit if that is
                         // larger: what is free above it has become free since
    uint64_t freed_bytes[RELEASE_HISTORY_STEPS]; // became free in that step
};

struct release_view {
    uint64_t now_ns;           // monotonic
    uint64_t used_bytes;       // pages in spans, without holes, hole candidates and cached runs
    uint64_t retained_bytes;   // used + ready + candidates: what may be held of physical memory
    uint64_t ready_bytes;      // free pages that could be released
    uint64_t huge_bytes;       // of these: in whole units that the kernel backs by one huge page
    uint64_t candidate_bytes;  // free kernel pages inside spans in use that could be: an estimate
    uint64_t hole_bytes;       // given back inside spans in use
    uint64_t lazy_bytes;       // given back lazily, and maybe still resident
    uint64_t mapped_bytes;     // sys - released, Go's quantity for the memory limit (I8)
    uint64_t freed_bytes;      // pages freed ever
    uint64_t ops_count;        // page-heap operations ever
    uint64_t page_bytes;       // the kernel's
    uint64_t epoch_count;      // epochs that have ended
    uint64_t epoch_used_bytes; // used_bytes at the end of the last epoch
    uint64_t epoch_retained_bytes;  // retained_bytes at the end of the last epoch
    uint64_t epoch_candidate_bytes; // candidate_bytes at the end of the last epoch
    uint64_t epoch_huge_bytes;      // huge_bytes at the end of the last epoch
    uint64_t epoch_ended_ns;        // when that was
    uint64_t rest_ns;               // since a look last found the heap in motion (RELEASE_REST_OPS)
    uint64_t freed_ns;              // when a look last found that pages had been freed; 0: never
    uint64_t swept_ns;              // when a plan with .sweep was last carried out; 0: never
    uint64_t start_ns;              // when the policy came into force
    uint64_t grown_bytes;  // ready pages made since start_ns: growth, or released taken back, as
                           // far as that could have been offset when it happened (pageheap_owed)
    uint64_t offset_bytes; // released since then by plans with .offset
    uint64_t limit_bytes;  // memory limit for mapped_bytes; UINT64_MAX: none
    const struct release_history *history; // never NULL
};

enum release_order {
    RELEASE_HIGH_FIRST,     // highest address first
    RELEASE_LARGEST_FIRST,  // by size of the free run, in powers of two
    RELEASE_SMALLEST_FIRST, // the same from below
};

struct release_plan {
    uint64_t bytes;      // release so much now, as the budget allows; 0: nothing. At most what is
                         // ready and, without .no_holes, the candidates
    uint64_t min_age_ns; // only what has been free for so long
    enum release_order order;
    bool unpaced;        // without asking the budget
    bool limited;        // paced by the limiter's bucket instead of the budget (limit_int.h)
    bool no_holes;       // whole free pages only, as the Go version that is imitated
    bool sweep;          // this is a periodic look: view.swept_ns becomes now
    bool offset;         // this offsets growth: what is released counts in view.offset_bytes
    uint64_t wake_at_ns; // look again then, also at rest; 0: as the releaser likes (in a second
                         // while the heap moves, at rest only when rung); UINT64_MAX: when rung.
                         // A policy that has got all it wants says 0 or UINT64_MAX
    const char *why;     // constant text for traces
};

struct release_policy {
    const char *name;
    const char *help; // one sentence for `ebb policy` and the guide
    struct release_plan (*plan)(const struct release_view *view);
    uint64_t ring_bytes;   // growth of ready pages that wakes the releaser; 0: the option decides
    enum vm_advice advice; // unless option madvise says otherwise
    bool eager; // every thread's cache is flushed at each look, and holes are made, at rest or not
};

#define RELEASE_POLICY_COUNT 8
extern const struct release_policy release_policies[RELEASE_POLICY_COUNT];

struct release_plan release_plan_go111(const struct release_view *view);
struct release_plan release_plan_go112(const struct release_view *view);
struct release_plan release_plan_go113(const struct release_view *view);
struct release_plan release_plan_go116(const struct release_view *view);
struct release_plan release_plan_go119(const struct release_view *view);
struct release_plan release_plan_decay(const struct release_view *view);
struct release_plan release_plan_never(const struct release_view *view);
struct release_plan release_plan_now(const struct release_view *view);

// --- pure parts (pace.c) ---

// Epochs. release_epoch_update takes the numbers of a look and tells whether an epoch has ended;
// the fields epoch_* and rest_ns of the view are filled from it.
//
// Fewer page-heap operations than this between two looks, and fewer bytes of pages freed, count as
// rest: a server that does nothing but write a line each second should not keep the releaser awake.
#define RELEASE_REST_OPS 64
#define RELEASE_REST_BYTES (4 * MIB)

struct release_epoch {
    uint64_t count;
    uint64_t used_bytes;     // at the end of the last epoch
    uint64_t retained_bytes; // the same
    uint64_t candidate_bytes;
    uint64_t huge_bytes;
    uint64_t ended_ns;
    uint64_t freed_at_start; // view.freed_bytes when the epoch began
    uint64_t freed_seen;     // view.freed_bytes at the last look
    uint64_t freed_ns;       // when that last differed from the look before
    uint64_t ops_seen;       // at the last look
    uint64_t active_ns;      // when motion was last seen between two looks
    bool ended_at_rest;      // this rest has ended an epoch already
};
bool release_epoch_update(struct release_epoch *epoch, struct release_view *view);

// The goal of go1.13 and later: used_bytes plus 10 %, rounded up to a kernel page.
uint64_t release_goal(uint64_t used_bytes, uint64_t page_bytes);

// History. release_history_init empties it: what is free then counts as freed at the first update.
// release_history_update is called at each look, before the plan and again after a release, with
// ready + candidates. release_history_limit says how much of what became free may be kept when
// steps more have passed, 0 to RELEASE_HISTORY_STEPS.
void release_history_init(struct release_history *history, uint64_t decay_ms, uint64_t now_ns);
void release_history_update(struct release_history *history, uint64_t now_ns, uint64_t free_bytes);
uint64_t release_history_limit(const struct release_history *history, uint64_t steps);

// The advice to the kernel: what option madvise says (enum option_madvise), else the policy's.
enum vm_advice release_advice(const struct release_policy *policy, int madvise);

// The budget: CPU time that may be spent, earned at percent of real time, at most a minute's worth.
struct release_budget {
    uint64_t tokens_ns;
    uint64_t cap_ns;
    uint64_t updated_ns;
    uint32_t percent;
    bool overdrawn; // waits for a tenth of the bucket before it pays again
};
void release_budget_init(struct release_budget *budget, uint32_t percent, uint64_t now_ns);
bool release_budget_may_spend(struct release_budget *budget, uint64_t now_ns);
void release_budget_spend(struct release_budget *budget, uint64_t spent_ns);
// release_budget_ready_ns tells when release_budget_may_spend will say yes.
uint64_t release_budget_ready_ns(const struct release_budget *budget, uint64_t now_ns);

// --- doing (releaser.c) ---

// releaser_init reads options_main and connects the doorbell. Called once, by boot; again in a
// child by releaser_forked.
void releaser_init(void);

// releaser_ring is the grow hook. Takes no lock, allocates nothing; may start the thread.
void releaser_ring(void);

// What a release gave back, and what it could not, in bytes.
struct release_report {
    uint64_t runs_bytes;    // free runs of pages
    uint64_t holes_bytes;   // free kernel pages inside spans in use
    uint64_t lazy_bytes;    // had been given back lazily: now at once
    uint64_t tables_bytes;  // tables of empty arenas
    uint64_t flushed_bytes; // of runs_bytes: had been held by caches of threads
    uint64_t pinned_bytes;  // kept: free blocks on pages that also hold a block in use
    uint64_t refused_bytes; // kept: the kernel said no (locked memory)
    uint64_t held_bytes;    // kept: in pages the program could be using this moment, not asked
    uint32_t skipped_count; // threads that could not be asked: stopped, or inside malloc
    uint64_t took_ns;
    uint64_t pause_ns_max; // the longest that any thread may have been kept waiting
};

// releaser_release_now waits for the round under way, flushes all caches and releases every ready
// page and hole, whatever the policy. report may be NULL. Bytes given back; UINT64_MAX inside a
// fork handler, where nothing is done.
uint64_t releaser_release_now(const char *why, struct release_report *report);

// releaser_set_policy puts another policy in force and wakes it; what the last one gave back lazily
// is given back at once if the new one does so. index is one of release_policies. False inside a
// fork handler.
bool releaser_set_policy(size_t index);
size_t releaser_policy_index(void);

// releaser_reinflated_bytes is an estimate of what was given back and is resident all the same,
// from a sample of 4 MiB at each look. Such memory is the work of khugepaged, or of a program that
// writes to what it has freed.
uint64_t releaser_reinflated_bytes(void);

// What was given back since the start.
struct release_totals {
    uint64_t count;          // releases that gave something back
    uint64_t released_bytes; // runs and holes
    uint64_t refused_bytes;  // kept, because the kernel said no (locked memory)
};
void releaser_totals(struct release_totals *out);

// memstats_read fills every field: freeze, walk, thaw (collect.c).
void memstats_read(struct ebb_memstats *out);

// --- the memory limit (limiter.c; the decisions: limit_int.h) ---

// limiter_set puts a limit in force, in the values of option limit: bytes, OPTION_LIMIT_AUTO or
// OPTION_LIMIT_OFF. May read files of the cgroup: 20 KiB of stack. No lock held.
void limiter_set(uint64_t setting);

// limiter_set_callback names what is called when the limit is passed, and makes the limit a hard
// one; NULL makes it soft.
void limiter_set_callback(void (*fn)(void *arg), void *arg);

// limiter_set_watch_hook names who is called, inside an allocation, when the heap has grown to what
// limiter_set_watch said; then it is set again or not. The hook may ring a bell or start a bare
// thread. Works while a limit is in force. Called once, at start; the other at any time, no lock
// held.
void limiter_set_watch_hook(void (*hook)(void));
void limiter_set_watch(uint64_t mapped_bytes);

// limiter_set_abort_hook names what prints the numbers before limit_action=abort ends the program.
void limiter_set_abort_hook(void (*hook)(void));

struct limiter_report {
    uint64_t limit_bytes; // UINT64_MAX: none
    bool automatic;
    uint32_t action; // enum option_limit_action
    uint64_t used_bytes;
    uint64_t mapped_bytes;
    uint64_t group_limit_bytes; // UINT64_MAX: none, or not looked at
    uint64_t group_charge_bytes;
    uint64_t assist_count; // allocations that released before they went on
    uint64_t assist_bytes;
    uint64_t passed_count; // calls of the callback
    uint64_t refused_count;
};
void limiter_report(struct limiter_report *out);

// releaser_pause ends the thread and waits for that, at most 5 s: before the program changes its
// credentials or namespaces, which are per thread. It comes back at the next ring.
void releaser_pause(void);

// releaser_restrict: a system call filter may come; no thread any more, the slow paths do its work.
void releaser_restrict(void);

// Fork: prepare waits for the round under way and keeps others from starting.
void releaser_fork_prepare(void);
void releaser_fork_parent(void);
void releaser_fork_child(void);

#endif
