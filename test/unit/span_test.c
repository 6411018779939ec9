// SPDX-License-Identifier: MIT
// Tier  quick
//
// Spans and caches: how blocks, spans and threads come and go, state by state, and that the
// verifier sees damage. Random courses are in test/model/malloc_model.c.
//
// Go  runtime/mcentral.go, mcache.go, tested by use.
#include "support/unit.h"

#include <pthread.h>
#include <semaphore.h>
#include <string.h>

#include "base/bitops.h"
#include "malloc/malloc.h"
#include "release/release.h"
#include "span/span_int.h"
#include "support/heapbox.h"

static struct heapbox box;

static void heap_open(void)
{
    heapbox_adopt_main(&box, 4 * KIB, GIB, 1);
}

static struct heap_stats stats_now(void)
{
    struct heap_stats stats;
    cr_assert(world_freeze(&heap_main) == 0);
    heap_stats_read(&heap_main, &stats);
    world_thaw(&heap_main);
    return stats;
}

static uint64_t used_pages(void)
{
    struct pageheap_stats stats;
    pageheap_stats_read(&pageheap_main, &stats);
    return stats.used_pages;
}

// --- blocks of a span ---

EBB_TEST(span, blocks_are_apart_and_threaded_bit_by_bit)
{
    heap_open();
    for (unsigned i = 1; i < SIZECLASS_COUNT; i++) {
        size_t bytes = sizeclass_table[i].block_bytes;
        char *block = cache_alloc_class(i, bytes, 16);
        struct span *span = span_of(&pageheap_main, block);
        cr_assert(span != NULL && span->size_class == i && span->block_bytes == bytes);
        cr_assert(span->capacity == ((size_t)span->page_count << PAGE_SHIFT) / bytes);
        cr_assert(span_state(span) == SPAN_CURRENT && span_used(span) == 1);
        cr_assert(span->threaded * bytes <= max_size(4096, bytes), "class %u", i);
        char *last = block;
        while (span_used(span) < span->capacity) {
            char *next = cache_alloc_class(i, bytes, 16);
            cr_assert(span_of(&pageheap_main, next) == span, "class %u: the span is not full", i);
            cr_assert(next != last && ((uintptr_t)next - span->base) % bytes == 0);
            cr_assert((size_t)(next - (char *)span->base) + bytes <= (size_t)span->page_count
                                                                         << PAGE_SHIFT);
            last = next;
        }
        cr_assert(span_allocs(span) == span->capacity);
    }
    heap_main_verify("with full spans");
}

EBB_TEST(span, untouched_blocks_cost_no_memory)
{
    heap_open();
    struct span *span = span_of(&pageheap_main, ebb_malloc(32768));
    cr_assert(vm_sim_resident_bytes(&box.sim, (void *)span->base,
                                    (size_t)span->page_count << PAGE_SHIFT) <= 4 * KIB);
    span = span_of(&pageheap_main, ebb_malloc(16));
    cr_assert(vm_sim_resident_bytes(&box.sim, (void *)span->base, PAGE_BYTES) == 4 * KIB);
}

EBB_TEST(span, later_spans_of_a_class_are_larger)
{
    heap_open();
    unsigned size_class = sizeclass_of(64);
    const struct sizeclass *sc = &sizeclass_table[size_class];
    struct span *last = NULL;
    size_t spans = 0;
    while (spans < 10) {
        struct span *span = span_of(&pageheap_main, ebb_malloc(64));
        if (span != last) {
            spans++;
            cr_assert(span->page_count == (spans <= 4 ? sc->first_pages : sc->full_pages),
                      "span %zu has %u pages", spans, span->page_count);
            last = span;
        }
    }
    cr_assert(cache_self->span_count[size_class] == 10);
}

// --- states ---

static struct span *fill_span(void **blocks, size_t bytes, size_t *count)
{
    blocks[0] = ebb_malloc(bytes);
    struct span *span = span_of(&pageheap_main, blocks[0]);
    *count = 1;
    while (*count < span->capacity) {
        blocks[(*count)++] = ebb_malloc(bytes);
    }
    return span;
}

