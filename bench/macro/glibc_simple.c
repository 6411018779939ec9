// SPDX-License-Identifier: MIT
//
// glibc-simple: the plainest use there is: n blocks of one size allocated, then freed in the same
// order, for a few n and sizes, in one thread. (The shape of glibc's bench-malloc-simple.)
//
// Go  none
#include "common/bench.h"

enum {
    GLIBC_SIMPLE_BLOCKS_MAX = 1600,
};

static const size_t glibc_simple_sizes[] = {8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096};
static const size_t glibc_simple_counts[] = {25, 100, 400, GLIBC_SIMPLE_BLOCKS_MAX};

static void glibc_simple_round(struct bench_actor *actor, void **blocks, size_t size, size_t count,
                               uint64_t repeat_count)
{
    for (uint64_t repeat = 0; repeat < repeat_count; repeat++) {
        for (size_t i = 0; i < count; i++) {
            blocks[i] = bench_make(actor, size);
        }
        for (size_t i = 0; i < count; i++) {
            bench_drop(actor, blocks[i]);
        }
    }
    actor->operation_count += repeat_count * count;
}

int main(int argc, char **argv)
{
    struct bench bench = bench_open("glibc-simple", argc, argv, 1);
    if (bench.size != BENCH_SMOKE) {
        bench.stride = BENCH_STRIDE_EDGES;
    }
    struct bench_actor actor = bench_actor_make(&bench, 1);
    void **blocks = bench_table(GLIBC_SIMPLE_BLOCKS_MAX * sizeof *blocks);
    // Blocks per pair of size and count, so that each pair has the same weight.
    uint64_t block_count = bench_pick(&bench, 3200, 32000, 320000);
    bench_start(&bench);
    for (size_t s = 0; s < sizeof glibc_simple_sizes / sizeof *glibc_simple_sizes; s++) {
        for (size_t c = 0; c < sizeof glibc_simple_counts / sizeof *glibc_simple_counts; c++) {
            size_t count = glibc_simple_counts[c];
            glibc_simple_round(&actor, blocks, glibc_simple_sizes[s], count, block_count / count);
        }
    }
    bench_stop(&bench);
    uint64_t operation_count = 0;
    uint64_t checksum = bench_settle(&actor, 1, &operation_count);
    return bench_close(&bench, operation_count, checksum);
}
