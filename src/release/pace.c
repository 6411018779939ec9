// SPDX-License-Identifier: MIT
//
// Pace: epochs, the goal, the history of what became free, and the CPU budget. Pure: time is an
// argument.
//
// Go  1.16 mgcscavenge.go bgscavenge (sleep in proportion to the work), mgc.go gcController.
#include "release/release.h"

#include "base/option.h"

#define EPOCH_MIN_BYTES (4 * MIB)
#define RETAIN_EXTRA_PERCENT 10
#define EPOCH_REST_NS NS_PER_S
#define BUDGET_WINDOW_NS (60 * NS_PER_S)

bool release_epoch_update(struct release_epoch *epoch, struct release_view *view)
{
    uint64_t moved = view->ops_count - epoch->ops_seen;
    uint64_t freed_since = view->freed_bytes - epoch->freed_seen;
    epoch->ops_seen = view->ops_count;
    epoch->freed_seen = view->freed_bytes;
    if (freed_since != 0) {
        epoch->freed_ns = view->now_ns;
    }
    // One operation may free a gigabyte.
    if (epoch->active_ns == 0 || moved >= RELEASE_REST_OPS || freed_since >= RELEASE_REST_BYTES) {
        epoch->active_ns = view->now_ns;
        epoch->ended_at_rest = false;
    }
    view->rest_ns = view->now_ns - epoch->active_ns;
    uint64_t freed = view->freed_bytes - epoch->freed_at_start;
    bool rest_over = view->rest_ns >= EPOCH_REST_NS && !epoch->ended_at_rest;
    bool ended = rest_over || freed >= max_u64(epoch->used_bytes, EPOCH_MIN_BYTES);
    if (ended) {
        epoch->count++;
        epoch->used_bytes = view->used_bytes;
        epoch->retained_bytes = view->retained_bytes;
        epoch->candidate_bytes = view->candidate_bytes;
        epoch->huge_bytes = view->huge_bytes;
        epoch->ended_ns = view->now_ns;
        epoch->freed_at_start = view->freed_bytes;
        epoch->ended_at_rest = rest_over;
    } else if (epoch->ended_at_rest && view->used_bytes < epoch->used_bytes) {
        // A look has found pages inside spans that were free all the time.
        epoch->used_bytes = view->used_bytes;
        epoch->candidate_bytes = max_u64(epoch->candidate_bytes, view->candidate_bytes);
    }
    view->epoch_count = epoch->count;
    view->epoch_used_bytes = epoch->used_bytes;
    view->epoch_retained_bytes = epoch->retained_bytes;
    view->epoch_candidate_bytes = epoch->candidate_bytes;
    view->epoch_huge_bytes = epoch->huge_bytes;
    view->epoch_ended_ns = epoch->ended_ns;
    view->freed_ns = epoch->freed_ns;
    return ended;
}

uint64_t release_goal(uint64_t used_bytes, uint64_t page_bytes)
{
    uint64_t goal = used_bytes + used_bytes / 100 * RETAIN_EXTRA_PERCENT;
    return (goal + page_bytes - 1) / page_bytes * page_bytes;
}

enum vm_advice release_advice(const struct release_policy *policy, int madvise)
{
    switch (madvise) {
    case OPTION_MADVISE_DONTNEED:
        return VM_ADVICE_DONTNEED;
    case OPTION_MADVISE_FREE:
        return VM_ADVICE_FREE;
    default:
        return policy->advice;
    }
}

void release_history_init(struct release_history *history, uint64_t decay_ms, uint64_t now_ns)
{
    *history = (struct release_history){
        .step_ns = decay_ms * NS_PER_MS / RELEASE_HISTORY_STEPS,
        .step_start = now_ns,
    };
}

// What became free steps ago may be kept by a share: 1 at first, 0 after RELEASE_HISTORY_STEPS, in
// between 6x^5 - 15x^4 + 10x^3. Bytes are counted in units of 4 KiB and shares in 2^-24, so that
// the product of both stays below 2^64.
#define CURVE_SHIFT 24
#define CURVE_UNIT_SHIFT 12

static uint64_t curve_share(uint64_t steps_ago)
{
    const uint64_t n = RELEASE_HISTORY_STEPS;
    uint64_t x = n - steps_ago;
    uint64_t share = x * x * x * (6 * x * x + 10 * n * n - 15 * n * x); // of n^5, below 2^39
    return (share << CURVE_SHIFT) / (n * n * n * n * n);
}

uint64_t release_history_limit(const struct release_history *history, uint64_t steps)
{
    uint64_t sum = 0;
    for (uint64_t ago = 0; ago + steps < RELEASE_HISTORY_STEPS; ago++) {
        uint64_t index = (history->newest + RELEASE_HISTORY_STEPS - ago) % RELEASE_HISTORY_STEPS;
        uint64_t units = history->freed_bytes[index] >> CURVE_UNIT_SHIFT;
        if (units != 0) {
            sum += (units * curve_share(ago + steps)) >> (CURVE_SHIFT - CURVE_UNIT_SHIFT);
        }
    }
    return sum;
}

void release_history_update(struct release_history *history, uint64_t now_ns, uint64_t free_bytes)
{
    uint64_t steps = (now_ns - history->step_start) / history->step_ns;
    history->step_start += steps * history->step_ns;
    for (uint64_t i = 0; i < min_u64(steps, RELEASE_HISTORY_STEPS); i++) {
        history->newest = (history->newest + 1) % RELEASE_HISTORY_STEPS;
        history->freed_bytes[history->newest] = 0;
    }
    if (free_bytes > history->seen_bytes) {
        history->freed_bytes[history->newest] += free_bytes - history->seen_bytes;
    }
    // What is taken and freed again while the curve would still have let it be kept is not new:
    // otherwise the limit would grow with each turn of a program that takes and frees.
    history->seen_bytes = max_u64(free_bytes, release_history_limit(history, 0));
}

void release_budget_init(struct release_budget *budget, uint32_t percent, uint64_t now_ns)
{
    budget->percent = percent;
    budget->cap_ns = BUDGET_WINDOW_NS / 100 * percent;
    budget->tokens_ns = budget->cap_ns;
    budget->updated_ns = now_ns;
    budget->overdrawn = false;
}

static uint64_t budget_tokens_at(const struct release_budget *budget, uint64_t now_ns)
{
    uint64_t elapsed = min_u64(now_ns - budget->updated_ns, BUDGET_WINDOW_NS);
    return min_u64(budget->tokens_ns + elapsed / 100 * budget->percent, budget->cap_ns);
}

bool release_budget_may_spend(struct release_budget *budget, uint64_t now_ns)
{
    budget->tokens_ns = budget_tokens_at(budget, now_ns);
    budget->updated_ns = now_ns;
    if (budget->overdrawn && budget->tokens_ns < budget->cap_ns / 10) {
        return false;
    }
    budget->overdrawn = budget->tokens_ns == 0;
    return !budget->overdrawn;
}

void release_budget_spend(struct release_budget *budget, uint64_t spent_ns)
{
    budget->tokens_ns -= min_u64(budget->tokens_ns, spent_ns);
    budget->overdrawn = budget->tokens_ns == 0;
}

uint64_t release_budget_ready_ns(const struct release_budget *budget, uint64_t now_ns)
{
    uint64_t tokens = budget_tokens_at(budget, now_ns);
    uint64_t need = budget->overdrawn ? budget->cap_ns / 10 : 1;
    if (tokens >= need) {
        return now_ns;
    }
    return now_ns + (need - tokens) * 100 / budget->percent;
}
