// SPDX-License-Identifier: MIT
//
// latency: how late a request comes when the heap gives memory back at the same time. One thread
// does 10,000 pairs of malloc and free a second on a fixed schedule; another builds a peak of
// 64 MiB several times, frees it and rests, so that there is always something to give back.
//
// Model
//   Request i is due at start + i * 100 us. Its latency is the time at which it is done minus the
//   time at which it was due: a request that waited behind a late one is late itself, and counted.
//   What the machine adds is in every figure; the heap's share is the difference between two peers
//   measured in turns, for instance the same library with and without releasing.
//
// Go  none
#include "common/bench.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <time.h>

enum {
    LATENCY_PERIOD_NS = 100000,
    // Sleep ends this early and the rest is spun: waking takes some 50 us.
    LATENCY_SPIN_NS = 60000,
    LATENCY_PEAK_REST_MS = 200,
};

struct latency_peaks {
    struct bench_actor actor;
    uint64_t peak_bytes;
    int stop;
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

static void *latency_peaks_run(void *argument)
{
    struct latency_peaks *peaks = argument;
    size_t slot_count = (size_t)(peaks->peak_bytes / 16);
    void **blocks = bench_table(slot_count * sizeof *blocks);
    struct timespec rest = {0, LATENCY_PEAK_REST_MS * 1000000L};
    while (!__atomic_load_n(&peaks->stop, __ATOMIC_RELAXED)) {
        size_t count = 0;
        for (uint64_t bytes = 0; bytes < peaks->peak_bytes; count++) {
            size_t size = bench_size_log(&peaks->actor.random_state, 4, 10);
            blocks[count] = bench_make(&peaks->actor, size);
            bytes += size;
        }
        for (size_t i = 0; i < count; i++) {
            bench_drop(&peaks->actor, blocks[i]);
        }
        nanosleep(&rest, NULL);
    }
    bench_table_free(blocks, slot_count * sizeof *blocks);
    return NULL;
}

static int latency_compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

// latency_requests fills late_ns, one entry per request.
static void latency_requests(struct bench_actor *actor, uint64_t *late_ns, uint64_t request_count)
{
    // The kernel may otherwise let a timer of this thread wait for 50 us more.
    prctl(PR_SET_TIMERSLACK, 1UL);
    uint64_t start_ns = bench_now_ns() + LATENCY_PERIOD_NS;
    for (uint64_t i = 0; i < request_count; i++) {
        uint64_t due_ns = start_ns + i * LATENCY_PERIOD_NS;
        latency_sleep_until(due_ns);
        void *block = bench_make(actor, bench_size_log(&actor->random_state, 4, 15));
        bench_drop(actor, block);
        late_ns[i] = bench_now_ns() - due_ns;
    }
}

int main(int argc, char **argv)
{
    struct bench bench = bench_open("latency", argc, argv, 2);
    uint64_t request_count = bench_pick(&bench, 500, 5000, 100000);
    struct latency_peaks peaks = {
        .actor = bench_actor_make(&bench, 2),
        .peak_bytes = bench_pick(&bench, 1 << 20, 64 << 20, 64 << 20),
    };
    struct bench_actor actors[2] = {bench_actor_make(&bench, 1)};
    uint64_t *late_ns = bench_table(request_count * sizeof *late_ns);
    pthread_t thread;
    bench_start(&bench);
    if (pthread_create(&thread, NULL, latency_peaks_run, &peaks) != 0) {
        bench_fail("pthread_create failed");
    }
    latency_requests(&actors[0], late_ns, request_count);
    bench_stop(&bench);
    __atomic_store_n(&peaks.stop, 1, __ATOMIC_RELAXED);
    pthread_join(thread, NULL);
    uint64_t operation_count = request_count;
    uint64_t checksum = actors[0].made_sum;
    actors[1] = peaks.actor;
    bench_settle(actors, 2, &operation_count);
    qsort(late_ns, request_count, sizeof *late_ns, latency_compare);
    printf("{\"name\": \"latency\", \"seconds\": %.6f, \"operations\": %" PRIu64
           ", \"peak_rss_bytes\": %" PRIu64 ", \"checksum\": \"%016" PRIx64
           "\", \"malloc_from\": \"%s\", \"late_median_ns\": %" PRIu64 ", \"late_p99_ns\": %" PRIu64
           ", \"late_p999_ns\": %" PRIu64 ", \"late_max_ns\": %" PRIu64 "}\n",
           (double)bench.elapsed_ns / 1e9, operation_count, bench_vmhwm_bytes(), checksum,
           bench_malloc_origin(), late_ns[request_count / 2], late_ns[request_count * 99 / 100],
           late_ns[request_count * 999 / 1000], late_ns[request_count - 1]);
    return fflush(stdout) == 0 ? 0 : 1;
}
