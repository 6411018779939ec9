// SPDX-License-Identifier: MIT
// Tier  quick
//
// Waits: which events are kept and what they stand for, lines before locks by given delays, sums by
// stack, bounds, and what a fork leaves.
//
// Go  runtime/pprof/pprof_test.go TestBlockProfile, TestMutexProfile, TestBlockProfileBias.
#include "support/unit.h"

#include <math.h>
#include <string.h>
#include <time.h>

#include "base/rand.h"
#include "malloc/malloc.h"
#include "os/clock.h"
#include "profile/profile.h"

#define EVENTS 200000

static uint32_t switched_count;
static bool switched_on;

static void switched(bool on)
{
    switched_on = on;
    switched_count++;
}

static void start(uint64_t block_rate_ns, uint64_t mutex_fraction)
{
    heap_init();
    wait_sample_start(switched);
    cr_assert(wait_sample_set_block(block_rate_ns) && wait_sample_set_mutex(mutex_fraction));
}

static void sleep_ns(uint64_t ns)
{
    uint64_t end_ns = clock_now_ns() + ns;
    while (clock_now_ns() < end_ns) {
    }
}

static const struct profile_kind *kind(const char *name)
{
    const struct profile_kind *found = profile_find(name, strlen(name));
    cr_assert(found != NULL, "%s", name);
    return found;
}

// The sums of a profile, and how many samples it has.
struct sums {
    uint64_t samples;
    int64_t count;
    int64_t delay_ns;
};

static struct sums sums_of(const char *name)
{
    struct profile_set set;
    const char *why;
    struct sums sums = {0, 0, 0};
    cr_assert(profile_collect(kind(name), &set, 64 * MIB, &why));
    for (const struct profile_entry *e = set.first; e != NULL; e = e->next) {
        sums.samples++;
        sums.count += e->sample.values[0];
        sums.delay_ns += e->sample.values[1];
    }
    profile_set_end(&set);
    return sums;
}

EBB_TEST(wait_sample, block_is_weighed_by_time)
{
    struct wait_weight weight;
    cr_assert(!wait_weigh_block(0, 0, 1000, &weight), "rate 0 keeps nothing");
    cr_assert(wait_weigh_block(UINT64_MAX, 1, 1000, &weight));
    cr_assert(weight.count == 1 && weight.delay_ns == 1000, "rate 1 keeps all as they are");
    cr_assert(wait_weigh_block(UINT64_MAX, 1, 0, &weight) && weight.delay_ns == 1);
    cr_assert(wait_weigh_block(UINT64_MAX, 1000, 1000, &weight) && weight.delay_ns == 1000);
    // Below the rate: kept by chance, and then as much as the rate.
    cr_assert(wait_weigh_block(0, 1000, 10, &weight));
    cr_assert(weight.count == 100 && weight.delay_ns == 1000);
    cr_assert(!wait_weigh_block(UINT64_MAX / 50, 1000, 10, &weight));
    cr_assert(wait_weigh_block(UINT64_MAX / 101, 1000, 10, &weight));
}

// The estimates are right on average, for delays around the rate.
EBB_TEST(wait_sample, block_estimates_have_no_bias)
{
    struct rand random;
    rand_seed(&random, 7);
    for (uint64_t delay_ns = 10; delay_ns <= 10000; delay_ns *= 10) {
        double count = 0;
        double sum_ns = 0;
        for (int i = 0; i < EVENTS; i++) {
            struct wait_weight weight;
            if (wait_weigh_block(rand_next(&random), 1000, delay_ns, &weight)) {
                count += weight.count;
                sum_ns += (double)weight.delay_ns;
            }
        }
        // Five deviations of the binomial.
        double p = fmin(1, (double)delay_ns / 1000);
        double slack = 5 * sqrt((1 - p) / p / EVENTS);
        cr_assert(fabs(count / EVENTS - 1) <= slack, "%lu ns: %f", (unsigned long)delay_ns, count);
        cr_assert(fabs(sum_ns / (double)delay_ns / EVENTS - 1) <= slack);
    }
}

EBB_TEST(wait_sample, mutex_is_weighed_by_fraction)
{
    struct wait_weight weight;
    struct rand random;
    rand_seed(&random, 8);
    cr_assert(!wait_weigh_mutex(0, 0, 5, &weight));
    cr_assert(wait_weigh_mutex(UINT64_MAX, 1, 5, &weight) && weight.delay_ns == 5);
    double count = 0;
    for (int i = 0; i < EVENTS; i++) {
        if (wait_weigh_mutex(rand_next(&random), 10, 5, &weight)) {
            cr_assert(weight.count == 10 && weight.delay_ns == 50);
            count += weight.count;
        }
    }
    cr_assert(fabs(count / EVENTS - 1) < 5 * sqrt(9.0 / EVENTS));
}

