// SPDX-License-Identifier: MIT
//
// Limit: what a memory limit asks for beyond the policy. limit.c decides and is pure, limiter.c
// does.
//
// Model
//   The quantity is mapped = sys - released (I8), of this process. Of the cgroup the charge counts
//   too: its usage less the page cache, which the kernel can take back without us.
//   Levels, the strongest that holds:
//     over      mapped is above the limit: all caches are flushed, down to the goal
//     near      the cgroup's charge is at 85 % of its limit: everything ready goes, all caches too
//     pressure  tasks wait for memory a tenth of the time: everything ready goes
//     goal      mapped is above the goal, 95 % of the limit: down to the goal, caches too if what
//               is ready does not suffice
//     shared    others hold more than an eighth of the cgroup's limit, and it is more than half
//               full: they may grow faster than we can look, so at most a sixteenth of the limit
//               stays ready
//     rest      the heap is at rest for a second: the same, because it will not look again
//   What the limit asks for is not paced by the policy's budget but by a bucket of its own: 100 ms
//   of CPU time that fill up and leak at 45 %, so that in any two seconds at most half of one
//   processor goes into releasing. When it is full the limit may be exceeded: no death spiral.
//   The gate is what the page heap compares with when pages are taken or holes are filled again:
//   bytes mapped from which on it calls limiter_grown, and bytes in use that are refused. Our
//   tables count in both and holes do not, as they are at that moment. So with a hard limit the sum
//   of what is in use and of the tables does not pass it, but for tables that come after the
//   question: those of the arenas that the allocation itself makes (1.1 MiB for 64 MiB of address
//   space, counted whole, resident only where touched), and the caches of threads that begin at the
//   limit.
//
// Locking
//   limiter_reread has a try-flag of its own; the bucket belongs to the release round.
//   limiter_grown runs inside a bracket: it takes the page heap's lock, the round if it is free,
//   never WORLD. limiter_full runs outside of all brackets and locks.
//
// Flow
//   pageheap_alloc, pageheap_fill -> gate -> limiter_grown -> limit_plan -> releaser_assist_limit,
//   releaser_wake.
//   releaser look  -> limiter_begin -> (policy) -> limiter_harden -> release -> limiter_end.
//   an allocation that found no memory -> heap_full -> limiter_full: flush, callback or abort.
//
// Why this way
//   A limit that blocks or spins is worse than none (golang#58106, #73835): every wait is bounded,
//   the work is cut into pieces of a millisecond, and what the releaser's thread can do it does.
//
// Go       1.22 mgcscavenge.go gcPaceScavenger (reduceExtraPercent), mheap.go allocSpan (the
//          assist), mgclimit.go (the leaky bucket). Unlike Go: nothing is collected, the cgroup's
//          own charge counts, and there are hard limits.
// Tests    test/policy/limit_test.c  test/fault/limit_fault.c  test/system/container.py
#ifndef EBB_RELEASE_LIMIT_INT_H
#define EBB_RELEASE_LIMIT_INT_H

#include "os/cgroup.h"
#include "os/pressure.h"
#include "release/release.h"

#define LIMIT_NONE UINT64_MAX

// --- pure (limit.c) ---

struct limit_view {
    uint64_t limit_bytes;        // LIMIT_NONE: none
    uint64_t mapped_bytes;       // sys - released
    uint64_t ready_bytes;        // could go back at once
    uint64_t rest_ns;            // since the heap last moved
    uint64_t group_limit_bytes;  // of the cgroup, LIMIT_NONE if there is none or nobody looks
    uint64_t group_charge_bytes; // what of its usage the kernel cannot take back by itself
    uint32_t pressure;           // PSI some avg10 in hundredths of a percent, or PRESSURE_UNKNOWN
};

enum limit_level {
    LIMIT_CALM,
    LIMIT_REST,
    LIMIT_SHARED,
    LIMIT_GOAL,
    LIMIT_PRESSURE,
    LIMIT_NEAR,
    LIMIT_OVER,
};

struct limit_plan {
    enum limit_level level;
    uint64_t bytes;  // of what is ready, release so much; 0: nothing
    bool flush;      // caches of all threads first, not only of idle ones
    const char *why; // constant text for traces
};

struct limit_plan limit_plan(const struct limit_view *view);

// limit_goal is what the background release aims at: 95 % of the limit.
uint64_t limit_goal(uint64_t limit_bytes);

// limit_auto is nine tenths of the cgroup's limit, at least 1 MiB; LIMIT_NONE if it has none.
uint64_t limit_auto(uint64_t group_limit_bytes);

// limit_charge is the part of the cgroup's usage that is not page cache.
uint64_t limit_charge(uint64_t usage_bytes, uint64_t cache_bytes);

// limit_assist is what a thread whose allocation has grown the heap releases by itself, before its
// pages are touched: what is over the limit, or everything ready if the cgroup is near its own.
uint64_t limit_assist(const struct limit_view *view);

