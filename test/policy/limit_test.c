// SPDX-License-Identifier: MIT
// Tier  quick
//
// The memory limit's decisions, each against its sentence in limit_int.h at both sides of every
// threshold: the levels of the plan and their order, the gate, the assist, and the bucket of CPU
// time over simulated minutes. Expected numbers are computed from the sentence with wide integers,
// not as the code does.
//
// Go  runtime/mgclimit_test.go, for the bucket.
#include "support/unit.h"

#include <string.h>

#include "release/limit_int.h"

#define LIMIT (1000 * MIB)
#define GROUP (1600 * MIB)

static const uint64_t byte_sizes[] = {
    0,
    1,
    19,
    20,
    21,
    99,
    100,
    101,
    MIB - 1,
    MIB,
    MIB + 1,
    10 * MIB,
    123456789,
    GIB,
    64 * GIB + 1,
    1ull << 47,
    1ull << 62,
    1ull << 63,
    UINT64_MAX - 1,
};

// share_of is bytes * part / whole, rounded down.
static uint64_t share_of(uint64_t bytes, unsigned part, unsigned whole)
{
    return (uint64_t)((unsigned __int128)bytes * part / whole);
}

// Nothing of what the tests look at: a limit and a cgroup, both far away, something to give.
static struct limit_view view_calm(void)
{
    return (struct limit_view){
        .limit_bytes = LIMIT,
        .mapped_bytes = 100 * MIB,
        .ready_bytes = 90 * MIB,
        .group_limit_bytes = GROUP,
        .group_charge_bytes = 200 * MIB,
        .pressure = PRESSURE_UNKNOWN,
    };
}

static void expect_plan(const struct limit_view *view, enum limit_level level, uint64_t bytes,
                        bool flush)
{
    struct limit_plan plan = limit_plan(view);
    cr_assert(plan.why != NULL && plan.why[0] != '\0');
    cr_assert(plan.level == level && plan.bytes == bytes && plan.flush == flush,
              "level %d bytes %llu flush %d (%s), not level %d bytes %llu flush %d",
              (int)plan.level, (unsigned long long)plan.bytes, plan.flush, plan.why, (int)level,
              (unsigned long long)bytes, flush);
}

// --- numbers ---

EBB_TEST(limit_numbers, goal_is_95_percent)
{
    for (size_t i = 0; i < ARRAY_COUNT(byte_sizes); i++) {
        cr_assert(limit_goal(byte_sizes[i]) == share_of(byte_sizes[i], 95, 100), "of %llu",
                  (unsigned long long)byte_sizes[i]);
    }
    cr_assert(limit_goal(LIMIT_NONE) == LIMIT_NONE);
}

EBB_TEST(limit_numbers, auto_is_nine_tenths_and_a_mebibyte_at_least)
{
    for (size_t i = 0; i < ARRAY_COUNT(byte_sizes); i++) {
        uint64_t want = max_u64(share_of(byte_sizes[i], 9, 10), MIB);
        cr_assert(limit_auto(byte_sizes[i]) == want, "of %llu", (unsigned long long)byte_sizes[i]);
    }
    // The smallest cgroup whose nine tenths are more than a MiB.
    cr_assert(limit_auto(1165085) == MIB && limit_auto(1165086) == MIB + 1);
    cr_assert(limit_auto(LIMIT_NONE) == LIMIT_NONE);
}

EBB_TEST(limit_numbers, charge_is_usage_without_page_cache)
{
    cr_assert(limit_charge(0, 0) == 0);
    cr_assert(limit_charge(0, 1) == 0);
    cr_assert(limit_charge(10, 9) == 1);
    cr_assert(limit_charge(10, 10) == 0);
    cr_assert(limit_charge(10, 11) == 0, "read at different times: never below zero");
    cr_assert(limit_charge(UINT64_MAX, 1) == UINT64_MAX - 1);
}

// --- the plan ---

EBB_TEST(limit_levels, calm_without_a_limit_and_far_below)
{
    struct limit_view view = view_calm();
    expect_plan(&view, LIMIT_CALM, 0, false);
    // Without any limit nothing else counts.
    view = (struct limit_view){
        .limit_bytes = LIMIT_NONE,
        .group_limit_bytes = LIMIT_NONE,
        .mapped_bytes = 64 * GIB,
        .ready_bytes = 32 * GIB,
        .rest_ns = 3600 * NS_PER_S,
        .group_charge_bytes = 64 * GIB,
        .pressure = 10000,
    };
    expect_plan(&view, LIMIT_CALM, 0, false);
}

