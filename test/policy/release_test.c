// SPDX-License-Identifier: MIT
// Tier  quick
//
// The release policies, epochs and the budget, each against the sentences in its header: what the
// goal is, when nothing is released, when an epoch ends, how much CPU time may be spent. Numbers
// are computed here from the sentence, in another way than the code does.
//
// Go  runtime/mgcscavenge_test.go, which has no test of the pacing.
#include "support/unit.h"

#include <string.h>

#include "base/option.h"
#include "release/release.h"

static const uint64_t page_bytes_all[] = {4 * KIB, 16 * KIB, 64 * KIB};

// The sentence of policy_go116.c: pages in use at the end of the last epoch plus 10 %, rounded up
// to the kernel's page.
static uint64_t goal_of(uint64_t used_bytes, uint64_t page_bytes)
{
    unsigned __int128 exact_tenths = (unsigned __int128)used_bytes * 11;
    unsigned __int128 page_tenths = (unsigned __int128)page_bytes * 10;
    return (uint64_t)((exact_tenths + page_tenths - 1) / page_tenths) * page_bytes;
}

static struct release_view view_of(uint64_t used, uint64_t retained, uint64_t ready, uint64_t page)
{
    return (struct release_view){
        .now_ns = 1000 * NS_PER_S,
        .used_bytes = retained - ready,
        .retained_bytes = retained,
        .ready_bytes = ready,
        .page_bytes = page,
        .epoch_count = 1,
        .epoch_used_bytes = used,
    };
}

// --- policies ---

EBB_TEST(release_policy, table_is_in_the_order_of_the_option)
{
    size_t option = option_index("policy");
    size_t len;
    cr_assert(option != SIZE_MAX);
    for (size_t i = 0; i < RELEASE_POLICY_COUNT; i++) {
        const char *choice = option_choice(option, i, &len);
        cr_assert(choice != NULL);
        cr_assert(len == strlen(release_policies[i].name) &&
                      memcmp(choice, release_policies[i].name, len) == 0,
                  "policy %zu is %s, the option says %.*s", i, release_policies[i].name, (int)len,
                  choice);
    }
    cr_assert(option_choice(option, RELEASE_POLICY_COUNT, &len) == NULL);
    cr_assert(release_policies[OPTION_POLICY_GO116].plan == release_plan_go116);
    cr_assert(release_policies[OPTION_POLICY_GO111].plan == release_plan_go111);
    cr_assert(release_policies[OPTION_POLICY_GO112].plan == release_plan_go112);
    cr_assert(release_policies[OPTION_POLICY_GO113].plan == release_plan_go113);
    cr_assert(release_policies[OPTION_POLICY_GO119].plan == release_plan_go119);
    cr_assert(release_policies[OPTION_POLICY_DECAY].plan == release_plan_decay);
    cr_assert(release_policies[OPTION_POLICY_NEVER].plan == release_plan_never);
    cr_assert(release_policies[OPTION_POLICY_NOW].plan == release_plan_now);
}

EBB_TEST(release_policy, go116_waits_for_the_first_epoch)
{
    struct release_view view = view_of(0, GIB, GIB, 4 * KIB);
    view.epoch_count = 0;
    cr_assert(release_plan_go116(&view).bytes == 0);
    view.epoch_count = 1;
    cr_assert(release_plan_go116(&view).bytes == GIB);
}

EBB_TEST(release_policy, go116_at_the_borders_of_the_goal)
{
    const uint64_t used_all[] = {0,        8 * KIB, 80 * KIB, 88 * KIB,
                                 10 * MIB, GIB,     64 * GIB, 100 * 1000 * 8 * KIB};
    for (size_t p = 0; p < ARRAY_COUNT(page_bytes_all); p++) {
        uint64_t page = page_bytes_all[p];
        for (size_t u = 0; u < ARRAY_COUNT(used_all); u++) {
            uint64_t goal = goal_of(used_all[u], page);
            // One page over the goal is the limit: below it nothing is released.
            const uint64_t retained_all[] = {0,
                                             1,
                                             goal - (goal != 0),
                                             goal,
                                             goal + 1,
                                             goal + page - 1,
                                             goal + page,
                                             goal + page + 1,
                                             goal + 1000 * page};
            for (size_t r = 0; r < ARRAY_COUNT(retained_all); r++) {
                uint64_t retained = retained_all[r];
                uint64_t excess = retained > goal ? retained - goal : 0;
                uint64_t want = excess < page ? 0 : excess;
                struct release_view view = view_of(used_all[u], retained, retained, page);
                struct release_plan plan = release_plan_go116(&view);
                cr_assert(plan.bytes == want && !plan.unpaced && plan.why != NULL,
                          "page %llu used %llu retained %llu: %llu, not %llu",
                          (unsigned long long)page, (unsigned long long)used_all[u],
                          (unsigned long long)retained, (unsigned long long)plan.bytes,
                          (unsigned long long)want);
            }
        }
    }
}

