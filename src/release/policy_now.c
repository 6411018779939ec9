// SPDX-License-Identifier: MIT
//
// Policy now: release every ready page as soon as the releaser runs, without pacing.
//
// Go  none: like calling debug.FreeOSMemory all the time.
#include "release/release.h"

struct release_plan release_plan_now(const struct release_view *view)
{
    struct release_plan plan = {.bytes = view->ready_bytes, .unpaced = true, .why = "policy now"};
    return plan;
}
