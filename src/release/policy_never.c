// SPDX-License-Identifier: MIT
//
// Policy never: keep everything until somebody asks by malloc_trim or ebb_release_now.
//
// Go  none: GODEBUG has no way to switch the scavenger off.
#include "release/release.h"

struct release_plan release_plan_never(const struct release_view *view)
{
    (void)view;
    return (struct release_plan){.why = "policy never"};
}