// At rest for two seconds the 10 % go too.
EBB_TEST(release_policy, go116_at_rest)
{
    const uint64_t rest_all[] = {0, 2 * NS_PER_S - 1, 2 * NS_PER_S, 2 * NS_PER_S + 1,
                                 3600 * NS_PER_S};
    for (size_t p = 0; p < ARRAY_COUNT(page_bytes_all); p++) {
        uint64_t page = page_bytes_all[p];
        for (size_t i = 0; i < ARRAY_COUNT(rest_all); i++) {
            uint64_t used = 100 * MIB + 1;
            bool rest = rest_all[i] >= 2 * NS_PER_S;
            uint64_t goal = rest ? (used + page - 1) / page * page : goal_of(used, page);
            for (uint64_t over = page - 1; over <= page + 1; over++) {
                struct release_view view = view_of(used, goal + over, GIB, page);
                view.rest_ns = rest_all[i];
                cr_assert(release_plan_go116(&view).bytes == (over < page ? 0 : over));
            }
        }
    }
}

EBB_TEST(release_policy, go116_goal_is_exact_for_every_number_of_pages)
{
    for (size_t p = 0; p < ARRAY_COUNT(page_bytes_all); p++) {
        uint64_t page = page_bytes_all[p];
        for (uint64_t heap_pages = 0; heap_pages < 20000; heap_pages++) {
            uint64_t used = heap_pages * 8 * KIB;
            uint64_t retained = used + 100 * GIB;
            struct release_view view = view_of(used, retained, 100 * GIB, page);
            uint64_t got = release_plan_go116(&view).bytes;
            uint64_t want = min_u64(retained - goal_of(used, page), 100 * GIB);
            cr_assert(got == want, "page %llu, %llu heap pages", (unsigned long long)page,
                      (unsigned long long)heap_pages);
        }
    }
}

EBB_TEST(release_policy, go116_releases_at_most_what_is_ready)
{
    const uint64_t ready_all[] = {0, 1, 8 * KIB, 99 * MIB, 100 * MIB, 101 * MIB};
    for (size_t i = 0; i < ARRAY_COUNT(ready_all); i++) {
        // In use at the epoch's end 100 MiB, 110 the goal, 210 retained: 100 over.
        struct release_view view = view_of(100 * MIB, 210 * MIB, ready_all[i], 4 * KIB);
        cr_assert(release_plan_go116(&view).bytes == min_u64(ready_all[i], 100 * MIB));
    }
}

EBB_TEST(release_policy, never_and_now)
{
    const uint64_t ready_all[] = {0, 1, 8 * KIB, GIB};
    for (uint64_t epochs = 0; epochs < 3; epochs++) {
        for (size_t i = 0; i < ARRAY_COUNT(ready_all); i++) {
            struct release_view view = view_of(MIB, 2 * GIB, ready_all[i], 4 * KIB);
            view.epoch_count = epochs;
            view.limit_bytes = MIB;
            cr_assert(release_plan_never(&view).bytes == 0);
            cr_assert(release_plan_never(&view).wake_at_ns == UINT64_MAX);
            struct release_plan now = release_plan_now(&view);
            cr_assert(now.bytes == ready_all[i] && now.unpaced && now.wake_at_ns == 0);
            view.candidate_bytes = 12 * KIB;
            now = release_plan_now(&view);
            cr_assert(now.bytes == ready_all[i] + 12 * KIB && !now.no_holes);
        }
    }
    cr_assert(release_policies[OPTION_POLICY_NEVER].ring_bytes == UINT64_MAX, "never is not woken");
    cr_assert(release_policies[OPTION_POLICY_NOW].ring_bytes == 128 * KIB);
}

