// SPDX-License-Identifier: MIT
//
// alloc-test: a table of slots, each step picks one at random and frees what is there or fills it.
// Sizes are uniform in their logarithm from 8 to 1,023 bytes. Nothing is shared between threads, so
// this shows the fast path and what a big random working set costs, with one thread or several.
//
// Go  none
#include "common/bench.h"

enum {
    ALLOC_TEST_SLOTS = 1 << 16,
    ALLOC_TEST_BITS_MIN = 3,
    ALLOC_TEST_BITS_MAX = 10,
};

struct alloc_test {
    struct bench_actor *actors;
    uint64_t step_count;
};

static void alloc_test_body(unsigned index, void *argument)
{
    struct alloc_test *test = argument;
    struct bench_actor *actor = &test->actors[index];
    uint64_t *random_state = &actor->random_state;
    size_t table_bytes = ALLOC_TEST_SLOTS * sizeof(void *);
    void **slots = bench_table(table_bytes);
    for (uint64_t i = 0; i < test->step_count; i++) {
        void **slot = &slots[bench_below(random_state, ALLOC_TEST_SLOTS)];
        if (*slot != NULL) {
            bench_drop(actor, *slot);
            *slot = NULL;
        } else {
            size_t size = bench_size_log(random_state, ALLOC_TEST_BITS_MIN, ALLOC_TEST_BITS_MAX);
            *slot = bench_make(actor, size);
        }
    }
    for (size_t i = 0; i < ALLOC_TEST_SLOTS; i++) {
        if (slots[i] != NULL) {
            bench_drop(actor, slots[i]);
        }
    }
    actor->operation_count += test->step_count;
    bench_table_free(slots, table_bytes);
}

int main(int argc, char **argv)
{
    struct bench bench = bench_open("alloc-test", argc, argv, 1);
    unsigned count = bench.thread_count;
    struct alloc_test test = {
        .actors = bench_table(count * sizeof *test.actors),
        .step_count = bench_pick(&bench, 100000, 4000000, 50000000) / count,
    };
    for (unsigned i = 0; i < count; i++) {
        test.actors[i] = bench_actor_make(&bench, i + 1);
    }
    bench_start(&bench);
    if (count == 1) {
        // No second thread at all: the C library then takes its single-thread shortcuts.
        alloc_test_body(0, &test);
    } else {
        bench_team(count, alloc_test_body, &test);
    }
    bench_stop(&bench);
    uint64_t operation_count = 0;
    uint64_t checksum = bench_settle(test.actors, count, &operation_count);
    return bench_close(&bench, operation_count, checksum);
}
