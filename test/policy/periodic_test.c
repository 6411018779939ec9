// SPDX-License-Identifier: MIT
// Tier  quick
//
// The policies that go by the age of free memory, go1.11 and go1.12, against the sentences of their
// headers: at the borders of each time, and on a simulated heap over hours.
//
// Go  none: neither version tests its scavenger by time.
#include "support/unit.h"

#include "base/option.h"
#include "pageheap/pageheap.h"
#include "simulate.h"

#define MINUTE_NS (60 * NS_PER_S)
#define AGE_NS (300 * NS_PER_S)
#define PERIOD_NS (150 * NS_PER_S)
#define LIVE_BYTES (64 * MIB)

static const uint64_t page_bytes_all[] = {4 * KIB, 16 * KIB, 64 * KIB};
static const enum option_policy periodic[] = {OPTION_POLICY_GO111, OPTION_POLICY_GO112};

static struct release_view view_of(uint64_t ready)
{
    return (struct release_view){
        .now_ns = 10000 * NS_PER_S,
        .used_bytes = MIB,
        .retained_bytes = MIB + ready,
        .ready_bytes = ready,
        .page_bytes = 4 * KIB,
        .start_ns = 9000 * NS_PER_S,
        .swept_ns = 9900 * NS_PER_S,
        .freed_ns = 9999 * NS_PER_S,
        .rest_ns = NS_PER_S,
    };
}

// --- the periodic look ---

EBB_TEST(periodic, a_look_is_due_after_two_and_a_half_minutes)
{
    for (size_t i = 0; i < ARRAY_COUNT(periodic); i++) {
        const struct release_policy *policy = &release_policies[periodic[i]];
        const uint64_t since_ns[] = {0, 1, PERIOD_NS - 1, PERIOD_NS, PERIOD_NS + 1};
        for (size_t s = 0; s < ARRAY_COUNT(since_ns); s++) {
            for (int from_start = 0; from_start < 2; from_start++) {
                struct release_view view = view_of(GIB);
                uint64_t last_ns = view.now_ns - since_ns[s];
                view.start_ns = from_start ? last_ns : 1;
                view.swept_ns = from_start ? 0 : last_ns;
                view.rest_ns = MINUTE_NS;
                struct release_plan plan = policy->plan(&view);
                bool due = since_ns[s] >= PERIOD_NS;
                cr_assert(plan.bytes == (due ? GIB : 0) && plan.sweep == due, "%s %llu",
                          policy->name, (unsigned long long)since_ns[s]);
                uint64_t wake_ns = (due ? view.now_ns : last_ns) + PERIOD_NS;
                if (periodic[i] == OPTION_POLICY_GO112 && !due) {
                    wake_ns = min_u64(wake_ns, view.now_ns + NS_PER_S);
                }
                cr_assert(plan.wake_at_ns == wake_ns);
                if (due) {
                    cr_assert(plan.min_age_ns == AGE_NS && plan.unpaced && plan.no_holes);
                    cr_assert(plan.order == RELEASE_SMALLEST_FIRST && !plan.offset);
                }
            }
        }
    }
}

EBB_TEST(periodic, no_look_without_ready_pages)
{
    for (size_t i = 0; i < ARRAY_COUNT(periodic); i++) {
        const uint64_t ready_all[] = {0, 1, 8 * KIB};
        for (size_t r = 0; r < ARRAY_COUNT(ready_all); r++) {
            struct release_view view = view_of(ready_all[r]);
            view.swept_ns = view.now_ns - PERIOD_NS;
            view.candidate_bytes = GIB; // neither version knows of free pages inside spans
            view.retained_bytes += GIB;
            view.grown_bytes = ready_all[r] == 0 ? GIB : 0;
            struct release_plan plan = release_policies[periodic[i]].plan(&view);
            cr_assert(plan.bytes == ready_all[r] && plan.sweep == (ready_all[r] != 0));
            cr_assert((plan.wake_at_ns == UINT64_MAX) == (ready_all[r] == 0));
        }
    }
}