EBB_TEST(release_policy, advice_is_the_options_or_the_policys)
{
    for (size_t i = 0; i < RELEASE_POLICY_COUNT; i++) {
        const struct release_policy *policy = &release_policies[i];
        bool lazily = i == OPTION_POLICY_GO112 || i == OPTION_POLICY_GO113;
        cr_assert(release_advice(policy, OPTION_MADVISE_DONTNEED) == VM_ADVICE_DONTNEED);
        cr_assert(release_advice(policy, OPTION_MADVISE_FREE) == VM_ADVICE_FREE);
        cr_assert(release_advice(policy, OPTION_MADVISE_AUTO) ==
                      (lazily ? VM_ADVICE_FREE : VM_ADVICE_DONTNEED),
                  "%s", policy->name);
        cr_assert(policy->plan != NULL && policy->help != NULL);
    }
}

// --- epochs: as many bytes freed as were in use at its start (4 MiB at least), or a second's rest
// ---

static bool look(struct release_epoch *epoch, struct release_view *view, uint64_t now_ns,
                 uint64_t freed_bytes, uint64_t ops_count)
{
    view->now_ns = now_ns;
    view->freed_bytes = freed_bytes;
    view->ops_count = ops_count;
    bool ended = release_epoch_update(epoch, view);
    cr_assert(view->epoch_count == epoch->count);
    cr_assert(view->epoch_used_bytes == epoch->used_bytes);
    return ended;
}

EBB_TEST(release_epoch, ends_after_enough_frees)
{
    const uint64_t used_all[] = {0, MIB, 4 * MIB - 1, 4 * MIB, 4 * MIB + 1, GIB};
    for (size_t i = 0; i < ARRAY_COUNT(used_all); i++) {
        struct release_epoch epoch = {0};
        struct release_view view = {.used_bytes = used_all[i]};
        uint64_t now_ns = 5 * NS_PER_S;
        uint64_t ops = 1000;
        // The first epoch begins with nothing in use.
        cr_assert(!look(&epoch, &view, now_ns, 4 * MIB - 1, ops));
        cr_assert(look(&epoch, &view, now_ns, 4 * MIB, ops += 1000));
        cr_assert(view.epoch_count == 1 && view.epoch_used_bytes == used_all[i]);
        uint64_t limit = used_all[i] > 4 * MIB ? used_all[i] : 4 * MIB;
        uint64_t freed = 4 * MIB;
        cr_assert(!look(&epoch, &view, ++now_ns, freed, ops += 1000));
        cr_assert(!look(&epoch, &view, ++now_ns, freed + 1, ops += 1000));
        cr_assert(!look(&epoch, &view, ++now_ns, freed + limit - 1, ops += 1000));
        view.used_bytes = 7 * MIB;
        cr_assert(look(&epoch, &view, ++now_ns, freed + limit, ops += 1000));
        cr_assert(view.epoch_count == 2 && view.epoch_used_bytes == 7 * MIB);
        cr_assert(!look(&epoch, &view, ++now_ns, freed + limit, ops += 1000));
        cr_assert(!look(&epoch, &view, ++now_ns, freed + limit + 7 * MIB - 1, ops += 1000));
        cr_assert(look(&epoch, &view, ++now_ns, freed + limit + 7 * MIB + 1, ops += 1000));
    }
}

EBB_TEST(release_epoch, ends_once_in_a_rest)
{
    struct release_epoch epoch = {0};
    struct release_view view = {.used_bytes = 10 * MIB};
    uint64_t start_ns = 77 * NS_PER_S;
    cr_assert(!look(&epoch, &view, start_ns, 0, 1000));
    cr_assert(view.rest_ns == 0);
    cr_assert(!look(&epoch, &view, start_ns + 1, 0, 1000));
    cr_assert(!look(&epoch, &view, start_ns + NS_PER_S - 1, 0, 1000));
    cr_assert(look(&epoch, &view, start_ns + NS_PER_S, 0, 1000));
    cr_assert(view.epoch_count == 1 && view.epoch_used_bytes == 10 * MIB);
    cr_assert(view.rest_ns == NS_PER_S);
    // The same rest goes on: no further epoch, however long.
    cr_assert(!look(&epoch, &view, start_ns + 3600 * NS_PER_S, 0, 1000));
    cr_assert(view.rest_ns == 3600 * NS_PER_S && view.epoch_count == 1);
    // The heap moves, and rests again.
    uint64_t moved_ns = start_ns + 4000 * NS_PER_S;
    view.used_bytes = 20 * MIB;
    cr_assert(!look(&epoch, &view, moved_ns, 0, 5000));
    cr_assert(view.rest_ns == 0);
    cr_assert(!look(&epoch, &view, moved_ns + NS_PER_S - 1, 0, 5000));
    cr_assert(look(&epoch, &view, moved_ns + NS_PER_S, 0, 5000));
    cr_assert(view.epoch_count == 2 && view.epoch_used_bytes == 20 * MIB);
}

