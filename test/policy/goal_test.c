// SPDX-License-Identifier: MIT
// Tier  quick
//
// The policies with a goal, go1.13, go1.16 and go1.19, against the sentences of their headers: the
// line, the goal, the limit, each at its borders, with kernel pages of three sizes, and on a
// simulated heap. (go1.16 alone is in release_test.c.) Numbers are computed here from the
// sentences, in floating point where the policy uses integers.
//
// Go  runtime/mgcscavenge_test.go, which has no test of the pacing.
#include "support/unit.h"

#include "base/option.h"
#include "simulate.h"

#define STEP_NS (100 * NS_PER_MS)
#define LIVE_BYTES (64 * MIB)

static const uint64_t page_bytes_all[] = {4 * KIB, 16 * KIB, 64 * KIB};

// --- go1.13: the line ---

// An epoch that ended with 100 MiB in use (goal 110 MiB) and retained_bytes in all.
static struct release_view line_view(uint64_t retained, uint64_t page, uint64_t since_ns)
{
    return (struct release_view){
        .now_ns = 5000 * NS_PER_S + since_ns,
        .used_bytes = 100 * MIB,
        .retained_bytes = retained,
        .ready_bytes = retained - 100 * MIB,
        .page_bytes = page,
        .epoch_count = 3,
        .epoch_used_bytes = 100 * MIB,
        .epoch_retained_bytes = retained,
        .epoch_ended_ns = 5000 * NS_PER_S,
    };
}

EBB_TEST(line, falls_a_page_per_millisecond)
{
    for (size_t p = 0; p < ARRAY_COUNT(page_bytes_all); p++) {
        uint64_t page = page_bytes_all[p];
        uint64_t pages = 5000;
        uint64_t start = 110 * MIB + pages * page;
        for (uint64_t ms = 0; ms <= pages + 2; ms++) {
            struct release_view view = line_view(start, page, ms * NS_PER_MS);
            struct release_plan plan = release_plan_go113(&view);
            uint64_t fallen = min_u64(ms, pages);
            cr_assert(plan.bytes == fallen * page, "%llu ms: %llu pages", (unsigned long long)ms,
                      (unsigned long long)(plan.bytes / page));
            cr_assert(plan.no_holes && !plan.unpaced && plan.min_age_ns == 0 &&
                      plan.order == RELEASE_HIGH_FIRST);
            // The next step: 100 ms on, or the end, or never.
            uint64_t next_ms = min_u64(ms + 100, pages);
            uint64_t want = ms >= pages ? 0 : view.epoch_ended_ns + next_ms * NS_PER_MS;
            cr_assert(plan.wake_at_ns == want, "%llu ms: look in %lld us", (unsigned long long)ms,
                      (long long)(plan.wake_at_ns - view.now_ns) / 1000);
        }
    }
}

EBB_TEST(line, one_page_is_the_least)
{
    for (size_t p = 0; p < ARRAY_COUNT(page_bytes_all); p++) {
        uint64_t page = page_bytes_all[p];
        uint64_t start = 110 * MIB + 1000 * page;
        const uint64_t since_ns[] = {0, 1, NS_PER_MS - 1, NS_PER_MS, NS_PER_MS + 1};
        for (size_t s = 0; s < ARRAY_COUNT(since_ns); s++) {
            struct release_view view = line_view(start, page, since_ns[s]);
            uint64_t bytes = release_plan_go113(&view).bytes;
            cr_assert((bytes != 0) == (since_ns[s] >= NS_PER_MS) && bytes < page + page / 100);
        }
    }
}

EBB_TEST(line, waits_until_it_meets_what_is_retained)
{
    // 100 s from 1110 MiB down to 110 MiB would be 10 MiB a second: with pages of 4 KiB it is 256
    // s.
    struct release_view view = line_view(1110 * MIB, 4 * KIB, 10 * NS_PER_S);
    view.retained_bytes = 610 * MIB; // half of it has been used up or given back
    view.ready_bytes = 510 * MIB;
    struct release_plan plan = release_plan_go113(&view);
    cr_assert(plan.bytes == 0 && plan.wake_at_ns == view.epoch_ended_ns + 128 * NS_PER_S + STEP_NS);
    view.now_ns = plan.wake_at_ns;
    cr_assert(release_plan_go113(&view).bytes == 100 * 4 * KIB);
}

