// SPDX-License-Identifier: MIT
//
// Heap race: heap_race [SECONDS [THREADS]]. Threads that free one another's blocks, threads that
// come and go, and beside them everything that claims other threads' caches: flushing, releasing,
// reading statistics, freezing. Commit and long tier.
//
// Model
//   A block is stamped when it is made and looked at before it is freed. Blocks travel through
//   mailboxes: who puts one in takes out and frees what was there. At the end nothing is live, and
//   the counts of MemStats say so to the block.
//   In the build for ThreadSanitizer the bracket is a lock and the releaser has no thread of its
//   own (the sanitizer does not know threads that libc has not made); in the ordinary build the
//   bracket is two stores and membarrier, which is the half that no tool can see.
//
// Go       none
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "base/option.h"
#include "boot/boot.h"
#include "malloc/malloc.h"
#include "race.h"
#include "release/release.h"
#include "span/span.h"
#include "stats/stats.h"

#define MAILBOX_COUNT 512
#define SLOT_COUNT 200
#define SHORT_LIFE_OPS 3000u
#define THREADS_MAX 64

static atomic_ptr mailboxes[MAILBOX_COUNT];
static atomic_u64 number_next = {1};
static atomic_u32 stopping;
static atomic_u64 ops_done;
static atomic_u64 threads_done;

struct worker {
    uint64_t random;
    unsigned ops; // 0: until the end
    void *slots[SLOT_COUNT];
};

static size_t size_draw(uint64_t *random)
{
    uint64_t kind = frame_below(random, 1000);
    if (kind < 850) {
        return RACE_MIN_BYTES + frame_below(random, 1024);
    }
    if (kind < 980) {
        return 1024 + frame_below(random, 31 * 1024);
    }
    return 32 * 1024 + frame_below(random, 400 * 1024);
}

static void *block_make(uint64_t *random)
{
    size_t bytes = size_draw(random);
    void *block;
    switch (frame_below(random, 16)) {
    case 0:
        block = ebb_aligned_alloc((size_t)32 << frame_below(random, 9), bytes);
        break;
    case 1:
        block = ebb_calloc(1, bytes);
        FRAME_CHECK(block != NULL);
        for (size_t i = 0; i < bytes; i++) {
            FRAME_CHECK(((const char *)block)[i] == 0);
        }
        break;
    default:
        block = ebb_malloc(bytes);
        break;
    }
    FRAME_CHECK(block != NULL);
    race_stamp(block, bytes, add_relaxed(&number_next, 1));
    return block;
}

static void block_end(void *block)
{
    if (block != NULL) {
        FRAME_CHECK(race_intact(block, race_block_bytes(block)));
        ebb_free(block);
    }
}

static void *block_resize(void *block, uint64_t *random)
{
    size_t before = race_block_bytes(block);
    size_t bytes = size_draw(random);
    FRAME_CHECK(race_intact(block, before));
    block = ebb_realloc(block, bytes);
    FRAME_CHECK(block != NULL);
    FRAME_CHECK(race_intact(block, bytes < before ? bytes : before));
    race_stamp(block, bytes, add_relaxed(&number_next, 1));
    return block;
}

static void worker_step(struct worker *w)
{
    void **slot = &w->slots[frame_below(&w->random, SLOT_COUNT)];
    uint64_t what = frame_below(&w->random, 16);
    if (*slot == NULL) {
        *slot = block_make(&w->random);
    } else if (what < 6) {
        block_end(*slot);
        *slot = NULL;
    } else if (what < 14) {
        // Acquire and release: the contents go with the block.
        atomic_ptr *box = &mailboxes[frame_below(&w->random, MAILBOX_COUNT)];
        block_end(__atomic_exchange_n(&box->v_, *slot, __ATOMIC_ACQ_REL));
        *slot = NULL;
    } else if (what == 14) {
        *slot = block_resize(*slot, &w->random);
    } else {
        FRAME_CHECK(ebb_malloc_usable_size(*slot) >= race_block_bytes(*slot));
    }
}