EBB_TEST(limit_levels, goal_and_over)
{
    struct limit_view view = view_calm();
    const uint64_t goal = 950 * MIB;
    const struct {
        uint64_t mapped;
        enum limit_level level;
    } at[] = {
        {0, LIMIT_CALM},     {1, LIMIT_CALM},         {goal - 1, LIMIT_CALM},
        {goal, LIMIT_CALM},  {goal + 1, LIMIT_GOAL},  {LIMIT - 1, LIMIT_GOAL},
        {LIMIT, LIMIT_GOAL}, {LIMIT + 1, LIMIT_OVER}, {LIMIT * 2, LIMIT_OVER},
    };
    view.group_limit_bytes = LIMIT_NONE;
    for (size_t i = 0; i < ARRAY_COUNT(at); i++) {
        uint64_t excess = at[i].mapped > goal ? at[i].mapped - goal : 0;
        const uint64_t readies[] = {0, 1, excess, excess + 1, excess == 0 ? 0 : excess - 1, GIB};
        view.mapped_bytes = at[i].mapped;
        for (size_t r = 0; r < ARRAY_COUNT(readies); r++) {
            view.ready_bytes = readies[r];
            // Caches too when over, and below if what is ready does not suffice.
            bool flush = at[i].level == LIMIT_OVER || excess > readies[r];
            expect_plan(&view, at[i].level, min_u64(excess, readies[r]), flush);
        }
    }
}

EBB_TEST(limit_levels, near_the_limit_of_the_cgroup)
{
    struct limit_view view = view_calm();
    const uint64_t near = GROUP / 100 * 85;
    view.mapped_bytes = 900 * MIB; // ours, and less than an eighth of others
    view.group_limit_bytes = GROUP;
    view.limit_bytes = LIMIT_NONE;
    const uint64_t charges[] = {near - 1, near, near + 1, GROUP, GROUP + 1, UINT64_MAX};
    for (size_t i = 0; i < ARRAY_COUNT(charges); i++) {
        view.group_charge_bytes = charges[i];
        view.mapped_bytes = charges[i]; // nobody else
        bool is_near = charges[i] >= near;
        expect_plan(&view, is_near ? LIMIT_NEAR : LIMIT_CALM, is_near ? view.ready_bytes : 0,
                    is_near);
    }
    view.ready_bytes = 0;
    expect_plan(&view, LIMIT_NEAR, 0, true); // nothing is ready, but caches may hold some
}

EBB_TEST(limit_levels, pressure_of_a_tenth_of_the_time)
{
    struct limit_view view = view_calm();
    const struct {
        uint32_t pressure;
        bool holds;
    } at[] = {{0, false},   {1, false},    {999, false},
              {1000, true}, {10000, true}, {PRESSURE_UNKNOWN, false}};
    for (size_t i = 0; i < ARRAY_COUNT(at); i++) {
        view.pressure = at[i].pressure;
        expect_plan(&view, at[i].holds ? LIMIT_PRESSURE : LIMIT_CALM,
                    at[i].holds ? view.ready_bytes : 0, false);
    }
}

EBB_TEST(limit_levels, shared_with_others)
{
    struct limit_view view = view_calm();
    const uint64_t half = GROUP / 2;
    const uint64_t eighth = GROUP / 8;
    const uint64_t keep = GROUP / 16;
    const uint64_t charges[] = {eighth + 1, half - 1, half, half + 1, half + 100};
    const uint64_t others[] = {0, 1, eighth - 1, eighth, eighth + 1};
    const uint64_t readies[] = {0, 1, keep - 1, keep, keep + 1, 3 * keep};
    for (size_t c = 0; c < ARRAY_COUNT(charges); c++) {
        for (size_t o = 0; o < ARRAY_COUNT(others); o++) {
            for (size_t r = 0; r < ARRAY_COUNT(readies); r++) {
                view.group_charge_bytes = charges[c];
                view.mapped_bytes = charges[c] - others[o];
                view.ready_bytes = readies[r];
                bool shared = others[o] > eighth && charges[c] > half && readies[r] > keep;
                expect_plan(&view, shared ? LIMIT_SHARED : LIMIT_CALM,
                            shared ? readies[r] - keep : 0, false);
            }
        }
    }
    // Our own numbers may be ahead of the cgroup's: then there are no others.
    view.group_charge_bytes = half + 1;
    view.mapped_bytes = half + 2;
    expect_plan(&view, LIMIT_CALM, 0, false);
}

