// SPDX-License-Identifier: MIT
// Tier  quick
//
// Looks: what each kind finds, what it leaves alone, and that nothing which could go back is passed
// over for good. Random courses are in test/model/hole_model.c.
//
// Go  none
#include "support/unit.h"

#include <linux/membarrier.h>
#include <pthread.h>
#include <semaphore.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "malloc/malloc.h"
#include "span/span_int.h"
#include "support/heapbox.h"

#define BLOCK_COUNT 20000
#define BLOCK_BYTES 400

static struct heapbox box;
static void *blocks[BLOCK_COUNT];

static void open_box(void)
{
    frame_allow_mappings(1000);
    heapbox_adopt_main(&box, 4 * KIB, GIB, 1);
}

static struct look look_once(enum look_kind kind, uint64_t want_bytes)
{
    struct look look;
    look_begin(&heap_main, &look, kind);
    look.want_bytes = want_bytes;
    while (look_step(&heap_main, &look)) {
    }
    heap_main_verify("after a look");
    return look;
}

static struct look look_all_of(enum look_kind kind)
{
    return look_once(kind, UINT64_MAX);
}

static uint64_t candidates(void)
{
    return load_relaxed(&heap_main.candidate_bytes);
}

static uint64_t given(void)
{
    return load_relaxed(&pageheap_main.hole_bytes);
}

static uint64_t used_bytes(void)
{
    struct pageheap_stats stats;
    pageheap_stats_read(&pageheap_main, &stats);
    return stats.used_pages << PAGE_SHIFT;
}

static void blocks_make(void)
{
    for (size_t i = 0; i < BLOCK_COUNT; i++) {
        blocks[i] = ebb_malloc(BLOCK_BYTES);
        memset(blocks[i], 1, BLOCK_BYTES);
    }
}

// Frees all blocks whose number gives one of the rests [first, end) when divided by 100.
static void blocks_free(size_t first, size_t end)
{
    for (size_t i = 0; i < BLOCK_COUNT; i++) {
        if (i % 100 >= first && i % 100 < end && blocks[i] != NULL) {
            ebb_free(blocks[i]);
            blocks[i] = NULL;
        }
    }
}

// --- at rest ---

// Registering takes the kernel some ten milliseconds when there are threads: it is over before a
// cache is marked, whose owner would wait.
EBB_TEST(look, the_barrier_is_ready_before_anybody_is_claimed)
{
    struct look look;
    open_box();
    cr_assert(syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) == -1);
    look_begin(&heap_main, &look, LOOK_REST);
    cr_assert(syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) == 0,
              "not registered yet");
}

EBB_TEST(look, holes_are_made_of_what_is_at_rest_and_given_when_asked)
{
    open_box();
    blocks_make();
    blocks_free(1, 100);
    struct look look = look_all_of(LOOK_REST);
    cr_assert(look.fresh_count != 0 && candidates() == 0, "busy since the last look");
    look = look_all_of(LOOK_REST);
    cr_assert(look.fresh_count == 0 && candidates() > 3 * MIB, "%llu KiB",
              (unsigned long long)candidates() / KIB);
    cr_assert(given() == 0 && box.sim.unused_count == 0, "kept until asked for");
    look = look_once(LOOK_GIVE, 100 * KIB);
    cr_assert(look.given_bytes >= 100 * KIB && look.given_bytes < MIB, "%llu KiB at once",
              (unsigned long long)look.given_bytes / KIB);
    cr_assert(given() == look.given_bytes);
    uint64_t left = candidates();
    look = look_all_of(LOOK_GIVE);
    cr_assert(look.given_bytes == left && candidates() == 0);
}

EBB_TEST(look, giving_while_others_are_fresh_does_not_hide_them)
{
    // The first half comes to rest a look before the second, and is given in between.
    open_box();
    blocks_make();
    for (size_t i = 0; i < BLOCK_COUNT / 2; i++) {
        if (i % 100 != 0) {
            ebb_free(blocks[i]);
            blocks[i] = NULL;
        }
    }
    look_all_of(LOOK_REST);
    blocks_free(1, 100);
    cr_assert(look_all_of(LOOK_REST).fresh_count != 0);
    cr_assert(candidates() > MIB && look_all_of(LOOK_GIVE).given_bytes > MIB);
    cr_assert(look_all_of(LOOK_REST).fresh_count == 0);
    cr_assert(candidates() > MIB, "%llu KiB of the second half found",
              (unsigned long long)candidates() / KIB);
}

