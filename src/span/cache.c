// SPDX-License-Identifier: MIT
//
// Caches: one for each thread, from its first malloc to its end; the slow half of alloc and free.
//
// Model
//   cache_alloc_owned and cache_free_owned do all the work, inside the bracket of the owner, or by
//   a claimer, or under the WORLD lock for the fallback cache of threads that have none (the end of
//   a thread, when libc frees what it has kept for it; and when there is no memory for a cache).
//
// Locking
//   The bracket (span/span.h). WORLD for attaching, ending and the fallback cache.
//
// Go       1.16 mcache.go refill, mcentral.go.
// Tests    test/model/malloc_model.c  test/race/heap_race.c
#include <errno.h>
#include <string.h>
#include <sys/auxv.h>

#include "base/rand.h"
#include "os/thread.h"
#include "span/span_int.h"

struct span span_empty;
struct heap heap_main;
struct cache cache_none = {
    .tag = {TAG_CLAIMED},
    .claimed = {1}, // for ever: whoever looks goes the slow way, before he looks at anything else
    .race_lock = LOCK_INIT(CACHE),
};
// The fallback's own memory, so that it is there when memory is not: free must always work.
static struct cache cache_fallback;

__thread struct cache *cache_self __attribute__((tls_model("initial-exec"))) = &cache_none;

// The thread's cache has been taken back: it uses the fallback from now on.
static __thread bool thread_ended __attribute__((tls_model("initial-exec")));

// 0 not begun, 1 being done, 2 done. Before any constructor this is all there is.
static atomic_u32 init_state;
static struct lock init_lock = LOCK_INIT(BOOT);

// The first structures come from here, so that a small program needs no mapping for them.
static ATTR_CACHELINE char meta_first[24 << 10];

// What a cache keeps of empty spans.
#define EMPTY_MIN_PAGES ((size_t)256)
#define EMPTY_SHARE 8

// Where the heap is asked for: far from everything that the kernel or the dynamic linker place,
// with room above to grow in one piece. Random, as the kernel's own placing is.
static uintptr_t heap_hint(uint64_t random)
{
    if (RACE_BUILD) {
        return 0; // the sanitizer reserves that range
    }
    return ((uintptr_t)0x200000000000) + ((random & 0x7fff) << ARENA_SHIFT);
}

static void heap_init_once(struct heap *heap)
{
    vm_init();
    // Both halves of what the kernel gives, mixed: keys lie in free memory, and must not tell the
    // stack guard that libc makes of the first half.
    uint64_t random[2] = {0, 0};
    const void *given = (const void *)getauxval(AT_RANDOM);
    if (given != NULL) {
        memcpy(random, given, sizeof(random));
    }
    uint64_t seed = rand_splitmix64(&random[0]) + rand_splitmix64(&random[1]);
    heap->secret = rand_splitmix64(&seed);
    store_relaxed(&heap->sample_interval, SAMPLE_INTERVAL_BYTES);
    heap->pages = &pageheap_main;
    lock_init(&heap->world, LOCKRANK_WORLD);
    for (size_t i = 0; i < SIZECLASS_COUNT; i++) {
        lock_init(&heap->central[i].lock, LOCKRANK_CENTRAL);
    }
    meta_init(&heap->meta, &vm_kernel, meta_first, sizeof(meta_first));
    heap_sample_init(&heap->meta);
    labels_init(&heap->meta);
    wait_sample_init(&heap->meta);
    pageheap_init(heap->pages, &vm_kernel, &heap->meta, heap_hint(rand_splitmix64(&seed)));
    thread_set_exit_hook(cache_exit);
}

void heap_init(void)
{
    if (likely(load_acquire(&init_state) == 2)) { // pairs with the store_release below
        return;
    }
    lock_acquire(&init_lock);
    if (load_relaxed(&init_state) == 0) {
        heap_init_once(&heap_main);
        store_release(&init_state, 2);
    }
    lock_release(&init_lock);
}

