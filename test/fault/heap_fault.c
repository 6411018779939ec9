// SPDX-License-Identifier: MIT
// Tier  commit
//
// The n-th call to the machine fails, for n = 1, 2, 3, ... until a run has no fault: the page heap
// in a box, and the whole malloc family in a forked process for each n. Nothing crashes, what fails
// says so with ENOMEM, the verifiers hold, no byte is damaged, and when the machine works again so
// does the heap.
//
// Go  none: the runtime throws when mmap fails.
#include "support/unit.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "boot/boot.h"
#include "malloc/malloc.h"
#include "release/release.h"
#include "support/heapbox.h"

// --- the page heap in a box ---

#define BOX_SPANS 40

// A fixed course that grows over several arenas, releases, and uses what was released.
static void box_course(struct heapbox *box)
{
    struct span *spans[BOX_SPANS] = {NULL};
    struct pageheap_release_result result = {0};
    for (int turn = 0; turn < 2; turn++) {
        for (size_t i = 0; i < BOX_SPANS; i++) {
            size_t pages = i % 4 == 0 ? 900 : 1 + i * 7;
            spans[i] = pageheap_alloc(box->pages, pages, i % 3 == 0 ? 8 : 1, PAGEHEAP_LARGE);
            if (spans[i] != NULL) {
                *(uint64_t *)spans[i]->base = i + 1;
            }
            heapbox_verify(box, "after an allocation");
        }
        for (size_t i = 0; i < BOX_SPANS; i += 2) {
            if (spans[i] != NULL) {
                FRAME_CHECK(*(uint64_t *)spans[i]->base == i + 1);
                pageheap_free(box->pages, spans[i]);
            }
            spans[i] = NULL;
        }
        struct pageheap_cursor cursor = pageheap_cursor_top(box->pages);
        size_t steps = 0;
        while (pageheap_release(box->pages, &cursor,
                                &(struct pageheap_filter){.max_pages = CHUNK_PAGES},
                                turn == 0 ? VM_ADVICE_DONTNEED : VM_ADVICE_FREE, &result)) {
            heapbox_verify(box, "after a release");
            FRAME_CHECK(++steps < 1000); // a pass ends, even if the kernel refuses
        }
        for (size_t i = 1; i < BOX_SPANS; i += 2) {
            if (spans[i] != NULL) {
                FRAME_CHECK(*(uint64_t *)spans[i]->base == i + 1);
                pageheap_free(box->pages, spans[i]);
            }
            spans[i] = NULL;
        }
        pageheap_release_tables(box->pages);
        heapbox_verify(box, "after the tables");
    }
}

static void box_sweep(uint32_t kinds, enum vm_fail_mode mode, size_t page_bytes)
{
    bool fault = true;
    uint64_t n = 0;
    while (fault) {
        struct heapbox box;
        heapbox_open(&box, page_bytes, 512 * MIB, 1);
        vm_fail_arm(&box.fail, kinds, mode, ++n);
        box_course(&box);
        fault = vm_fail_disarm(&box.fail);
        // The machine works again: so does the heap.
        struct span *span = pageheap_alloc(box.pages, 1000, 1, PAGEHEAP_LARGE);
        FRAME_CHECK(span != NULL);
        pageheap_free(box.pages, span);
        heapbox_verify(&box, "at the end");
        heapbox_close(&box);
        FRAME_CHECK(n < 5000);
    }
    cr_assert(n > 3, "the course makes only %llu calls that can fail", (unsigned long long)n);
}

EBB_TEST(heap_fault, box_any_call, .timeout = 120)
{
    box_sweep(VM_FAIL_ANY, VM_FAIL_ONCE, 4 * KIB);
    box_sweep(VM_FAIL_ANY, VM_FAIL_FROM, 64 * KIB);
}

EBB_TEST(heap_fault, box_each_kind, .timeout = 120)
{
    box_sweep(VM_FAIL_RESERVE, VM_FAIL_FROM, 4 * KIB);
    box_sweep(VM_FAIL_PREPARE, VM_FAIL_FROM, 16 * KIB);
    box_sweep(VM_FAIL_UNUSED, VM_FAIL_ONCE, 4 * KIB);
}