// A look 7.5 minutes after the last free has seen everything old enough.
EBB_TEST(periodic, what_is_refused_asks_for_no_more_looks)
{
    const uint64_t after_ns[] = {0, AGE_NS, AGE_NS + PERIOD_NS - 1, AGE_NS + PERIOD_NS,
                                 AGE_NS + PERIOD_NS + 1};
    for (size_t i = 0; i < ARRAY_COUNT(periodic); i++) {
        for (size_t a = 0; a < ARRAY_COUNT(after_ns); a++) {
            struct release_view view = view_of(GIB);
            view.freed_ns = 5000 * NS_PER_S;
            view.swept_ns = view.freed_ns + after_ns[a];
            view.rest_ns = view.now_ns - view.freed_ns;
            struct release_plan plan = release_policies[periodic[i]].plan(&view);
            bool over = after_ns[a] >= AGE_NS + PERIOD_NS;
            cr_assert(plan.bytes == (over ? 0 : GIB));
            cr_assert((plan.wake_at_ns == UINT64_MAX) == over);
        }
    }
}

EBB_TEST(periodic, goals_and_epochs_play_no_part)
{
    for (size_t i = 0; i < ARRAY_COUNT(periodic); i++) {
        for (uint64_t epochs = 0; epochs < 2; epochs++) {
            struct release_view view = view_of(8 * KIB);
            view.swept_ns = view.now_ns - PERIOD_NS;
            view.epoch_count = epochs;
            view.epoch_used_bytes = 100 * GIB; // far below any goal
            cr_assert(release_policies[periodic[i]].plan(&view).bytes == 8 * KIB);
        }
    }
}

// --- growth, go1.12 ---

EBB_TEST(offset, is_what_grew_less_what_was_offset)
{
    const uint64_t ready_all[] = {0, 1, 100 * KIB - 1, 100 * KIB, 100 * KIB + 1, GIB};
    const uint64_t owed_all[] = {0, 1, 8 * KIB, 100 * KIB};
    for (size_t r = 0; r < ARRAY_COUNT(ready_all); r++) {
        for (size_t o = 0; o < ARRAY_COUNT(owed_all); o++) {
            struct release_view view = view_of(ready_all[r]);
            view.offset_bytes = 7 * MIB;
            view.grown_bytes = 7 * MIB + owed_all[o];
            struct release_plan plan = release_plan_go112(&view);
            uint64_t want = min_u64(owed_all[o], ready_all[r]);
            cr_assert(plan.bytes == want);
            if (want != 0) {
                cr_assert(plan.offset && plan.order == RELEASE_LARGEST_FIRST && plan.unpaced &&
                          plan.no_holes && !plan.sweep && plan.min_age_ns == 0);
            }
            cr_assert(release_plan_go111(&view).bytes == 0, "go1.11 does not look at growth");
        }
    }
}

EBB_TEST(offset, credit_is_used_first)
{
    struct release_view view = view_of(GIB);
    view.offset_bytes = 10 * MIB;
    const uint64_t grown_all[] = {0, 10 * MIB - 1, 10 * MIB, 10 * MIB + 1};
    for (size_t g = 0; g < ARRAY_COUNT(grown_all); g++) {
        view.grown_bytes = grown_all[g];
        cr_assert(release_plan_go112(&view).bytes == (grown_all[g] > 10 * MIB));
    }
}

EBB_TEST(offset, the_periodic_look_comes_first)
{
    struct release_view view = view_of(GIB);
    view.swept_ns = view.now_ns - PERIOD_NS;
    view.grown_bytes = MIB;
    cr_assert(release_plan_go112(&view).sweep);
}

EBB_TEST(offset, asks_each_second_while_anything_could_go_back)
{
    const uint64_t left_ns[] = {1, NS_PER_S - 1, NS_PER_S, NS_PER_S + 1, 100 * NS_PER_S};
    for (size_t i = 0; i < ARRAY_COUNT(left_ns); i++) {
        struct release_view view = view_of(GIB);
        view.swept_ns = view.now_ns - PERIOD_NS + left_ns[i];
        cr_assert(release_plan_go112(&view).wake_at_ns ==
                  view.now_ns + min_u64(left_ns[i], NS_PER_S));
        cr_assert(release_plan_go111(&view).wake_at_ns == view.now_ns + left_ns[i]);
        view.freed_ns = view.swept_ns - AGE_NS - PERIOD_NS;
        cr_assert(release_plan_go112(&view).wake_at_ns == UINT64_MAX, "all of it was refused");
    }
}

