// SPDX-License-Identifier: MIT
//
// larson: a server in which a thread leaves its blocks to its successor. Each lineage owns a table
// of blocks; its thread replaces random ones, then starts the next thread of the lineage with that
// table and ends. So most frees are of blocks that a dead thread allocated.
//
// The shape is that of Larson and Krishnan, "Memory allocation for long-running server
// applications" (1998); program and parameters are our own.
//
// Go  none
#include "common/bench.h"

#include <pthread.h>

enum {
    LARSON_SLOTS = 1000,
    LARSON_BYTES_MIN = 10,
    LARSON_BYTES_MAX = 1000,
};

struct larson_lineage {
    struct bench_actor actor;
    void **slots;
    uint64_t generation_count;
    uint64_t replacement_count;
    pthread_mutex_t *lock;
    pthread_cond_t *ended;
    unsigned *alive_count;
};

static size_t larson_size(struct bench_actor *actor)
{
    return LARSON_BYTES_MIN +
           (size_t)bench_below(&actor->random_state, LARSON_BYTES_MAX - LARSON_BYTES_MIN);
}

static void larson_start(struct larson_lineage *lineage);

static void *larson_generation(void *argument)
{
    struct larson_lineage *lineage = argument;
    struct bench_actor *actor = &lineage->actor;
    for (uint64_t i = 0; i < lineage->replacement_count; i++) {
        void **slot = &lineage->slots[bench_below(&actor->random_state, LARSON_SLOTS)];
        bench_drop(actor, *slot);
        *slot = bench_make(actor, larson_size(actor));
    }
    actor->operation_count += lineage->replacement_count;
    lineage->generation_count--;
    if (lineage->generation_count > 0) {
        larson_start(lineage);
        return NULL;
    }
    pthread_mutex_lock(lineage->lock);
    *lineage->alive_count -= 1;
    pthread_cond_signal(lineage->ended);
    pthread_mutex_unlock(lineage->lock);
    return NULL;
}

static void larson_start(struct larson_lineage *lineage)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, larson_generation, lineage) != 0) {
        bench_fail("pthread_create failed");
    }
    pthread_detach(thread);
}

int main(int argc, char **argv)
{
    struct bench bench = bench_open("larson", argc, argv, 4);
    unsigned count = bench.thread_count;
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t ended = PTHREAD_COND_INITIALIZER;
    unsigned alive_count = count;
    struct larson_lineage *lineages = bench_table(count * sizeof *lineages);
    struct bench_actor *actors = bench_table(count * sizeof *actors);

    bench_start(&bench);
    for (unsigned i = 0; i < count; i++) {
        struct larson_lineage *lineage = &lineages[i];
        lineage->actor = bench_actor_make(&bench, i + 1);
        lineage->slots = bench_table(LARSON_SLOTS * sizeof *lineage->slots);
        lineage->generation_count = bench_pick(&bench, 3, 40, 500);
        lineage->replacement_count = bench_pick(&bench, 500, 20000, 20000) * 4 / count;
        lineage->lock = &lock;
        lineage->ended = &ended;
        lineage->alive_count = &alive_count;
        for (unsigned s = 0; s < LARSON_SLOTS; s++) {
            lineage->slots[s] = bench_make(&lineage->actor, larson_size(&lineage->actor));
        }
    }
    for (unsigned i = 0; i < count; i++) {
        larson_start(&lineages[i]);
    }
    pthread_mutex_lock(&lock);
    while (alive_count > 0) {
        pthread_cond_wait(&ended, &lock);
    }
    pthread_mutex_unlock(&lock);
    bench_stop(&bench);

    for (unsigned i = 0; i < count; i++) {
        for (unsigned s = 0; s < LARSON_SLOTS; s++) {
            bench_drop(&lineages[i].actor, lineages[i].slots[s]);
        }
        actors[i] = lineages[i].actor;
    }
    uint64_t operation_count = 0;
    uint64_t checksum = bench_settle(actors, count, &operation_count);
    return bench_close(&bench, operation_count, checksum);
}