static void *worker_run(void *arg)
{
    struct worker *w = arg;
    unsigned ops = 0;
    while (load_relaxed(&stopping) == 0 && (w->ops == 0 || ops < w->ops)) {
        worker_step(w);
        ops++;
        if (frame_below(&w->random, 4096) == 0) {
            race_sleep_us((unsigned)frame_below(&w->random, 3000)); // an idle cache, for a while
        }
    }
    for (size_t i = 0; i < SLOT_COUNT; i++) {
        block_end(w->slots[i]);
        w->slots[i] = NULL;
    }
    add_relaxed(&ops_done, ops);
    return NULL;
}

// Threads that come and go: their spans pass to central and are adopted by others.
static void *spawner_run(void *arg)
{
    uint64_t random = *(uint64_t *)arg;
    while (load_relaxed(&stopping) == 0) {
        struct worker *w = calloc(1, sizeof(*w));
        pthread_t thread;
        FRAME_CHECK(w != NULL);
        w->random = frame_random(&random);
        w->ops = 1 + (unsigned)frame_below(&random, SHORT_LIFE_OPS);
        FRAME_CHECK(pthread_create(&thread, NULL, worker_run, w) == 0);
        FRAME_CHECK(pthread_join(thread, NULL) == 0);
        free(w);
        add_relaxed(&threads_done, 1);
    }
    return NULL;
}

static void verify_frozen(void)
{
    unsigned skipped = world_freeze(&heap_main);
    struct heap_stats stats;
    heap_stats_read(&heap_main, &stats);
    const char *wrong = skipped == 0 ? span_verify_all(&heap_main) : NULL;
    if (wrong == NULL && skipped == 0) {
        wrong = pageheap_verify(&pageheap_main);
    }
    world_thaw(&heap_main);
    if (wrong != NULL) {
        fprintf(stderr, "%s\n", wrong);
    }
    FRAME_CHECK(wrong == NULL);
    FRAME_CHECK(stats.skipped == skipped); // what was claimed is counted
}

static void flush_some(uint64_t *random)
{
    static const enum look_kind kinds[] = {LOOK_REST, LOOK_REST, LOOK_ALL, LOOK_GIVE};
    struct look look;
    look_begin(&heap_main, &look, kinds[frame_below(random, ARRAY_COUNT(kinds))]);
    while (look_step(&heap_main, &look)) {
    }
}

// Flushes and releases in a tight loop, as a releaser would that never sleeps.
static void *flusher_run(void *arg)
{
    uint64_t random = *(uint64_t *)arg;
    while (load_relaxed(&stopping) == 0) {
        switch (frame_below(&random, 4)) {
        case 0:
            releaser_release_now("heap_race", NULL);
            break;
        default:
            flush_some(&random);
            break;
        }
        race_sleep_us((unsigned)frame_below(&random, 300));
    }
    return NULL;
}

// What MemStats counts since the beginning of the process never goes back.
static void memstats_check(struct ebb_memstats *before)
{
    struct ebb_memstats now;
    memstats_read(&now);
    if (now.skipped_count != 0) {
        return;
    }
    const char *wrong = memstats_verify(&now);
    if (wrong != NULL) {
        fprintf(stderr, "%s\n", wrong);
    }
    FRAME_CHECK(wrong == NULL);
    FRAME_CHECK(now.mallocs >= before->mallocs);
    FRAME_CHECK(now.frees >= before->frees);
    FRAME_CHECK(now.total_alloc >= before->total_alloc);
    *before = now;
}

// Profiles while samples come and go, and another interval.
static void profile_some(uint64_t *random)
{
    static const uint64_t intervals[] = {0, 4096, 65536, SAMPLE_INTERVAL_BYTES};
    static const char *const names[] = {"heap", "growth", "pins"};
    const char *name = names[frame_below(random, ARRAY_COUNT(names))];
    struct profile_set set;
    const char *why;
    FRAME_CHECK(profile_collect(profile_find(name, strlen(name)), &set, 64 * MIB, &why));
    profile_set_end(&set);
    sample_set_interval(&heap_main, intervals[frame_below(random, ARRAY_COUNT(intervals))]);
}

