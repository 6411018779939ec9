// SPDX-License-Identifier: MIT
//
// Policy go1.12: the five-minute rule of go1.11, and growth is offset.
//
// When the heap's resident memory grows by n bytes, as many bytes of free runs are released, the
// largest runs first, at once and without pacing. Runs are released whole, and what that is too
// much is credit for the next growth. Growth while nothing was ready is not offset later
// (pageheap_owed), and at most what is ready is released.
// The periodic look of go1.11 holds as well, in its order, and comes first when both are due.
// There is no goal: memory that does not grow and is not free for five minutes stays.
// As growth rings no bell, the policy is asked each second while anything is ready that could go
// back, at rest too; 7.5 minutes after the last free there is no such thing any more, and it rests.
//
// Go       1.12 mheap.go scavengeLargest, scavengeAll, grow, allocSpanLocked. Unlike Go: growth is
//          offset at the next look and not inside the allocation, because no malloc should wait for
//          the kernel; taking released pages back counts as growth, as up to 1.12.4, because here
//          released runs are taken before new address space.
// Tests    test/policy/periodic_test.c
#include "release/release.h"

#define LOOK_NS NS_PER_S

struct release_plan release_plan_go112(const struct release_view *view)
{
    struct release_plan plan = release_plan_go111(view);
    if (plan.bytes != 0 || view->ready_bytes == 0) {
        return plan;
    }
    if (plan.wake_at_ns != UINT64_MAX) {
        plan.wake_at_ns = min_u64(plan.wake_at_ns, view->now_ns + LOOK_NS);
    }
    if (view->grown_bytes <= view->offset_bytes) {
        return plan;
    }
    plan.bytes = min_u64(view->grown_bytes - view->offset_bytes, view->ready_bytes);
    plan.order = RELEASE_LARGEST_FIRST;
    plan.offset = true;
    plan.why = "offsets growth";
    return plan;
}