// Growth that found nothing ready is not owed later, and credit is not lost.
EBB_TEST(offset, growth_counts_against_what_was_ready_then)
{
    const int64_t mib = MIB;
    cr_assert(pageheap_owed(0, GIB, 0) == 0);
    cr_assert(pageheap_owed(0, GIB, 1) == 1);
    cr_assert(pageheap_owed(0, MIB, MIB - 1) == mib - 1);
    cr_assert(pageheap_owed(0, MIB, MIB) == mib);
    cr_assert(pageheap_owed(0, MIB, MIB + 1) == mib);
    cr_assert(pageheap_owed(3 * mib, MIB, 2 * MIB) == 3 * mib, "owed already: all of it");
    cr_assert(pageheap_owed(3 * mib, 0, 0) == 3 * mib);
    cr_assert(pageheap_owed(-3 * mib, MIB, 0) == -2 * mib, "out of the credit");
    cr_assert(pageheap_owed(-3 * mib, 9 * MIB, 0) == 0, "credit and no more");
    cr_assert(pageheap_owed(-3 * mib, 9 * MIB, 2 * MIB) == 2 * mib);
}

// --- on the simulated heap ---

// Up to 1 GiB and back to LIVE_BYTES.
static void peak(struct sim *sim, struct sim_blocks *live, struct sim_blocks *more)
{
    sim_up(sim, live, LIVE_BYTES, MIB);
    sim_run(sim, NS_PER_S);
    sim_up(sim, more, GIB, 4 * MIB);
    sim_run(sim, 10 * NS_PER_S);
    sim_down(sim, more, GIB);
}

EBB_TEST(periodic, nothing_before_five_minutes_and_everything_by_seven_and_a_half)
{
    static struct sim sim;
    for (size_t i = 0; i < ARRAY_COUNT(periodic); i++) {
        for (size_t p = 0; p < ARRAY_COUNT(page_bytes_all); p++) {
            struct sim_blocks live = {.count = 0};
            struct sim_blocks more = {.count = 0};
            sim_start(&sim, &release_policies[periodic[i]], page_bytes_all[p]);
            peak(&sim, &live, &more);
            uint64_t full = LIVE_BYTES + GIB;
            for (uint64_t waited_ns = 0; waited_ns < AGE_NS; waited_ns += NS_PER_S) {
                cr_assert(sim_rss(&sim) == full, "%s: after %llu s", sim.policy->name,
                          (unsigned long long)(waited_ns / NS_PER_S));
                sim_run(&sim, NS_PER_S);
            }
            sim_run(&sim, PERIOD_NS + NS_PER_S);
            cr_assert(sim_rss(&sim) == LIVE_BYTES);
            cr_assert(sim.youngest_ns >= AGE_NS && sim.worked_ns > 100 * NS_PER_MS);
            uint64_t most = periodic[i] == OPTION_POLICY_GO111 ? 10 : 460;
            cr_assert(!sim.awake && sim.look_count <= most, "%llu looks",
                      (unsigned long long)sim.look_count);
            uint64_t looks = sim.look_count;
            sim_run(&sim, 10 * 3600 * NS_PER_S);
            cr_assert(sim.look_count == looks, "a process at rest was woken");
        }
    }
}

