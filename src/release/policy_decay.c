// SPDX-License-Identifier: MIT
//
// Policy decay: of what became free, keep a share that falls with time along a curve.
//
// The decay time (option decay_ms) is divided into 200 steps. Of what became free x steps before
// the present one, the share 6y^5 - 15y^4 + 10y^3 may be kept, y = 1 - x/200: all of it at first,
// half after half of the time, nothing after all of it. The limit is the sum over all steps. What
// is ready, and the candidates, above the limit goes back, paced; less than a page of the kernel
// does not count.
// What became free is counted when the releaser looks. Pages that are taken again and freed again
// below the limit are not counted a second time. What is free when the policy comes into force
// counts as freed then.
// The next look is asked for at the first step at which at least a kernel page more will have to
// go, and not sooner than in 50 ms. When nothing more will have to go, none is asked for: after the
// last step there are no wake-ups.
//
// Go       none: jemalloc 5 decay.c, arena_decay_*; its dirty_decay_ms. Unlike jemalloc: the CPU
//          budget holds, the highest addresses go first instead of the longest unused, the clock
//          goes on while nobody calls malloc, and there is no second curve for lazily freed pages.
// Tests    test/policy/decay_test.c
#include "release/release.h"

#define LOOK_MIN_NS (50 * NS_PER_MS)

// The smallest number of steps, at least first, after which more than kept may not be kept;
// RELEASE_HISTORY_STEPS at most, since nothing is kept after so many.
static uint64_t steps_until(const struct release_history *history, uint64_t first, uint64_t kept)
{
    uint64_t lo = first;
    uint64_t hi = RELEASE_HISTORY_STEPS;
    while (lo < hi) {
        uint64_t middle = (lo + hi) / 2;
        if (release_history_limit(history, middle) <= kept) {
            hi = middle;
        } else {
            lo = middle + 1;
        }
    }
    return lo;
}

struct release_plan release_plan_decay(const struct release_view *view)
{
    const struct release_history *history = view->history;
    struct release_plan plan = {.why = "nothing is free"};
    uint64_t free_bytes = view->ready_bytes + view->candidate_bytes;
    uint64_t limit = release_history_limit(history, 0);
    if (free_bytes >= limit + view->page_bytes) {
        plan.bytes = free_bytes - limit;
        plan.why = "above the decay curve";
        free_bytes = limit;
    }
    if (free_bytes < view->page_bytes) {
        plan.wake_at_ns = UINT64_MAX;
        return plan;
    }
    if (plan.bytes == 0) {
        plan.why = "below the decay curve";
    }
    // From step_start on: the edges of steps, of which the first 50 ms from now counts.
    uint64_t soonest_ns = view->now_ns + LOOK_MIN_NS - history->step_start;
    uint64_t first = max_u64((soonest_ns + history->step_ns - 1) / history->step_ns, 1);
    uint64_t steps =
        steps_until(history, min_u64(first, RELEASE_HISTORY_STEPS), free_bytes - view->page_bytes);
    plan.wake_at_ns =
        max_u64(history->step_start + steps * history->step_ns, view->now_ns + LOOK_MIN_NS);
    return plan;
}
