// SPDX-License-Identifier: MIT
//
// glibc-thread: each thread keeps a small working set and replaces random members of it; sizes run
// from 8 bytes to 32 KiB with a density that falls with the square of the size. (The shape of
// glibc's bench-malloc-thread.)
//
// Go  none
#include "common/bench.h"

enum {
    GLIBC_THREAD_SLOTS = 1024,
    GLIBC_THREAD_BYTES_MIN = 8,
    GLIBC_THREAD_BYTES_MAX = 32768,
    GLIBC_THREAD_SIZES = 4096,
};

struct glibc_thread {
    struct bench_actor *actors;
    uint32_t sizes[GLIBC_THREAD_SIZES];
    uint64_t step_count;
};

// glibc_thread_sizes draws by inversion; density 1/s^2 on [a, b]: s = 1 / (1/a - u (1/a - 1/b)).
static void glibc_thread_sizes(struct glibc_thread *test)
{
    const double a = GLIBC_THREAD_BYTES_MIN;
    const double b = GLIBC_THREAD_BYTES_MAX;
    uint64_t random_state = 0x6c6962635f746872ULL;
    for (size_t i = 0; i < GLIBC_THREAD_SIZES; i++) {
        double u = (double)(bench_random(&random_state) >> 11) / (double)(1ULL << 53);
        test->sizes[i] = (uint32_t)(1.0 / (1.0 / a - u * (1.0 / a - 1.0 / b)));
    }
}

static void glibc_thread_body(unsigned index, void *argument)
{
    struct glibc_thread *test = argument;
    struct bench_actor *actor = &test->actors[index];
    size_t table_bytes = GLIBC_THREAD_SLOTS * sizeof(void *);
    void **slots = bench_table(table_bytes);
    for (uint64_t i = 0; i < test->step_count; i++) {
        uint64_t draw = bench_random(&actor->random_state);
        void **slot = &slots[draw % GLIBC_THREAD_SLOTS];
        if (*slot != NULL) {
            bench_drop(actor, *slot);
        }
        *slot = bench_make(actor, test->sizes[(draw >> 32) % GLIBC_THREAD_SIZES]);
    }
    for (size_t i = 0; i < GLIBC_THREAD_SLOTS; i++) {
        if (slots[i] != NULL) {
            bench_drop(actor, slots[i]);
        }
    }
    actor->operation_count += test->step_count;
    bench_table_free(slots, table_bytes);
}

int main(int argc, char **argv)
{
    struct bench bench = bench_open("glibc-thread", argc, argv, 2);
    unsigned count = bench.thread_count;
    struct glibc_thread test = {
        .actors = bench_table(count * sizeof *test.actors),
        .step_count = bench_pick(&bench, 50000, 8000000, 100000000) / count,
    };
    glibc_thread_sizes(&test);
    for (unsigned i = 0; i < count; i++) {
        test.actors[i] = bench_actor_make(&bench, i + 1);
    }
    bench_start(&bench);
    bench_team(count, glibc_thread_body, &test);
    bench_stop(&bench);
    uint64_t operation_count = 0;
    uint64_t checksum = bench_settle(test.actors, count, &operation_count);
    return bench_close(&bench, operation_count, checksum);
}