// A5: peaks every five minutes, for three hours: memory stays at the peak for ever. With eight
// minutes between them it goes back.
EBB_TEST(periodic, waves_every_five_minutes_keep_the_peak)
{
    static struct sim sim;
    const uint64_t down_ns[] = {2500 * NS_PER_MS, 30 * NS_PER_S, 290 * NS_PER_S, 470 * NS_PER_S};
    for (size_t i = 0; i < ARRAY_COUNT(periodic); i++) {
        for (size_t d = 0; d < ARRAY_COUNT(down_ns); d++) {
            struct sim_blocks live = {.count = 0};
            sim_start(&sim, &release_policies[periodic[i]], 4 * KIB);
            sim_up(&sim, &live, LIVE_BYTES, MIB);
            size_t count = 3 * 3600 * NS_PER_S / (down_ns[d] + 10 * NS_PER_S);
            struct sim_waves waves = sim_waves(&sim, 512 * MIB, 10 * NS_PER_S, down_ns[d], count);
            bool kept = down_ns[d] < AGE_NS;
            uint64_t want = LIVE_BYTES + (kept ? 512 * MIB : 0);
            cr_assert(waves.trough_bytes == want, "%s, %llu s apart: %llu MiB", sim.policy->name,
                      (unsigned long long)(down_ns[d] / NS_PER_S),
                      (unsigned long long)(waves.trough_bytes / MIB));
            cr_assert((sim.given_bytes == 0) == kept);
        }
    }
}

// A6: a large run is freed, small things settle in it, and a large one is wanted again: new memory.
// go1.11 then holds both for five minutes; go1.12 gives back what it took, as far as there is.
static void big_small_big(struct sim *sim, enum option_policy policy)
{
    struct sim_blocks big = {.count = 0};
    struct sim_blocks small = {.count = 0};
    sim_start(sim, &release_policies[policy], 4 * KIB);
    sim_up(sim, &big, 512 * MIB, 512 * MIB);
    sim_up(sim, &small, MIB, MIB); // so that the big run cannot grow at its end
    sim_run(sim, 5 * NS_PER_S);
    sim_down(sim, &big, 512 * MIB);
    sim_run(sim, 5 * NS_PER_S);
    sim_up(sim, &small, 8 * MIB, SIM_UNIT);
    sim_run(sim, 2 * NS_PER_S);
    sim_up(sim, &big, 512 * MIB, 512 * MIB);
    sim_run(sim, 5 * NS_PER_S);
}

EBB_TEST(offset, big_small_big)
{
    static struct sim sim;
    big_small_big(&sim, OPTION_POLICY_GO111);
    cr_assert(sim_rss(&sim) == (512 + 1 + 512) * MIB && sim.given_bytes == 0);
    big_small_big(&sim, OPTION_POLICY_GO112);
    cr_assert(sim_rss(&sim) == (8 + 1 + 512) * MIB, "%llu MiB",
              (unsigned long long)(sim_rss(&sim) / MIB));
    cr_assert(sim.given_bytes == 504 * MIB && sim.worked_ns == 504 * 200 * NS_PER_US);
}

// The largest runs go first: of free runs of 1, 2, 4 ... MiB, growth by 6 MiB takes the largest.
EBB_TEST(offset, takes_the_largest_runs)
{
    static struct sim sim;
    struct sim_blocks runs[5] = {{.count = 0}};
    struct sim_blocks kept = {.count = 0};
    sim_start(&sim, &release_policies[OPTION_POLICY_GO112], 4 * KIB);
    for (size_t i = 0; i < ARRAY_COUNT(runs); i++) {
        sim_up(&sim, &runs[i], MIB << i, MIB << i);
        sim_up(&sim, &kept, SIM_UNIT, SIM_UNIT);
    }
    for (size_t i = 0; i < ARRAY_COUNT(runs); i++) {
        sim_down(&sim, &runs[i], MIB << i);
    }
    sim_run(&sim, NS_PER_S);
    sim_up(&sim, &kept, 20 * MIB, 20 * MIB); // nothing that is free is so large
    sim_run(&sim, 2 * NS_PER_S);
    cr_assert(sim.given_bytes == 20 * MIB);
    size_t largest = 1 + 2 + 4 + 8 + 4 * SIM_UNIT / MIB; // where the run of 16 MiB begins
    size_t before = 0;
    for (size_t i = 0; i < largest * MIB / SIM_UNIT; i++) {
        before += sim.state[i] == SIM_RELEASED;
    }
    cr_assert(before == 4 * MIB / SIM_UNIT, "16 MiB of the largest run, 4 of the next");
}