void cache_set_current(struct cache *cache, unsigned size_class, struct span *span)
{
    cache->current[size_class] = span;
    size_t block_bytes = sizeclass_table[size_class].block_bytes;
    if (block_bytes > DIRECT_MAX_BYTES) {
        return;
    }
    // All multiples of 16 above the next smaller class; the first class also serves zero bytes.
    size_t below = size_class == 1 ? 0 : sizeclass_table[size_class - 1].block_bytes / 16 + 1;
    struct span *fast = heap_main.hardened ? &span_empty : span;
    for (size_t i = below; i <= block_bytes / 16; i++) {
        cache->direct[i] = fast;
    }
}

static void span_to_full(struct cache *cache, struct span *span)
{
    span_set_state(span, SPAN_FULL);
    store_relaxed(&span->tag, TAG_NONE);
    span_list_push(&cache->full, span);
}

static void span_to_holey(struct cache *cache, struct span *span)
{
    span_set_state(span, SPAN_HOLEY);
    span_list_append(&cache->holey[span->size_class], span);
}

// Makes sure that the span has a free block, or files it as holey or full. The span is on no list.
static bool span_ready(struct heap *heap, struct cache *cache, struct span *span)
{
    if (span->free != NULL || remote_collect(span) || span_extend(heap, span) ||
        (span->resident != 0 && hole_reopen(heap, span, HOLE_REOPEN_RESIDENT))) {
        return true;
    }
    if (load_relaxed(&span->holes) != 0) {
        span_to_holey(cache, span);
        return false;
    }
    if (!remote_mark_full(span)) {
        return remote_collect(span); // a block came this moment
    }
    span_to_full(cache, span);
    return false;
}

// span_grow makes a span. What the cache keeps empty for other classes goes first, if memory would
// have to come from the kernel.
static struct span *span_grow(struct heap *heap, struct cache *cache, unsigned size_class)
{
    if (cache->empty_pages != 0 &&
        pageheap_must_grow(heap->pages, sizeclass_table[size_class].full_pages)) {
        cache_flush_empty(heap, cache);
    }
    struct span *span = span_new(heap, cache, size_class);
    if (span != NULL) {
        cache_adopt(cache, span);
    }
    return span;
}

// The first holey span: with blocks on resident pages, or, if any is wanted, with none but holes.
// What else has come back to the first one by other threads' frees is noticed here too. It has a
// free block. Where a memory limit forbids to fill holes, all are looked through once, for what
// frees have brought; those without go to the end, so that the next search begins with others.
static struct span *span_from_holes(struct heap *heap, struct cache *cache, unsigned size_class,
                                    enum hole_reopen which)
{
    const struct span *last = cache->holey[size_class].tail;
    struct span *span = NULL;
    while (span != last) {
        span = cache->holey[size_class].head;
        if (span->free == NULL && !remote_collect(span) && span->resident == 0 &&
            which == HOLE_REOPEN_RESIDENT) {
            return NULL;
        }
        cache_unlist(cache, span);
        if (span->free != NULL || hole_reopen(heap, span, which) || span_extend(heap, span)) {
            return span;
        }
        span_to_holey(cache, span);
    }
    return NULL;
}

// The next span to allocate from: what is resident first, the fuller first; holes that have been
// given back only if other memory would have to come from the kernel too. NULL: no memory.
static struct span *span_next(struct heap *heap, struct cache *cache, unsigned size_class)
{
    struct span *span = cache->partial[size_class].head;
    if (span != NULL) {
        cache_unlist(cache, span);
        return span;
    }
    span = span_from_holes(heap, cache, size_class, HOLE_REOPEN_RESIDENT);
    if (span == NULL) {
        span = central_get(heap, cache, size_class);
    }
    bool tried = false;
    if (span == NULL && cache->holey[size_class].head != NULL &&
        pageheap_must_grow(heap->pages, sizeclass_table[size_class].full_pages)) {
        span = span_from_holes(heap, cache, size_class, HOLE_REOPEN_ANY);
        tried = true;
    }
    if (span == NULL) {
        span = span_grow(heap, cache, size_class);
    }
    if (span == NULL && !tried) {
        span = span_from_holes(heap, cache, size_class, HOLE_REOPEN_ANY); // memory is at its end
    }
    return span;
}

