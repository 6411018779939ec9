// SPDX-License-Identifier: MIT
// Tier  commit
//
// The process's heap under a memory limit, on a simulated machine: a hard limit refuses with ENOMEM
// and no earlier than it has to, a soft one never does, the callback comes once per passing and may
// free, the public functions say what is so, and all of it holds while the limit moves under
// allocating threads and while the machine itself fails.
//
// Go  none: Go's limit is a soft one. runtime/testdata/testprog/gc.go memoryLimit.
#include "support/unit.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/option.h"
#include "boot/boot.h"
#include "malloc/malloc.h"
#include "os/lock.h"
#include "release/limit_int.h"
#include "span/span.h"
#include "support/heapbox.h"

#define LIMIT (64 * MIB)
#define BLOCKS_MAX 200000

static struct heapbox box;
static unsigned char *blocks[BLOCKS_MAX];
static size_t block_bytes[BLOCKS_MAX]; // of those that fill has made
static size_t block_count;

// What option limit_action says is read once, by limiter_init.
static void machine_open(int action)
{
    heapbox_adopt_main(&box, 4 * KIB, 2 * GIB, 1);
    options_main.limit_action = action;
    limiter_init();
}

static struct ebb_limit limit_now(void)
{
    struct ebb_limit limit = {.size = sizeof(limit)};
    cr_assert(ebb_limit_read(&limit) == 0);
    return limit;
}

static uint64_t tables_bytes(void)
{
    return load_relaxed(&heap_main.meta.reserved_bytes) + heap_main.meta.first_bytes;
}

static void blocks_free(size_t from, size_t step)
{
    for (size_t i = from; i < block_count; i += step) {
        ebb_free(blocks[i]);
        blocks[i] = NULL;
    }
    block_count = from == 0 && step == 1 ? 0 : block_count;
}

enum how { HOW_MALLOC, HOW_CALLOC, HOW_REALLOC, HOW_ALIGNED, HOW_COUNT };

static void *block_get(enum how how, size_t bytes)
{
    errno = 0;
    void *block = how == HOW_MALLOC    ? ebb_malloc(bytes)
                  : how == HOW_CALLOC  ? ebb_calloc(1, bytes)
                  : how == HOW_REALLOC ? ebb_realloc(NULL, bytes)
                                       : ebb_aligned_alloc(64, bytes);
    FRAME_CHECK(block != NULL || errno == ENOMEM);
    return block;
}

// Allocates until it fails.
static void fill(enum how how, size_t bytes)
{
    for (;;) {
        unsigned char *block = block_get(how, bytes);
        if (block == NULL) {
            return;
        }
        FRAME_CHECK(block_count < BLOCKS_MAX);
        block_bytes[block_count] = bytes;
        block[0] = (unsigned char)block_count;
        block[bytes - 1] = (unsigned char)block_count;
        blocks[block_count++] = block;
    }
}

static void contents_check(void)
{
    for (size_t i = 0; i < block_count; i++) {
        if (blocks[i] != NULL) {
            FRAME_CHECK(blocks[i][0] == (unsigned char)i);
            FRAME_CHECK(blocks[i][block_bytes[i] - 1] == (unsigned char)i);
        }
    }
}

// --- a hard limit ---

static void expect_at_the_limit(size_t bytes)
{
    struct ebb_limit limit = limit_now();
    uint64_t held_bytes = limit.used + tables_bytes();
    cr_assert(limit.used <= LIMIT, "%llu in use", (unsigned long long)limit.used);
    cr_assert(held_bytes + bytes + sizeclass_table[1].full_pages * PAGE_BYTES >= LIMIT / 10 * 9,
              "blocks of %zu refused at %llu bytes", bytes, (unsigned long long)held_bytes);
}

EBB_TEST(limit_hard, refuses_at_the_limit_and_not_before)
{
    const size_t sizes[] = {500, 1024, 8192, 32768, 32769, 300000, 5 * MIB};
    machine_open(OPTION_LIMIT_ACTION_ENOMEM);
    cr_assert(ebb_limit_set(LIMIT) == EBB_LIMIT_NONE);
    for (int how = 0; how < HOW_COUNT; how++) {
        for (size_t s = 0; s < ARRAY_COUNT(sizes); s++) {
            size_t bytes = how == HOW_ALIGNED ? sizes[s] / 64 * 64 + 64 : sizes[s];
            uint64_t refused = limit_now().refused_count;
            fill((enum how)how, bytes);
            cr_assert(limit_now().refused_count == refused + 1);
            expect_at_the_limit(bytes);
            contents_check();
            heap_main_verify("at the limit");
            // One block is free: there is room for one of its size.
            ebb_free(blocks[block_count / 2]);
            blocks[block_count / 2] = block_get((enum how)how, bytes);
            cr_assert(blocks[block_count / 2] != NULL, "size %zu", bytes);
            blocks_free(0, 1);
            heap_main_verify("after freeing all");
        }
    }
    // All sizes one after the other: what one size has freed is room for the next at once.
    cr_assert(limit_now().used <= LIMIT);
    heap_main_end("at the end");
}

