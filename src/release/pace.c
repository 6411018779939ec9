// SPDX-License-Identifier: MIT
//
// Pace: epochs and the CPU budget. Pure: time is an argument.
//
// Go  1.16 mgcscavenge.go bgscavenge (sleep in proportion to the work), mgc.go gcController.
#include "release/release.h"

#define EPOCH_MIN_BYTES (4 * MIB)
#define EPOCH_REST_NS NS_PER_S
#define BUDGET_WINDOW_NS (60 * NS_PER_S)

bool release_epoch_update(struct release_epoch *epoch, struct release_view *view)
{
    uint64_t moved = view->ops_count - epoch->ops_seen;
    epoch->ops_seen = view->ops_count;
    if (epoch->active_ns == 0 || moved >= RELEASE_REST_OPS) {
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
        epoch->freed_at_start = view->freed_bytes;
        epoch->ended_at_rest = rest_over;
    }
    view->epoch_count = epoch->count;
    view->epoch_used_bytes = epoch->used_bytes;
    return ended;
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