EBB_TEST(span, states_follow_the_blocks)
{
    static void *blocks[1000];
    size_t count;
    heap_open();
    struct span *span = fill_span(blocks, 1000, &count);
    cr_assert(span_state(span) == SPAN_CURRENT && span_used(span) == span->capacity);
    void *next = ebb_malloc(1000); // of another span
    cr_assert(span_state(span) == SPAN_FULL && load_relaxed(&span->tag) == TAG_NONE);
    cr_assert(cache_self->full.head == span);
    ebb_free(blocks[0]);
    cr_assert(span_state(span) == SPAN_PARTIAL && load_relaxed(&span->tag) == cache_self->id);
    cr_assert(cache_self->full.head == NULL);
    heap_main_verify("with a partial span");
    uint64_t pages = used_pages();
    for (size_t i = 1; i < count; i++) {
        ebb_free(blocks[i]);
    }
    // Empty, and the only partial span of its class: kept.
    cr_assert(used_pages() == pages && span_used(span) == 0);
    world_flush(&heap_main, NULL);
    cr_assert(used_pages() == pages - span->page_count || used_pages() < pages);
    cr_assert(span_of(&pageheap_main, blocks[1]) == &span_none);
    ebb_free(next);
    heap_main_verify("at the end");
}

EBB_TEST(span, empty_spans_that_are_kept_are_bounded)
{
    static void *blocks[200000];
    heap_open();
    for (size_t i = 0; i < ARRAY_COUNT(blocks); i++) {
        blocks[i] = ebb_malloc(512);
    }
    uint64_t most = used_pages();
    for (size_t i = 0; i < ARRAY_COUNT(blocks); i++) {
        ebb_free(blocks[i]);
    }
    // What may stay: the current span, and of the empty ones 2 MiB or an eighth.
    cr_assert(used_pages() <= 8 + max_size(256, most / 8), "%llu pages of %llu stay",
              (unsigned long long)used_pages(), (unsigned long long)most);
    cr_assert(stats_now().live_count[sizeclass_of(512)] == 0);
    world_flush(&heap_main, NULL);
    cr_assert(used_pages() == 0);
    heap_main_verify("at the end");
}

// --- other threads ---

static void *shared[5000];
static size_t shared_count;

static void *free_shared(void *arg)
{
    for (size_t i = 0; i < shared_count; i++) {
        ebb_free(shared[i]);
    }
    return arg;
}

static void *alloc_shared(void *arg)
{
    for (size_t i = 0; i < shared_count; i++) {
        shared[i] = ebb_malloc((size_t)(uintptr_t)arg);
        memset(shared[i], 1, (size_t)(uintptr_t)arg);
    }
    return arg;
}

static void in_thread(void *(*run)(void *), size_t arg)
{
    pthread_t thread;
    frame_allow_mappings(1000);
    cr_assert(pthread_create(&thread, NULL, run, (void *)(uintptr_t)arg) == 0);
    pthread_join(thread, NULL);
}

EBB_TEST(span, blocks_freed_by_another_thread_come_back)
{
    heap_open();
    shared_count = 5000;
    alloc_shared((void *)(uintptr_t)100);
    uint64_t pages = used_pages();
    in_thread(free_shared, 0);
    cr_assert(stats_now().live_count[sizeclass_of(100)] == 0, "counted at once");
    heap_main_verify("after remote frees");
    alloc_shared((void *)(uintptr_t)100);
    // One current span may have been empty and deleted, and made again.
    cr_assert(used_pages() <= pages + sizeclass_table[sizeclass_of(100)].full_pages,
              "the blocks are not used again: %llu pages, then %llu", (unsigned long long)pages,
              (unsigned long long)used_pages());
    in_thread(free_shared, 0);
    world_flush(&heap_main, NULL);
    cr_assert(used_pages() == 0, "%llu pages stay", (unsigned long long)used_pages());
}

