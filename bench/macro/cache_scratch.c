// SPDX-License-Identifier: MIT
//
// cache-scratch: passive false sharing. The main thread allocates tiny neighbours and gives one to
// each thread; a heap that lets a thread reuse the block it freed keeps them in one line for ever.
//
// Go  none
#include "cache_share.h"

int main(int argc, char **argv)
{
    struct bench bench = bench_open("cache-scratch", argc, argv, 2);
    unsigned count = bench.thread_count;
    struct cache_share share = {
        .actors = bench_table(count * sizeof *share.actors),
        .handed = bench_table(count * sizeof *share.handed),
        .round_count = bench_pick(&bench, 10000, 12000000, 120000000) / count,
    };
    for (unsigned i = 0; i < count; i++) {
        share.actors[i] = bench_actor_make(&bench, i + 1);
        share.handed[i] = bench_make(&share.actors[i], CACHE_SHARE_BYTES);
    }
    return cache_share_run(&bench, &share);
}