EBB_TEST(limit_levels, rest_keeps_a_sixteenth_of_the_tightest_limit)
{
    struct limit_view view = view_calm();
    const uint64_t limits[] = {LIMIT, GROUP, LIMIT_NONE};
    const uint64_t rests[] = {0, 1, NS_PER_S - 1, NS_PER_S, NS_PER_S + 1};
    for (size_t own = 0; own < ARRAY_COUNT(limits); own++) {
        for (size_t group = 0; group < ARRAY_COUNT(limits); group++) {
            view.limit_bytes = limits[own];
            view.group_limit_bytes = limits[group];
            uint64_t tightest = min_u64(limits[own], limits[group]);
            uint64_t keep = tightest / 16;
            const uint64_t readies[] = {0, keep - 1, keep, keep + 1};
            for (size_t i = 0; i < ARRAY_COUNT(readies) * ARRAY_COUNT(rests); i++) {
                view.ready_bytes = readies[i % ARRAY_COUNT(readies)];
                view.rest_ns = rests[i / ARRAY_COUNT(readies)];
                bool gives = tightest != LIMIT_NONE && view.rest_ns >= NS_PER_S &&
                             view.ready_bytes == keep + 1;
                expect_plan(&view, gives ? LIMIT_REST : LIMIT_CALM, gives ? 1 : 0, false);
            }
        }
    }
}

// Every set of conditions at once: the strongest names the level, the largest wish the bytes.
EBB_TEST(limit_levels, the_strongest_that_holds)
{
    const uint64_t ready = 300 * MIB;
    for (unsigned set = 0; set < 1u << 5; set++) {
        bool rest = set & 1, shared = set & 2, goal = set & 4, pressure = set & 8, near = set & 16;
        for (int over = 0; over < 2; over++) {
            struct limit_view view = {
                .limit_bytes = LIMIT,
                .mapped_bytes = over   ? 1001 * MIB
                                : goal ? 960 * MIB
                                       : 500 * MIB,
                .ready_bytes = ready,
                .rest_ns = rest ? NS_PER_S : 0,
                .group_limit_bytes = GROUP,
                .pressure = pressure ? 1000 : 999,
            };
            // Half full and others have more than an eighth, whatever of it is ours.
            view.group_charge_bytes = shared ? view.mapped_bytes + 301 * MIB : 0;
            if (near) {
                view.group_charge_bytes = 1360 * MIB;
            }
            bool is_shared = view.group_charge_bytes > 800 * MIB &&
                             view.group_charge_bytes > view.mapped_bytes + 200 * MIB;
            enum limit_level level = over        ? LIMIT_OVER
                                     : near      ? LIMIT_NEAR
                                     : pressure  ? LIMIT_PRESSURE
                                     : goal      ? LIMIT_GOAL
                                     : is_shared ? LIMIT_SHARED
                                     : rest      ? LIMIT_REST
                                                 : LIMIT_CALM;
            uint64_t bytes = near || pressure ? ready : 0;
            bytes = max_u64(bytes, is_shared ? ready - 100 * MIB : 0);
            bytes = max_u64(bytes, rest ? ready - LIMIT / 16 : 0);
            bytes = max_u64(bytes, over ? 51 * MIB : goal ? 10 * MIB : 0);
            expect_plan(&view, level, bytes, over || near);
        }
    }
    cr_assert(LIMIT_OVER > LIMIT_NEAR && LIMIT_NEAR > LIMIT_PRESSURE &&
              LIMIT_PRESSURE > LIMIT_GOAL && LIMIT_GOAL > LIMIT_SHARED &&
              LIMIT_SHARED > LIMIT_REST && LIMIT_REST > LIMIT_CALM);
}