EBB_TEST(span, spans_of_an_ended_thread_are_adopted)
{
    heap_open();
    shared_count = 1000;
    in_thread(alloc_shared, 200);
    unsigned size_class = sizeclass_of(200);
    const struct span *span = span_of(&pageheap_main, shared[0]);
    cr_assert(load_relaxed(&span->owner) == NULL, "the thread has ended");
    cr_assert(stats_now().live_count[size_class] == 1000);
    heap_main_verify("with spans of central");
    for (size_t i = 0; i < 1000; i += 2) {
        ebb_free(shared[i]); // into spans that nobody owns
        shared[i] = NULL;
    }
    heap_main_verify("after frees into central");
    uint64_t pages = used_pages();
    for (size_t i = 0; i < 1000; i += 2) {
        shared[i] = ebb_malloc(200);
    }
    cr_assert(used_pages() <= pages + sizeclass_table[size_class].first_pages, "not adopted");
    cr_assert(stats_now().live_count[size_class] == 1000);
    free_shared(NULL);
    world_flush(&heap_main, NULL);
    cr_assert(used_pages() == 0);
    heap_main_verify("at the end");
}

EBB_TEST(span, caches_of_ended_threads_are_used_again)
{
    heap_open();
    shared_count = 10;
    in_thread(alloc_shared, 50);
    uint32_t caches = heap_main.cache_count;
    for (int i = 0; i < 100; i++) {
        in_thread(free_shared, 0);
        in_thread(alloc_shared, 50);
    }
    cr_assert(heap_main.cache_count == caches, "%u caches, then %u", caches, heap_main.cache_count);
    cr_assert(stats_now().cache_count <= 2);
    free_shared(NULL);
}

// --- a thread that is asleep, or in its bracket ---

static sem_t arrived;
static sem_t may_go;

static void *alloc_and_sleep(void *arg)
{
    alloc_shared(arg);
    for (size_t i = 0; i < shared_count; i++) {
        ebb_free(shared[i]);
    }
    for (size_t i = 0; i < 2000; i++) {
        ebb_free(ebb_malloc(100000)); // slow paths: so that it counts as active; rests in its cache
    }
    sem_post(&arrived);
    sem_wait(&may_go);
    return NULL;
}

static size_t look_flushed(void)
{
    struct look look;
    look_begin(&heap_main, &look, LOOK_REST);
    while (look_step(&heap_main, &look)) {
    }
    return look.flushed_pages;
}

EBB_TEST(span, sleeping_threads_give_back)
{
    pthread_t thread;
    heap_open();
    sem_init(&arrived, 0, 0);
    sem_init(&may_go, 0, 0);
    shared_count = 100;
    cr_assert(pthread_create(&thread, NULL, alloc_and_sleep, (void *)(uintptr_t)3000) == 0);
    sem_wait(&arrived);
    cr_assert(used_pages() > 0);
    cr_assert(stats_now().cached_pages == 13);
    cr_assert(look_flushed() == 0, "busy since the last look");
    cr_assert(look_flushed() > 0, "idle since the last look");
    cr_assert(used_pages() == 0);
    heap_main_verify("after flushing");
    sem_post(&may_go);
    pthread_join(thread, NULL);
}

static void *stay_in_bracket(void *arg)
{
    ebb_free(ebb_malloc(100));
    struct cache *cache = cache_self;
    cache_enter(cache);
    sem_post(&arrived);
    sem_wait(&may_go);
    cache_leave(cache);
    return arg;
}

EBB_TEST(span, a_thread_stuck_in_its_bracket_is_skipped)
{
    pthread_t thread;
    struct heap_stats stats;
    heap_open();
    sem_init(&arrived, 0, 0);
    sem_init(&may_go, 0, 0);
    cr_assert(pthread_create(&thread, NULL, stay_in_bracket, NULL) == 0);
    sem_wait(&arrived);
    cr_assert(world_freeze(&heap_main) == 1);
    heap_stats_read(&heap_main, &stats);
    world_thaw(&heap_main);
    cr_assert(stats.skipped == 1);
    world_flush(&heap_main, NULL); // does not hang either
    sem_post(&may_go);
    pthread_join(thread, NULL);
    cr_assert(stats_now().skipped == 0);
    heap_main_verify("after the thread has ended");
}

// --- large blocks and the page cache ---

