// SPDX-License-Identifier: MIT
//
// latency: how late a request comes when the heap gives memory back at the same time. One thread
// does 10,000 pairs of malloc and free a second on a fixed schedule; another builds a peak of
// 64 MiB several times, frees it and rests, so that there is always something to give back.
// With --release the peak is 512 MiB, every hundredth block stays until the next peak is freed, so
// that runs and holes go back, and the rest lasts until a paced policy has got somewhere. Then the
// thread with the requests also asks for SCHED_FIFO: without, what it waits for is the scheduler,
// milliseconds at a time on a machine with as few processors as busy threads.
//
// Model
//   Request i is due at start + i * 100 us. Its latency is the time at which it is done minus the
//   time at which it was due: a request that waited behind a late one is late itself, and counted.
//   What the machine adds is in every figure; the heap's share is the difference between two peers
//   measured in turns, for instance the same library with and without releasing.
//   Each request notes what the other thread is doing: growing, freeing or resting.
//
// Go  none
#include "common/bench.h"

#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <time.h>

enum {
    LATENCY_PERIOD_NS = 100000,
    // Sleep ends this early and the rest is spun: waking takes some 50 us.
    LATENCY_SPIN_NS = 60000,
    LATENCY_PEAK_REST_MS = 200,
    LATENCY_KEEP_EVERY = 100,
};

enum latency_phase {
    LATENCY_GROW,
    LATENCY_FREE,
    LATENCY_REST,
    LATENCY_PHASES,
};

struct latency_plan {
    uint64_t request_count;
    uint64_t peak_bytes;
    uint64_t rest_ms;
    int keep;
    int realtime; // asked for, then: got
};

struct latency_peaks {
    struct bench_actor actor;
    const struct latency_plan *plan;
    int stop;
    int phase;
};

struct latency_request {
    uint64_t late_ns;
    uint64_t phase;
};

static void latency_sleep_until(uint64_t due_ns)
{
    uint64_t wake_ns = due_ns - LATENCY_SPIN_NS;
    struct timespec wake = {(time_t)(wake_ns / 1000000000), (long)(wake_ns % 1000000000)};
    if (bench_now_ns() < wake_ns) {
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &wake, NULL);
    }
    while (bench_now_ns() < due_ns) {
    }
}

static void latency_phase_set(struct latency_peaks *peaks, enum latency_phase phase)
{
    // A label for figures: which side of the border a request falls on does not matter.
    __atomic_store_n(&peaks->phase, (int)phase, __ATOMIC_RELAXED);
}

static void latency_rest(struct latency_peaks *peaks)
{
    struct timespec part = {0, 50 * 1000000L};
    for (uint64_t ms = 0; ms < peaks->plan->rest_ms; ms += 50) {
        if (__atomic_load_n(&peaks->stop, __ATOMIC_RELAXED)) {
            return;
        }
        nanosleep(&part, NULL);
    }
}

static void *latency_peaks_run(void *argument)
{
    struct latency_peaks *peaks = argument;
    const struct latency_plan *plan = peaks->plan;
    size_t slot_count = (size_t)(plan->peak_bytes / 16);
    void **blocks = bench_table(slot_count * sizeof *blocks);
    size_t count = 0;
    while (!__atomic_load_n(&peaks->stop, __ATOMIC_RELAXED)) {
        size_t old_count = count;
        latency_phase_set(peaks, LATENCY_GROW);
        for (uint64_t bytes = 0; bytes < plan->peak_bytes; count++) {
            size_t size = bench_size_log(&peaks->actor.random_state, 4, 10);
            blocks[count] = bench_make(&peaks->actor, size);
            bytes += size;
        }
        latency_phase_set(peaks, LATENCY_FREE);
        size_t kept_count = 0;
        for (size_t i = 0; i < count; i++) {
            if (plan->keep && i >= old_count && i % LATENCY_KEEP_EVERY == 0) {
                blocks[kept_count++] = blocks[i];
            } else {
                bench_drop(&peaks->actor, blocks[i]);
            }
        }
        count = kept_count;
        latency_phase_set(peaks, LATENCY_REST);
        latency_rest(peaks);
    }
    for (size_t i = 0; i < count; i++) {
        bench_drop(&peaks->actor, blocks[i]);
    }
    bench_table_free(blocks, slot_count * sizeof *blocks);
    return NULL;
}

static int latency_compare(const void *a, const void *b)
{
    uint64_t x = ((const struct latency_request *)a)->late_ns;
    uint64_t y = ((const struct latency_request *)b)->late_ns;
    return (x > y) - (x < y);
}

// latency_realtime puts this thread before all ordinary ones. Threads it starts, such as a helper
// of the heap, shall not inherit that.
static int latency_realtime(void)
{
    struct sched_param param = {.sched_priority = 1};
    return sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &param) == 0;
}

