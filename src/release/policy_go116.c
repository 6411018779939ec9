// SPDX-License-Identifier: MIT
//
// Policy go1.16: give back, paced, what is retained above the goal.
//
// The goal is the pages in use at the end of the last epoch plus 10 %, rounded up to the kernel's
// page. Nothing is released before the first epoch has ended, nor while retained memory is over the
// goal by less than one page of the kernel. What is released is the excess, at most what is ready
// and what is free inside spans in use, the candidates; these count as retained and not as used.
// When the heap has been at rest for two seconds the goal is the pages in use, without the 10 %.
// There is no idle age and no look of its own: it is asked each second while the heap moves.
//
// Go       1.16 mgcscavenge.go gcPaceScavenger, retainExtraPercent. Unlike Go: the end of an epoch
//          takes the place of the end of a GC cycle, and as there is no heap goal, the ratio of
//          goals is 1. Candidates are not used memory: 10 % over spans of which 1 % is in use would
//          forbid to release any of it. The 10 % are for what a running program is about to take
//          again; Go's program at rest keeps them, and would hold more than a heap that is trimmed.
// Tests    test/policy/release_test.c  test/policy/goal_test.c
#include "release/release.h"

#define REST_NS (2 * NS_PER_S)

struct release_plan release_plan_go116(const struct release_view *view)
{
    struct release_plan plan = {.why = "at or below goal"};
    if (view->epoch_count == 0) {
        plan.why = "before the first epoch's end";
        return plan;
    }
    bool rest = view->rest_ns >= REST_NS;
    uint64_t goal = rest ? align_up(view->epoch_used_bytes, view->page_bytes)
                         : release_goal(view->epoch_used_bytes, view->page_bytes);
    // The heap may have grown since the epoch: what is in use now cannot be released anyway.
    if (view->retained_bytes < goal + view->page_bytes) {
        return plan;
    }
    plan.bytes = min_u64(view->retained_bytes - goal, view->ready_bytes + view->candidate_bytes);
    plan.why = rest ? "retained above what is in use, at rest"
                    : "retained above goal (in use at epoch end + 10 %)";
    return plan;
}
