// SPDX-License-Identifier: MIT
//
// Policy now: release every ready page and every candidate as soon as the releaser runs, without
// pacing.
//
// It is rung when ready pages have grown by 128 KiB (policies.c), asks for no look of its own, and
// looks neither at ages nor at goals.
//
// Go       none: like calling debug.FreeOSMemory all the time.
// Tests    test/policy/release_test.c
#include "release/release.h"

struct release_plan release_plan_now(const struct release_view *view)
{
    return (struct release_plan){
        .bytes = view->ready_bytes + view->candidate_bytes,
        .unpaced = true,
        .why = "policy now",
    };
}
