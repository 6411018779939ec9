// SPDX-License-Identifier: MIT
//
// xmalloc: half of the threads only allocate, the other half only free. Blocks travel in batches
// through one bounded queue, so every single free is of another thread's block and no thread ever
// gets back what it allocated by its own doing.
//
// Go  none
#include "common/bench.h"

#include <pthread.h>

enum {
    XMALLOC_BATCH_BLOCKS = 256,
    XMALLOC_QUEUE_BATCHES = 64,
    XMALLOC_BITS_MIN = 4,
    XMALLOC_BITS_MAX = 9,
};

// A batch is itself a block of the heap: it, too, is freed by the thread that emptied it.
struct xmalloc_batch {
    void *blocks[XMALLOC_BATCH_BLOCKS];
};

struct xmalloc {
    struct bench_actor *actors;
    unsigned producer_count;
    uint64_t batch_count;
    pthread_mutex_t lock;
    pthread_cond_t not_empty;
    pthread_cond_t not_full;
    struct xmalloc_batch *queue[XMALLOC_QUEUE_BATCHES];
    uint64_t pushed_count;
    uint64_t popped_count;
    uint64_t total_count;
};

static void xmalloc_push(struct xmalloc *x, struct xmalloc_batch *batch)
{
    pthread_mutex_lock(&x->lock);
    while (x->pushed_count - x->popped_count == XMALLOC_QUEUE_BATCHES) {
        pthread_cond_wait(&x->not_full, &x->lock);
    }
    x->queue[x->pushed_count++ % XMALLOC_QUEUE_BATCHES] = batch;
    pthread_cond_signal(&x->not_empty);
    pthread_mutex_unlock(&x->lock);
}

// xmalloc_pop returns NULL when every batch of the run has been taken.
static struct xmalloc_batch *xmalloc_pop(struct xmalloc *x)
{
    struct xmalloc_batch *batch = NULL;
    pthread_mutex_lock(&x->lock);
    while (x->pushed_count == x->popped_count && x->popped_count < x->total_count) {
        pthread_cond_wait(&x->not_empty, &x->lock);
    }
    if (x->popped_count < x->total_count) {
        batch = x->queue[x->popped_count++ % XMALLOC_QUEUE_BATCHES];
        pthread_cond_signal(&x->not_full);
    }
    if (x->popped_count == x->total_count) {
        pthread_cond_broadcast(&x->not_empty);
    }
    pthread_mutex_unlock(&x->lock);
    return batch;
}

static void xmalloc_produce(struct xmalloc *x, struct bench_actor *actor)
{
    for (uint64_t b = 0; b < x->batch_count; b++) {
        struct xmalloc_batch *batch = malloc(sizeof *batch);
        if (batch == NULL) {
            bench_fail("malloc returned NULL");
        }
        for (unsigned i = 0; i < XMALLOC_BATCH_BLOCKS; i++) {
            size_t size = bench_size_log(&actor->random_state, XMALLOC_BITS_MIN, XMALLOC_BITS_MAX);
            batch->blocks[i] = bench_make(actor, size);
        }
        xmalloc_push(x, batch);
    }
    actor->operation_count += x->batch_count * XMALLOC_BATCH_BLOCKS;
}

static void xmalloc_consume(struct xmalloc *x, struct bench_actor *actor)
{
    struct xmalloc_batch *batch;
    while ((batch = xmalloc_pop(x)) != NULL) {
        for (unsigned i = 0; i < XMALLOC_BATCH_BLOCKS; i++) {
            bench_drop(actor, batch->blocks[i]);
        }
        free(batch);
    }
}

static void xmalloc_body(unsigned index, void *argument)
{
    struct xmalloc *x = argument;
    if (index < x->producer_count) {
        xmalloc_produce(x, &x->actors[index]);
    } else {
        xmalloc_consume(x, &x->actors[index]);
    }
}

int main(int argc, char **argv)
{
    struct bench bench = bench_open("xmalloc", argc, argv, 4);
    unsigned count = bench.thread_count < 2 ? 2 : bench.thread_count;
    struct xmalloc x = {
        .actors = bench_table(count * sizeof *x.actors),
        .producer_count = count / 2,
        .lock = PTHREAD_MUTEX_INITIALIZER,
        .not_empty = PTHREAD_COND_INITIALIZER,
        .not_full = PTHREAD_COND_INITIALIZER,
    };
    x.batch_count = bench_pick(&bench, 100, 12000, 120000) / x.producer_count;
    x.total_count = x.batch_count * x.producer_count;
    for (unsigned i = 0; i < count; i++) {
        x.actors[i] = bench_actor_make(&bench, i + 1);
    }
    bench_start(&bench);
    bench_team(count, xmalloc_body, &x);
    bench_stop(&bench);
    uint64_t operation_count = 0;
    uint64_t checksum = bench_settle(x.actors, count, &operation_count);
    return bench_close(&bench, operation_count, checksum);
}