EBB_TEST(line, growth_above_it_goes_back_at_once)
{
    struct release_view view = line_view(1110 * MIB, 4 * KIB, NS_PER_S);
    view.retained_bytes += 100 * MIB;
    view.ready_bytes += 100 * MIB;
    cr_assert(release_plan_go113(&view).bytes == 100 * MIB + 1000 * 4 * KIB);
    view.ready_bytes = 5 * MIB; // the rest of it is in use
    struct release_plan plan = release_plan_go113(&view);
    cr_assert(plan.bytes == 5 * MIB && plan.wake_at_ns == 0);
    view.ready_bytes = 0;
    plan = release_plan_go113(&view);
    cr_assert(plan.bytes == 0 && plan.wake_at_ns == 0, "nothing to wait for");
}

EBB_TEST(line, nothing_before_an_epoch_nor_in_one_that_began_at_its_goal)
{
    struct release_view view = line_view(GIB, 4 * KIB, 3600 * NS_PER_S);
    cr_assert(release_plan_go113(&view).bytes == GIB - 110 * MIB);
    view.epoch_count = 0;
    cr_assert(release_plan_go113(&view).bytes == 0);
    view.epoch_count = 1;
    for (size_t p = 0; p < ARRAY_COUNT(page_bytes_all); p++) {
        uint64_t page = page_bytes_all[p];
        view.page_bytes = page;
        const uint64_t began_all[] = {0, 110 * MIB, 110 * MIB + page - 1, 110 * MIB + page,
                                      110 * MIB + page + 1};
        for (size_t b = 0; b < ARRAY_COUNT(began_all); b++) {
            view.epoch_retained_bytes = began_all[b];
            struct release_plan plan = release_plan_go113(&view);
            bool line = began_all[b] >= 110 * MIB + page;
            cr_assert(plan.bytes == (line ? GIB - 110 * MIB : 0) && plan.wake_at_ns == 0);
        }
    }
}

EBB_TEST(line, nothing_less_than_a_page_above_the_goal)
{
    for (size_t p = 0; p < ARRAY_COUNT(page_bytes_all); p++) {
        uint64_t page = page_bytes_all[p];
        const uint64_t above_all[] = {0, 1, page - 1, page, page + 1};
        for (size_t a = 0; a < ARRAY_COUNT(above_all); a++) {
            struct release_view view = line_view(GIB, page, 3600 * NS_PER_S);
            view.retained_bytes = 110 * MIB + above_all[a];
            view.ready_bytes = 10 * MIB;
            uint64_t bytes = release_plan_go113(&view).bytes;
            cr_assert(bytes == (above_all[a] >= page ? above_all[a] : 0));
            view.now_ns = view.epoch_ended_ns; // the line is far above, and nothing to wait for
            struct release_plan plan = release_plan_go113(&view);
            cr_assert(plan.bytes == 0 && (plan.wake_at_ns != 0) == (above_all[a] >= page));
        }
    }
}

EBB_TEST(line, huge_units_fall_two_mib_per_millisecond)
{
    const uint64_t huge_all[] = {0, 2 * MIB, 100 * MIB, 1000 * MIB, 4000 * MIB};
    for (size_t h = 0; h < ARRAY_COUNT(huge_all); h++) {
        // 1000 MiB to fall.
        uint64_t huge = min_u64(huge_all[h], 1000 * MIB);
        uint64_t end_ms = huge / (2 * MIB) + (1000 * MIB - huge) / (4 * KIB);
        struct release_view view = line_view(1110 * MIB, 4 * KIB, 0);
        view.epoch_huge_bytes = huge_all[h];
        double share_before = 0;
        for (uint64_t tenth = 0; tenth <= 10; tenth++) {
            view.now_ns = view.epoch_ended_ns + end_ms * NS_PER_MS * tenth / 10;
            double share = (double)release_plan_go113(&view).bytes / (double)(1000 * MIB);
            cr_assert(share > (double)tenth / 10 - 1e-5 && share < (double)tenth / 10 + 1e-5,
                      "%llu MiB huge, %llu tenths: %f", (unsigned long long)(huge / MIB),
                      (unsigned long long)tenth, share);
            cr_assert(share >= share_before);
            share_before = share;
        }
        cr_assert(release_plan_go113(&view).wake_at_ns == 0);
        view.now_ns = view.epoch_ended_ns + end_ms * NS_PER_MS - NS_PER_MS;
        cr_assert(release_plan_go113(&view).wake_at_ns == view.epoch_ended_ns + end_ms * NS_PER_MS);
    }
}

