// SPDX-License-Identifier: MIT
//
// Release race: release_race [SECONDS [THREADS]]. A releaser that dawdles between withdrawing,
// advising and publishing, while other threads allocate and free. Commit and long tier.
//
// Model
//   The page heap gets a machine whose unused() sleeps at random before and after it advises. It
//   also says which range it is working on: whoever owns a block that overlaps that range has been
//   given memory that the releaser holds. Contents are looked at besides: memory that was advised
//   is zero.
//
// Go       none
#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include "base/option.h"
#include "boot/boot.h"
#include "malloc/malloc.h"
#include "race.h"
#include "release/release.h"
#include "span/span.h"

#define THREADS_MAX 64
#define SLOT_COUNT 64

// The range under advice, in units of 4 KiB: start in the low half, end in the high half. A hole
// may begin and end inside of a page of the page heap, beside a block in use.
#define UNIT_SHIFT 12
static atomic_u64 advised;
static atomic_u64 advice_count;
static atomic_u64 unit_zero; // where counting begins
static atomic_u32 stopping;
static atomic_u64 blocks_made;

static void dawdle(uint64_t *random)
{
    switch (frame_below(random, 4)) {
    case 0:
        sched_yield();
        break;
    case 1:
        race_sleep_us(1 + (unsigned)frame_below(random, 200));
        break;
    default:
        break;
    }
}

// unused is called by one thread at a time: whoever holds the release round.
static long slow_unused(void *ctx, void *addr, size_t bytes, enum vm_advice advice)
{
    uint64_t *random = ctx;
    uint64_t start = ((uintptr_t)addr - load_relaxed(&unit_zero)) >> UNIT_SHIFT;
    uint64_t end = start + (bytes >> UNIT_SHIFT);
    // Sequential, as the load in block_own: what overlaps is not there before and after.
    bool in_heap = span_of(&pageheap_main, addr) != NULL;
    if (in_heap) {
        store_seq(&advised, start | end << 32);
    }
    dawdle(random);
    long ret = vm_unused(&vm_kernel, addr, bytes, advice);
    dawdle(random);
    if (in_heap) {
        store_seq(&advised, 0); // pairs with load_seq in block_own
    }
    add_relaxed(&advice_count, 1);
    return ret;
}

static void *slow_reserve(void *ctx, void *hint, size_t bytes, size_t align)
{
    (void)ctx;
    return vm_reserve(&vm_kernel, hint, bytes, align);
}

static bool slow_prepare(void *ctx, void *addr, size_t bytes)
{
    (void)ctx;
    return vm_prepare(&vm_kernel, addr, bytes);
}

static void slow_used(void *ctx, void *addr, size_t bytes)
{
    (void)ctx;
    vm_used(&vm_kernel, addr, bytes);
}

static void slow_sparse(void *ctx, void *addr, size_t bytes)
{
    (void)ctx;
    vm_sparse(&vm_kernel, addr, bytes);
}

static const struct vm_ops slow_ops = {
    .reserve = slow_reserve,
    .prepare = slow_prepare,
    .used = slow_used,
    .unused = slow_unused,
    .sparse = slow_sparse,
};

// The block is ours, and stays ours: no page of it may be under advice.
static void block_own(const void *block, size_t bytes)
{
    uint64_t range = load_seq(&advised); // pairs with store_seq in slow_unused
    uint64_t first = ((uintptr_t)block - load_relaxed(&unit_zero)) >> UNIT_SHIFT;
    uint64_t last = ((uintptr_t)block + bytes - 1 - load_relaxed(&unit_zero)) >> UNIT_SHIFT;
    FRAME_CHECK(range == 0 || last < (range & UINT32_MAX) || first >= range >> 32);
}

static size_t size_draw(uint64_t *random)
{
    switch (frame_below(random, 4)) {
    case 0:
        return RACE_MIN_BYTES + frame_below(random, 2048);
    case 1:
        return 2048 + frame_below(random, 30 * 1024);
    case 2:
        return 32 * 1024 + frame_below(random, 512 * 1024); // past what page caches keep
    default:
        return 256 * 1024 + frame_below(random, 64 * 1024);
    }
}

struct worker {
    uint64_t random;
    uint64_t number;
    void *slots[SLOT_COUNT];
};

// While a worker is in the heap, the releaser waits for it or makes it wait. So it also looks at
// what it has while it rests.
static void worker_rest(const struct worker *w, uint64_t rounds)
{
    while (rounds-- != 0) {
        for (size_t i = 0; i < SLOT_COUNT; i++) {
            if (w->slots[i] != NULL) {
                block_own(w->slots[i], race_block_bytes(w->slots[i]));
            }
        }
        sched_yield();
    }
}

