// SPDX-License-Identifier: MIT
// Tier  quick
//
// Policy decay and the history it goes by, against the sentences of policy_decay.c: the curve at
// every step, what counts as newly free, when the next look is asked for, and the curve of RSS on a
// simulated heap. The curve is computed here in floating point from its formula.
//
// Go  none: jemalloc test/unit/decay.c.
#include "support/unit.h"

#include "base/option.h"
#include "simulate.h"

#define STEPS RELEASE_HISTORY_STEPS
#define START_NS (1000 * NS_PER_S)

static const uint64_t page_bytes_all[] = {4 * KIB, 16 * KIB, 64 * KIB};
static const uint64_t decay_ms_all[] = {100, 1000, 10000, 86400000};

// The share that may be kept of what became free steps ago.
static double share_of(double steps)
{
    double y = steps >= STEPS ? 0 : 1 - steps / STEPS;
    return y * y * y * (6 * y * y - 15 * y + 10);
}

static struct release_view view_of(const struct release_history *history, uint64_t now_ns,
                                   uint64_t ready, uint64_t page)
{
    return (struct release_view){
        .now_ns = now_ns,
        .used_bytes = MIB,
        .retained_bytes = MIB + ready,
        .ready_bytes = ready,
        .page_bytes = page,
        .history = history,
    };
}

// --- the history ---

EBB_TEST(history, keeps_the_share_of_the_curve)
{
    for (size_t d = 0; d < ARRAY_COUNT(decay_ms_all); d++) {
        struct release_history history;
        release_history_init(&history, decay_ms_all[d], START_NS);
        release_history_update(&history, START_NS, GIB);
        uint64_t step_ns = decay_ms_all[d] * NS_PER_MS / STEPS;
        uint64_t before = GIB;
        for (uint64_t step = 0; step <= STEPS + 1; step++) {
            double want = share_of((double)step) * (double)GIB;
            uint64_t ahead = release_history_limit(&history, 1);
            if (step != 0) { // to the last moment of the step before, and then into it
                release_history_update(&history, START_NS + step * step_ns - 1, 0);
                cr_assert(release_history_limit(&history, 0) == before);
                release_history_update(&history, START_NS + step * step_ns, 0);
                cr_assert(release_history_limit(&history, 0) <= before);
            }
            uint64_t limit = release_history_limit(&history, 0);
            double off = (double)limit - want;
            cr_assert(off < 200 && off > -200, "step %llu: %llu, not %f", (unsigned long long)step,
                      (unsigned long long)limit, want);
            cr_assert(step == 0 || limit == ahead);
            cr_assert(step != STEPS || limit == 0);
            before = limit;
        }
        cr_assert(history.seen_bytes == 0);
    }
}

EBB_TEST(history, looks_ahead_as_time_will_go)
{
    struct release_history history;
    release_history_init(&history, 10000, START_NS);
    for (uint64_t i = 0; i < 60; i++) {
        release_history_update(&history, START_NS + i * 170 * NS_PER_MS, (i + 1) * 10 * MIB);
    }
    uint64_t ahead[STEPS + 1];
    for (uint64_t k = 0; k <= STEPS; k++) {
        ahead[k] = release_history_limit(&history, k);
        cr_assert(k == 0 || ahead[k] <= ahead[k - 1], "the limit does not rise by itself");
    }
    uint64_t from_ns = history.step_start;
    for (uint64_t k = 0; k <= STEPS; k++) {
        release_history_update(&history, from_ns + k * 50 * NS_PER_MS, 0);
        cr_assert(release_history_limit(&history, 0) == ahead[k]);
    }
    cr_assert(ahead[STEPS] == 0);
}

EBB_TEST(history, sums_over_the_steps)
{
    struct release_history history;
    release_history_init(&history, 10000, START_NS);
    // 100 MiB now, 300 MiB more five seconds later, seen at three seconds after that.
    release_history_update(&history, START_NS, 100 * MIB);
    release_history_update(&history, START_NS + 5 * NS_PER_S, 50 * MIB);
    release_history_update(&history, START_NS + 5 * NS_PER_S, 350 * MIB);
    release_history_update(&history, START_NS + 8 * NS_PER_S, 100 * MIB);
    double want = share_of(160) * 100 + share_of(60) * 300;
    double limit = (double)release_history_limit(&history, 0) / (double)MIB;
    cr_assert(limit > want - 0.01 && limit < want + 0.01, "%f, not %f", limit, want);
}