EBB_TEST(release_epoch, motion_begins_at_its_number_of_operations)
{
    const uint64_t moves[] = {0, 1, RELEASE_REST_OPS - 1, RELEASE_REST_OPS, RELEASE_REST_OPS + 1};
    for (size_t i = 0; i < ARRAY_COUNT(moves); i++) {
        struct release_epoch epoch = {0};
        struct release_view view = {.used_bytes = MIB};
        look(&epoch, &view, NS_PER_S, 0, 1000);
        look(&epoch, &view, NS_PER_S + NS_PER_S / 2, 0, 1000 + moves[i]);
        bool moved = moves[i] >= RELEASE_REST_OPS;
        cr_assert(view.rest_ns == (moved ? 0 : NS_PER_S / 2), "%llu operations",
                  (unsigned long long)moves[i]);
    }
}

// One operation may free a gigabyte: that is motion too, and the rest after it ends an epoch.
EBB_TEST(release_epoch, a_large_free_is_motion)
{
    const uint64_t freed_all[] = {0, 1, RELEASE_REST_BYTES - 1, RELEASE_REST_BYTES,
                                  RELEASE_REST_BYTES + 1};
    for (size_t i = 0; i < ARRAY_COUNT(freed_all); i++) {
        struct release_epoch epoch = {0};
        struct release_view view = {.used_bytes = 10 * GIB};
        look(&epoch, &view, NS_PER_S, 0, 1000);
        cr_assert(look(&epoch, &view, 2 * NS_PER_S, 0, 1000), "at rest");
        view.used_bytes = 2 * GIB;
        cr_assert(!look(&epoch, &view, 9 * NS_PER_S, freed_all[i], 1001));
        cr_assert(view.freed_ns == (freed_all[i] != 0 ? 9 * NS_PER_S : 0));
        bool moved = freed_all[i] >= RELEASE_REST_BYTES;
        cr_assert(view.rest_ns == (moved ? 0 : 8 * NS_PER_S));
        cr_assert(look(&epoch, &view, 10 * NS_PER_S, freed_all[i], 1001) == moved);
        cr_assert(view.epoch_used_bytes == 2 * GIB);
        cr_assert(view.freed_ns == (freed_all[i] != 0 ? 9 * NS_PER_S : 0));
    }
}

// While the heap rests, a look that finds free pages inside spans lowers the use of the epoch, and
// nothing raises it.
EBB_TEST(release_epoch, is_corrected_downwards_at_rest)
{
    struct release_epoch epoch = {0};
    struct release_view view = {.used_bytes = 10 * GIB};
    look(&epoch, &view, NS_PER_S, 0, 1000);
    view.used_bytes = 9 * GIB;
    look(&epoch, &view, NS_PER_S + 1, 0, 1000);
    cr_assert(view.epoch_used_bytes == 0, "no epoch has ended");
    cr_assert(look(&epoch, &view, 2 * NS_PER_S, 0, 1000));
    cr_assert(view.epoch_used_bytes == 9 * GIB);
    view.used_bytes = GIB;
    cr_assert(!look(&epoch, &view, 3 * NS_PER_S, 0, 1000));
    cr_assert(view.epoch_used_bytes == GIB && view.epoch_count == 1);
    view.used_bytes = 2 * GIB;
    cr_assert(!look(&epoch, &view, 4 * NS_PER_S, 0, 1000));
    cr_assert(view.epoch_used_bytes == GIB);
    // In motion it stays what it was at the end.
    cr_assert(!look(&epoch, &view, 5 * NS_PER_S, 0, 1000 + RELEASE_REST_OPS));
    view.used_bytes = MIB;
    cr_assert(!look(&epoch, &view, 5 * NS_PER_S + 1, 0, 1000 + RELEASE_REST_OPS));
    cr_assert(view.epoch_used_bytes == GIB);
}