EBB_TEST(span, page_cache_is_bounded)
{
    static void *blocks[40];
    heap_open();
    for (size_t pages = 5; pages <= 40; pages += 5) {
        for (size_t i = 0; i < ARRAY_COUNT(blocks); i++) {
            blocks[i] = ebb_malloc(pages << PAGE_SHIFT);
        }
        for (size_t i = 0; i < ARRAY_COUNT(blocks); i++) {
            ebb_free(blocks[i]);
        }
        cr_assert(cache_self->run_pages <= 128);
        cr_assert(stats_now().cached_pages == cache_self->run_pages);
        heap_main_verify("with a page cache");
    }
    cr_assert(cache_self->run_pages > 100, "it is used");
    void *block = ebb_malloc(5 << PAGE_SHIFT);
    uint64_t pages = used_pages();
    ebb_free(block);
    cr_assert(used_pages() == pages, "it rests in the cache");
    cr_assert(ebb_malloc(5 << PAGE_SHIFT) == block, "and comes from there");
}

// --- giving back ---

EBB_TEST(span, release_now_gives_everything_back)
{
    static void *blocks[3000];
    struct pageheap_stats stats;
    heap_open();
    for (size_t i = 0; i < ARRAY_COUNT(blocks); i++) {
        blocks[i] = ebb_malloc(5000);
        memset(blocks[i], 1, 5000);
    }
    char *large = ebb_malloc(20 * MIB);
    memset(large, 1, 20 * MIB);
    ebb_free(large);
    for (size_t i = 0; i < ARRAY_COUNT(blocks); i++) {
        ebb_free(blocks[i]);
    }
    uint64_t bytes = releaser_release_now("test", NULL);
    cr_assert(bytes != UINT64_MAX && bytes >= 34 * MIB, "%llu bytes", (unsigned long long)bytes);
    pageheap_stats_read(&pageheap_main, &stats);
    cr_assert(stats.used_pages == 0 && stats.ready_pages == 0);
    cr_assert(stats.released_pages == stats.sys_pages);
    cr_assert(vm_sim_resident_bytes(&box.sim, large, 20 * MIB) == 0);
    vm_fail_arm(&box.fail, VM_FAIL_UNUSED, VM_FAIL_FROM, 1);
    ebb_free(ebb_malloc(20 * MIB));
    cr_assert(releaser_release_now("test", NULL) < MIB, "the kernel refuses: it ends all the same");
    vm_fail_disarm(&box.fail);
    heap_main_verify("at the end");
}

// --- the verifier sees what it should ---

static const char *verify_frozen(void)
{
    cr_assert(world_freeze(&heap_main) == 0);
    const char *wrong = span_verify_all(&heap_main);
    world_thaw(&heap_main);
    return wrong;
}

EBB_TEST(span, verifier_sees_damage)
{
    heap_open();
    uint64_t *a = ebb_malloc(64);
    uint64_t *b = ebb_malloc(64);
    struct span *span = span_of(&pageheap_main, a);
    cr_assert(verify_frozen() == NULL);
    ebb_free(a);
    cr_assert(verify_frozen() == NULL);

    uint64_t kept = a[1];
    a[1] = 0; // written to after its free
    cr_assert_str_eq(verify_frozen(), "span: a free block was written to");
    a[1] = kept;
    span->used++;
    cr_assert_str_eq(verify_frozen(),
                     "span: blocks in use and free blocks are not the blocks threaded");
    span->used--;
    store_relaxed(&span->tag, 77);
    cr_assert_str_eq(verify_frozen(), "span: tag does not fit owner and state");
    store_relaxed(&span->tag, cache_self->id);
    cache_self->span_count[span->size_class]++;
    cr_assert_str_eq(verify_frozen(), "cache: spans of a class are miscounted");
    cache_self->span_count[span->size_class]--;
    cache_self->large_alloc_bytes += PAGE_BYTES;
    cr_assert_str_eq(verify_frozen(), "span: large bytes differ from the large spans");
    cache_self->large_alloc_bytes -= PAGE_BYTES;
    cr_assert(verify_frozen() == NULL);
    cr_assert(pageheap_verify(&pageheap_main) == NULL);
    pageheap_main.stats.ready_pages++;
    cr_assert(pageheap_verify(&pageheap_main) != NULL);
    pageheap_main.stats.ready_pages--;
    bits_clear(span->arena->allocated, (span->base >> PAGE_SHIFT) & (ARENA_PAGES - 1));
    cr_assert(pageheap_verify(&pageheap_main) != NULL);
    bits_set(span->arena->allocated, (span->base >> PAGE_SHIFT) & (ARENA_PAGES - 1));
    cr_assert(pageheap_verify(&pageheap_main) == NULL);
    ebb_free(b);
}