EBB_TEST(look, what_is_in_use_all_the_time_is_left_alone)
{
    open_box();
    blocks_make();
    blocks_free(1, 100);
    for (int round = 0; round < 4; round++) {
        look_all_of(LOOK_REST);
        for (size_t i = 0; i < BLOCK_COUNT; i += 100) {
            ebb_free(blocks[i]);
            blocks[i] = ebb_malloc(BLOCK_BYTES);
        }
    }
    // Only the spans that malloc did not come to, in four rounds, may have holes.
    uint64_t busy = candidates();
    look_all_of(LOOK_REST);
    look_all_of(LOOK_REST);
    cr_assert(busy < candidates());
    look_all_of(LOOK_ALL);
    cr_assert(look_all_of(LOOK_ALL).pinned_bytes != 0, "pages with a block in use");
}

EBB_TEST(look, empty_spans_at_rest_go)
{
    open_box();
    blocks_make();
    blocks_free(0, 100);
    look_all_of(LOOK_REST);
    look_all_of(LOOK_REST);
    look_all_of(LOOK_REST);
    cr_assert(used_bytes() <= 64 * KIB, "%llu KiB stay", (unsigned long long)used_bytes() / KIB);
}

// What goes back in between does not make the heap forget that some spans were in motion.
EBB_TEST(look, giving_back_does_not_end_the_search)
{
    open_box();
    blocks_make();
    blocks_free(2, 100);
    look_all_of(LOOK_REST);
    for (size_t i = BLOCK_COUNT / 2; i < BLOCK_COUNT; i += 100) {
        ebb_free(blocks[i]); // half of the spans change
    }
    struct look look = look_all_of(LOOK_REST);
    cr_assert(look.fresh_count != 0);
    look_all_of(LOOK_GIVE);
    uint64_t first = given();
    cr_assert(first > MIB && first < 5 * MIB);
    look_all_of(LOOK_REST);
    look_all_of(LOOK_GIVE);
    cr_assert(given() > first + MIB, "%llu KiB, then %llu", (unsigned long long)first / KIB,
              (unsigned long long)given() / KIB);
}

EBB_TEST(look, a_look_that_was_cut_is_made_up_for)
{
    open_box();
    blocks_make();
    blocks_free(1, 100);
    look_all_of(LOOK_REST);
    struct look look;
    look_begin(&heap_main, &look, LOOK_REST);
    while (look_step(&heap_main, &look) && candidates() == 0) {
    }
    uint64_t first = candidates(); // the budget ends here
    look_all_of(LOOK_REST);
    cr_assert(candidates() > first + MIB, "%llu KiB, then %llu", (unsigned long long)first / KIB,
              (unsigned long long)candidates() / KIB);
}

// --- allocating again ---

EBB_TEST(look, resident_holes_serve_malloc_before_given_ones)
{
    open_box();
    blocks_make();
    blocks_free(1, 100);
    look_all_of(LOOK_REST);
    look_all_of(LOOK_REST);
    uint64_t resident = candidates();
    look_once(LOOK_GIVE, resident / 2);
    uint64_t given_before = given();
    uint64_t used_before = used_bytes();
    cr_assert(given_before >= resident / 2 && candidates() >= resident / 3);
    while (candidates() > MIB / 4) {
        cr_assert(ebb_malloc(BLOCK_BYTES) != NULL);
    }
    // But in the span it was allocating from, when it goes on to blocks never threaded.
    cr_assert(given() >= given_before - 64 * KIB, "holes that were given back were opened");
    cr_assert(used_bytes() == used_before, "nor a span made");
    heap_main_verify("after growing into resident holes");
    // Without other memory the given ones come back, to the last block.
    while (given() != 0) {
        cr_assert(ebb_malloc(BLOCK_BYTES) != NULL);
        cr_assert(used_bytes() == used_before, "a span is made, and %llu KiB are in holes",
                  (unsigned long long)given() / KIB);
    }
    heap_main_verify("after growing into given holes");
}

EBB_TEST(look, free_runs_are_taken_before_given_holes)
{
    open_box();
    blocks_make();
    blocks_free(1, 100);
    void *large = ebb_malloc(8 * MIB);
    memset(large, 1, 8 * MIB);
    look_all_of(LOOK_REST);
    look_all_of(LOOK_REST);
    look_all_of(LOOK_GIVE);
    uint64_t given_before = given();
    ebb_free(large);
    for (size_t sum = 0; sum < 6 * MIB; sum += BLOCK_BYTES) {
        cr_assert(ebb_malloc(BLOCK_BYTES) != NULL);
    }
    cr_assert(given() >= given_before - 64 * KIB, "resident memory of the page heap first");
}

// --- other threads ---

static sem_t arrived;
static sem_t may_go;

static void *make_and_sleep(void *arg)
{
    blocks_make();
    blocks_free(50, 51); // every span is partial: no free of another thread is a notification
    sem_post(&arrived);
    sem_wait(&may_go);
    return arg;
}