// --- assist, full, alert ---

EBB_TEST(limit_growth, assist_gives_what_is_over)
{
    struct limit_view view = view_calm();
    const uint64_t mapped[] = {0, LIMIT - 1, LIMIT, LIMIT + 1, LIMIT + 2 * MIB};
    const uint64_t readies[] = {0, 1, MIB, 2 * MIB, GIB};
    for (size_t m = 0; m < ARRAY_COUNT(mapped); m++) {
        for (size_t r = 0; r < ARRAY_COUNT(readies); r++) {
            uint64_t excess = mapped[m] > LIMIT ? mapped[m] - LIMIT : 0;
            view.mapped_bytes = mapped[m];
            view.ready_bytes = readies[r];
            cr_assert(limit_assist(&view) == min_u64(excess, readies[r]));
        }
    }
    const uint64_t near = GROUP / 100 * 85;
    view = view_calm();
    view.group_charge_bytes = near - 1;
    cr_assert(limit_assist(&view) == 0);
    view.group_charge_bytes = near;
    cr_assert(limit_assist(&view) == view.ready_bytes);
    view.limit_bytes = LIMIT_NONE;
    cr_assert(limit_assist(&view) == view.ready_bytes);
    view.group_limit_bytes = LIMIT_NONE;
    cr_assert(limit_assist(&view) == 0);
}

EBB_TEST(limit_growth, full_at_95_percent_with_others_and_nothing_to_give)
{
    struct limit_view view = view_calm();
    const uint64_t full = GROUP / 100 * 95;
    const uint64_t charges[] = {full - 1, full, full + 1};
    const uint64_t others[] = {0, GROUP / 8 - 1, GROUP / 8, GROUP / 8 + 1};
    for (size_t c = 0; c < ARRAY_COUNT(charges); c++) {
        for (size_t o = 0; o < ARRAY_COUNT(others); o++) {
            view.group_charge_bytes = charges[c];
            view.mapped_bytes = charges[c] - others[o];
            view.ready_bytes = 0;
            cr_assert(limit_full(&view) == (charges[c] >= full && others[o] > GROUP / 8));
            view.ready_bytes = 1;
            cr_assert(!limit_full(&view));
        }
    }
    view.ready_bytes = 0;
    view.group_limit_bytes = LIMIT_NONE;
    view.group_charge_bytes = UINT64_MAX;
    cr_assert(!limit_full(&view));
}

EBB_TEST(limit_growth, alert_at_half_of_the_cgroup_or_four_fifths_of_the_limit)
{
    for (int minus = -1; minus <= 1; minus++) {
        struct limit_view view = view_calm();
        view.mapped_bytes = LIMIT / 5 * 4 + (uint64_t)minus;
        cr_assert(limit_alert(&view) == (minus >= 0));
        view.limit_bytes = LIMIT_NONE;
        cr_assert(!limit_alert(&view));
        view.group_charge_bytes = GROUP / 2 + (uint64_t)minus;
        cr_assert(limit_alert(&view) == (minus >= 0));
        view.group_limit_bytes = LIMIT_NONE;
        cr_assert(!limit_alert(&view));
    }
}

// --- harden ---

EBB_TEST(limit_harden, never_weakens_a_plan)
{
    const uint64_t sizes[] = {0, 1, 10, 11};
    for (size_t i = 0; i < 4u * 4 * 2 * 2 * 2; i++) {
        const struct release_plan before = {
            .bytes = sizes[i % 4],
            .min_age_ns = i / 16 % 2 != 0 ? 500 : 0,
            .no_holes = i / 32 % 2 != 0,
            .unpaced = i / 64 % 2 != 0,
            .wake_at_ns = 77,
            .order = RELEASE_LARGEST_FIRST,
            .offset = true,
            .sweep = true,
            .why = "the policy",
        };
        const struct limit_plan limit = {.bytes = sizes[i / 4 % 4], .why = "the limit"};
        struct release_plan plan = before;
        limit_harden(&plan, &limit);
        cr_assert(plan.bytes == max_u64(before.bytes, limit.bytes));
        cr_assert(plan.order == before.order && plan.wake_at_ns == before.wake_at_ns);
        cr_assert(plan.unpaced == before.unpaced && plan.offset && plan.sweep);
        if (limit.bytes == 0) {
            cr_assert(!plan.limited && plan.min_age_ns == before.min_age_ns);
            cr_assert(plan.no_holes == before.no_holes && strcmp(plan.why, "the policy") == 0);
            continue;
        }
        // Any page and any hole will do, however short it has been free.
        cr_assert(plan.min_age_ns == 0 && !plan.no_holes);
        // What was not paced and asks for as much already stays without a pace.
        bool was_enough = before.unpaced && before.bytes >= limit.bytes;
        cr_assert(plan.limited == !was_enough);
        cr_assert(strcmp(plan.why, was_enough ? "the policy" : "the limit") == 0);
    }
}

