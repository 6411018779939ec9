// SPDX-License-Identifier: MIT
//
// Simulate: the fake heap and its releaser (simulate.h).
//
// Go  none
#include "simulate.h"

#include <criterion/criterion.h>
#include <string.h>

#include "pageheap/pageheap.h"

#define LOOK_NS NS_PER_S
#define STAY_NS (3 * NS_PER_S)
#define COST_UNIT_NS (50 * NS_PER_US)
#define RING_BYTES (4 * MIB)

void sim_start(struct sim *sim, const struct release_policy *policy, uint64_t page_bytes)
{
    memset(sim, 0, sizeof(*sim));
    sim->policy = policy;
    sim->now_ns = 1000 * NS_PER_S;
    sim->start_ns = sim->now_ns;
    sim->page_bytes = page_bytes;
    sim->limit_bytes = UINT64_MAX;
    sim->ring_bytes = policy->ring_bytes != 0 ? policy->ring_bytes : RING_BYTES;
    sim->youngest_ns = UINT64_MAX;
    release_history_init(&sim->history, 10000, sim->now_ns);
    release_budget_init(&sim->budget, 1, sim->now_ns);
}

uint64_t sim_rss(const struct sim *sim)
{
    return sim->used_bytes + sim->candidate_bytes + sim->ready_bytes;
}

// --- the heap ---

static struct sim_block place(const struct sim *sim, size_t count)
{
    size_t run = 0;
    for (size_t i = 0; i < SIM_UNITS; i++) {
        run = sim->state[i] == SIM_USED ? 0 : run + 1;
        if (run == count) {
            return (struct sim_block){i + 1 - count, count};
        }
    }
    cr_assert(false, "the simulated heap is too small");
    return (struct sim_block){0, 0};
}

static void take(struct sim *sim, struct sim_block block)
{
    uint64_t grown = 0;
    for (size_t i = block.first; i < block.first + block.count; i++) {
        if (sim->state[i] == SIM_READY) {
            sim->ready_bytes -= SIM_UNIT;
        } else {
            grown += SIM_UNIT;
        }
        if (sim->state[i] == SIM_RELEASED) {
            sim->released_bytes -= SIM_UNIT;
            sim->taken_bytes += SIM_UNIT;
        }
        sim->state[i] = SIM_USED;
    }
    sim->used_bytes += block.count * SIM_UNIT;
    sim->ops_count += block.count;
    sim->top = max_size(sim->top, block.first + block.count);
    sim->owed_bytes = pageheap_owed(sim->owed_bytes, grown, sim->ready_bytes);
}

static void ring(struct sim *sim)
{
    if (sim->policy->ring_bytes == UINT64_MAX || sim->ready_bytes < sim->ring_bytes) {
        return;
    }
    if (!sim->awake || sim->policy->ring_bytes != 0) {
        sim->awake = true;
        sim->look_at_ns = sim->now_ns;
    }
}

static void give(struct sim *sim, struct sim_block block)
{
    for (size_t i = block.first; i < block.first + block.count; i++) {
        cr_assert(sim->state[i] == SIM_USED);
        sim->state[i] = SIM_READY;
        sim->freed_ns[i] = (sim->now_ns + NS_PER_S - 1) / NS_PER_S * NS_PER_S;
    }
    sim->used_bytes -= block.count * SIM_UNIT;
    sim->ready_bytes += block.count * SIM_UNIT;
    sim->freed_bytes += block.count * SIM_UNIT;
    sim->ops_count += block.count;
    ring(sim);
}

void sim_up(struct sim *sim, struct sim_blocks *blocks, uint64_t bytes, uint64_t piece)
{
    for (; bytes != 0; bytes -= piece) {
        cr_assert(blocks->count < SIM_BLOCKS);
        struct sim_block block = place(sim, piece / SIM_UNIT);
        take(sim, block);
        blocks->block[blocks->count++] = block;
    }
}

void sim_pin(struct sim *sim)
{
    cr_assert(sim->top < SIM_UNITS);
    take(sim, (struct sim_block){sim->top, 1});
}

void sim_down(struct sim *sim, struct sim_blocks *blocks, uint64_t bytes)
{
    while (bytes != 0) {
        struct sim_block block = blocks->block[--blocks->count];
        give(sim, block);
        bytes -= block.count * SIM_UNIT;
    }
}

// --- the releaser ---

static void view_read(struct sim *sim, struct release_view *view)
{
    *view = (struct release_view){
        .now_ns = sim->now_ns,
        .used_bytes = sim->used_bytes,
        .retained_bytes = sim_rss(sim),
        .ready_bytes = sim->ready_bytes,
        .huge_bytes = sim->huge_bytes,
        .candidate_bytes = sim->candidate_bytes,
        .hole_bytes = sim->hole_bytes,
        .mapped_bytes = sim_rss(sim),
        .freed_bytes = sim->freed_bytes,
        .ops_count = sim->ops_count,
        .page_bytes = sim->page_bytes,
        .swept_ns = sim->swept_ns,
        .start_ns = sim->start_ns,
        .grown_bytes = sim->offset_bytes + (uint64_t)sim->owed_bytes,
        .offset_bytes = sim->offset_bytes,
        .limit_bytes = sim->limit_bytes,
        .history = &sim->history,
    };
    release_epoch_update(&sim->epoch, view);
    release_history_update(&sim->history, sim->now_ns, view->ready_bytes + view->candidate_bytes);
}

