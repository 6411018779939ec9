// SPDX-License-Identifier: MIT
// Tier  quick
//
// Every policy through the same simulated hours: one peak, waves of 5 s, 60 s and 5 minutes,
// big-small-big, a kernel that refuses. What holds for all: no release of more than there is
// (simulate.c looks at each plan), what is paced keeps to 1 % of the time, and whatever happened, a
// process at rest comes to rest: no look after the policy has got what it wants. And what tells
// them apart: how much each keeps in the troughs.
//
// Go  none
#include "support/unit.h"

#include "base/option.h"
#include "simulate.h"

#define HOUR_NS (3600 * NS_PER_S)
#define LIVE_BYTES (64 * MIB)
#define WAVE_BYTES (512 * MIB)

static const uint64_t page_bytes_all[] = {4 * KIB, 16 * KIB, 64 * KIB};
static struct sim sim;

static bool unpaced(size_t policy)
{
    return policy == OPTION_POLICY_GO111 || policy == OPTION_POLICY_GO112 ||
           policy == OPTION_POLICY_NOW;
}

static uint64_t goal_bytes(uint64_t page)
{
    return release_goal(LIVE_BYTES, page) + page;
}

// An hour without a program's doing: the releaser is gone well before its end.
static void expect_rest(void)
{
    uint64_t before_ns = sim.now_ns;
    sim_run(&sim, HOUR_NS);
    cr_assert(!sim.awake, "%s: still awake: %s", sim.policy->name, sim.why);
    cr_assert(sim.look_ns < before_ns + 1000 * NS_PER_S, "%s: looked %llu s after",
              sim.policy->name, (unsigned long long)((sim.look_ns - before_ns) / NS_PER_S));
    uint64_t looks = sim.look_count;
    sim_run(&sim, 24 * HOUR_NS);
    cr_assert(sim.look_count == looks);
}

static void expect_cheap(size_t policy)
{
    uint64_t passed_ns = sim.now_ns - sim.start_ns;
    if (!unpaced(policy)) {
        uint64_t most_ns = passed_ns / 100 + 600 * NS_PER_MS;
        // A budget that ends may end inside a step.
        cr_assert(sim.worked_ns <= most_ns + most_ns / 50, "%s: %llu ms in %llu s",
                  sim.policy->name, (unsigned long long)(sim.worked_ns / NS_PER_MS),
                  (unsigned long long)(passed_ns / NS_PER_S));
    }
}

// What is left of a peak in the end: all of it, what the goal allows, or nothing: go1.16 and go1.19
// give up the 10 % of their goal at rest.
static void expect_end(size_t policy, uint64_t peak, uint64_t page)
{
    uint64_t rss = sim_rss(&sim);
    switch (policy) {
    case OPTION_POLICY_NEVER:
        cr_assert(rss == peak && sim.look_count == 0);
        break;
    case OPTION_POLICY_GO113:
        cr_assert(rss <= goal_bytes(page) && rss + SIM_UNIT + page > goal_bytes(page),
                  "%s: %llu KiB", sim.policy->name, (unsigned long long)(rss / KIB));
        break;
    default:
        cr_assert(rss == LIVE_BYTES, "%s: %llu MiB", sim.policy->name,
                  (unsigned long long)(rss / MIB));
        break;
    }
}

EBB_TEST(hours, one_peak)
{
    // After so many seconds the policy has all it wants; a second before the first it has not.
    static const uint64_t done_s[RELEASE_POLICY_COUNT] = {
        [OPTION_POLICY_GO116] = 3,   [OPTION_POLICY_GO111] = 450, [OPTION_POLICY_GO112] = 450,
        [OPTION_POLICY_GO113] = 262, [OPTION_POLICY_GO119] = 3,   [OPTION_POLICY_DECAY] = 10,
        [OPTION_POLICY_NEVER] = 0,   [OPTION_POLICY_NOW] = 0};
    for (size_t policy = 0; policy < RELEASE_POLICY_COUNT; policy++) {
        for (size_t p = 0; p < ARRAY_COUNT(page_bytes_all); p++) {
            struct sim_blocks live = {.count = 0};
            struct sim_blocks more = {.count = 0};
            sim_start(&sim, &release_policies[policy], page_bytes_all[p]);
            sim_up(&sim, &live, LIVE_BYTES, MIB);
            sim_up(&sim, &more, GIB, 4 * MIB);
            sim_run(&sim, 10 * NS_PER_S);
            sim_down(&sim, &more, GIB);
            sim_run(&sim, done_s[policy] * NS_PER_S + NS_PER_S / 10);
            expect_end(policy, LIVE_BYTES + GIB, page_bytes_all[p]);
            expect_rest();
            expect_end(policy, LIVE_BYTES + GIB, page_bytes_all[p]);
            expect_cheap(policy);
        }
    }
}