// While the heap rests, looks find kernel pages inside spans that had been free before: they were
// never used, and were candidates when the epoch ended. An epoch that ended in motion stays.
EBB_TEST(release_epoch, is_corrected_by_what_looks_find_at_rest)
{
    for (int rest = 0; rest < 2; rest++) {
        struct release_epoch epoch = {0};
        struct release_view view = {.used_bytes = 10 * MIB, .candidate_bytes = MIB};
        cr_assert(look(&epoch, &view, NS_PER_S, 4 * MIB, 1000));
        if (rest) {
            cr_assert(look(&epoch, &view, 2 * NS_PER_S, 4 * MIB, 1000));
        }
        view = (struct release_view){.used_bytes = 7 * MIB, .candidate_bytes = 4 * MIB};
        cr_assert(!look(&epoch, &view, 2 * NS_PER_S - !rest, 4 * MIB, 1001));
        cr_assert(view.epoch_used_bytes == (rest ? 7 : 10) * MIB);
        cr_assert(view.epoch_candidate_bytes == (rest ? 4 : 1) * MIB);
        view = (struct release_view){.used_bytes = 8 * MIB, .candidate_bytes = MIB};
        cr_assert(!look(&epoch, &view, 2 * NS_PER_S - !rest, 4 * MIB, 1002));
        cr_assert(view.epoch_used_bytes == (rest ? 7 : 10) * MIB, "it does not rise");
        cr_assert(view.epoch_candidate_bytes == (rest ? 4 : 1) * MIB);
    }
}

EBB_TEST(release_epoch, remembers_what_was_retained_at_its_end)
{
    struct release_epoch epoch = {0};
    struct release_view view = {.used_bytes = MIB,
                                .retained_bytes = 9 * MIB,
                                .candidate_bytes = 3 * MIB,
                                .huge_bytes = 2 * MIB};
    cr_assert(look(&epoch, &view, 5 * NS_PER_S, 4 * MIB, 1000));
    for (int i = 0; i < 2; i++) {
        cr_assert(view.epoch_retained_bytes == 9 * MIB && view.epoch_candidate_bytes == 3 * MIB &&
                  view.epoch_huge_bytes == 2 * MIB && view.epoch_ended_ns == 5 * NS_PER_S);
        view = (struct release_view){.used_bytes = GIB, .retained_bytes = 2 * GIB};
        cr_assert(!look(&epoch, &view, 5 * NS_PER_S + 1, 4 * MIB + 1, 2000));
    }
}

// --- the budget: CPU time earned at percent of real time, at most a minute's worth ---

// Steps of step_ns of CPU time, as many as are allowed, for seconds of real time; what was spent.
struct spending {
    uint64_t spent_ns;
    uint64_t refill_count; // times it had to wait
    uint64_t longest_wait_ns;
};

static struct spending spend(struct release_budget *budget, uint64_t from_ns, uint64_t for_ns,
                             uint64_t step_ns)
{
    struct spending sum = {0, 0, 0};
    uint64_t now_ns = from_ns;
    while (now_ns < from_ns + for_ns) {
        uint64_t ready_ns = release_budget_ready_ns(budget, now_ns);
        bool may = release_budget_may_spend(budget, now_ns);
        cr_assert(may == (ready_ns == now_ns), "ready_ns and may_spend disagree");
        if (may) {
            release_budget_spend(budget, step_ns);
            sum.spent_ns += step_ns;
            now_ns += step_ns; // it works for as long as it computes
        } else {
            cr_assert(ready_ns > now_ns);
            sum.refill_count++;
            sum.longest_wait_ns = max_u64(sum.longest_wait_ns, ready_ns - now_ns);
            now_ns = ready_ns;
            cr_assert(release_budget_ready_ns(budget, now_ns) <= now_ns + 200,
                      "not ready when it said so");
            now_ns = max_u64(now_ns, release_budget_ready_ns(budget, now_ns));
        }
    }
    return sum;
}

