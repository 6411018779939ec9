// SPDX-License-Identifier: MIT
//
// malloc-free: pairs of malloc(64) and free, a fixed number of them, nothing else in the loop. For
// nanoseconds here, and for instruction counts under callgrind: run it with --pairs N and 2 N, and
// the difference by N is the price of one pair.
//
// Go  none
#include "common/bench.h"

#include <stdio.h>

enum {
    MALLOC_FREE_BYTES = 64,
};

int main(int argc, char **argv)
{
    uint64_t pair_count = 0;
    if (argc == 3 && strcmp(argv[1], "--pairs") == 0) {
        pair_count = strtoull(argv[2], NULL, 10);
        argc = 1;
    }
    struct bench bench = bench_open("malloc-free", argc, argv, 1);
    if (pair_count == 0) {
        pair_count = bench_pick(&bench, 1000, 10000000, 100000000);
    }
    uint64_t sum = 0;
    bench_start(&bench);
    for (uint64_t i = 0; i < pair_count; i++) {
        uint64_t *block = malloc(MALLOC_FREE_BYTES);
        if (block == NULL) {
            bench_fail("malloc returned NULL");
        }
        *(volatile uint64_t *)block = i;
        sum += *(volatile uint64_t *)block;
        free(block);
    }
    bench_stop(&bench);
    if (sum != pair_count * (pair_count - 1) / 2) {
        bench_fail("a block lost its contents");
    }
    return bench_close(&bench, pair_count, sum);
}