// The least RSS of the later troughs above the live bytes, in percent of the wave.
static uint64_t kept_percent(size_t policy, uint64_t up_ns, uint64_t down_ns, size_t count)
{
    struct sim_blocks live = {.count = 0};
    sim_start(&sim, &release_policies[policy], 4 * KIB);
    sim_up(&sim, &live, LIVE_BYTES, MIB);
    struct sim_waves waves = sim_waves(&sim, WAVE_BYTES, up_ns, down_ns, count);
    expect_cheap(policy);
    cr_assert(waves.peak_bytes == LIVE_BYTES + WAVE_BYTES, "waves fit into what is there");
    expect_rest();
    expect_end(policy, LIVE_BYTES + WAVE_BYTES, 4 * KIB);
    return (waves.trough_bytes - LIVE_BYTES) * 100 / WAVE_BYTES;
}

static void expect_kept(uint64_t up_ns, uint64_t down_ns, const uint64_t (*range)[2])
{
    size_t count = (size_t)(HOUR_NS / (up_ns + down_ns));
    for (size_t policy = 0; policy < RELEASE_POLICY_COUNT; policy++) {
        uint64_t kept = kept_percent(policy, up_ns, down_ns, count);
        cr_assert(kept >= range[policy][0] && kept <= range[policy][1], "%s keeps %llu %%",
                  release_policies[policy].name, (unsigned long long)kept);
    }
}

// 2.5 s up and 2.5 s down. The budget pays for a half of the waves in the long run (1 % of 5 s are
// 50 ms, a wave costs 102), so the least trough is one that was paid for. decay finds half of each
// wave still known from the one before.
EBB_TEST(hours, waves_of_five_seconds)
{
    static const uint64_t range[RELEASE_POLICY_COUNT][2] = {
        [OPTION_POLICY_GO116] = {1, 3},     [OPTION_POLICY_GO111] = {100, 100},
        [OPTION_POLICY_GO112] = {100, 100}, [OPTION_POLICY_GO113] = {97, 100},
        [OPTION_POLICY_GO119] = {1, 3},     [OPTION_POLICY_DECAY] = {45, 60},
        [OPTION_POLICY_NEVER] = {100, 100}, [OPTION_POLICY_NOW] = {0, 0}};
    expect_kept(2500 * NS_PER_MS, 2500 * NS_PER_MS, range);
}

// 30 s up and 30 s down: go1.13 falls by 4 MB a second, 117 MiB in a trough.
EBB_TEST(hours, waves_of_a_minute)
{
    static const uint64_t range[RELEASE_POLICY_COUNT][2] = {
        [OPTION_POLICY_GO116] = {0, 0},     [OPTION_POLICY_GO111] = {100, 100},
        [OPTION_POLICY_GO112] = {100, 100}, [OPTION_POLICY_GO113] = {76, 80},
        [OPTION_POLICY_GO119] = {0, 0},     [OPTION_POLICY_DECAY] = {0, 0},
        [OPTION_POLICY_NEVER] = {100, 100}, [OPTION_POLICY_NOW] = {0, 0}};
    expect_kept(30 * NS_PER_S, 30 * NS_PER_S, range);
}