// refill gives the class a current span with a free block. NULL: no memory.
static struct span *refill(struct heap *heap, struct cache *cache, unsigned size_class)
{
    if (load_relaxed(&cache->pending) != NULL) {
        pending_drain(heap, cache);
    }
    struct span *span = cache->current[size_class];
    if (span != &span_empty) {
        if (remote_collect(span) || span_extend(heap, span)) {
            return span;
        }
        span->used--;
        span_set_state(span, SPAN_PARTIAL);
        cache_set_current(cache, size_class, &span_empty);
    } else {
        span = NULL;
    }
    while (span == NULL || !span_ready(heap, cache, span)) {
        span = span_next(heap, cache, size_class);
        if (span == NULL) {
            return NULL;
        }
    }
    if (span_cold(span)) {
        span->looked &= ~UINT32_C(1);
    }
    span_set_state(span, SPAN_CURRENT);
    span->used++;
    store_relaxed(&span->tag, span_tag(cache, span));
    cache_set_current(cache, size_class, span);
    if (unlikely(span->alloc_pace != cache->sample_pace)) {
        sample_redraw(heap, cache, span); // its countdown is of another interval
    }
    return span;
}

void *cache_alloc_owned(struct heap *heap, struct cache *cache, unsigned size_class, bool *due)
{
    store_relaxed(&cache->ticks, load_relaxed(&cache->ticks) + 1);
    struct span *span = cache->current[size_class];
    if (span->free == NULL) {
        span = refill(heap, cache, size_class);
        if (span == NULL) {
            return NULL;
        }
    }
    if (due == NULL) {
        span->alloc_end++;
    } else if (unlikely(dec_is_zero(&span->alloc_left))) {
        *due = sample_restart(heap, cache, span);
        if (*due) {
            return NULL;
        }
        span->alloc_end++;
    }
    struct block *block = span->free;
    span->free = block->next;
    span->used++;
    if (unlikely(heap->hardened)) {
        harden_alloc(cache, span, block);
    }
    block->key = 0;
    return block;
}

void cache_adopt(struct cache *cache, struct span *span)
{
    cache->span_count[span->size_class]++;
    cache->span_pages += span->page_count;
}

void cache_disown(struct cache *cache, struct span *span)
{
    cache->span_count[span->size_class]--;
    cache->span_pages -= span->page_count;
}

void cache_unlist(struct cache *cache, struct span *span)
{
    enum span_state state = span_state(span);
    struct span_list *lists = state == SPAN_HOLEY ? cache->holey : cache->partial;
    span_list_remove(&lists[span->size_class], span);
    cache->empty_pages -= state == SPAN_EMPTY ? span->page_count : 0;
    span_set_state(span, SPAN_PARTIAL);
}

// cache_span_emptied: a listed span has no block in use any more. Some are kept, behind the others
// of their class, so that a program that allocates and frees in waves does not make and delete
// spans each time: 2 MiB, or an eighth of what the cache owns. Not those with holes: most of their
// memory is gone.
void cache_span_emptied(struct heap *heap, struct cache *cache, struct span *span)
{
    cache_unlist(cache, span);
    size_t bound = max_size(EMPTY_MIN_PAGES, cache->span_pages / EMPTY_SHARE);
    if (load_relaxed(&span->holes) == 0 && cache->empty_pages + span->page_count <= bound) {
        span_set_state(span, SPAN_EMPTY);
        cache->empty_pages += span->page_count;
        span_list_append(&cache->partial[span->size_class], span);
        return;
    }
    cache_disown(cache, span);
    span_delete(heap, span);
}