static void *worker_run(void *arg)
{
    struct worker *w = arg;
    while (load_relaxed(&stopping) == 0) {
        void **slot = &w->slots[frame_below(&w->random, SLOT_COUNT)];
        if (*slot == NULL) {
            size_t bytes = size_draw(&w->random);
            *slot = frame_below(&w->random, 8) == 0 ? ebb_calloc(1, bytes) : ebb_malloc(bytes);
            FRAME_CHECK(*slot != NULL);
            block_own(*slot, bytes);
            race_stamp(*slot, bytes, w->number++);
            add_relaxed(&blocks_made, 1);
        } else {
            size_t bytes = race_block_bytes(*slot);
            block_own(*slot, bytes);
            FRAME_CHECK(race_intact(*slot, bytes));
            ebb_free(*slot);
            *slot = NULL;
        }
        if (frame_below(&w->random, 256) == 0) {
            worker_rest(w, frame_below(&w->random, 100));
        }
    }
    for (size_t i = 0; i < SLOT_COUNT; i++) {
        if (w->slots[i] != NULL) {
            FRAME_CHECK(race_intact(w->slots[i], race_block_bytes(w->slots[i])));
            ebb_free(w->slots[i]);
        }
    }
    return NULL;
}

static void *releaser_thread(void *arg)
{
    (void)arg;
    while (load_relaxed(&stopping) == 0) {
        releaser_release_now("release_race", NULL);
        sched_yield();
    }
    return NULL;
}

static void verify(void)
{
    world_freeze(&heap_main);
    const char *wrong = span_verify_all(&heap_main);
    if (wrong == NULL) {
        wrong = pageheap_verify(&pageheap_main);
    }
    world_thaw(&heap_main);
    if (wrong != NULL) {
        fprintf(stderr, "%s\n", wrong);
    }
    FRAME_CHECK(wrong == NULL);
}

int main(int argc, char **argv)
{
    static struct worker workers[THREADS_MAX];
    static pthread_t threads[THREADS_MAX];
    static pthread_t releasers[2];
    static uint64_t slow_random;
    static struct vm slow;
    unsigned seconds = race_argument(argc, argv, 1, 8, 120);
    unsigned count = (unsigned)min_size(race_argument(argc, argv, 2, 6, 8), THREADS_MAX);
    uint64_t random = frame_seed();
    alarm(seconds * 4 + 60);
    slow_random = frame_random(&random);
    slow = (struct vm){.ops = &slow_ops, .ctx = &slow_random, .page_bytes = vm_kernel.page_bytes};
    heap_init();
    pageheap_main.vm = &slow;      // nobody else is there yet
    options_main.releaser = false; // the rounds are those of this program
    releaser_init();
    ebb_free(ebb_malloc(1));
    store_relaxed(&unit_zero, pageheap_main.window_start);
    for (unsigned i = 0; i < count; i++) {
        workers[i].random = frame_random(&random);
        workers[i].number = (uint64_t)i << 48;
        FRAME_CHECK(pthread_create(&threads[i], NULL, worker_run, &workers[i]) == 0);
    }
    for (size_t i = 0; i < ARRAY_COUNT(releasers); i++) {
        FRAME_CHECK(pthread_create(&releasers[i], NULL, releaser_thread, NULL) == 0);
    }
    race_sleep_us(seconds * 1000000);
    store_relaxed(&stopping, 1);
    for (unsigned i = 0; i < count; i++) {
        FRAME_CHECK(pthread_join(threads[i], NULL) == 0);
    }
    for (size_t i = 0; i < ARRAY_COUNT(releasers); i++) {
        FRAME_CHECK(pthread_join(releasers[i], NULL) == 0);
    }
    verify();
    struct pageheap_stats stats;
    ebb_free(ebb_malloc((size_t)8 << 20)); // something to give back, whoever released last
    FRAME_CHECK(boot_release_now() != 0);  // through boot, so that its constructor is linked
    verify();
    pageheap_stats_read(&pageheap_main, &stats);
    fprintf(stderr, "%llu blocks, %llu pieces of advice, %llu pages given back\n",
            (unsigned long long)load_relaxed(&blocks_made),
            (unsigned long long)load_relaxed(&advice_count),
            (unsigned long long)stats.released_total_pages);
    FRAME_CHECK(stats.ready_pages == 0 && stats.withdrawn_pages == 0);
    FRAME_CHECK(stats.released_total_pages != 0);
    return 0;
}