// The tables grow with the heap, and count: over several arenas the whole stays below the limit,
// but for what the last arena has brought.
EBB_TEST(limit_hard, tables_count)
{
    machine_open(OPTION_LIMIT_ACTION_ENOMEM);
    ebb_limit_set(8 * LIMIT);
    uint64_t tables = tables_bytes();
    void *first = ebb_malloc(MIB);
    uint64_t arena_tables = tables_bytes() - tables;
    fill(HOW_MALLOC, MIB);
    cr_assert(tables_bytes() >= tables + 7 * arena_tables);
    cr_assert(limit_now().mapped <= 8 * LIMIT + 2 * arena_tables, "%llu mapped",
              (unsigned long long)limit_now().mapped);
    cr_assert(limit_now().used + tables_bytes() <= 8 * LIMIT + arena_tables);
    ebb_free(first);
    blocks_free(0, 1);
    heap_main_end("at the end");
}

EBB_TEST(limit_hard, realloc_leaves_the_block_as_it_was)
{
    machine_open(OPTION_LIMIT_ACTION_ENOMEM);
    ebb_limit_set(LIMIT);
    const size_t sizes[] = {100, 32768, 300000};
    for (size_t s = 0; s < ARRAY_COUNT(sizes); s++) {
        size_t bytes = sizes[s];
        unsigned char *block = ebb_malloc(bytes);
        cr_assert(block != NULL);
        memset(block, 0x5a, bytes);
        fill(HOW_MALLOC, MIB);
        errno = 0;
        cr_assert(ebb_realloc(block, 2 * MIB) == NULL && errno == ENOMEM);
        errno = 0;
        cr_assert(ebb_reallocarray(block, 2, MIB) == NULL && errno == ENOMEM);
        for (size_t i = 0; i < bytes; i++) {
            cr_assert(block[i] == 0x5a);
        }
        heap_main_verify("after the refusals");
        // To shrink is allowed, and gives room.
        unsigned char *small = ebb_realloc(block, bytes / 2);
        cr_assert(small != NULL && small[0] == 0x5a && small[bytes / 2 - 1] == 0x5a);
        blocks_free(0, 1);
        small = ebb_realloc(small, 2 * MIB);
        cr_assert(small != NULL && small[bytes / 2 - 1] == 0x5a, "after a free it works again");
        ebb_free(small);
        heap_main_verify("after the frees");
    }
    heap_main_end("at the end");
}

EBB_TEST(limit_hard, aligned_and_memalign)
{
    void *block = &box;
    machine_open(OPTION_LIMIT_ACTION_ENOMEM);
    ebb_limit_set(LIMIT);
    fill(HOW_MALLOC, 100000);
    errno = 0;
    cr_assert(ebb_aligned_alloc(65536, 65536 * 16) == NULL && errno == ENOMEM);
    errno = 0;
    cr_assert(ebb_posix_memalign(&block, 4096, MIB) == ENOMEM && errno == 0);
    cr_assert(block == &box, "left alone");
    blocks_free(0, 1);
    block = ebb_aligned_alloc(65536, 65536 * 16);
    cr_assert(block != NULL && (uintptr_t)block % 65536 == 0);
    ebb_free(block);
    heap_main_end("at the end");
}

// Small blocks that were freed lie in caches: they are room all the same, also the second time in
// one millisecond.
EBB_TEST(limit_hard, what_caches_hold_is_room)
{
    machine_open(OPTION_LIMIT_ACTION_ENOMEM);
    ebb_limit_set(LIMIT);
    for (unsigned turn = 0; turn < 20; turn++) {
        fill(HOW_MALLOC, turn % 2 == 0 ? 100000 : 1000);
        expect_at_the_limit(100000);
        blocks_free(0, 1);
        void *block = ebb_malloc(LIMIT / 100 * 95 - tables_bytes());
        cr_assert(block != NULL, "turn %u: %llu of %llu in use", turn,
                  (unsigned long long)limit_now().used, (unsigned long long)LIMIT);
        ebb_free(block);
        // A little of much, right after a refusal has flushed all caches.
        fill(HOW_MALLOC, 1000);
        cr_assert(block_get(HOW_MALLOC, 5 * MIB / 4) == NULL);
        for (unsigned i = 0; i < 1600; i++) {
            ebb_free(blocks[--block_count]);
        }
        block = block_get(HOW_MALLOC, 5 * MIB / 4);
        cr_assert(block != NULL, "turn %u", turn);
        ebb_free(block);
        blocks_free(0, 1);
    }
    heap_main_end("at the end");
}