// cache_flush_empty deletes the empty spans at the ends of the lists; returns pages.
size_t cache_flush_empty(struct heap *heap, struct cache *cache)
{
    size_t pages = 0;
    for (unsigned size_class = 1; size_class < SIZECLASS_COUNT; size_class++) {
        struct span_list *list = &cache->partial[size_class];
        struct span *span;
        while ((span = list->tail) != NULL && span_state(span) == SPAN_EMPTY) {
            pages += span->page_count;
            cache_unlist(cache, span);
            cache_disown(cache, span);
            span_delete(heap, span);
        }
    }
    return pages;
}

// cache_full_to_partial: the span is FULL, the flag is clear and no notification is under way.
void cache_full_to_partial(struct heap *heap, struct cache *cache, struct span *span)
{
    remote_collect(span);
    span_list_remove(&cache->full, span);
    span_set_state(span, SPAN_PARTIAL);
    store_relaxed(&span->tag, span_tag(cache, span));
    span_list_push(&cache->partial[span->size_class], span);
    if (span_used(span) == 0) {
        cache_span_emptied(heap, cache, span);
    }
}

static void cache_free_owned(struct heap *heap, struct cache *cache, struct span *span,
                             struct block *block)
{
    block->next = span->free;
    block->key = block_key(cache, block);
    span->free = block;
    span->used--;
    if (span_state(span) == SPAN_FULL) {
        // If the flag is gone, somebody is about to notify us; the span stays where it is till
        // then.
        if (remote_clear_full(span)) {
            cache_count_opened(heap, cache, span);
            cache_full_to_partial(heap, cache, span);
        }
    } else if (span_is_listed(span) && span_used(span) == 0) {
        cache_span_emptied(heap, cache, span);
    } else if (span_cold(span)) {
        // The first free since it was found at rest: it may not be the last. Frees are fast again,
        // and the next look sees that the span has changed.
        span->looked &= ~UINT32_C(1);
        store_relaxed(&span->tag, span_tag(cache, span));
        cache_count_opened(heap, cache, span);
    }
}

ATTR_INLINE void free_small(struct heap *heap, struct cache *cache, struct span *span,
                            struct block *block)
{
    if (load_relaxed(&span->owner) == cache) {
        cache_free_owned(heap, cache, span, block);
    } else {
        gather_add(heap, cache, span, block);
    }
}

void cache_free_small(struct heap *heap, struct cache *cache, struct span *span, void *block)
{
    if (unlikely(heap->hardened)) {
        block = harden_free(heap, cache, block, span->block_bytes);
        if (block == NULL) {
            return;
        }
        span = span_of(heap->pages, block);
    }
    free_small(heap, cache, span, block);
}

// --- the life of a cache ---

// cache_begin makes a zeroed cache known. Caller holds WORLD.
static void cache_begin(struct heap *heap, struct cache *cache)
{
    lock_init(&cache->race_lock, LOCKRANK_CACHE);
    cache->id = ++heap->cache_count;
    cache->secret = heap->secret;
    cache->sample_random = heap->secret + cache->id;
    for (unsigned size_class = 1; size_class < SIZECLASS_COUNT; size_class++) {
        cache_set_current(cache, size_class, &span_empty);
    }
    store_relaxed(&cache->tag, cache->id);
    cache->all_next = load_relaxed(&heap->caches);
    store_release(&heap->caches, cache); // pairs with load_acquire in heap_first_cache
}

// Caller holds WORLD.
static struct cache *cache_make(struct heap *heap)
{
    struct cache *cache = heap->dead;
    if (cache != NULL) {
        heap->dead = cache->dead_next;
        cache->dead_next = NULL;
    } else {
        cache = meta_alloc(&heap->meta, sizeof(*cache), META_CACHE);
        if (cache == NULL) {
            return NULL;
        }
        cache_begin(heap, cache);
    }
    sample_begin(heap, cache);
    store_seq(&cache->state, CACHE_LIVE); // pairs with load_seq in remote_notify
    return cache;
}