// limit_full tells whether the cgroup is at 95 % of its limit, others have a part in that, and we
// have nothing to give.
bool limit_full(const struct limit_view *view);

// limit_alert tells whether frees should be acted on at once: half of the cgroup or four fifths of
// the limit are in use.
bool limit_alert(const struct limit_view *view);

// limit_harden makes a policy's plan as strong as the limit's.
void limit_harden(struct release_plan *plan, const struct limit_plan *limit);

// Where the page heap asks again, in bytes of mapped, and what is refused, in bytes in use.
struct limit_gate {
    uint64_t look_bytes; // LIMIT_NONE: never
    uint64_t hard_bytes; // LIMIT_NONE: nothing is refused
};
struct limit_gate limit_gate(const struct limit_view *view, bool hard);

// The bucket.
#define LIMIT_CPU_CAP_NS (100 * NS_PER_MS)
#define LIMIT_CPU_PERCENT 45
#define LIMIT_CHUNK_NS NS_PER_MS // the longest piece of work between two looks at the clock

struct limit_cpu {
    uint64_t level_ns;
    uint64_t updated_ns;
};
bool limit_cpu_may_spend(struct limit_cpu *cpu, uint64_t now_ns);
void limit_cpu_spend(struct limit_cpu *cpu, uint64_t now_ns, uint64_t spent_ns);
// limit_cpu_ready_ns tells when limit_cpu_may_spend will say yes.
uint64_t limit_cpu_ready_ns(const struct limit_cpu *cpu, uint64_t now_ns);

// limit_overdue tells whether the process has been over the limit, with nothing to release, for
// after_ns at a stretch (0: never). *since_ns is the caller's, 0 at first: when that began.
bool limit_overdue(uint64_t *since_ns, uint64_t now_ns, const struct limit_view *view,
                   uint64_t after_ns);

// limit_passing tells whether reaching a hard limit is a new passing: the first (freed_then is
// UINT64_MAX), or after a twentieth of the limit has been freed since the last. All in pages;
// freed_ is the number freed ever.
bool limit_passing(uint64_t freed_now, uint64_t freed_then, uint64_t limit_pages);

// --- doing (limiter.c), for the releaser; all in the release round unless it says otherwise ---

// limiter_limit_bytes is the limit in force, LIMIT_NONE if there is none. Any context.
uint64_t limiter_limit_bytes(void);

// limiter_active tells whether there is a limit, or a cgroup that is watched. Any context.
bool limiter_active(void);

// limiter_ring_bytes is the growth of ready pages that should wake the releaser; UINT64_MAX: no
// limit. Any context.
uint64_t limiter_ring_bytes(void);

// limiter_alert tells whether growth of ready pages should wake a releaser that sleeps. Any
// context.
bool limiter_alert(void);

// limiter_begin re-reads files where that is due and tells whether all caches should be flushed
// before the view of this look is read. Called at the begin of a look, by the releaser's thread:
// up to 20 KiB of stack.
bool limiter_begin(void);

// limiter_harden makes the policy's plan as strong as the limit asks for; plan->limited then says
// that limiter_may_spend paces it.
void limiter_harden(const struct release_view *view, struct release_plan *plan);

bool limiter_may_spend(uint64_t now_ns);
void limiter_spend(uint64_t now_ns, uint64_t spent_ns);
uint64_t limiter_ready_ns(uint64_t now_ns);

// limiter_end sets the gate by what is mapped now; ends the program if it has been over the limit
// for too long. True: look again within a second even if the heap is at rest.
bool limiter_end(const struct release_view *view);

// limiter_gate sets the gate only: for who is inside a bracket, where the program must not be
// ended.
void limiter_gate(const struct release_view *view);

// limiter_init reads the options; limiter_restrict says that no file may be read any more (and
// reads what is needed a last time); limiter_fork_child makes the child's. Any context, no lock.
void limiter_init(void);
void limiter_restrict(void);
void limiter_fork_child(void);

// --- what the limiter needs of the releaser (releaser.c) ---

// releaser_assist_limit releases ready pages in pieces, at most bytes and for at most most_ns, as
// far as the limiter's bucket allows. From inside a bracket. False: a round is under way elsewhere.
bool releaser_assist_limit(uint64_t bytes, uint64_t most_ns, const char *why, uint64_t *released);

// releaser_may_start tells whether there may be a thread that looks; else rings do its work.
bool releaser_may_start(void);

// releaser_wake makes the releaser look now, starting its thread if need be. From inside a bracket.
void releaser_wake(void);

// releaser_flush_all flushes the caches of all threads; pages that came. No bracket, no lock held.
uint64_t releaser_flush_all(void);

// release_view_read fills what can be read at any time: no epochs.
void release_view_read(struct release_view *view);

#endif
