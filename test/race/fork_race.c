// SPDX-License-Identifier: MIT
//
// Fork race: fork_race [FORKS [THREADS]]. A process forks again and again while its threads
// allocate, free and free one another's blocks. Children allocate, free what dead threads left,
// start a thread, fork again, and verify the whole heap. Commit and long tier.
//
// Model
//   Threads keep their blocks where all can see them: a slot is emptied before its block is freed
//   and filled after its block is stamped. So whatever a child finds in a slot is a live block, and
//   it may look at it and free it.
//   Two pairs of fork handlers call malloc: one registered before ours, whose prepare handler runs
//   when the heap is frozen already, and one after ours (docs/design/003).
//   A child that hangs is ended by its alarm and counts as failed; so does the parent.
//
// Go       none
#include <pthread.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "boot/boot.h"
#include "malloc/malloc.h"
#include "race.h"
#include "release/release.h"
#include "span/span.h"

#define THREADS_MAX 32
#define SLOT_COUNT 32 // few: every fork copies what the threads then write to
#define CHILD_SECONDS 30

static atomic_ptr slots[THREADS_MAX][SLOT_COUNT];
static atomic_u32 stopping;
static atomic_u32 started;
static atomic_u64 handler_calls;
static atomic_u64 steps;
static unsigned thread_count;

static size_t size_draw(uint64_t *random)
{
    if (frame_below(random, 100) == 0) {
        return 32 * 1024 + frame_below(random, 100 * 1024);
    }
    return RACE_MIN_BYTES + frame_below(random, frame_below(random, 8) == 0 ? 16384 : 512);
}

static void block_end(void *block)
{
    if (block != NULL) {
        FRAME_CHECK(race_intact(block, race_block_bytes(block)));
        ebb_free(block);
    }
}

// Puts a new block into the slot and frees what was there.
static void slot_renew(atomic_ptr *slot, uint64_t *random)
{
    size_t bytes = size_draw(random);
    void *block = ebb_malloc(bytes);
    FRAME_CHECK(block != NULL);
    race_stamp(block, bytes, frame_random(random));
    block_end(__atomic_exchange_n(&slot->v_, block, __ATOMIC_ACQ_REL));
}

static void slot_clear(atomic_ptr *slot)
{
    block_end(__atomic_exchange_n(&slot->v_, NULL, __ATOMIC_ACQ_REL));
}

static void *worker_run(void *arg)
{
    uint64_t random = *(uint64_t *)arg;
    uint64_t here = frame_below(&random, THREADS_MAX);
    add_relaxed(&started, 1);
    while (load_relaxed(&stopping) == 0) {
        // Mostly its own row; every fourth time another thread's.
        uint64_t row = frame_below(&random, 4) == 0 ? frame_below(&random, THREADS_MAX) : here;
        atomic_ptr *slot = &slots[row][frame_below(&random, SLOT_COUNT)];
        if (frame_below(&random, 3) == 0) {
            slot_clear(slot);
        } else {
            slot_renew(slot, &random);
        }
        add_relaxed(&steps, 1);
        if (frame_below(&random, 64) == 0) {
            race_sleep_us((unsigned)frame_below(&random, 1000)); // leaves time to the children
        }
    }
    return NULL;
}

static void handler(void)
{
    // Fast path, slow path and a large block, in each phase of a fork.
    static const size_t sizes[] = {24, 700, 5000, 40000, 500000};
    for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) {
        void *blocks[8];
        for (size_t k = 0; k < ARRAY_COUNT(blocks); k++) {
            blocks[k] = ebb_malloc(sizes[i]);
            FRAME_CHECK(blocks[k] != NULL);
            memset(blocks[k], 1, 24);
        }
        for (size_t k = 0; k < ARRAY_COUNT(blocks); k++) {
            ebb_free(blocks[k]);
        }
    }
    add_relaxed(&handler_calls, 1);
}

#if !RACE_BUILD
// Before any constructor, so that these handlers surround ours.
static void early_register(int argc, char **argv, char **entries)
{
    (void)argc;
    (void)argv;
    (void)entries;
    pthread_atfork(handler, handler, handler);
}
__attribute__((section(".preinit_array"),
               used)) static void (*const early_entry)(int, char **, char **) = early_register;
#endif