// A sleeping owner's spans are no longer full, and have been looked at: what another thread frees
// into them reaches no slow path of the owner.
EBB_TEST(look, frees_of_others_into_partial_spans_are_heard)
{
    pthread_t thread;
    open_box();
    sem_init(&arrived, 0, 0);
    sem_init(&may_go, 0, 0);
    cr_assert(pthread_create(&thread, NULL, make_and_sleep, NULL) == 0);
    sem_wait(&arrived);
    for (int i = 0; i < 4; i++) {
        look_all_of(LOOK_REST);
    }
    blocks_free(1, 100);
    for (int i = 0; i < 4; i++) {
        look_all_of(LOOK_REST);
    }
    look_all_of(LOOK_GIVE);
    cr_assert(given() > 3 * MIB, "%llu KiB in holes", (unsigned long long)given() / KIB);
    blocks_free(0, 1);
    for (int i = 0; i < 4; i++) {
        look_all_of(LOOK_REST);
    }
    cr_assert(used_bytes() <= MIB / 4, "all was freed, and %llu KiB stay",
              (unsigned long long)used_bytes() / KIB);
    sem_post(&may_go);
    pthread_join(thread, NULL);
}

struct link {
    struct link *next;
};

// 64 MiB in a chain, so many spans that a look at them takes several pieces.
static void *make_busily_and_sleep(void *arg)
{
    struct link **chain = arg;
    for (size_t sum = 0; sum < 64 * MIB; sum += 2 * KIB) {
        struct link *link = ebb_malloc(2 * KIB);
        link->next = *chain;
        *chain = link;
    }
    for (int i = 0; i < 1000; i++) {
        ebb_free(ebb_malloc(MIB)); // slow paths: by them alone, the thread does not count as idle
    }
    sem_post(&arrived);
    sem_wait(&may_go);
    return arg;
}

// What makes a cache count as idle here, the waiting frees of others, is gone after the first piece
// of the look. Its other pieces belong to the same look all the same.
EBB_TEST(look, a_look_in_pieces_stays_what_it_began_as)
{
    pthread_t thread;
    struct link *chain = NULL;
    open_box();
    sem_init(&arrived, 0, 0);
    sem_init(&may_go, 0, 0);
    cr_assert(pthread_create(&thread, NULL, make_busily_and_sleep, (void *)&chain) == 0);
    sem_wait(&arrived);
    while (chain != NULL) {
        struct link *next = chain->next;
        ebb_free(chain);
        chain = next;
    }
    struct look look;
    unsigned pieces = 0;
    look_begin(&heap_main, &look, LOOK_REST);
    do {
        pieces += look.cache != NULL;
    } while (look_step(&heap_main, &look));
    cr_assert(pieces > heap_main.cache_count, "in one piece each: the test would show nothing");
    look_all_of(LOOK_REST);
    cr_assert(used_bytes() <= MIB / 4, "all was freed, and %llu KiB stay",
              (unsigned long long)used_bytes() / KIB);
    sem_post(&may_go);
    pthread_join(thread, NULL);
}

static void *make_thin_and_search(void *arg)
{
    blocks_make();
    blocks_free(1, 100);
    look_all_of(LOOK_REST);
    look_all_of(LOOK_REST);
    return arg;
}

// Holes of an ended thread that were not given back yet, in spans that another one takes over.
EBB_TEST(look, resident_holes_of_adopted_spans_are_given)
{
    pthread_t thread;
    open_box();
    ebb_free(ebb_malloc(16)); // a cache of its own, and not that of the ended thread
    cr_assert(pthread_create(&thread, NULL, make_thin_and_search, NULL) == 0);
    pthread_join(thread, NULL);
    cr_assert(candidates() > 3 * MIB);
    // Until the span that was taken over has holes left and no free block: no search finds anything
    // in it.
    const struct span *span;
    do {
        span = span_of(&pageheap_main, ebb_malloc(BLOCK_BYTES));
    } while (span->free != NULL || span->resident == 0);
    for (int i = 0; i < 3; i++) {
        look_all_of(LOOK_REST);
    }
    look_all_of(LOOK_GIVE);
    cr_assert(candidates() == 0, "%llu KiB of holes stay resident",
              (unsigned long long)candidates() / KIB);
}

// --- refusal ---

EBB_TEST(look, a_refusal_ends_the_look_and_the_next_tries_again)
{
    open_box();
    blocks_make();
    blocks_free(1, 100);
    look_all_of(LOOK_REST);
    look_all_of(LOOK_REST);
    uint64_t resident = candidates();
    vm_fail_arm(&box.fail, VM_FAIL_UNUSED, VM_FAIL_ONCE, 3);
    struct look look = look_all_of(LOOK_GIVE);
    cr_assert(vm_fail_disarm(&box.fail));
    cr_assert(look.refused_bytes != 0);
    cr_assert(given() == look.given_bytes && candidates() == resident - look.given_bytes);
    look = look_all_of(LOOK_GIVE);
    cr_assert(candidates() == 0 && look.refused_bytes == 0);
}