EBB_TEST(history, what_is_taken_and_freed_again_counts_once)
{
    struct release_history history;
    release_history_init(&history, 10000, START_NS);
    uint64_t now_ns = START_NS;
    for (int i = 0; i < 1000; i++, now_ns += 50 * NS_PER_MS) {
        release_history_update(&history, now_ns, GIB);
        cr_assert(release_history_limit(&history, 0) <= GIB);
        release_history_update(&history, now_ns, 0);
    }
    // The limit never passes what was free; so all of it goes within the decay time.
    release_history_update(&history, now_ns, GIB);
    cr_assert(release_history_limit(&history, 0) <= GIB &&
              release_history_limit(&history, 0) > GIB / 100 * 99);
    cr_assert(release_history_limit(&history, STEPS) == 0);
}

EBB_TEST(history, long_silence_empties_it)
{
    const uint64_t silences[] = {STEPS - 1, STEPS, STEPS + 1, 1000 * STEPS};
    for (size_t i = 0; i < ARRAY_COUNT(silences); i++) {
        struct release_history history;
        release_history_init(&history, 10000, START_NS);
        release_history_update(&history, START_NS, 64 * 1024 * GIB); // as much as there can be
        uint64_t now_ns = START_NS + silences[i] * 50 * NS_PER_MS;
        release_history_update(&history, now_ns, 0);
        cr_assert((release_history_limit(&history, 0) == 0) == (silences[i] >= STEPS));
        cr_assert(history.step_start == now_ns);
        // And what becomes free then is new.
        release_history_update(&history, now_ns, 128 * 1024 * GIB);
        cr_assert(release_history_limit(&history, 0) >= 127 * 1024 * GIB);
    }
}

// --- the plan ---

EBB_TEST(decay, what_is_above_the_limit_goes_back)
{
    for (size_t p = 0; p < ARRAY_COUNT(page_bytes_all); p++) {
        uint64_t page = page_bytes_all[p];
        struct release_history history;
        release_history_init(&history, 10000, START_NS);
        release_history_update(&history, START_NS, GIB);
        uint64_t now_ns = START_NS + 5 * NS_PER_S;
        release_history_update(&history, now_ns, GIB);
        uint64_t limit = release_history_limit(&history, 0);
        cr_assert(limit == GIB / 2, "half after half of the time");
        const uint64_t free_all[] = {
            0, 1, limit - 1, limit, limit + 1, limit + page - 1, limit + page, limit + page + 1};
        for (size_t f = 0; f < ARRAY_COUNT(free_all); f++) {
            struct release_view view = view_of(&history, now_ns, free_all[f], page);
            struct release_plan plan = release_plan_decay(&view);
            uint64_t want = free_all[f] >= limit + page ? free_all[f] - limit : 0;
            cr_assert(plan.bytes == want && !plan.unpaced && !plan.no_holes);
            view.candidate_bytes = view.ready_bytes; // the same, inside spans
            view.ready_bytes = 0;
            cr_assert(release_plan_decay(&view).bytes == want);
        }
    }
}

// The next look: not before a page more has to go, not within 50 ms, and at an edge of a step.
EBB_TEST(decay, asks_for_the_next_useful_look)
{
    for (size_t d = 0; d < ARRAY_COUNT(decay_ms_all); d++) {
        uint64_t step_ns = decay_ms_all[d] * NS_PER_MS / STEPS;
        struct release_history history;
        release_history_init(&history, decay_ms_all[d], START_NS);
        release_history_update(&history, START_NS, 100 * MIB);
        for (uint64_t free_bytes = 4 * KIB; free_bytes <= 100 * MIB; free_bytes *= 5) {
            struct release_view view =
                view_of(&history, START_NS + step_ns / 3, free_bytes, 4 * KIB);
            struct release_plan plan = release_plan_decay(&view);
            cr_assert(plan.bytes == 0);
            cr_assert(plan.wake_at_ns >= view.now_ns + 50 * NS_PER_MS);
            cr_assert((plan.wake_at_ns - START_NS) % step_ns == 0);
            uint64_t steps = (plan.wake_at_ns - START_NS) / step_ns;
            cr_assert(steps <= STEPS, "%llu steps", (unsigned long long)steps);
            // Then a page has to go; one step before, none, or it would have been too soon.
            cr_assert(release_history_limit(&history, steps) + 4 * KIB <= free_bytes);
            cr_assert(release_history_limit(&history, steps - 1) + 4 * KIB > free_bytes ||
                      plan.wake_at_ns - step_ns < view.now_ns + 50 * NS_PER_MS);
        }
    }
}