EBB_TEST(limit_hard, below_what_is_in_use)
{
    machine_open(OPTION_LIMIT_ACTION_ENOMEM);
    for (size_t i = 0; i < 100; i++) {
        blocks[block_count] = ebb_malloc(MIB);
        memset(blocks[block_count++], (int)i, MIB);
    }
    cr_assert(ebb_limit_set(LIMIT) == EBB_LIMIT_NONE);
    cr_assert(limit_now().used > LIMIT);
    cr_assert(block_get(HOW_MALLOC, MIB) == NULL);
    for (size_t i = 0; i < block_count; i++) {
        cr_assert(blocks[i][0] == i && blocks[i][MIB - 1] == i);
    }
    heap_main_verify("far over the limit");
    blocks_free(0, 2);
    void *block = block_get(HOW_MALLOC, MIB);
    cr_assert(block != NULL, "50 of 64 MiB in use");
    ebb_free(block);
    cr_assert(ebb_limit_set(0) == LIMIT);
    cr_assert(limit_now().limit == 0);
    cr_assert(block_get(HOW_MALLOC, MIB) == NULL);
    cr_assert(ebb_limit_set(EBB_LIMIT_NONE) == 0);
    block = block_get(HOW_MALLOC, 200 * MIB);
    cr_assert(block != NULL, "without a limit");
    ebb_free(block);
    blocks_free(0, 1);
    heap_main_end("at the end");
}

// --- holes that are filled again ---

#define KEPT_STEP ((size_t)16000) // of these bytes one block is kept, so that no span comes free

// Fills to_bytes with blocks of one size, keeps a few, and gives the pages between them back. The
// kept ones come first in blocks[]; the rest of the array is free for more.
static void holes_make(size_t bytes, uint64_t to_bytes)
{
    while (limit_now().used < to_bytes) {
        for (unsigned i = 0; i < 100; i++) {
            blocks[block_count] = block_get(HOW_MALLOC, bytes);
            FRAME_CHECK(blocks[block_count] != NULL);
            block_bytes[block_count++] = bytes;
        }
    }
    size_t kept = 0;
    for (size_t i = 0; i < block_count; i++) {
        if (i % (KEPT_STEP / bytes) != 0) {
            ebb_free(blocks[i]);
            continue;
        }
        blocks[kept] = blocks[i];
        block_bytes[kept] = bytes;
        blocks[kept][0] = blocks[kept][bytes - 1] = (unsigned char)kept;
        kept++;
    }
    block_count = kept;
    releaser_release_now("test", NULL);
}

static uint64_t holes_bytes(void)
{
    return load_relaxed(&pageheap_main.hole_bytes);
}

static void expect_below_the_limit(const char *when)
{
    struct ebb_limit limit = limit_now();
    cr_assert(limit.used + tables_bytes() <= LIMIT, "%s: %llu bytes over", when,
              (unsigned long long)(limit.used + tables_bytes() - LIMIT));
    heap_main_verify(when);
}

// The room that holes leave is used for other blocks: then the holes may not be filled again, but
// what lies between them may, and as much as is freed elsewhere.
static void holes_fill_up(size_t bytes)
{
    holes_make(bytes, LIMIT / 2);
    uint64_t holes = holes_bytes();
    cr_assert(holes > LIMIT / 8, "size %zu: %llu in holes", bytes, (unsigned long long)holes);
    size_t large_first = block_count;
    fill(HOW_MALLOC, MIB);
    size_t large_end = block_count;
    expect_at_the_limit(MIB);
    uint64_t refused = limit_now().refused_count;
    fill(HOW_MALLOC, bytes);
    cr_assert(limit_now().refused_count == refused + 1);
    expect_below_the_limit("the holes are wanted back");
    cr_assert(holes_bytes() > holes - 2 * MIB, "size %zu: %llu of %llu bytes left", bytes,
              (unsigned long long)holes_bytes(), (unsigned long long)holes);
    contents_check();
    // One is freed, in whatever span: there is room for one.
    ebb_free(blocks[0]);
    blocks[0] = block_get(HOW_MALLOC, bytes);
    cr_assert(blocks[0] != NULL, "size %zu", bytes);
    blocks[0][0] = blocks[0][bytes - 1] = 0;
    // Three large ones are freed: the small ones take their room, and no more.
    for (size_t i = large_end - 3; i < large_end; i++) {
        ebb_free(blocks[i]);
        blocks[i] = NULL;
    }
    size_t before = block_count;
    fill(HOW_CALLOC, bytes);
    cr_assert((block_count - before) * bytes > 2 * MIB, "size %zu: %zu blocks", bytes,
              block_count - before);
    expect_below_the_limit("filled again");
    contents_check();
    for (size_t i = large_first; i < large_end; i++) {
        ebb_free(blocks[i]);
        blocks[i] = NULL;
    }
    fill(HOW_MALLOC, bytes);
    expect_at_the_limit(bytes);
    expect_below_the_limit("all of the small ones");
    contents_check();
    blocks_free(0, 1);
}

