// SPDX-License-Identifier: MIT
//
// The table of policies, in the order of the choices of option policy.
//
// Go  none.
#include "release/release.h"

const struct release_policy release_policies[RELEASE_POLICY_COUNT] = {
    {
        .name = "go1.16",
        .help = "gives back, paced, what is retained above the use + 10 %; at rest, above the use",
        .plan = release_plan_go116,
        .ring_bytes = 0,
        .advice = VM_ADVICE_DONTNEED,
    },
    {
        .name = "go1.11",
        .help = "looks every 2.5 minutes and gives back what has been free for five",
        .plan = release_plan_go111,
        .ring_bytes = 0,
        .advice = VM_ADVICE_DONTNEED,
    },
    {
        .name = "go1.12",
        .help = "as go1.11, and offsets growth by the largest free runs; lazily",
        .plan = release_plan_go112,
        .ring_bytes = 0,
        .advice = VM_ADVICE_FREE,
    },
    {
        .name = "go1.13",
        .help =
            "falls in a straight line, 1 ms per page, to the use at the epoch's end + 10 %; lazily",
        .plan = release_plan_go113,
        .ring_bytes = 0,
        .advice = VM_ADVICE_FREE,
    },
    {
        .name = "go1.19",
        .help = "as go1.16, and stays below 95 % of the memory limit",
        .plan = release_plan_go119,
        .ring_bytes = 0,
        .advice = VM_ADVICE_DONTNEED,
    },
    {
        .name = "decay",
        .help = "keeps a share of what became free that falls to nothing within decay_ms",
        .plan = release_plan_decay,
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
        .eager = true,
    },
};