EBB_TEST(decay, asks_for_none_when_nothing_will_have_to_go)
{
    for (size_t p = 0; p < ARRAY_COUNT(page_bytes_all); p++) {
        uint64_t page = page_bytes_all[p];
        struct release_history history;
        release_history_init(&history, 10000, START_NS);
        release_history_update(&history, START_NS, 100 * MIB);
        const uint64_t free_all[] = {0, 1, page - 1, page, page + 1};
        for (size_t f = 0; f < ARRAY_COUNT(free_all); f++) {
            struct release_view view = view_of(&history, START_NS, free_all[f], page);
            struct release_plan plan = release_plan_decay(&view);
            cr_assert((plan.wake_at_ns == UINT64_MAX) == (free_all[f] < page));
        }
        // After the last step: all of it, and no look afterwards, also if the kernel refuses.
        uint64_t end_ns = START_NS + 10 * NS_PER_S;
        release_history_update(&history, end_ns, GIB);
        release_history_update(&history, end_ns + 10 * NS_PER_S, GIB);
        struct release_view view = view_of(&history, end_ns + 10 * NS_PER_S, GIB, page);
        struct release_plan plan = release_plan_decay(&view);
        cr_assert(plan.bytes == GIB && plan.wake_at_ns == UINT64_MAX);
    }
}

// --- on the simulated heap ---

EBB_TEST(decay, rss_follows_the_curve_within_a_step)
{
    static struct sim sim;
    for (size_t p = 0; p < ARRAY_COUNT(page_bytes_all); p++) {
        struct sim_blocks live = {.count = 0};
        struct sim_blocks more = {.count = 0};
        sim_start(&sim, &release_policies[OPTION_POLICY_DECAY], page_bytes_all[p]);
        sim_up(&sim, &live, 64 * MIB, MIB);
        sim_up(&sim, &more, GIB, 4 * MIB);
        sim_run(&sim, 10 * NS_PER_S);
        uint64_t freed_ns = sim.now_ns;
        sim_down(&sim, &more, GIB);
        sim_run(&sim, NS_PER_MS);
        for (int i = 0; i < 1100; i++) {
            double steps = (double)(sim.now_ns - freed_ns) / 50e6;
            double kept = (double)(sim_rss(&sim) - 64 * MIB);
            double low = share_of(steps + 1) * (double)GIB - (double)SIM_UNIT;
            double high = share_of(steps < 1 ? 0 : steps - 1) * (double)GIB + (double)SIM_UNIT;
            cr_assert(kept >= low && kept <= high, "after %f steps %f MiB, not %f to %f", steps,
                      kept / (double)MIB, low / (double)MIB, high / (double)MIB);
            sim_run(&sim, 9777 * NS_PER_US);
        }
        sim_run(&sim, 3600 * NS_PER_S);
        cr_assert(sim_rss(&sim) == 64 * MIB);
        cr_assert(!sim.awake && sim.look_count < 220 && sim.look_ns <= freed_ns + 11 * NS_PER_S);
    }
}

EBB_TEST(decay, waves_that_are_short_stay_and_long_ones_go)
{
    static struct sim sim;
    struct sim_blocks live = {.count = 0};
    sim_start(&sim, &release_policies[OPTION_POLICY_DECAY], 4 * KIB);
    sim_up(&sim, &live, 64 * MIB, MIB);
    struct sim_waves waves = sim_waves(&sim, 512 * MIB, 2500 * NS_PER_MS, 2500 * NS_PER_MS, 100);
    double kept = (double)(waves.trough_bytes - 64 * MIB) / (double)(512 * MIB);
    // 2.5 s are 50 steps; part of what was free had been free before.
    cr_assert(kept > share_of(100) && kept <= share_of(49), "%f", kept);
    sim_start(&sim, &release_policies[OPTION_POLICY_DECAY], 4 * KIB);
    live.count = 0;
    sim_up(&sim, &live, 64 * MIB, MIB);
    waves = sim_waves(&sim, 512 * MIB, 30 * NS_PER_S, 30 * NS_PER_S, 100);
    cr_assert(waves.trough_bytes == 64 * MIB);
}