static void *reader_run(void *arg)
{
    uint64_t random = *(uint64_t *)arg;
    struct ebb_memstats before = {0};
    while (load_relaxed(&stopping) == 0) {
        switch (frame_below(&random, 4)) {
        case 0:
            verify_frozen();
            break;
        case 1:
            profile_some(&random);
            break;
        default:
            memstats_check(&before);
            break;
        }
        race_sleep_us((unsigned)frame_below(&random, 2000));
    }
    return NULL;
}

// An owner that only looks whether it is claimed is inside its bracket for a moment. That moment is
// made here: its cache is claimed all the same, and is counted.
static void verify_looking(void)
{
    struct heap_stats before;
    struct heap_stats after;
    unsigned skipped = world_freeze(&heap_main);
    heap_stats_read(&heap_main, &before);
    struct cache *cache = load_acquire(&heap_main.caches); // pairs with store_release in cache_make
    while (cache != NULL && (cache == cache_self || load_relaxed(&cache->claimed) == 0)) {
        cache = cache->all_next;
    }
    FRAME_CHECK(cache != NULL);
    store_relaxed(&cache->busy, 1);
    heap_stats_read(&heap_main, &after);
    store_relaxed(&cache->busy, 0);
    world_thaw(&heap_main);
    FRAME_CHECK(skipped != 0 || after.skipped == 0);
    FRAME_CHECK(after.alloc_count[0] == before.alloc_count[0]);
}

static void finish(void)
{
    struct ebb_memstats stats;
    verify_looking();
    for (size_t i = 0; i < MAILBOX_COUNT; i++) {
        block_end(mailboxes[i].v_);
    }
    verify_frozen();
    world_flush(&heap_main, NULL);
    verify_frozen();
    memstats_read(&stats);
    fprintf(stderr, "%llu steps, %llu short threads, %llu mallocs, %llu live\n",
            (unsigned long long)load_relaxed(&ops_done),
            (unsigned long long)load_relaxed(&threads_done), (unsigned long long)stats.mallocs,
            (unsigned long long)stats.heap_objects);
    FRAME_CHECK(stats.heap_objects == 0);
    FRAME_CHECK(stats.heap_alloc == 0);
    FRAME_CHECK(stats.heap_inuse == 0);
}

int main(int argc, char **argv)
{
    static struct worker workers[THREADS_MAX];
    static pthread_t threads[THREADS_MAX];
    static void *(*const others[])(void *) = {spawner_run, spawner_run, flusher_run, reader_run};
    static uint64_t seeds[ARRAY_COUNT(others)];
    static pthread_t other_threads[ARRAY_COUNT(others)];
    unsigned seconds = race_argument(argc, argv, 1, 15, 180);
    unsigned count = (unsigned)min_size(race_argument(argc, argv, 2, 8, 8), THREADS_MAX);
    uint64_t random = frame_seed();
    alarm(seconds * 4 + 60); // a hang ends by a signal
    heap_init();
    malloc_add_profiles();
    if (RACE_BUILD) {
        options_main.releaser = false;
        releaser_init();
    }
    for (unsigned i = 0; i < count; i++) {
        workers[i].random = frame_random(&random);
        FRAME_CHECK(pthread_create(&threads[i], NULL, worker_run, &workers[i]) == 0);
    }
    for (size_t i = 0; i < ARRAY_COUNT(others); i++) {
        seeds[i] = frame_random(&random);
        FRAME_CHECK(pthread_create(&other_threads[i], NULL, others[i], &seeds[i]) == 0);
    }
    race_sleep_us(seconds * 1000000);
    store_relaxed(&stopping, 1);
    for (unsigned i = 0; i < count; i++) {
        FRAME_CHECK(pthread_join(threads[i], NULL) == 0);
    }
    for (size_t i = 0; i < ARRAY_COUNT(others); i++) {
        FRAME_CHECK(pthread_join(other_threads[i], NULL) == 0);
    }
    finish();
    return 0;
}