EBB_TEST(limit_holes, filled_again_they_count)
{
    const size_t sizes[] = {500, 1000, 3000, 5000};
    machine_open(OPTION_LIMIT_ACTION_ENOMEM);
    ebb_limit_set(LIMIT);
    for (size_t s = 0; s < ARRAY_COUNT(sizes); s++) {
        holes_fill_up(sizes[s]);
    }
    heap_main_end("at the end");
}

static unsigned look_count;

static void on_look(void)
{
    look_count++;
}

// A soft limit refuses nothing, but it hears of holes that lead past it, and they count.
EBB_TEST(limit_holes, a_soft_limit_hears_of_them)
{
    machine_open(OPTION_LIMIT_ACTION_SOFT);
    pageheap_set_gate_hook(&pageheap_main, on_look);
    holes_make(1000, LIMIT);
    uint64_t holes = holes_bytes();
    cr_assert(holes > LIMIT / 2);
    ebb_limit_set((int64_t)(limit_now().mapped + MIB));
    struct pageheap_stats before;
    pageheap_stats_read(&pageheap_main, &before);
    uint64_t filled = 0;
    while (look_count == 0) {
        cr_assert(filled < 2 * MIB, "%llu bytes filled and nobody looked",
                  (unsigned long long)filled);
        blocks[block_count] = block_get(HOW_MALLOC, 1000);
        FRAME_CHECK(blocks[block_count] != NULL);
        block_bytes[block_count++] = 1000;
        filled = holes - holes_bytes();
    }
    struct pageheap_stats after;
    pageheap_stats_read(&pageheap_main, &after);
    cr_assert(after.used_pages == before.used_pages, "new pages, not holes");
    cr_assert(limit_now().mapped + 64 * KIB >= (uint64_t)limit_now().limit, "it looked too early");
    while (holes_bytes() > holes / 2) { // far past it, and nothing is refused
        blocks[block_count] = block_get(HOW_MALLOC, 1000);
        FRAME_CHECK(blocks[block_count++] != NULL);
    }
    cr_assert(limit_now().refused_count == 0);
    blocks_free(0, 1);
    heap_main_end("at the end");
}

// --- the callback ---

static struct {
    unsigned calls;
    unsigned free_count; // blocks that the next call frees
    bool allocates;      // and what it allocates itself is refused, without another call
    void *arg;
} called;

static void on_limit(void *arg)
{
    called.calls++;
    called.arg = arg;
    cr_assert(!lock_am_freezer());
    if (called.allocates) {
        cr_assert(block_get(HOW_MALLOC, LIMIT) == NULL);
    }
    for (unsigned i = 0; i < called.free_count && block_count > 0; i++) {
        ebb_free(blocks[--block_count]);
    }
    heap_main_verify("inside the callback"); // takes every lock there is
}

EBB_TEST(limit_callback, once_per_passing_outside_of_locks)
{
    machine_open(OPTION_LIMIT_ACTION_SOFT);
    ebb_limit_set(LIMIT);
    cr_assert(limit_now().action == EBB_LIMIT_SOFT);
    ebb_limit_set_callback(on_limit, &called);
    cr_assert(limit_now().action == EBB_LIMIT_CALLBACK);
    called.allocates = true;
    fill(HOW_MALLOC, MIB);
    cr_assert(called.calls == 1 && called.arg == &called, "%u calls", called.calls);
    for (unsigned i = 0; i < 5; i++) {
        cr_assert(block_get(HOW_MALLOC, MIB) == NULL);
    }
    cr_assert(called.calls == 1 && limit_now().passed_count == 1);
    // Less than a twentieth has been freed, 2 of 64 MiB, and then more.
    ebb_free(blocks[--block_count]);
    ebb_free(blocks[--block_count]);
    fill(HOW_MALLOC, MIB);
    cr_assert(called.calls == 1);
    ebb_free(blocks[--block_count]);
    ebb_free(blocks[--block_count]);
    fill(HOW_MALLOC, MIB);
    cr_assert(called.calls == 2, "%u calls", called.calls);
    ebb_limit_set(LIMIT);
    cr_assert(block_get(HOW_MALLOC, MIB) == NULL && called.calls == 3, "a limit set anew");
    ebb_limit_set_callback(NULL, NULL);
    cr_assert(limit_now().action == EBB_LIMIT_SOFT);
    blocks[block_count] = block_get(HOW_MALLOC, LIMIT);
    cr_assert(blocks[block_count++] != NULL && called.calls == 3);
    blocks_free(0, 1);
    heap_main_end("at the end");
}

