// SPDX-License-Identifier: MIT
//
// large: blocks of 64 KiB to 4 MiB in a table of 64 slots, replaced at random, one word of each of
// their pages written and checked. What it shows is the price of fresh pages: who unmaps at once
// pays for every page again, who keeps all pays in resident size.
//
// Go  none
#include "common/bench.h"

enum {
    LARGE_SLOTS = 64,
    LARGE_BITS_MIN = 16,
    LARGE_BITS_MAX = 22,
};

int main(int argc, char **argv)
{
    struct bench bench = bench_open("large", argc, argv, 1);
    if (bench.size != BENCH_SMOKE) {
        bench.stride = BENCH_STRIDE_PAGE;
    }
    struct bench_actor actor = bench_actor_make(&bench, 1);
    void *slots[LARGE_SLOTS] = {NULL};
    uint64_t step_count = bench_pick(&bench, 100, 6000, 60000);
    bench_start(&bench);
    for (uint64_t i = 0; i < step_count; i++) {
        void **slot = &slots[bench_below(&actor.random_state, LARGE_SLOTS)];
        if (*slot != NULL) {
            bench_drop(&actor, *slot);
        }
        *slot =
            bench_make(&actor, bench_size_log(&actor.random_state, LARGE_BITS_MIN, LARGE_BITS_MAX));
    }
    for (unsigned i = 0; i < LARGE_SLOTS; i++) {
        if (slots[i] != NULL) {
            bench_drop(&actor, slots[i]);
        }
    }
    bench_stop(&bench);
    actor.operation_count = step_count;
    uint64_t operation_count = 0;
    uint64_t checksum = bench_settle(&actor, 1, &operation_count);
    return bench_close(&bench, operation_count, checksum);
}