// A refused advice, for whatever reason, leaves every byte, and the pages stay ready.
EBB_TEST(heap_fault, refused_advice_keeps_contents)
{
    const long errors[] = {-EINVAL, -ENOMEM, -EPERM, -EAGAIN};
    for (size_t e = 0; e < ARRAY_COUNT(errors); e++) {
        struct heapbox box;
        struct pageheap_release_result result = {0};
        struct pageheap_stats stats;
        heapbox_open(&box, 4 * KIB, 128 * MIB, 1);
        struct span *span = pageheap_alloc(box.pages, 100, 1, PAGEHEAP_LARGE);
        memset((void *)span->base, 0x5a, 100 * PAGE_BYTES);
        pageheap_free(box.pages, span);
        vm_fail_arm(&box.fail, VM_FAIL_UNUSED, VM_FAIL_FROM, 1);
        box.fail.unused_error = errors[e];
        struct pageheap_cursor cursor = pageheap_cursor_top(box.pages);
        cr_assert(pageheap_release(box.pages, &cursor,
                                   &(struct pageheap_filter){.max_pages = SIZE_MAX},
                                   VM_ADVICE_DONTNEED, &result));
        cr_assert(result.pages == 0 && result.refused == 100);
        pageheap_stats_read(box.pages, &stats);
        cr_assert(stats.ready_pages == 100 && stats.withdrawn_pages == 0);
        cr_assert(stats.refused_total_pages == 100 && stats.released_total_pages == 0);
        heapbox_verify(&box, "after the refusal");
        span = pageheap_alloc(box.pages, 100, 1, PAGEHEAP_LARGE);
        cr_assert(!span->zero, "memory that was not given back is not known to be zero");
        for (size_t i = 0; i < 100 * PAGE_BYTES; i++) {
            cr_assert(((char *)span->base)[i] == 0x5a);
        }
        heapbox_close(&box);
    }
}

// --- the heap of the process, in a child for each n ---

#define BLOCKS 600
#define CHILD_THREADS 12

static unsigned char *blocks[BLOCKS];
static size_t block_bytes[BLOCKS];

// A failure is NULL and ENOMEM, nothing else.
static void *allowed(void *block)
{
    FRAME_CHECK(block != NULL || errno == ENOMEM);
    errno = 0;
    return block;
}

static void store(size_t i, unsigned char *block, size_t bytes)
{
    blocks[i] = block;
    block_bytes[i] = bytes;
    if (block != NULL) {
        memset(block, (int)(i & 0xff) | 1, bytes);
    }
}

static void check_block(size_t i, size_t bytes)
{
    for (size_t pos = 0; pos < bytes; pos++) {
        FRAME_CHECK(blocks[i][pos] == ((i & 0xff) | 1));
    }
}

static size_t course_bytes(size_t i)
{
    static const size_t sizes[] = {1, 16, 100, 1000, 1024, 1025, 5000, 32768, 32769, 300000};
    return sizes[i % ARRAY_COUNT(sizes)] + i / 100;
}

static void course_alloc(size_t i)
{
    size_t bytes = course_bytes(i);
    void *block = NULL;
    if (i % 7 == 0) {
        size_t align = (size_t)64 << (i % 9);
        int ret = ebb_posix_memalign(&block, align, bytes);
        FRAME_CHECK(ret == 0 || ret == ENOMEM);
    } else if (i % 7 == 1) {
        block = allowed(ebb_calloc(1, bytes));
        for (size_t pos = 0; block != NULL && pos < bytes; pos++) {
            FRAME_CHECK(((char *)block)[pos] == 0);
        }
    } else {
        block = allowed(ebb_malloc(bytes));
    }
    store(i, block, bytes);
}

static void course_realloc(size_t i)
{
    if (blocks[i] == NULL) {
        return;
    }
    size_t bytes = course_bytes(i * 3 + 1);
    unsigned char *moved = allowed(ebb_realloc(blocks[i], bytes));
    if (moved == NULL) {
        check_block(i, block_bytes[i]); // the old block is untouched
        return;
    }
    blocks[i] = moved;
    check_block(i, min_size(bytes, block_bytes[i]));
    store(i, moved, bytes);
}

static void course_free(size_t i)
{
    if (blocks[i] != NULL) {
        check_block(i, block_bytes[i]);
        ebb_free(blocks[i]);
        blocks[i] = NULL;
    }
}

static sem_t thread_worked;
static sem_t threads_may_end;