// cache_attach gives the calling thread a cache; NULL if it may have none any more, or for lack of
// memory: it then uses the fallback.
struct cache *cache_attach(void)
{
    struct heap *heap = &heap_main;
    heap_init();
    if (thread_ended) {
        return NULL;
    }
    lock_acquire(&heap->world);
    struct cache *cache = cache_make(heap);
    lock_release(&heap->world);
    if (cache == NULL) {
        return NULL;
    }
    cache_self = cache;
    thread_watch(cache); // may call malloc: the cache is in place
    return cache;
}

// cache_detach_all gives every span to central, every run and gathered free to where it belongs.
void cache_detach_all(struct heap *heap, struct cache *cache)
{
    struct block *kept;
    while ((kept = harden_oldest(heap, cache)) != NULL) {
        free_small(heap, cache, span_of(heap->pages, kept), kept);
    }
    gather_flush(heap, cache);
    pending_drain(heap, cache);
    for (unsigned size_class = 1; size_class < SIZECLASS_COUNT; size_class++) {
        struct span *span = cache->current[size_class];
        if (span != &span_empty) {
            span->used--;
            span_set_state(span, SPAN_PARTIAL);
            cache_set_current(cache, size_class, &span_empty);
            central_put(heap, span);
        }
        while ((span = cache->partial[size_class].head) != NULL ||
               (span = cache->holey[size_class].head) != NULL) {
            cache_unlist(cache, span);
            central_put(heap, span);
        }
        cache->span_count[size_class] = 0;
    }
    cache->span_pages = 0;
    struct span *span;
    while ((span = cache->full.head) != NULL) {
        span_list_remove(&cache->full, span);
        central_put(heap, span);
    }
    runs_flush(heap, cache);
}

// cache_retire puts a detached cache on the list of dead ones. Caller holds WORLD.
void cache_retire(struct heap *heap, struct cache *cache)
{
    store_seq(&cache->state, CACHE_DEAD); // pairs with load_seq in remote_notify
    pending_drain(heap, cache);
    cache->dead_next = heap->dead;
    heap->dead = cache;
}

void cache_exit(void *value)
{
    struct cache *cache = value;
    struct heap *heap = &heap_main;
    cache_enter_slow(cache);
    cache_detach_all(heap, cache);
    cache_leave(cache);
    thread_ended = true;
    cache_self = &cache_none;
    lock_acquire(&heap->world);
    cache_retire(heap, cache);
    lock_release(&heap->world);
}

void cache_enter_claimed(struct cache *cache)
{
    do {
        cache_leave(cache);
        lock_acquire(&heap_main.world);
        lock_release(&heap_main.world);
        cache_enter(cache);
    } while (load_acquire(&cache->claimed) != 0); // pairs with store_release in claim_end
}

ATTR_NOINLINE struct cache_hold cache_hold_first(void)
{
    struct cache *cache = cache_attach();
    struct cache_hold hold = {cache, false};
    if (likely(cache != NULL)) {
        cache_enter_slow(cache);
        return hold;
    }
    struct heap *heap = &heap_main;
    lock_acquire(&heap->world); // no claim is under way while we hold it
    if (heap->fallback == NULL) {
        cache_begin(heap, &cache_fallback);
        sample_begin(heap, &cache_fallback);
        heap->fallback = &cache_fallback;
        meta_charge(&heap->meta, sizeof(cache_fallback), META_CACHE);
    }
    hold.cache = heap->fallback;
    hold.fallback = true;
    cache_enter(hold.cache);
    return hold;
}

void heap_set_full_hook(struct heap *heap, bool (*hook)(unsigned attempt, size_t page_count))
{
    heap->full_hook = hook;
}

static ATTR_COLD bool heap_full(unsigned attempt, size_t page_count)
{
    return heap_main.full_hook != NULL && heap_main.full_hook(attempt, page_count);
}

