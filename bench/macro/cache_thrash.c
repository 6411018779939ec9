// SPDX-License-Identifier: MIT
//
// cache-thrash: active false sharing. Threads allocate tiny blocks at the same time; a heap that
// carves them for all threads from one place puts them side by side in one line.
//
// Go  none
#include "cache_share.h"

int main(int argc, char **argv)
{
    struct bench bench = bench_open("cache-thrash", argc, argv, 2);
    unsigned count = bench.thread_count;
    struct cache_share share = {
        .actors = bench_table(count * sizeof *share.actors),
        .round_count = bench_pick(&bench, 10000, 12000000, 120000000) / count,
    };
    for (unsigned i = 0; i < count; i++) {
        share.actors[i] = bench_actor_make(&bench, i + 1);
    }
    return cache_share_run(&bench, &share);
}