// Its cache may not come to be: then it shares one.
static void *thread_course(void *arg)
{
    size_t base = 24 * (size_t)(uintptr_t)arg;
    for (size_t i = base; i < base + 24; i++) {
        course_free(i); // the main thread's
        course_alloc(i);
    }
    sem_post(&thread_worked);
    sem_wait(&threads_may_end);
    return NULL;
}

// One after the other, so that each run of the course is the same, but all alive at the end: each
// needs a cache of its own.
static void threads_course(void)
{
    pthread_t threads[CHILD_THREADS];
    sem_init(&thread_worked, 0, 0);
    sem_init(&threads_may_end, 0, 0);
    for (uintptr_t t = 0; t < CHILD_THREADS; t++) {
        FRAME_CHECK(pthread_create(&threads[t], NULL, thread_course, (void *)t) == 0);
        sem_wait(&thread_worked);
    }
    heap_main_verify("with all threads");
    for (size_t t = 0; t < CHILD_THREADS; t++) {
        sem_post(&threads_may_end);
    }
    for (size_t t = 0; t < CHILD_THREADS; t++) {
        pthread_join(threads[t], NULL);
    }
}

static void course(void)
{
    errno = 0;
    for (size_t i = 0; i < BLOCKS; i++) {
        course_alloc(i);
    }
    heap_main_verify("after allocating");
    threads_course();
    for (size_t i = 0; i < BLOCKS; i += 3) {
        course_realloc(i);
    }
    heap_main_verify("after resizing");
    for (size_t i = 0; i < BLOCKS; i += 2) {
        course_free(i);
    }
    releaser_release_now("test", NULL);
    heap_main_verify("after releasing");
    for (size_t i = 0; i < BLOCKS; i += 4) {
        course_alloc(i);
    }
    world_flush(&heap_main, FLUSH_ALL);
    heap_main_verify("after flushing");
}

// Status 0: a call failed and all went well; 9: no call failed.
static int child_run(uint32_t kinds, enum vm_fail_mode mode, uint64_t n)
{
    struct heapbox box;
    heapbox_adopt_main(&box, 4 * KIB, 2 * GIB, 1);
    vm_fail_arm(&box.fail, kinds, mode, n);
    course();
    bool fault = vm_fail_disarm(&box.fail);
    for (size_t i = 0; i < BLOCKS; i++) {
        course_free(i);
        course_alloc(i);
        FRAME_CHECK(blocks[i] != NULL); // the machine works again
    }
    for (size_t i = 0; i < BLOCKS; i++) {
        course_free(i);
    }
    heap_main_verify("at the end");
    struct ebb_memstats stats;
    memstats_read(&stats);
    FRAME_CHECK(stats.heap_objects == 0 && stats.heap_alloc == 0);
    return fault ? 0 : 9;
}

static void main_sweep(uint32_t kinds, enum vm_fail_mode mode, uint64_t stride)
{
    uint64_t n = 1;
    uint64_t runs = 0;
    int status = 0;
    while (status == 0) {
        fflush(NULL);
        pid_t child = fork();
        cr_assert(child >= 0);
        if (child == 0) {
            _exit(child_run(kinds, mode, n));
        }
        cr_assert(waitpid(child, &status, 0) == child);
        cr_assert(WIFEXITED(status), "mode %d, n = %llu: ended by signal %d", (int)mode,
                  (unsigned long long)n, WTERMSIG(status));
        status = WEXITSTATUS(status);
        cr_assert(status == 0 || status == 9, "mode %d, n = %llu: status %d", (int)mode,
                  (unsigned long long)n, status);
        n += n < 24 ? 1 : stride;
        cr_assert(++runs < 3000);
    }
    cr_assert(n > 10, "the course makes only %llu calls that can fail", (unsigned long long)n);
}

EBB_TEST(heap_fault, main_reserve_and_prepare, .timeout = 300)
{
    main_sweep(VM_FAIL_RESERVE | VM_FAIL_PREPARE, VM_FAIL_ONCE, 1);
    main_sweep(VM_FAIL_RESERVE | VM_FAIL_PREPARE, VM_FAIL_FROM, 1);
}

EBB_TEST(heap_fault, main_unused, .timeout = 300)
{
    // Each failing advice leaves the same trace: in the short form not every one is tried.
    main_sweep(VM_FAIL_UNUSED, VM_FAIL_ONCE, frame_tier() == FRAME_LONG ? 1 : 7);
    main_sweep(VM_FAIL_ANY, VM_FAIL_FROM, frame_tier() == FRAME_LONG ? 1 : 7);
}