size_t cache_flush_self(void)
{
    struct cache_hold hold = cache_hold();
    size_t pages = cache_flush_empty(&heap_main, hold.cache);
    pages += runs_flush(&heap_main, hold.cache);
    cache_unhold(hold);
    return pages;
}

void *cache_alloc_class(unsigned size_class, size_t bytes, size_t align)
{
    void *block;
    unsigned attempt = 0;
    do {
        bool due = false;
        struct cache_hold hold = cache_hold();
        block = cache_alloc_owned(&heap_main, hold.cache, size_class, &due);
        cache_unhold(hold);
        if (unlikely(due)) {
            block = sample_alloc(bytes, align);
        }
    } while (unlikely(block == NULL) &&
             heap_full(attempt++, sizeclass_table[size_class].first_pages));
    return block;
}

ATTR_NOINLINE void *cache_alloc_slow(size_t bytes)
{
    void *block = cache_alloc_class(sizeclass_of(bytes), bytes, 16);
    if (unlikely(block == NULL)) {
        errno = ENOMEM;
    }
    return block;
}

void *cache_alloc_medium(size_t bytes)
{
    unsigned size_class = sizeclass_of(bytes);
    struct cache *cache = cache_self;
    cache_enter(cache);
    if (unlikely(load_acquire(&cache->claimed) != 0)) { // first; pairs with claim_end
        cache_leave(cache);
        return cache_alloc_class(size_class, bytes, 16);
    }
    struct span *span = cache->current[size_class];
    struct block *block = span->free;
    if (unlikely(block == NULL) || unlikely(heap_main.hardened)) {
        cache_leave(cache);
        return cache_alloc_class(size_class, bytes, 16);
    }
    if (unlikely(dec_is_zero(&span->alloc_left))) {
        return cache_alloc_due(bytes, cache, span);
    }
    span->free = block->next;
    __builtin_prefetch(block->next); // the next malloc of the class reads it; large blocks are cold
    span->used++;
    block->key = 0;
    cache_leave(cache);
    return block;
}

ATTR_INLINE void cache_tick(struct cache *cache)
{
    store_relaxed(&cache->ticks, load_relaxed(&cache->ticks) + 1);
}

// The span of a block in use; *base is where the block starts: before addr, if it is sampled.
ATTR_INLINE struct span *block_check(uint64_t secret, void *addr, void **base, const char *call)
{
    struct span *span = span_of(&pageheap_main, addr);
    *base = addr;
    if (span == NULL || span->page_count == 0) { // span_none has no pages
        badfree_foreign(addr, call);
    }
    if (span->size_class == 0) {
        if ((uintptr_t)addr != span->base || span_state(span) != SPAN_LARGE) {
            badfree_check(span, addr, call);
        }
        return span;
    }
    if (unlikely(!span_holds_block(span, addr))) {
        *base = sample_base(span, addr);
    }
    if (*base == NULL || (load_relaxed(&span->holed) != 0 && hole_holds(&heap_main, span, *base)) ||
        ((struct block *)*base)->key == (secret ^ (uintptr_t)*base)) {
        badfree_check(span, addr, call);
    }
    return span;
}

// Without the bracket: whoever asks holds the block, so its span lives, and what is read of it is
// constant meanwhile.
struct block_found block_find(void *addr, const char *call)
{
    void *base;
    struct span *span = block_check(heap_main.secret, addr, &base, call);
    return (struct block_found){
        .span = span,
        .bytes = span_block_bytes(span) - (size_t)((char *)addr - (char *)base),
        .sampled = base != addr || (span->size_class == 0 && span->free != NULL),
    };
}

static ATTR_NOINLINE void free_other_first(struct cache *cache, struct span *span,
                                           struct block *block)
{
    cache_tick(cache);
    gather_add(&heap_main, cache, span, block);
    cache_leave(cache);
}

static ATTR_NOINLINE void free_other_long(struct cache *cache, struct gather *entry)
{
    gather_push(&heap_main, cache, entry);
    cache_leave(cache);
}

