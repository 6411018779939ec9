// SPDX-License-Identifier: MIT
//
// Policy go1.11: every two and a half minutes, everything that has been free for five.
//
// A look is due two and a half minutes after the last one, or after the policy came into force,
// and only while pages are ready. At a look everything that has been free for five minutes goes
// back, at once and without pacing, the smallest runs first; what has been free for less stays. So
// a page goes back between 5 and 7.5 minutes after it became free, and never if it is used again
// in less than five: under waves that are closer than that the peak stays for ever.
// There is no goal: what is in use plays no part. Epochs play none either.
// No more looks are asked for when nothing is ready, or when one has come 7.5 minutes after the
// last free: what is still ready then is what the kernel refuses.
//
// Go       1.11 proc.go sysmon, mheap.go scavenge, scavengelist. Unlike Go: a page keeps its age
//          when its neighbours become free; Go gives the merged run the time of the last. Age by
//          page releases sooner what Go would keep, never later. Nor is the heap locked meanwhile.
// Tests    test/policy/periodic_test.c
#include "release/release.h"

#define IDLE_NS (5 * 60 * NS_PER_S)
#define PERIOD_NS (IDLE_NS / 2)

struct release_plan release_plan_go111(const struct release_view *view)
{
    struct release_plan plan = {
        .order = RELEASE_SMALLEST_FIRST,
        .unpaced = true,
        .no_holes = true,
        .wake_at_ns = UINT64_MAX,
        .why = "nothing is free",
    };
    if (view->ready_bytes == 0) {
        return plan;
    }
    // Ages may be kept in coarse steps: half the idle time more, and no page can be too young.
    if (view->swept_ns >= view->freed_ns + IDLE_NS + PERIOD_NS) {
        plan.why = "what is left was refused";
        return plan;
    }
    uint64_t due_ns = max_u64(view->swept_ns, view->start_ns) + PERIOD_NS;
    if (view->now_ns < due_ns) {
        plan.wake_at_ns = due_ns;
        plan.why = "the next look is not due";
        return plan;
    }
    plan.bytes = view->ready_bytes;
    plan.min_age_ns = IDLE_NS;
    plan.sweep = true;
    plan.wake_at_ns = view->now_ns + PERIOD_NS;
    plan.why = "free for five minutes";
    return plan;
}