static void callback_frees(size_t bytes, unsigned count)
{
    fill(HOW_MALLOC, bytes);
    called.free_count = count;
    called.calls = 0;
    ebb_limit_set(LIMIT); // the next is a passing
    uint64_t refused = limit_now().refused_count;
    void *block = block_get(HOW_MALLOC, 8 * MIB);
    cr_assert(block != NULL, "blocks of %zu were freed, and yet there is no room", bytes);
    cr_assert(called.calls == 1 && limit_now().refused_count == refused, "%u calls", called.calls);
    ebb_free(block);
    called.free_count = 0;
    blocks_free(0, 1);
}

EBB_TEST(limit_callback, what_it_frees_is_room)
{
    machine_open(OPTION_LIMIT_ACTION_SOFT);
    ebb_limit_set(LIMIT);
    ebb_limit_set_callback(on_limit, NULL);
    callback_frees(MIB, 16);
    callback_frees(100000, 200);
    callback_frees(1000, 9000); // these go into the thread's cache first
    // Not enough: the allocation fails, and the function is not called again for it.
    fill(HOW_MALLOC, MIB);
    called.free_count = 6;
    called.calls = 0;
    ebb_limit_set(LIMIT);
    cr_assert(block_get(HOW_MALLOC, LIMIT / 2) == NULL);
    cr_assert(called.calls == 1, "%u calls for one allocation", called.calls);
    blocks_free(0, 1);
    heap_main_end("at the end");
}

// The machine has no more, but the limit is far: that is not the program's limit.
EBB_TEST(limit_callback, not_when_the_machine_fails)
{
    machine_open(OPTION_LIMIT_ACTION_SOFT);
    ebb_limit_set(1000 * MIB);
    ebb_limit_set_callback(on_limit, NULL);
    vm_fail_arm(&box.fail, VM_FAIL_RESERVE | VM_FAIL_PREPARE, VM_FAIL_FROM, 1);
    fill(HOW_MALLOC, MIB);
    cr_assert(limit_now().used < 900 * MIB);
    cr_assert(called.calls == 0 && limit_now().refused_count == 0);
    cr_assert(vm_fail_disarm(&box.fail));
    void *block = block_get(HOW_MALLOC, 100 * MIB);
    cr_assert(block != NULL);
    ebb_free(block);
    blocks_free(0, 1);
    heap_main_end("at the end");
}

// --- ends of the program ---

EBB_TEST(limit_abort, at_the_limit, .signal = SIGABRT)
{
    machine_open(OPTION_LIMIT_ACTION_ABORT);
    ebb_limit_set(LIMIT);
    fill(HOW_MALLOC, MIB);
}

EBB_TEST(limit_abort, not_below_it_and_not_when_the_machine_fails)
{
    machine_open(OPTION_LIMIT_ACTION_ABORT);
    ebb_limit_set(LIMIT);
    for (size_t i = 0; i < 60; i++) {
        blocks[block_count++] = block_get(HOW_MALLOC, MIB);
    }
    blocks_free(0, 1);
    releaser_release_now("test", NULL);
    vm_fail_arm(&box.fail, VM_FAIL_RESERVE | VM_FAIL_PREPARE, VM_FAIL_FROM, 1);
    ebb_limit_set(1000 * MIB);
    cr_assert(block_get(HOW_MALLOC, 500 * MIB) == NULL);
    cr_assert(vm_fail_disarm(&box.fail));
    heap_main_end("at the end");
}

// Growing over a soft limit with nothing to release, a little at a time.
static void grow_for_seconds(void)
{
    options_main.limit_failfast = 1;
    ebb_limit_set(MIB);
    for (unsigned i = 0; i < 200; i++) {
        FRAME_CHECK(ebb_malloc(200000) != NULL);
        usleep(20000);
    }
}

// The sanitizer does not know the releaser's thread, and crashes where that ends the program.
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define THREAD_MAY_END false
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define THREAD_MAY_END false
#endif
#if !defined(THREAD_MAY_END)
#define THREAD_MAY_END true
#endif

EBB_TEST(limit_abort, failfast_ends_it_after_its_time, .signal = SIGABRT)
{
    machine_open(OPTION_LIMIT_ACTION_SOFT);
    if (!THREAD_MAY_END) {
        releaser_restrict();
    }
    grow_for_seconds();
}

EBB_TEST(limit_abort, failfast_ends_it_without_a_thread, .signal = SIGABRT)
{
    machine_open(OPTION_LIMIT_ACTION_SOFT);
    releaser_restrict();
    grow_for_seconds();
}

// --- a soft limit, and the numbers ---