static void child_verify(void)
{
    unsigned skipped = world_freeze(&heap_main);
    const char *wrong = skipped == 0 ? span_verify_all(&heap_main) : NULL;
    if (wrong == NULL && skipped == 0) {
        wrong = pageheap_verify(&pageheap_main);
    }
    world_thaw(&heap_main);
    if (wrong != NULL) {
        fprintf(stderr, "child: %s\n", wrong);
    }
    FRAME_CHECK(wrong == NULL);
}

static void child_work(uint64_t *random, bool all)
{
    for (unsigned i = 0; i < 300; i++) {
        atomic_ptr *slot =
            &slots[frame_below(random, THREADS_MAX)][frame_below(random, SLOT_COUNT)];
        if (frame_below(random, 2) == 0) {
            slot_clear(slot);
        } else {
            slot_renew(slot, random);
        }
    }
    if (!all) {
        return;
    }
    for (size_t row = 0; row < THREADS_MAX; row++) {
        for (size_t i = 0; i < SLOT_COUNT; i++) {
            slot_clear(&slots[row][i]);
        }
    }
}

static void *child_thread(void *arg)
{
    uint64_t random = *(uint64_t *)arg;
    child_work(&random, false);
    return NULL;
}

static bool wait_for(pid_t child)
{
    int status = 0;
    FRAME_CHECK(waitpid(child, &status, 0) == child);
    if (status != 0) {
        fprintf(stderr, "child %d ended with status %#x\n", (int)child, (unsigned)status);
    }
    return status == 0;
}

static void child_run(uint64_t random, unsigned generation)
{
    alarm(CHILD_SECONDS);
    bool all = frame_below(&random, 4) == 0;
    child_work(&random, all);
    if (frame_below(&random, 8) == 0) {
        child_verify();
    }
    if (!RACE_BUILD && frame_below(&random, 16) == 0) {
        pthread_t thread;
        FRAME_CHECK(pthread_create(&thread, NULL, child_thread, &random) == 0);
        child_work(&random, false);
        FRAME_CHECK(pthread_join(thread, NULL) == 0);
    }
    if (generation == 0 && frame_below(&random, 16) == 0) {
        pid_t grandchild = fork();
        if (grandchild == 0) {
            child_run(frame_random(&random), 1);
            _exit(0);
        }
        FRAME_CHECK(grandchild > 0 && wait_for(grandchild));
    }
    if (frame_below(&random, 16) == 0) {
        releaser_release_now("fork_race", NULL); // unless the child's own releaser is at it
        child_verify();
    }
}

int main(int argc, char **argv)
{
    static pthread_t threads[THREADS_MAX];
    static uint64_t seeds[THREADS_MAX];
    unsigned forks = race_argument(argc, argv, 1, 2000, 10000);
    thread_count = (unsigned)min_size(race_argument(argc, argv, 2, 8, 8), THREADS_MAX);
    uint64_t random = frame_seed();
    FRAME_CHECK(boot_release_now() !=
                UINT64_MAX); // links boot, whose constructor is what is tested
    pthread_atfork(handler, handler, handler);
    for (unsigned i = 0; i < thread_count; i++) {
        seeds[i] = frame_random(&random);
        FRAME_CHECK(pthread_create(&threads[i], NULL, worker_run, &seeds[i]) == 0);
    }
    // A thread that starts uses the sanitizer's own allocator, whose locks no fork handler sees to:
    // a child of that moment could start no thread.
    while (load_relaxed(&started) != thread_count) {
        race_sleep_us(100);
    }
    for (unsigned i = 0; i < forks; i++) {
        uint64_t seed = frame_random(&random);
        alarm(2 * CHILD_SECONDS);
        pid_t child = fork();
        FRAME_CHECK(child >= 0);
        if (child == 0) {
            child_run(seed, 0);
            _exit(0);
        }
        FRAME_CHECK(wait_for(child));
    }
    store_relaxed(&stopping, 1);
    for (unsigned i = 0; i < thread_count; i++) {
        FRAME_CHECK(pthread_join(threads[i], NULL) == 0);
    }
    child_work(&random, true); // all blocks of all threads
    child_verify();
    fprintf(stderr, "%u forks, %llu steps beside them, %llu calls of handlers\n", forks,
            (unsigned long long)load_relaxed(&steps),
            (unsigned long long)load_relaxed(&handler_calls));
    FRAME_CHECK(load_relaxed(&handler_calls) >= (RACE_BUILD ? 2 : 4) * (uint64_t)forks);
    return 0;
}