EBB_TEST(line, candidates_count_as_used)
{
    struct release_view view = line_view(1110 * MIB, 4 * KIB, 100 * NS_PER_MS);
    struct release_plan bare = release_plan_go113(&view);
    view.retained_bytes += 500 * MIB; // and ready stays
    view.candidate_bytes = 500 * MIB;
    view.epoch_retained_bytes += 300 * MIB;
    view.epoch_candidate_bytes = 300 * MIB;
    struct release_plan plan = release_plan_go113(&view);
    cr_assert(bare.bytes == 100 * 4 * KIB && plan.bytes == bare.bytes &&
              plan.wake_at_ns == bare.wake_at_ns);
    view.epoch_candidate_bytes = 2 * GIB; // found later, and more than was retained: no line
    cr_assert(release_plan_go113(&view).bytes == 0);
}

// On the simulated heap: after a peak RSS lies on the line, and then at the goal, at rest.
EBB_TEST(line, a_peak_falls_along_it)
{
    static struct sim sim;
    for (size_t p = 0; p < ARRAY_COUNT(page_bytes_all); p++) {
        struct sim_blocks live = {.count = 0};
        struct sim_blocks more = {.count = 0};
        uint64_t page = page_bytes_all[p];
        sim_start(&sim, &release_policies[OPTION_POLICY_GO113], page);
        sim_up(&sim, &live, LIVE_BYTES, MIB);
        sim_up(&sim, &more, GIB, 4 * MIB);
        sim_run(&sim, 10 * NS_PER_S);
        sim_down(&sim, &more, GIB);
        sim_run(&sim, 1200 * NS_PER_MS); // one epoch ends by the frees, the last by the rest
        uint64_t goal = release_goal(LIVE_BYTES, page);
        double fall = (double)(sim.epoch.retained_bytes - goal);
        double total_ms = fall / (double)page;
        cr_assert(sim.epoch.used_bytes == LIVE_BYTES &&
                  sim.epoch.retained_bytes > LIVE_BYTES + GIB - 2000 * page);
        uint64_t ended_ns = sim.epoch.ended_ns;
        while (sim.now_ns < ended_ns + (uint64_t)(total_ms + 1000) * NS_PER_MS) {
            double ms = (double)(sim.now_ns - sim.epoch.ended_ns) / 1e6;
            double want = ms >= total_ms ? (double)goal : (double)goal + fall - ms * (double)page;
            double rss = (double)sim_rss(&sim);
            // A step behind, a unit of the heap before or behind.
            double slack = 101 * (double)page + (double)SIM_UNIT;
            cr_assert(rss > want - slack && rss < want + slack, "%f ms: %f MiB, not %f", ms,
                      rss / (double)MIB, want / (double)MIB);
            sim_run(&sim, 250 * NS_PER_MS);
        }
        sim_run(&sim, 3600 * NS_PER_S);
        cr_assert(sim_rss(&sim) <= goal + page && sim_rss(&sim) + SIM_UNIT > goal);
        cr_assert(!sim.awake && sim.look_count < (uint64_t)(total_ms / 100) + 30);
    }
}

// --- go1.16 and go1.19 and what is free inside spans ---

EBB_TEST(goal, candidates_can_be_released)
{
    const uint64_t ready_all[] = {0, 8 * KIB, 100 * MIB};
    const uint64_t candidates_all[] = {0, 4 * KIB, 300 * MIB, 800 * MIB};
    for (size_t r = 0; r < ARRAY_COUNT(ready_all); r++) {
        for (size_t c = 0; c < ARRAY_COUNT(candidates_all); c++) {
            uint64_t free_bytes = ready_all[r] + candidates_all[c];
            struct release_view view = line_view(100 * MIB + free_bytes, 4 * KIB, NS_PER_S);
            view.ready_bytes = ready_all[r];
            view.candidate_bytes = candidates_all[c];
            view.limit_bytes = UINT64_MAX;
            // 10 MiB of it are the goal's margin.
            uint64_t want = free_bytes >= 10 * MIB + 4 * KIB ? free_bytes - 10 * MIB : 0;
            cr_assert(release_plan_go116(&view).bytes == want &&
                      !release_plan_go116(&view).no_holes);
            cr_assert(release_plan_go119(&view).bytes == want &&
                      !release_plan_go119(&view).no_holes);
            // The heap has grown since: of what is wanted, only what is free.
            view.used_bytes += 500 * MIB;
            view.retained_bytes += 500 * MIB;
            cr_assert(release_plan_go116(&view).bytes == free_bytes);
        }
    }
}