static struct release_plan ask(struct sim *sim, const struct release_view *view)
{
    struct release_plan plan = sim->policy->plan(view);
    uint64_t most = view->ready_bytes + (plan.no_holes ? 0 : view->candidate_bytes);
    cr_assert(plan.bytes <= most, "%s releases more than there is", sim->policy->name);
    cr_assert(plan.wake_at_ns == 0 || plan.wake_at_ns > view->now_ns, "%s: a look in the past",
              sim->policy->name);
    cr_assert(plan.why != NULL);
    sim->why = plan.why;
    return plan;
}

// The unit that order puts next among those that are ready and old enough; SIM_UNITS: none.
static size_t pick(const struct sim *sim, const struct release_plan *plan)
{
    size_t best = SIM_UNITS;
    size_t best_length = 0;
    size_t at = sim->top;
    while (at > 0) {
        size_t end = at;
        while (at > 0 && sim->state[at - 1] == SIM_READY &&
               sim->freed_ns[at - 1] + plan->min_age_ns <= sim->now_ns) {
            at--;
        }
        size_t length = end - at;
        bool better = best == SIM_UNITS;
        if (plan->order == RELEASE_LARGEST_FIRST) {
            better |= length > best_length;
        } else if (plan->order == RELEASE_SMALLEST_FIRST) {
            better |= length < best_length;
        }
        if (length != 0 && better) {
            best = end - 1;
            best_length = length;
        }
        if (best != SIM_UNITS && plan->order == RELEASE_HIGH_FIRST) {
            break;
        }
        at -= at > 0 && at == end;
    }
    return best;
}

static bool may_spend(struct sim *sim, const struct release_plan *plan)
{
    return plan->unpaced || release_budget_may_spend(&sim->budget, sim->now_ns);
}

static uint64_t carry_out(struct sim *sim, const struct release_plan *plan)
{
    uint64_t given = 0;
    while (!sim->refuses && given < plan->bytes && may_spend(sim, plan)) {
        size_t at = pick(sim, plan);
        if (at == SIM_UNITS) {
            break;
        }
        // The rest of its run, from the back.
        while (given < plan->bytes && sim->state[at] == SIM_READY &&
               sim->freed_ns[at] + plan->min_age_ns <= sim->now_ns && may_spend(sim, plan)) {
            sim->state[at] = SIM_RELEASED;
            sim->ready_bytes -= SIM_UNIT;
            sim->released_bytes += SIM_UNIT;
            sim->worked_ns += COST_UNIT_NS;
            sim->youngest_ns = min_u64(sim->youngest_ns, sim->now_ns - sim->freed_ns[at]);
            if (!plan->unpaced) {
                release_budget_spend(&sim->budget, COST_UNIT_NS);
            }
            given += SIM_UNIT;
            if (at-- == 0) {
                break;
            }
        }
    }
    if (!sim->refuses && !plan->no_holes && given < plan->bytes && may_spend(sim, plan)) {
        uint64_t holes = min_u64(plan->bytes - given, sim->candidate_bytes);
        sim->candidate_bytes -= holes;
        sim->hole_bytes += holes;
        given += holes;
    }
    sim->given_bytes += given;
    sim->swept_ns = plan->sweep ? sim->now_ns : sim->swept_ns;
    if (plan->offset) {
        sim->offset_bytes += given;
        sim->owed_bytes -= (int64_t)given;
    }
    return given;
}

static void look(struct sim *sim)
{
    struct release_view view;
    sim->look_count++;
    sim->look_ns = sim->now_ns;
    view_read(sim, &view);
    struct release_plan plan = ask(sim, &view);
    uint64_t given = 0;
    if (plan.bytes != 0 || plan.sweep) {
        given = carry_out(sim, &plan);
        view_read(sim, &view);
        plan = ask(sim, &view);
    }
    if (plan.bytes != 0 && given != 0) {
        sim->look_at_ns =
            max_u64(release_budget_ready_ns(&sim->budget, sim->now_ns), sim->now_ns + NS_PER_MS);
    } else if (plan.wake_at_ns != 0) {
        sim->look_at_ns = plan.wake_at_ns;
        sim->awake = plan.wake_at_ns != UINT64_MAX;
    } else {
        sim->look_at_ns = sim->now_ns + LOOK_NS;
        sim->awake = view.rest_ns < STAY_NS;
    }
    if (!sim->awake || sim->policy->ring_bytes != 0) {
        uint64_t growth = sim->policy->ring_bytes != 0 ? sim->policy->ring_bytes : RING_BYTES;
        sim->ring_bytes = growth == UINT64_MAX ? growth : sim->ready_bytes + growth;
    }
}

void sim_run(struct sim *sim, uint64_t for_ns)
{
    uint64_t until_ns = sim->now_ns + for_ns;
    while (sim->awake && sim->look_at_ns <= until_ns) {
        sim->now_ns = max_u64(sim->now_ns, sim->look_at_ns);
        look(sim);
    }
    sim->now_ns = until_ns;
}

struct sim_waves sim_waves(struct sim *sim, uint64_t bytes, uint64_t up_ns, uint64_t down_ns,
                           size_t count)
{
    static struct sim_blocks wave;
    struct sim_waves seen = {UINT64_MAX, 0};
    wave.count = 0;
    for (size_t i = 0; i < count; i++) {
        sim_up(sim, &wave, bytes, 2 * MIB);
        sim_run(sim, up_ns);
        uint64_t peak = sim_rss(sim);
        sim_down(sim, &wave, bytes);
        sim_run(sim, down_ns);
        if (i >= count / 2) {
            seen.trough_bytes = min_u64(seen.trough_bytes, sim_rss(sim));
            seen.peak_bytes = max_u64(seen.peak_bytes, peak);
        }
    }
    return seen;
}