EBB_TEST(limit_soft, never_refuses)
{
    machine_open(OPTION_LIMIT_ACTION_SOFT);
    ebb_limit_set(LIMIT);
    for (size_t i = 0; i < 200; i++) {
        blocks[block_count] = block_get((enum how)(i % HOW_COUNT), MIB);
        cr_assert(blocks[block_count] != NULL, "block %zu", i);
        memset(blocks[block_count++], 1, MIB);
    }
    heap_main_verify("three times the limit");
    cr_assert(limit_now().used >= 200 * MIB && limit_now().refused_count == 0);
    // Now 100 MiB are ready, and growing has to give them back first.
    blocks_free(1, 2);
    for (size_t i = 0; i < 8; i++) {
        void *block = block_get(HOW_MALLOC, 8 * MIB);
        cr_assert(block != NULL);
        memset(block, 1, 8 * MIB);
        blocks[block_count++] = block;
    }
    struct ebb_limit limit = limit_now();
    cr_assert(limit.assist_count > 0 && limit.assist_bytes > 0);
    heap_main_verify("after growing again");
    blocks_free(0, 1);
    heap_main_end("at the end");
}

EBB_TEST(limit_numbers, set_and_read)
{
    machine_open(OPTION_LIMIT_ACTION_ENOMEM);
    struct ebb_limit limit = {.size = sizeof(limit) - 1};
    cr_assert(ebb_limit_read(NULL) == -EINVAL);
    cr_assert(ebb_limit_read(&limit) == -EINVAL);
    limit.size = sizeof(limit) + 8;
    cr_assert(ebb_limit_read(&limit) == -EINVAL);
    cr_assert(ebb_limit_set(-1) == EBB_LIMIT_NONE);
    cr_assert(limit_now().limit == EBB_LIMIT_NONE && limit_now().automatic == 0);
    cr_assert(ebb_limit_set(LIMIT) == EBB_LIMIT_NONE);
    cr_assert(ebb_limit_set(-1) == LIMIT);
    cr_assert(ebb_limit_set(INT64_MIN) == LIMIT, "negative: only reads");
    cr_assert(limit_now().limit == LIMIT);
    cr_assert(ebb_limit_set(1) == LIMIT);
    cr_assert(ebb_limit_set(INT64_MAX - 2) == 1);
    cr_assert(ebb_limit_set(-1) == INT64_MAX - 2);
    cr_assert(ebb_limit_set(EBB_LIMIT_NONE) == INT64_MAX - 2);
    cr_assert(limit_now().action == EBB_LIMIT_ENOMEM);
    cr_assert(limit_now().group_limit == UINT64_MAX);
    void *block = ebb_malloc(10 * MIB);
    limit = limit_now();
    cr_assert(limit.used >= 10 * MIB && limit.used < 12 * MIB);
    struct ebb_memstats stats;
    memstats_read(&stats);
    limit = limit_now();
    cr_assert(limit.mapped == stats.sys - stats.heap_released, "%llu, MemStats: %llu",
              (unsigned long long)limit.mapped,
              (unsigned long long)(stats.sys - stats.heap_released));
    cr_assert(limit.passed_count == 0 && limit.refused_count == 0 && limit.assist_count == 0);
    ebb_free(block);
    heap_main_end("at the end");
}

// --- threads, and a machine that fails ---

#define THREADS 4
#define HELD 64

static atomic_u32 threads_done;

static void *thread_main(void *arg)
{
    uint64_t state = frame_seed() + (uintptr_t)arg;
    unsigned char *held[HELD] = {NULL};
    size_t held_bytes[HELD] = {0};
    for (unsigned turn = 0; turn < frame_rounds(40000); turn++) {
        size_t i = frame_below(&state, HELD);
        if (held[i] != NULL) {
            FRAME_CHECK(held[i][0] == i && held[i][held_bytes[i] - 1] == i);
        }
        size_t bytes = 1 + frame_below(&state, turn % 8 == 0 ? 2 * MIB : 3000);
        errno = 0;
        unsigned char *block = turn % 3 == 0 ? ebb_realloc(held[i], bytes) : ebb_malloc(bytes);
        if (block == NULL) {
            FRAME_CHECK(errno == ENOMEM);
            ebb_free(held[i]);
        } else if (turn % 3 != 0) {
            ebb_free(held[i]);
        }
        held[i] = block;
        held_bytes[i] = bytes;
        if (block != NULL) {
            block[0] = (unsigned char)i;
            block[bytes - 1] = (unsigned char)i;
        }
    }
    for (size_t i = 0; i < HELD; i++) {
        ebb_free(held[i]);
    }
    add_relaxed(&threads_done, 1);
    return NULL;
}

static pthread_barrier_t at_once;
static atomic_u32 refused_threads;

static void *refused_main(void *arg)
{
    pthread_barrier_wait(&at_once);
    void *block = ebb_malloc(2 * MIB);
    FRAME_CHECK(block != NULL || errno == ENOMEM);
    add_relaxed(&refused_threads, block == NULL);
    ebb_free(block);
    return arg;
}