EBB_TEST(limit, is_at_95_percent_of_it)
{
    const uint64_t limits[] = {
        0, 1, 99, 100, 101, 1000003, 256 * MIB, 3 * GIB + 7, 64 * 1024 * GIB, UINT64_MAX - 1};
    for (size_t l = 0; l < ARRAY_COUNT(limits); l++) {
        uint64_t goal = (uint64_t)((unsigned __int128)limits[l] * 95 / 100);
        const uint64_t mapped_all[] = {0, goal - (goal != 0), goal, goal + 1, goal + 4 * KIB};
        for (size_t m = 0; m < ARRAY_COUNT(mapped_all); m++) {
            for (uint64_t epochs = 0; epochs < 2; epochs++) {
                struct release_view view = line_view(200 * MIB, 4 * KIB, 0);
                view.epoch_count = epochs;
                view.epoch_used_bytes = GIB; // the first goal is met
                view.limit_bytes = limits[l];
                view.mapped_bytes = mapped_all[m];
                uint64_t want = mapped_all[m] > goal ? mapped_all[m] - goal : 0;
                struct release_plan plan = release_plan_go119(&view);
                cr_assert(plan.bytes == want, "limit %llu mapped %llu: %llu",
                          (unsigned long long)limits[l], (unsigned long long)mapped_all[m],
                          (unsigned long long)plan.bytes);
                cr_assert(!plan.unpaced && plan.wake_at_ns == 0);
                cr_assert(release_plan_go116(&view).bytes == 0, "go1.16 knows no limit");
            }
        }
    }
}

EBB_TEST(limit, the_larger_excess_counts_and_at_most_what_is_free)
{
    // First goal: 110 MiB, 90 MiB above. Second: 95 MiB above 95 % of 100 MiB.
    struct release_view view = line_view(200 * MIB, 4 * KIB, 0);
    view.mapped_bytes = 190 * MIB;
    view.limit_bytes = 100 * MIB;
    cr_assert(release_plan_go119(&view).bytes == 95 * MIB);
    view.limit_bytes = 110 * MIB; // 85.5 MiB above
    cr_assert(release_plan_go119(&view).bytes == 90 * MIB);
    view.limit_bytes = UINT64_MAX;
    cr_assert(release_plan_go119(&view).bytes == 90 * MIB);
    view.limit_bytes = 0;
    cr_assert(release_plan_go119(&view).bytes == 100 * MIB, "all that is ready");
    view.ready_bytes = 60 * MIB;
    view.candidate_bytes = 30 * MIB;
    cr_assert(release_plan_go119(&view).bytes == 90 * MIB, "ready and candidates");
}

// With 380 MiB in use the first goal keeps 38 more until the heap has been at rest for a while;
// with a limit of 400 MiB they go before.
EBB_TEST(limit, holds_before_the_rest)
{
    static struct sim sim;
    struct sim_blocks live = {.count = 0};
    struct sim_blocks more = {.count = 0};
    for (int limited = 0; limited < 2; limited++) {
        live.count = more.count = 0;
        sim_start(&sim, &release_policies[OPTION_POLICY_GO119], 4 * KIB);
        sim.limit_bytes = limited ? 400 * MIB : UINT64_MAX;
        sim_up(&sim, &live, 380 * MIB, MIB);
        sim_up(&sim, &more, 200 * MIB, MIB);
        sim_run(&sim, NS_PER_S);
        sim_down(&sim, &more, 200 * MIB);
        sim_run(&sim, 1500 * NS_PER_MS);
        // 1.1 x 380 = 418 MiB; 95 % of 400 = 380 MiB.
        cr_assert(sim_rss(&sim) / MIB == (limited ? 380 : 418), "%llu",
                  (unsigned long long)(sim_rss(&sim) / MIB));
        sim_run(&sim, 60 * NS_PER_S);
        cr_assert(sim_rss(&sim) / MIB == 380);
        cr_assert(!sim.awake);
    }
}