// Case A5: go1.11 keeps the peak for ever; so does go1.12.
EBB_TEST(hours, waves_of_five_minutes)
{
    static const uint64_t range[RELEASE_POLICY_COUNT][2] = {
        [OPTION_POLICY_GO116] = {0, 0},     [OPTION_POLICY_GO111] = {100, 100},
        [OPTION_POLICY_GO112] = {100, 100}, [OPTION_POLICY_GO113] = {1, 2},
        [OPTION_POLICY_GO119] = {0, 0},     [OPTION_POLICY_DECAY] = {0, 0},
        [OPTION_POLICY_NEVER] = {100, 100}, [OPTION_POLICY_NOW] = {0, 0}};
    expect_kept(10 * NS_PER_S, 290 * NS_PER_S, range);
}

// Case A6, again and again: a large run, small things in its place, a larger run, which finds room
// only in new memory. Who keeps everything holds every run that ever was; go1.12, which gives back
// what it takes, as little as those with a goal; in between are those that take their time.
EBB_TEST(hours, big_small_big)
{
    for (size_t policy = 0; policy < RELEASE_POLICY_COUNT; policy++) {
        struct sim_blocks small = {.count = 0};
        struct sim_blocks big = {.count = 0};
        sim_start(&sim, &release_policies[policy], 4 * KIB);
        uint64_t rss = 0;
        uint64_t all = 0;
        for (uint64_t i = 0; i < 40; i++) {
            uint64_t bytes = 16 * MIB + i * MIB;
            all += bytes;
            sim_up(&sim, &big, bytes, bytes);
            sim_pin(&sim);
            sim_run(&sim, 3 * NS_PER_S);
            rss = sim_rss(&sim);
            sim_down(&sim, &big, bytes);
            sim_up(&sim, &small, MIB, SIM_UNIT);
            sim_run(&sim, 3 * NS_PER_S);
        }
        // 55 MiB of the last run, 39 of small things, 10 of pins.
        uint64_t needed = 104 * MIB;
        bool keeps = policy == OPTION_POLICY_NEVER || policy == OPTION_POLICY_GO111;
        bool slow = policy == OPTION_POLICY_GO113 || policy == OPTION_POLICY_DECAY;
        uint64_t most = keeps ? all + 50 * MIB : slow ? all / 2 : needed + needed / 5;
        cr_assert(rss <= most && rss >= (keeps ? all : needed), "%s: %llu MiB", sim.policy->name,
                  (unsigned long long)(rss / MIB));
        sim_down(&sim, &small, 40 * MIB);
        expect_rest();
    }
}

// Locked memory: nothing goes back, and nobody keeps asking.
EBB_TEST(hours, a_kernel_that_refuses)
{
    for (size_t policy = 0; policy < RELEASE_POLICY_COUNT; policy++) {
        struct sim_blocks live = {.count = 0};
        sim_start(&sim, &release_policies[policy], 4 * KIB);
        sim.refuses = true;
        sim_up(&sim, &live, LIVE_BYTES, MIB);
        sim_run(&sim, NS_PER_S);
        sim_down(&sim, &live, LIVE_BYTES);
        expect_rest();
        cr_assert(sim_rss(&sim) == LIVE_BYTES && sim.given_bytes == 0);
        cr_assert(sim.look_count < 1000, "%s: %llu looks", sim.policy->name,
                  (unsigned long long)sim.look_count);
    }
}

// Free kernel pages inside spans: who knows of holes gives them back, who imitates a Go that does
// not, keeps them; and candidates that turn out not to be keep nobody awake.
EBB_TEST(hours, holes)
{
    for (size_t policy = 0; policy < RELEASE_POLICY_COUNT; policy++) {
        for (int pinned = 0; pinned < 2; pinned++) {
            struct sim_blocks live = {.count = 0};
            sim_start(&sim, &release_policies[policy], 4 * KIB);
            sim.refuses = pinned != 0;
            sim_up(&sim, &live, LIVE_BYTES, MIB);
            sim_down(&sim, &live, 32 * MIB);
            sim.candidate_bytes = 100 * MIB;
            expect_rest();
            bool knows = policy == OPTION_POLICY_GO116 || policy == OPTION_POLICY_GO119 ||
                         policy == OPTION_POLICY_DECAY || policy == OPTION_POLICY_NOW;
            cr_assert((sim.hole_bytes > 90 * MIB) == (knows && !pinned), "%s", sim.policy->name);
        }
    }
}