// Four threads come to the limit at the same moment: one of them calls.
EBB_TEST(limit_threads, one_of_several_calls)
{
    frame_allow_mappings(2000);
    machine_open(OPTION_LIMIT_ACTION_SOFT);
    ebb_limit_set(LIMIT);
    fill(HOW_MALLOC, LIMIT - 2 * MIB);
    ebb_limit_set_callback(on_limit, NULL);
    pthread_barrier_init(&at_once, NULL, THREADS);
    for (unsigned turn = 0; turn < frame_rounds(200); turn++) {
        pthread_t threads[THREADS];
        called.calls = 0;
        store_relaxed(&refused_threads, 0);
        ebb_limit_set(LIMIT);
        for (size_t t = 0; t < THREADS; t++) {
            FRAME_CHECK(pthread_create(&threads[t], NULL, refused_main, NULL) == 0);
        }
        for (size_t t = 0; t < THREADS; t++) {
            pthread_join(threads[t], NULL);
        }
        cr_assert(load_relaxed(&refused_threads) == THREADS);
        cr_assert(called.calls == 1, "%u calls", called.calls);
    }
    pthread_barrier_destroy(&at_once);
    blocks_free(0, 1);
    heap_main_end("at the end");
}

static void *hoard_main(void *arg)
{
    static unsigned char *hoard[8000];
    for (size_t i = 0; i < ARRAY_COUNT(hoard); i++) {
        hoard[i] = ebb_malloc(1000);
        FRAME_CHECK(hoard[i] != NULL);
    }
    for (size_t i = 0; i < ARRAY_COUNT(hoard); i++) {
        ebb_free(hoard[i]);
    }
    pthread_barrier_wait(&at_once); // the other one allocates now
    pthread_barrier_wait(&at_once);
    return arg;
}

EBB_TEST(limit_threads, what_the_cache_of_another_thread_holds_is_room)
{
    pthread_t thread;
    frame_allow_mappings(2000);
    machine_open(OPTION_LIMIT_ACTION_ENOMEM);
    ebb_limit_set(LIMIT);
    ebb_free(ebb_malloc(LIMIT / 2)); // the tables grow no more
    ebb_free(ebb_malloc(LIMIT / 2 + LIMIT / 4));
    ebb_limit_set(LIMIT);
    pthread_barrier_init(&at_once, NULL, 2);
    FRAME_CHECK(pthread_create(&thread, NULL, hoard_main, NULL) == 0);
    pthread_barrier_wait(&at_once);
    cr_assert(limit_now().used > 3 * MIB / 2, "%llu", (unsigned long long)limit_now().used);
    void *block = block_get(HOW_MALLOC, LIMIT - tables_bytes() - MIB);
    cr_assert(block != NULL);
    ebb_free(block);
    pthread_barrier_wait(&at_once);
    pthread_join(thread, NULL);
    pthread_barrier_destroy(&at_once);
    heap_main_end("at the end");
}

#define FILL_BLOCKS 20000

// Makes holes, and when memory has become scarce wants them back, together with the others.
static void *fill_main(void *arg)
{
    unsigned char **own = calloc(FILL_BLOCKS, sizeof(*own));
    for (size_t i = 0; i < FILL_BLOCKS / 4; i++) {
        own[i] = ebb_malloc(1000);
        FRAME_CHECK(own[i] != NULL);
    }
    for (size_t i = 0; i < FILL_BLOCKS / 4; i++) {
        if (i % (KEPT_STEP / 1000) != 0) {
            ebb_free(own[i]);
            own[i] = NULL;
        }
    }
    pthread_barrier_wait(&at_once); // what is free goes back, and others take the room
    pthread_barrier_wait(&at_once);
    size_t count = FILL_BLOCKS / 4;
    while (count < FILL_BLOCKS && (own[count] = block_get(HOW_MALLOC, 1000)) != NULL) {
        memset(own[count++], (int)(uintptr_t)arg, 1000);
    }
    FRAME_CHECK(count < FILL_BLOCKS);
    pthread_barrier_wait(&at_once); // the sum is looked at
    pthread_barrier_wait(&at_once);
    for (size_t i = 0; i < count; i++) {
        FRAME_CHECK(i < FILL_BLOCKS / 4 || own[i][999] == (uintptr_t)arg);
        ebb_free(own[i]);
    }
    free(own);
    return NULL;
}

EBB_TEST(limit_threads, holes_are_filled_by_several)
{
    pthread_t threads[THREADS];
    frame_allow_mappings(2000);
    machine_open(OPTION_LIMIT_ACTION_ENOMEM);
    ebb_limit_set(LIMIT);
    pthread_barrier_init(&at_once, NULL, THREADS + 1);
    for (unsigned turn = 0; turn < 5; turn++) {
        for (size_t t = 0; t < THREADS; t++) {
            FRAME_CHECK(pthread_create(&threads[t], NULL, fill_main, (void *)(t + 1)) == 0);
        }
        pthread_barrier_wait(&at_once);
        releaser_release_now("test", NULL);
        uint64_t holes = holes_bytes();
        cr_assert(holes > 10 * MIB);
        fill(HOW_MALLOC, MIB);
        for (unsigned i = 0; i < 4; i++) { // a little room that all want
            ebb_free(blocks[--block_count]);
        }
        pthread_barrier_wait(&at_once);
        pthread_barrier_wait(&at_once);
        expect_below_the_limit("after all have filled");
        cr_assert(holes_bytes() > holes / 2);
        pthread_barrier_wait(&at_once);
        for (size_t t = 0; t < THREADS; t++) {
            pthread_join(threads[t], NULL);
        }
        blocks_free(0, 1);
    }
    pthread_barrier_destroy(&at_once);
    heap_main_end("at the end");
}

