// SPDX-License-Identifier: MIT
//
// The table of policies, in the order of the choices of option policy.
//
// Go  none.
#include "release/release.h"

const struct release_policy release_policies[RELEASE_POLICY_COUNT] = {
    {
        .name = "go1.16",
        .help = "gives back, paced, what is retained above the use at the last epoch's end + 10 %",
        .plan = release_plan_go116,
        .ring_bytes = 0,
        .advice = VM_ADVICE_DONTNEED,
    },
    {
        .name = "never",
        .help = "keeps everything until somebody asks",
        .plan = release_plan_never,
        .ring_bytes = UINT64_MAX,
        .advice = VM_ADVICE_DONTNEED,
    },
    {
        .name = "now",
        .help = "gives back whatever is free, as soon as it is",
        .plan = release_plan_now,
        .ring_bytes = 128 * KIB,
        .advice = VM_ADVICE_DONTNEED,
    },
};