EBB_TEST(release_budget, never_more_than_its_percent_and_one_burst)
{
    const uint32_t percents[] = {1, 2, 10, 50};
    const uint64_t steps_ns[] = {10 * NS_PER_US, 137 * NS_PER_US, NS_PER_MS, 5 * NS_PER_MS};
    for (size_t p = 0; p < ARRAY_COUNT(percents); p++) {
        for (size_t s = 0; s < ARRAY_COUNT(steps_ns); s++) {
            struct release_budget budget;
            uint64_t start_ns = 123456789;
            // Hours, as far as that makes no more than some hundred thousand steps.
            uint64_t hours_ns =
                min_u64(10 * 3600 * NS_PER_S, steps_ns[s] * 300000 / percents[p] * 100);
            uint64_t burst_ns = 60 * NS_PER_S / 100 * percents[p];
            release_budget_init(&budget, percents[p], start_ns);
            struct spending sum = spend(&budget, start_ns, hours_ns, steps_ns[s]);
            uint64_t earned_ns = hours_ns / 100 * percents[p];
            // A step is not interrupted: each time the budget ends, it may end inside a step.
            uint64_t most_ns = burst_ns + earned_ns + (sum.refill_count + 1) * steps_ns[s];
            cr_assert(sum.spent_ns <= most_ns, "%u %%, steps of %llu ns: %llu ns, at most %llu",
                      percents[p], (unsigned long long)steps_ns[s],
                      (unsigned long long)sum.spent_ns, (unsigned long long)most_ns);
            // And what is earned can be spent.
            cr_assert(sum.spent_ns >= earned_ns - earned_ns / 50, "%u %%: only %llu of %llu ns",
                      percents[p], (unsigned long long)sum.spent_ns, (unsigned long long)earned_ns);
        }
    }
}

EBB_TEST(release_budget, a_burst_is_a_minutes_worth)
{
    struct release_budget budget;
    release_budget_init(&budget, 1, NS_PER_S);
    uint64_t spent_ns = 0;
    while (release_budget_may_spend(&budget, NS_PER_S)) { // time stands still: nothing is earned
        release_budget_spend(&budget, NS_PER_MS);
        spent_ns += NS_PER_MS;
        cr_assert(spent_ns <= 600 * NS_PER_MS);
    }
    cr_assert(spent_ns == 600 * NS_PER_MS, "1 %% of 60 s");
}

EBB_TEST(release_budget, an_empty_one_waits_for_a_tenth)
{
    struct release_budget budget;
    release_budget_init(&budget, 1, 0);
    release_budget_spend(&budget, 600 * NS_PER_MS);
    cr_assert(!release_budget_may_spend(&budget, 0));
    uint64_t ready_ns = release_budget_ready_ns(&budget, 0);
    cr_assert(ready_ns == 6 * NS_PER_S, "60 ms at 1 %%");
    cr_assert(!release_budget_may_spend(&budget, ready_ns - NS_PER_MS));
    cr_assert(release_budget_may_spend(&budget, ready_ns));
}

EBB_TEST(release_budget, refills_at_rest_and_not_above_its_size)
{
    struct release_budget budget;
    release_budget_init(&budget, 1, 0);
    release_budget_spend(&budget, 600 * NS_PER_MS);
    const uint64_t rests_ns[] = {60 * NS_PER_S, 600 * NS_PER_S, 36000 * NS_PER_S};
    uint64_t now_ns = 0;
    for (size_t i = 0; i < ARRAY_COUNT(rests_ns); i++) {
        now_ns += rests_ns[i];
        uint64_t spent_ns = 0;
        while (release_budget_may_spend(&budget, now_ns)) {
            release_budget_spend(&budget, NS_PER_MS);
            spent_ns += NS_PER_MS;
            cr_assert(spent_ns <= 600 * NS_PER_MS, "more than a minute's worth after a rest");
        }
        cr_assert(spent_ns == 600 * NS_PER_MS);
    }
}

EBB_TEST(release_budget, what_is_more_than_there_is_leaves_nothing)
{
    struct release_budget budget;
    release_budget_init(&budget, 1, 0);
    release_budget_spend(&budget, UINT64_MAX);
    cr_assert(!release_budget_may_spend(&budget, 0));
    cr_assert(release_budget_ready_ns(&budget, 0) >= 6 * NS_PER_S);
}