EBB_TEST(wait_sample, a_line_knows_how_long_it_is)
{
    start(0, 1);
    char locks[2];
    struct wait first;
    struct wait second;
    cr_assert(wait_unlocking(&locks[0]) == 0, "nobody waits");
    uint64_t began_ns = clock_now_ns();
    wait_begin(&first, &locks[0], WAIT_MUTEX);
    sleep_ns(2 * NS_PER_MS);
    wait_begin(&second, &locks[0], WAIT_MUTEX);
    sleep_ns(2 * NS_PER_MS);
    cr_assert(wait_unlocking(&locks[1]) == 0, "another lock");
    uint64_t waited_ns = wait_unlocking(&locks[0]);
    uint64_t spent_ns = clock_now_ns() - began_ns;
    cr_assert(waited_ns >= 6 * NS_PER_MS && waited_ns <= 2 * spent_ns, "one for 4, one for 2 ms");
    // What passes until the first one wakes is nobody's.
    sleep_ns(2 * NS_PER_MS);
    began_ns = clock_now_ns();
    wait_end(&first, true, true);
    sleep_ns(NS_PER_MS);
    waited_ns = wait_unlocking(&locks[0]);
    spent_ns = clock_now_ns() - began_ns;
    cr_assert(waited_ns >= NS_PER_MS && waited_ns <= spent_ns, "one is left");
    wait_end(&second, false, false);
    cr_assert(wait_unlocking(&locks[0]) == 0, "nobody is");
    cr_assert(sums_of("block").samples == 0, "the block profile is off");
}

EBB_TEST(wait_sample, sums_are_by_stack)
{
    start(1, 1);
    char lock;
    struct wait wait;
    for (int i = 0; i < 100; i++) {
        wait_begin(&wait, &lock, WAIT_MUTEX);
        wait_end(&wait, true, true);
    }
    wait_begin(&wait, &lock, WAIT_MUTEX);
    wait_end(&wait, false, false); // an error is no wait
    struct sums sums = sums_of("block");
    cr_assert(sums.samples == 1 && sums.count == 100 && sums.delay_ns > 0);
    wait_begin(&wait, &lock, WAIT_RWLOCK);
    wait_end(&wait, true, true);
    cr_assert(sums_of("block").samples == 2, "another what, or another stack");
    cr_assert(sums_of("block").count == 101);
    wait_unlocked(1000);
    wait_unlocked(500);
    sums = sums_of("mutex");
    cr_assert(sums.count == 2 && sums.delay_ns == 1500);
    cr_assert(kind("mutex")->count() == sums.samples);
    cr_assert(sums_of("threadcreate").count == 1, "the first thread");
    wait_thread_made();
    cr_assert(sums_of("threadcreate").count == 2 && kind("threadcreate")->count() == 2);
}

EBB_TEST(wait_sample, conditions_by_time)
{
    start(1, 0);
    uint64_t began_ns = wait_now();
    sleep_ns(NS_PER_MS);
    wait_over(began_ns, WAIT_COND);
    struct sums sums = sums_of("block");
    cr_assert(sums.count == 1 && sums.delay_ns >= (int64_t)NS_PER_MS);
    cr_assert(wait_sample_set_block(0));
    wait_over(began_ns, WAIT_COND);
    cr_assert(sums_of("block").count == 1, "off");
}

EBB_TEST(wait_sample, rates_turn_the_watch_on_and_off)
{
    cr_assert(!wait_sample_set_block(1), "nobody sees the locks");
    start(0, 0);
    cr_assert(!switched_on && switched_count == 2);
    cr_assert(wait_sample_set_block(5) && switched_on);
    cr_assert(wait_sample_set_mutex(5) && switched_on);
    cr_assert(wait_sample_set_block(0) && switched_on, "the other is on");
    cr_assert(wait_sample_set_mutex(0) && !switched_on);
}

// Two locks in one place: the second is not seen, and that is said.
EBB_TEST(wait_sample, a_taken_place_is_counted)
{
    start(0, 1);
    static char locks[64 * WAIT_LINE_COUNT];
    static struct wait waits[WAIT_LINE_COUNT];
    size_t lined = 0;
    for (size_t i = 0; i < WAIT_LINE_COUNT; i++) {
        wait_begin(&waits[i], &locks[64 * i], WAIT_MUTEX);
        lined += waits[i].lined;
    }
    // Of n thrown into n places 1 - 1/e are taken.
    cr_assert(lined > WAIT_LINE_COUNT / 2 && lined < WAIT_LINE_COUNT * 3 / 4, "%zu", lined);
    struct profile_set set;
    const char *why;
    cr_assert(profile_collect(kind("mutex"), &set, 64 * MIB, &why));
    cr_assert(set.comment_count == 2 && strstr(set.comments[1], "waits not seen") != NULL);
    profile_set_end(&set);
    for (size_t i = 0; i < WAIT_LINE_COUNT; i++) {
        wait_end(&waits[i], true, true);
    }
    for (size_t i = 0; i < WAIT_LINE_COUNT; i++) {
        cr_assert(wait_unlocking(&locks[64 * i]) == 0);
    }
    // The places are free again, for other locks too.
    size_t again = 0;
    for (size_t i = 0; i < WAIT_LINE_COUNT; i++) {
        wait_begin(&waits[i], &locks[64 * i + 32], WAIT_MUTEX);
        again += waits[i].lined;
        wait_end(&waits[i], true, true);
    }
    cr_assert(again == WAIT_LINE_COUNT, "%zu", again);
}

EBB_TEST(wait_sample, a_child_begins_anew)
{
    start(1, 1);
    char lock;
    struct wait wait;
    wait_begin(&wait, &lock, WAIT_MUTEX);
    wait_unlocked(1000);
    wait_over(wait_now(), WAIT_COND);
    wait_thread_made();
    sleep_ns(NS_PER_MS);
    wait_sample_fork_child();
    cr_assert(wait_unlocking(&lock) == 0);
    cr_assert(sums_of("block").samples == 0 && sums_of("mutex").samples == 0);
    cr_assert(kind("block")->count() == 0 && kind("threadcreate")->count() == 1);
    wait_unlocked(1000);
    cr_assert(sums_of("mutex").count == 1 && kind("mutex")->count() == 1);
}