static void limit_moves(int action)
{
    pthread_t threads[THREADS];
    uint64_t state = frame_seed() + 1000;
    frame_allow_mappings(2000);
    machine_open(action);
    for (size_t t = 0; t < THREADS; t++) {
        FRAME_CHECK(pthread_create(&threads[t], NULL, thread_main, (void *)t) == 0);
    }
    unsigned moves = 0;
    while (load_relaxed(&threads_done) < THREADS) {
        int64_t bytes =
            frame_below(&state, 3) == 0 ? EBB_LIMIT_NONE : (int64_t)frame_below(&state, 200 * MIB);
        ebb_limit_set(bytes);
        cr_assert(ebb_limit_set(-1) == bytes);
        if (bytes == EBB_LIMIT_NONE) {
            // No look that began under the last limit may leave it in force.
            for (unsigned i = 0; i < 4; i++) {
                void *block = block_get(HOW_MALLOC, 200 * MIB);
                cr_assert(block != NULL, "refused without a limit");
                ebb_free(block);
                usleep(100);
            }
        }
        if (moves++ % 16 == 0) {
            heap_main_verify("while the limit moves");
        }
        usleep((unsigned)frame_below(&state, 1000));
    }
    for (size_t t = 0; t < THREADS; t++) {
        pthread_join(threads[t], NULL);
    }
    cr_assert(moves > 10);
    ebb_limit_set(EBB_LIMIT_NONE);
    heap_main_end("at the end");
}

EBB_TEST(limit_threads, a_hard_limit_moves)
{
    limit_moves(OPTION_LIMIT_ACTION_ENOMEM);
}

EBB_TEST(limit_threads, a_soft_limit_moves)
{
    limit_moves(OPTION_LIMIT_ACTION_SOFT);
}

// The n-th call to the machine fails, while the heap is filled to its limit, freed, filled again.
// Status 0: a call failed and all went well; 9: no call failed.
static int child_run(enum vm_fail_mode mode, uint64_t n)
{
    machine_open(OPTION_LIMIT_ACTION_ENOMEM);
    ebb_limit_set(LIMIT);
    vm_fail_arm(&box.fail, VM_FAIL_ANY, mode, n);
    for (unsigned turn = 0; turn < 2; turn++) {
        fill(HOW_MALLOC, 3 * MIB);
        fill(HOW_CALLOC, 20000);
        contents_check();
        blocks_free(1, 2);
        releaser_release_now("test", NULL);
        heap_main_verify("after releasing");
        fill(HOW_REALLOC, 300000);
        contents_check();
        blocks_free(0, 1);
    }
    bool fault = vm_fail_disarm(&box.fail);
    fill(HOW_MALLOC, 20000);
    struct ebb_limit limit = {.size = sizeof(limit)};
    FRAME_CHECK(ebb_limit_read(&limit) == 0);
    // Exactly, tables and all: the course needs one arena, and its tables come first.
    FRAME_CHECK(limit.used + tables_bytes() <= LIMIT);
    FRAME_CHECK(limit.used + tables_bytes() >= LIMIT / 10 * 9);
    contents_check();
    blocks_free(0, 1);
    heap_main_verify("the machine works again");
    return fault ? 0 : 9;
}

static void sweep(enum vm_fail_mode mode)
{
    int status = 0;
    uint64_t n = 0;
    while (status == 0) {
        n += n < 40 || frame_tier() == FRAME_LONG ? 1 : 13;
        fflush(NULL);
        pid_t child = fork();
        cr_assert(child >= 0);
        if (child == 0) {
            _exit(child_run(mode, n));
        }
        cr_assert(waitpid(child, &status, 0) == child);
        cr_assert(WIFEXITED(status), "n = %llu: ended by signal %d", (unsigned long long)n,
                  WTERMSIG(status));
        status = WEXITSTATUS(status);
        cr_assert(status == 0 || status == 9, "n = %llu: status %d", (unsigned long long)n, status);
        cr_assert(n < 5000);
    }
    cr_assert(n > 10, "the course makes only %llu calls that can fail", (unsigned long long)n);
}

EBB_TEST(limit_fault, every_call_fails_under_a_limit, .timeout = 120)
{
    sweep(VM_FAIL_ONCE);
    sweep(VM_FAIL_FROM);
}