// --- the gate ---

EBB_TEST(limit_gate, asks_at_the_limit_and_refuses_above_a_hard_one)
{
    struct limit_view view = view_calm();
    const uint64_t goal = 950 * MIB;
    const uint64_t mapped[] = {0,         1,     goal - 1,  goal,     goal + 1,
                               LIMIT - 1, LIMIT, LIMIT + 1, 2 * LIMIT};
    view.group_limit_bytes = LIMIT_NONE;
    for (size_t m = 0; m < ARRAY_COUNT(mapped); m++) {
        view.mapped_bytes = mapped[m];
        // At or over the limit it is not asked at every page but after another MiB.
        uint64_t look = mapped[m] < LIMIT ? LIMIT : mapped[m] + MIB;
        cr_assert(limit_gate(&view, false).look_bytes == look);
        // A hard one is set anew at the goal, before it matters.
        cr_assert(limit_gate(&view, true).look_bytes == (mapped[m] < goal ? goal : look));
        cr_assert(limit_gate(&view, false).hard_bytes == LIMIT_NONE);
        cr_assert(limit_gate(&view, true).hard_bytes == LIMIT);
    }
    view.limit_bytes = LIMIT_NONE;
    cr_assert(limit_gate(&view, true).look_bytes == LIMIT_NONE);
    cr_assert(limit_gate(&view, true).hard_bytes == LIMIT_NONE);
    view.limit_bytes = 0;
    view.mapped_bytes = 0;
    cr_assert(limit_gate(&view, true).hard_bytes == 0);
    cr_assert(limit_gate(&view, true).look_bytes == MIB);
}

EBB_TEST(limit_gate, asks_after_a_quarter_of_the_room_in_the_cgroup)
{
    const uint64_t near = GROUP / 100 * 85;
    const struct {
        uint64_t room, step;
    } at[] = {
        {0, MIB},
        {1, MIB},
        {4 * MIB - 1, MIB},
        {4 * MIB, MIB},
        {4 * MIB + 4, MIB + 1},
        {64 * MIB - 4, 16 * MIB - 1},
        {64 * MIB, 16 * MIB},
        {64 * MIB + 4, 16 * MIB},
        {near, 16 * MIB},
    };
    for (size_t i = 0; i < ARRAY_COUNT(at); i++) {
        struct limit_view view = view_calm();
        view.group_charge_bytes = near - at[i].room;
        cr_assert(limit_gate(&view, false).look_bytes == view.mapped_bytes + at[i].step);
        view.limit_bytes = LIMIT_NONE;
        cr_assert(limit_gate(&view, false).look_bytes == view.mapped_bytes + at[i].step);
        // The limit is asked at, if it comes first.
        view.limit_bytes = view.mapped_bytes + at[i].step - 1;
        cr_assert(limit_gate(&view, false).look_bytes == view.limit_bytes);
        view.group_charge_bytes = GROUP + at[i].room; // no room at all
        view.limit_bytes = LIMIT_NONE;
        cr_assert(limit_gate(&view, false).look_bytes == view.mapped_bytes + MIB);
    }
}

// --- the bucket ---

#define WINDOW_NS (2 * NS_PER_S)
#define RUN_NS (120 * NS_PER_S)
#define PIECES_MAX 200000

static struct {
    uint64_t from_ns, to_ns;
} pieces[PIECES_MAX];
static size_t piece_count;

