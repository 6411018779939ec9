// SPDX-License-Identifier: MIT
//
// Policy never: keep everything until somebody asks by malloc_trim or ebb_release_now.
//
// It releases nothing, whatever the view, and asks for no look.
//
// Go       none: GODEBUG has no way to switch the scavenger off.
// Tests    test/policy/release_test.c
#include "release/release.h"

struct release_plan release_plan_never(const struct release_view *view)
{
    (void)view;
    return (struct release_plan){.wake_at_ns = UINT64_MAX, .why = "policy never"};
}