// The free of a block of another thread's span, when nothing is out of the ordinary: checks,
// gathers, done; its look at claimed pairs with claim_end. Everything else is cache_free_slow's.
// The calls are the last thing each path does, so that no register need be saved.
ATTR_NOINLINE void cache_free_other(void *addr, struct cache *cache, struct span *span)
{
    struct block *block = addr;
    if (unlikely(load_acquire(&cache->claimed) != 0) || unlikely(heap_main.hardened) ||
        unlikely(load_relaxed(&span->owner) == cache) || unlikely(span->size_class == 0) ||
        unlikely(load_relaxed(&span->holed) != 0) || unlikely(!span_holds_block(span, addr)) ||
        unlikely(block->key == block_key(cache, block))) {
        cache_leave(cache);
        cache_free_slow(addr);
        return;
    }
    struct gather *entry = gather_entry(cache, span);
    if (unlikely(entry->span != span)) {
        free_other_first(cache, span, block);
        return;
    }
    if (unlikely(gather_link(cache, entry, block))) {
        free_other_long(cache, entry);
        return;
    }
    cache_leave(cache);
}

ATTR_NOINLINE void cache_free_slow(void *addr)
{
    if (addr == NULL) {
        return;
    }
    struct heap *heap = &heap_main;
    struct cache_hold hold = cache_hold();
    cache_tick(hold.cache);
    void *base;
    struct span *span = block_check(heap->secret, addr, &base, "free()");
    if (unlikely(base != addr)) {
        addr = sample_free(heap, hold.cache, span, addr, base);
        span = span_of(heap->pages, addr);
    }
    if (span->size_class == 0) {
        large_free_owned(heap, hold.cache, span);
    } else {
        cache_free_small(heap, hold.cache, span, addr);
    }
    cache_unhold(hold);
}

// Since the bracket was left, a claimer may have deleted the span, and its record may be another's:
// what makes it an empty span of ours is asked again.
ATTR_NOINLINE void cache_emptied(void *addr)
{
    struct cache_hold hold = cache_hold();
    cache_tick(hold.cache);
    struct span *span = span_of(&pageheap_main, addr);
    if (load_relaxed(&span->owner) == hold.cache && span_is_listed(span) && span_used(span) == 0) {
        cache_span_emptied(&heap_main, hold.cache, span);
    }
    cache_unhold(hold);
}

struct span *large_alloc(size_t bytes, size_t align)
{
    struct span *span;
    unsigned attempt = 0;
    bool due = false;
    do {
        struct cache_hold hold = cache_hold();
        span = large_alloc_owned(&heap_main, hold.cache, bytes, align);
        due = span != NULL && sample_large_due(hold.cache, span_block_bytes(span));
        cache_unhold(hold);
    } while (unlikely(span == NULL) &&
             heap_full(attempt++, (bytes + PAGE_BYTES - 1) >> PAGE_SHIFT));
    if (unlikely(due)) {
        sample_large(span);
    }
    return span;
}

void large_free(struct span *span)
{
    struct cache_hold hold = cache_hold();
    large_free_owned(&heap_main, hold.cache, span);
    cache_unhold(hold);
}

bool large_resize(struct span *span, size_t bytes)
{
    size_t before = span_block_bytes(span);
    if (span->alloc_end != 0) {
        return false; // stands for a small block (span/spansample.c)
    }
    struct cache_hold hold = cache_hold();
    bool done = large_resize_owned(&heap_main, hold.cache, span, bytes);
    size_t after = span_block_bytes(span);
    bool sampled = span->free != NULL;
    bool due = after > before && !sampled && sample_large_due(hold.cache, after - before);
    cache_unhold(hold);
    if (unlikely(due)) {
        sample_large(span);
    } else if (unlikely(sampled) && after != before) {
        heap_sample_move(span->base, span->base, span->base, after);
    }
    return done;
}