// A worker that always wants: each piece takes its CPU time in real time. Returns what it got.
static uint64_t work(uint64_t start_ns, uint64_t idle_ns, uint64_t *state)
{
    struct limit_cpu cpu = {0};
    uint64_t now_ns = start_ns;
    uint64_t got_ns = 0;
    piece_count = 0;
    while (now_ns < start_ns + RUN_NS) {
        if (!limit_cpu_may_spend(&cpu, now_ns)) {
            uint64_t ready_ns = limit_cpu_ready_ns(&cpu, now_ns);
            cr_assert(ready_ns > now_ns, "not allowed, and yet it is time");
            now_ns = ready_ns;
            continue;
        }
        uint64_t spent_ns = state == NULL ? LIMIT_CHUNK_NS : 1 + frame_below(state, LIMIT_CHUNK_NS);
        cr_assert(piece_count < PIECES_MAX);
        pieces[piece_count].from_ns = now_ns;
        now_ns += spent_ns;
        pieces[piece_count++].to_ns = now_ns;
        got_ns += spent_ns;
        limit_cpu_spend(&cpu, now_ns, spent_ns);
        if (idle_ns != 0 && frame_below(state, 500) == 0) {
            now_ns += frame_below(state, idle_ns);
        }
    }
    return got_ns;
}

// The most that lies in any window. A window that has it begins with a piece or ends with one.
static uint64_t most_in_window(void)
{
    uint64_t most_ns = 0;
    uint64_t inside_ns = 0;
    for (size_t first = 0, last = 0; last < piece_count; last++) {
        inside_ns += pieces[last].to_ns - pieces[last].from_ns;
        uint64_t begin_ns = pieces[last].to_ns - min_u64(pieces[last].to_ns, WINDOW_NS);
        while (pieces[first].to_ns <= begin_ns) {
            inside_ns -= pieces[first].to_ns - pieces[first].from_ns;
            first++;
        }
        uint64_t cut_ns = begin_ns > pieces[first].from_ns ? begin_ns - pieces[first].from_ns : 0;
        most_ns = max_u64(most_ns, inside_ns - cut_ns);
    }
    return most_ns;
}

EBB_TEST(limit_cpu, at_most_half_of_a_processor_and_no_less_than_two_fifths)
{
    uint64_t state = frame_seed();
    const uint64_t starts[] = {0, 1, NS_PER_S, 1000000 * NS_PER_S + 7};
    for (size_t s = 0; s < ARRAY_COUNT(starts); s++) {
        uint64_t got_ns = work(starts[s], 0, NULL);
        cr_assert(most_in_window() <= WINDOW_NS / 2, "%llu ns in two seconds",
                  (unsigned long long)most_in_window());
        cr_assert(got_ns >= RUN_NS / 100 * 40, "only %llu ns", (unsigned long long)got_ns);
        cr_assert(got_ns <= RUN_NS / 100 * 46, "%llu ns", (unsigned long long)got_ns);
        got_ns = work(starts[s], 0, &state);
        cr_assert(most_in_window() <= WINDOW_NS / 2);
        cr_assert(got_ns >= RUN_NS / 100 * 40);
        // With pauses, in which the bucket empties.
        work(starts[s], NS_PER_S, &state);
        cr_assert(most_in_window() <= WINDOW_NS / 2);
    }
}

EBB_TEST(limit_cpu, ready_is_the_exact_moment)
{
    const uint64_t levels[] = {0,
                               1,
                               98 * NS_PER_MS,
                               99 * NS_PER_MS - 1,
                               99 * NS_PER_MS,
                               99 * NS_PER_MS + 1,
                               100 * NS_PER_MS,
                               100 * NS_PER_MS + 44,
                               250 * NS_PER_MS,
                               10 * NS_PER_S + 1};
    for (size_t i = 0; i < ARRAY_COUNT(levels); i++) {
        const uint64_t now_ns = 5 * NS_PER_S;
        const struct limit_cpu cpu = {levels[i], now_ns};
        struct limit_cpu copy = cpu;
        bool may = levels[i] <= 99 * NS_PER_MS; // room for one piece
        cr_assert(limit_cpu_may_spend(&copy, now_ns) == may);
        uint64_t ready_ns = limit_cpu_ready_ns(&cpu, now_ns);
        cr_assert((ready_ns == now_ns) == may);
        copy = cpu;
        cr_assert(limit_cpu_may_spend(&copy, ready_ns));
        if (!may) {
            copy = cpu;
            cr_assert(!limit_cpu_may_spend(&copy, ready_ns - 1));
        }
        // Asked later it says the same, but for the nanoseconds that were rounded.
        for (uint64_t later = 1; later < 1000 && now_ns + later < ready_ns; later += 17) {
            uint64_t again_ns = limit_cpu_ready_ns(&cpu, now_ns + later);
            cr_assert(again_ns >= ready_ns && again_ns <= ready_ns + 3);
        }
    }
}

