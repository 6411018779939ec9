// SPDX-License-Identifier: MIT
//
// Policy go1.19: go1.16, and a second goal at 95 % of the memory limit.
//
// The first goal is that of go1.16, with all its sentences. The second is 95 % of the memory limit,
// rounded down, and measured on all that is mapped and not released (view.mapped_bytes, Go's
// quantity for the limit), so on our own tables too. It holds from the start, before any epoch has
// ended, and to the byte. Without a limit there is no second goal.
// Release goes on while either goal is unmet: what is released is the larger of both excesses, at
// most what is ready and the candidates. Both are paced: what must not wait for the budget near
// the limit is not the policy's business.
//
// Go       1.19 mgcscavenge.go gcPaceScavenger, reduceExtraPercent. Go 1.19 to 1.21 computed this
//          goal as limit x 95, which is never exceeded, so the second goal never came into play;
//          1.22 mended that, and the mended goal is the one here. Unlike Go: the goal is compared
//          at every look and not at the end of a cycle.
// Tests    test/policy/goal_test.c
#include "release/release.h"

#define LIMIT_PERCENT 95

struct release_plan release_plan_go119(const struct release_view *view)
{
    struct release_plan plan = release_plan_go116(view);
    if (view->limit_bytes == UINT64_MAX) {
        return plan;
    }
    // The product of both could pass 2^64.
    uint64_t goal =
        view->limit_bytes / 100 * LIMIT_PERCENT + view->limit_bytes % 100 * LIMIT_PERCENT / 100;
    uint64_t excess = view->mapped_bytes > goal ? view->mapped_bytes - goal : 0;
    excess = min_u64(excess, view->ready_bytes + view->candidate_bytes);
    if (excess > plan.bytes) {
        plan.bytes = excess;
        plan.why = "mapped above 95 % of the memory limit";
    }
    return plan;
}