static void latency_requests(struct bench_actor *actor, const struct latency_peaks *peaks,
                             struct latency_request *requests)
{
    // The kernel may otherwise let a timer of this thread wait for 50 us more.
    prctl(PR_SET_TIMERSLACK, 1UL);
    uint64_t start_ns = bench_now_ns() + LATENCY_PERIOD_NS;
    for (uint64_t i = 0; i < peaks->plan->request_count; i++) {
        uint64_t due_ns = start_ns + i * LATENCY_PERIOD_NS;
        latency_sleep_until(due_ns);
        void *block = bench_make(actor, bench_size_log(&actor->random_state, 4, 15));
        bench_drop(actor, block);
        requests[i].late_ns = bench_now_ns() - due_ns;
        requests[i].phase = (uint64_t)__atomic_load_n(&peaks->phase, __ATOMIC_RELAXED);
    }
}

// latency_say_phase prints two fields of one phase; requests are sorted by lateness.
static void latency_say_phase(const struct latency_request *requests, uint64_t count,
                              enum latency_phase phase)
{
    static const char *const names[] = {"grow", "free", "rest"};
    uint64_t found_count = 0;
    for (uint64_t i = 0; i < count; i++) {
        found_count += requests[i].phase == phase;
    }
    uint64_t p999_ns = 0;
    uint64_t max_ns = 0;
    uint64_t seen_count = 0;
    for (uint64_t i = 0; i < count; i++) {
        if (requests[i].phase != phase) {
            continue;
        }
        if (seen_count++ == found_count * 999 / 1000) {
            p999_ns = requests[i].late_ns;
        }
        max_ns = requests[i].late_ns;
    }
    printf(", \"%s_requests\": %" PRIu64 ", \"%s_p999_ns\": %" PRIu64 ", \"%s_max_ns\": %" PRIu64,
           names[phase], found_count, names[phase], p999_ns, names[phase], max_ns);
}

// latency_plan takes --release out of the arguments, which bench_open does not know.
static struct latency_plan latency_plan(struct bench *bench, int argc, char **argv)
{
    int release = 0;
    int kept_count = 0;
    for (int i = 0; i < argc; i++) {
        if (strcmp(argv[i], "--release") == 0) {
            release = 1;
        } else {
            argv[kept_count++] = argv[i];
        }
    }
    argv[kept_count] = NULL;
    *bench = bench_open("latency", kept_count, argv, 2);
    struct latency_plan plan = {
        .request_count = bench_pick(bench, 500, 5000, 100000),
        .peak_bytes = bench_pick(bench, 1 << 20, 64 << 20, 64 << 20),
        .rest_ms = LATENCY_PEAK_REST_MS,
        .keep = release,
    };
    if (release) {
        plan.request_count = bench_pick(bench, 500, 60000, 120000);
        plan.peak_bytes = bench_pick(bench, 1 << 20, 256 << 20, 512 << 20);
        plan.rest_ms = 2500;
        plan.realtime = 1;
    }
    return plan;
}

int main(int argc, char **argv)
{
    struct bench bench;
    struct latency_plan plan = latency_plan(&bench, argc, argv);
    uint64_t request_count = plan.request_count;
    struct latency_peaks peaks = {.actor = bench_actor_make(&bench, 2), .plan = &plan};
    struct bench_actor actors[2] = {bench_actor_make(&bench, 1)};
    struct latency_request *requests = bench_table(request_count * sizeof *requests);
    pthread_t thread;
    bench_start(&bench);
    if (pthread_create(&thread, NULL, latency_peaks_run, &peaks) != 0) {
        bench_fail("pthread_create failed");
    }
    plan.realtime = plan.realtime && latency_realtime();
    latency_requests(&actors[0], &peaks, requests);
    bench_stop(&bench);
    __atomic_store_n(&peaks.stop, 1, __ATOMIC_RELAXED);
    pthread_join(thread, NULL);
    uint64_t operation_count = request_count;
    uint64_t checksum = actors[0].made_sum;
    actors[1] = peaks.actor;
    bench_settle(actors, 2, &operation_count);
    qsort(requests, request_count, sizeof *requests, latency_compare);
    printf("{\"name\": \"latency\", \"seconds\": %.6f, \"operations\": %" PRIu64
           ", \"peak_rss_bytes\": %" PRIu64 ", \"checksum\": \"%016" PRIx64
           "\", \"malloc_from\": \"%s\", \"late_median_ns\": %" PRIu64 ", \"late_p99_ns\": %" PRIu64
           ", \"late_p999_ns\": %" PRIu64 ", \"late_max_ns\": %" PRIu64,
           (double)bench.elapsed_ns / 1e9, operation_count, bench_vmhwm_bytes(), checksum,
           bench_malloc_origin(), requests[request_count / 2].late_ns,
           requests[request_count * 99 / 100].late_ns, requests[request_count * 999 / 1000].late_ns,
           requests[request_count - 1].late_ns);
    for (int phase = 0; phase < LATENCY_PHASES; phase++) {
        latency_say_phase(requests, request_count, (enum latency_phase)phase);
    }
    printf(", \"realtime\": %d}\n", plan.realtime);
    return fflush(stdout) == 0 ? 0 : 1;
}