// Threads read the clock one after another and come in another order.
EBB_TEST(limit_cpu, a_time_that_lies_back_leaks_nothing)
{
    struct limit_cpu cpu = {0, 10 * NS_PER_S};
    limit_cpu_spend(&cpu, 10 * NS_PER_S, 100 * NS_PER_MS);
    cr_assert(!limit_cpu_may_spend(&cpu, 1));
    limit_cpu_spend(&cpu, 1, NS_PER_MS);
    cr_assert(cpu.updated_ns == 10 * NS_PER_S && cpu.level_ns == 101 * NS_PER_MS);
}

// --- overdue and passing ---

EBB_TEST(limit_ends, overdue_after_a_stretch_over_the_limit_with_nothing_to_release)
{
    const uint64_t after_ns = 3 * NS_PER_S;
    struct limit_view view = {.limit_bytes = LIMIT, .mapped_bytes = LIMIT + 2, .ready_bytes = 1};
    uint64_t since_ns = 0;
    cr_assert(!limit_overdue(&since_ns, 1000, &view, after_ns));
    cr_assert(since_ns == 1000);
    cr_assert(!limit_overdue(&since_ns, 1000 + after_ns - 1, &view, after_ns));
    cr_assert(limit_overdue(&since_ns, 1000 + after_ns, &view, after_ns));
    cr_assert(limit_overdue(&since_ns, 1000 + after_ns + 1, &view, after_ns));
    cr_assert(!limit_overdue(&since_ns, 1000 + after_ns, &view, 0), "0: never");
    // Another thread began the stretch a moment after this one looked at the clock.
    cr_assert(!limit_overdue(&since_ns, 999, &view, after_ns));
    cr_assert(since_ns == 1000);
    // Enough is ready, or it is not over the limit: the stretch is over.
    view.ready_bytes = 2;
    cr_assert(!limit_overdue(&since_ns, 1000 + after_ns, &view, after_ns) && since_ns == 0);
    view.ready_bytes = 0;
    cr_assert(!limit_overdue(&since_ns, 2000, &view, after_ns) && since_ns == 2000);
    view.mapped_bytes = LIMIT;
    cr_assert(!limit_overdue(&since_ns, 2000 + after_ns, &view, after_ns) && since_ns == 0);
    view.mapped_bytes = LIMIT + 1;
    cr_assert(!limit_overdue(&since_ns, 0, &view, after_ns) && since_ns != 0,
              "at the clock's zero");
    view.limit_bytes = LIMIT_NONE;
    cr_assert(!limit_overdue(&since_ns, 1 + after_ns, &view, after_ns) && since_ns == 0);
}

EBB_TEST(limit_ends, passing_is_the_first_or_after_a_twentieth_has_been_freed)
{
    const uint64_t limits[] = {0, 1, 19, 20, 21, 39, 40, 131072};
    for (size_t i = 0; i < ARRAY_COUNT(limits); i++) {
        uint64_t step = max_u64(limits[i] / 20, 1); // nothing freed is no passing
        cr_assert(limit_passing(0, UINT64_MAX, limits[i]));
        cr_assert(limit_passing(1000, UINT64_MAX, limits[i]));
        cr_assert(!limit_passing(1000, 1000, limits[i]), "limit %llu",
                  (unsigned long long)limits[i]);
        cr_assert(!limit_passing(1000 + step - 1, 1000, limits[i]));
        cr_assert(limit_passing(1000 + step, 1000, limits[i]));
        cr_assert(limit_passing(1000 + step + 1, 1000, limits[i]));
        // Another thread has passed since this one read what has been freed.
        cr_assert(!limit_passing(999, 1000, limits[i]));
        cr_assert(!limit_passing(0, 1000, limits[i]));
    }
}
