// SPDX-License-Identifier: MIT
//
// The table of policies, in the order of the choices of option policy.
//
// Go  none.
#include "release/release.h"

const struct release_policy release_policies[RELEASE_POLICY_COUNT] = {
    {.name = "go1.16", .plan = release_plan_go116, .ring_bytes = 0},
    {.name = "never", .plan = release_plan_never, .ring_bytes = UINT64_MAX},
    {.name = "now", .plan = release_plan_now, .ring_bytes = 128 * KIB},
};
