// SPDX-License-Identifier: MIT
//
// Spans, what only this folder's files share.
//
// Go  1.16 mcache.go, mcentral.go, mspan lists of mheap.go.
#ifndef EBB_SPAN_SPAN_INT_H
#define EBB_SPAN_SPAN_INT_H

#include "base/check.h"
#include "span/span.h"

// The remote word: address of the first block (bits 4 to 47), a flag, and the count of blocks.
#define REMOTE_FULL UINT64_C(1)
#define REMOTE_ADDR_MASK UINT64_C(0x0000fffffffffff0)
#define REMOTE_COUNT_SHIFT 48

// The list of all caches, by all_next: it only grows, at the front.
ATTR_INLINE struct cache *heap_first_cache(const struct heap *heap)
{
    return load_acquire(&heap->caches); // pairs with store_release in cache_make
}

ATTR_INLINE enum span_state span_state(const struct span *span)
{
    return (enum span_state)load_relaxed(&span->state);
}

// Relaxed: the owner's bracket or the CENTRAL lock orders it; the two places where a thread without
// either may look (span_new, span_delete) use store_release.
ATTR_INLINE void span_set_state(struct span *span, enum span_state state)
{
    store_relaxed(&span->state, (uint8_t)state);
}

ATTR_INLINE uint64_t span_used(const struct span *span)
{
    return span->used - (span_state(span) == SPAN_CURRENT);
}

// span_is_listed: on a list of its owner where it may be found empty, and is not counted so yet.
ATTR_INLINE bool span_is_listed(const struct span *span)
{
    return span_state(span) == SPAN_PARTIAL || span_state(span) == SPAN_HOLEY;
}

ATTR_INLINE uint64_t remote_count(uint64_t word)
{
    return word >> REMOTE_COUNT_SHIFT;
}

void span_list_push(struct span_list *list, struct span *span);
void span_list_append(struct span_list *list, struct span *span);
void span_list_remove(struct span_list *list, struct span *span);

// span.c. span_new makes a span of the class for the cache, not yet on a list. NULL: no memory.
struct span *span_new(struct heap *heap, struct cache *cache, unsigned size_class);
// span_delete gives an empty span, unlinked, to the page heap.
void span_delete(struct heap *heap, struct span *span);
// span_extend threads some more blocks; false if all are threaded, or they lie in holes and the
// gate refuses to fill them.
bool span_extend(struct heap *heap, struct span *span);

// hole.c. See there. Called by the owner in its bracket, or by who has claimed the cache, or under
// CENTRAL.
//
// hole_make finds the kernel pages of the span without a block in use and takes their blocks from
// the free list: they are holes that are not yet given back. Returns their mask, 0 if there is
// none.
uint32_t hole_make(struct heap *heap, struct span *span);
// hole_possible tells whether enough is free in the span for a kernel page.
bool hole_possible(const struct heap *heap, const struct span *span);
// hole_ranges writes the ranges of the resident holes, at most HOLE_RANGES; returns how many.
#define HOLE_RANGES ((size_t)16)
size_t hole_ranges(const struct heap *heap, const struct span *span, struct vm_range *ranges);
// hole_given says that the holes of the range have been given back.
void hole_given(struct heap *heap, struct span *span, const struct vm_range *range);
// hole_reopen threads blocks of the holes again, of resident ones only or of any. True if the span
// has free blocks then. False where there is nothing to open, or the gate refuses what was given
// back (pageheap_fill). Holds no lock that the gate's hook may want.
enum hole_reopen { HOLE_REOPEN_RESIDENT, HOLE_REOPEN_ANY };
bool hole_reopen(struct heap *heap, struct span *span, enum hole_reopen which);
// hole_open_for: the next count blocks are about to be threaded for the first time. False: some lie
// in holes that the gate refuses to fill, and nothing has changed.
bool hole_open_for(struct heap *heap, struct span *span, uint32_t count);
// hole_holds tells whether the block at addr lies in a hole: then it is free.
bool hole_holds(const struct heap *heap, const struct span *span, const void *addr);
// hole_forget: the span is about to be deleted. Returns its pages that are given back, as a mask,
// and how much of it still counts as holes: pageheap_free_holed is told both.
uint32_t hole_forget(struct heap *heap, struct span *span, uint64_t *given_bytes);
// hole_blocks counts the blocks that were threaded once and lie in holes.
uint32_t hole_blocks(const struct heap *heap, const struct span *span);
// hole_verify returns NULL, or what is wrong with the span's holes.
const char *hole_verify(const struct heap *heap, const struct span *span);
uint64_t hole_bytes_given(const struct heap *heap, const struct span *span);
uint64_t hole_bytes_resident(const struct heap *heap, const struct span *span);

// span->looked: the span's activity when it was last looked at, twice, plus 1 if it was found at
// rest then (cold). A cold span has no tag, so that the first free into it is heard.
ATTR_INLINE uint32_t span_activity(const struct span *span)
{
    return (2 * span_allocs(span) - (uint32_t)span_used(span)) << 1;
}

ATTR_INLINE bool span_cold(const struct span *span)
{
    return (span->looked & 1) != 0;
}

// remote.c. See there for the table of operations.
bool remote_collect(struct span *span);
bool remote_mark_full(struct span *span);
bool remote_clear_full(struct span *span);
void remote_push(struct heap *heap, struct span *span, struct block *head, struct block *tail,
                 uint32_t count);
// gather_push pushes the entry's chain, and leaves the entry empty.
void gather_push(struct heap *heap, struct cache *cache, struct gather *entry);
// gather_evict pushes the entry's chain, if it has one, and gives the entry to span.
void gather_evict(struct heap *heap, struct cache *cache, struct gather *entry, struct span *span,
                  struct block *tail);

// A chain is pushed when it has so many blocks or bytes.
#define GATHER_BLOCKS 32u
#define GATHER_BYTES 4096u

ATTR_INLINE struct gather *gather_entry(struct cache *cache, const struct span *span)
{
    uintptr_t hash = (uintptr_t)span / sizeof(*span);
    return &cache->gather[(hash ^ hash >> 5) % GATHER_COUNT];
}

// gather_link adds a block to the entry of its span; true if the chain should be pushed.
ATTR_INLINE bool gather_link(struct cache *cache, struct gather *entry, struct block *block)
{
    block->key = block_key(cache, block);
    block->next = entry->head;
    entry->head = block;
    entry->room -= 1;
    return entry->room == 0;
}

// gather_add puts a block of somebody else's span on its way.
ATTR_INLINE void gather_add(struct heap *heap, struct cache *cache, struct span *span,
                            struct block *block)
{
    struct gather *entry = gather_entry(cache, span);
    if (entry->span != span) {
        gather_evict(heap, cache, entry, span, block);
    }
    if (gather_link(cache, entry, block)) {
        gather_push(heap, cache, entry);
    }
}
void gather_flush(struct heap *heap, struct cache *cache);
void pending_drain(struct heap *heap, struct cache *cache);

// spansample.c. sample_begin: the cache has a new thread. The interval of the last one is not its.
void sample_begin(struct heap *heap, struct cache *cache);
// sample_redraw starts a new countdown for a span, whatever was left of the last.
void sample_redraw(struct heap *heap, struct cache *cache, struct span *span);
// sample_restart does so at its end; true if the block whose turn it is is to be sampled.
bool sample_restart(struct heap *heap, struct cache *cache, struct span *span);
// sample_large_due counts bytes of large blocks; true if the one that brings them is to be sampled.
bool sample_large_due(struct cache *cache, uint64_t bytes);
// sample_alloc allocates a sampled block for bytes <= SMALL_MAX_BYTES, align <= PAGE_BYTES; NULL
// without errno. Outside of the bracket, no lock held.
void *sample_alloc(size_t bytes, size_t align);
// sample_large records that the large block is sampled. Outside of the bracket, no lock held.
void sample_large(struct span *span);
// sample_free forgets the sampled block at addr, in a block at base, and frees what was taken for
// it. Returns what is left to be freed: its place. Inside the bracket.
void *sample_free(struct heap *heap, struct cache *cache, struct span *span, void *addr,
                  void *base);
// sample_large_free is the same for a marked large span, which is to be freed then. Inside the
// bracket.
void sample_large_free(struct heap *heap, struct cache *cache, struct span *span);
// cache_free_small (cache.c) frees a checked block, or keeps it for a while (check=2). Inside the
// bracket.
void cache_free_small(struct heap *heap, struct cache *cache, struct span *span, void *addr);
// sample_base returns the block that a sampled block's address lies in; NULL: it is none.
void *sample_base(const struct span *span, const void *addr);

// cache.c. Each is called by the owner in its bracket, or by who has claimed the cache.
// cache_alloc_owned: where due is not NULL, the block counts for the sampler, and if it is to be
// sampled, *due is true and none is returned.
void *cache_alloc_owned(struct heap *heap, struct cache *cache, unsigned size_class, bool *due);
void cache_set_current(struct cache *cache, unsigned size_class, struct span *span);
void cache_detach_all(struct heap *heap, struct cache *cache);
void cache_span_emptied(struct heap *heap, struct cache *cache, struct span *span);
size_t cache_flush_empty(struct heap *heap, struct cache *cache);
void cache_adopt(struct cache *cache, struct span *span);
void cache_disown(struct cache *cache, struct span *span);
// cache_unlist takes a PARTIAL, EMPTY or HOLEY span from its list; it is PARTIAL then.
void cache_unlist(struct cache *cache, struct span *span);
void cache_full_to_partial(struct heap *heap, struct cache *cache, struct span *span);
// cache_count_freed counts what was freed without a page coming free, and rings the doorbell each
// 4 MiB: owners that sleep do not collect by themselves, and holes are found only by looking. Spans
// that turn from full to partial count whole.
#define FREED_RING_BYTES (4 * MIB)
ATTR_INLINE void cache_count_freed(struct heap *heap, struct cache *cache, uint64_t bytes)
{
    cache->freed_bytes += bytes;
    if (unlikely(cache->freed_bytes >= FREED_RING_BYTES)) {
        cache->freed_bytes = 0;
        pageheap_ring(heap->pages);
    }
}
// cache_count_opened: the owner's free has turned a span from full to partial, or from cold to
// warm: all of it may come free. In a cache that owns less than what rings nothing is worth a look.
ATTR_INLINE void cache_count_opened(struct heap *heap, struct cache *cache, const struct span *span)
{
    if (cache->span_pages >= FREED_RING_BYTES >> PAGE_SHIFT) {
        cache_count_freed(heap, cache, (uint64_t)span->page_count << PAGE_SHIFT);
    }
}
struct cache *cache_attach(void);
// cache_enter_slow enters the bracket and waits while the cache is claimed.
void cache_enter_claimed(struct cache *cache);
ATTR_INLINE void cache_enter_slow(struct cache *cache)
{
    cache_enter(cache);
    if (unlikely(load_acquire(&cache->claimed) != 0)) { // pairs with store_release in claim_end
        cache_enter_claimed(cache);
    }
}

// The cache to use and how to let it go: a thread without one works under the WORLD lock.
struct cache_hold {
    struct cache *cache;
    bool fallback;
};
struct cache_hold cache_hold_first(void);

ATTR_INLINE struct cache_hold cache_hold(void)
{
    struct cache *cache = cache_self;
    if (unlikely(cache == &cache_none)) {
        return cache_hold_first();
    }
    cache_enter_slow(cache);
    return (struct cache_hold){cache, false};
}

ATTR_INLINE void cache_unhold(struct cache_hold hold)
{
    cache_leave(hold.cache);
    if (unlikely(hold.fallback)) {
        lock_release(&heap_main.world);
    }
}

// central.c
struct span *central_get(struct heap *heap, struct cache *cache, unsigned size_class);
void central_put(struct heap *heap, struct span *span);
void central_notify(struct heap *heap, struct span *span);
void central_collect(struct heap *heap, struct span *span, unsigned size_class);
// central_settle takes a listed span's remote frees; if it is empty then, unlinks it and returns
// false: the caller deletes it. Caller holds the lock.
bool central_settle(struct central *central, struct span *span);

void cache_retire(struct heap *heap, struct cache *cache);

// large.c: large blocks and the page cache, by the owner or a claimer.
struct span *large_alloc_owned(struct heap *heap, struct cache *cache, size_t bytes, size_t align);
void large_free_owned(struct heap *heap, struct cache *cache, struct span *span);
bool large_resize_owned(struct heap *heap, struct cache *cache, struct span *span, size_t bytes);
size_t runs_flush(struct heap *heap, struct cache *cache);

// The tag of a span that its owner frees into: none when hardened, or with holes, or at rest.
ATTR_INLINE uint32_t span_tag(const struct cache *cache, const struct span *span)
{
    bool slow = heap_main.hardened || load_relaxed(&span->holed) != 0 || span_cold(span);
    return slow ? TAG_NONE : cache->id;
}

// world.c: claims, for look.c. The caller holds WORLD.
void claim_mark(struct cache *cache);
bool claim_wait(struct cache *cache);
void claim_end(struct cache *cache);

// harden.c: check=2. Called by the owner in its bracket.
void harden_poison(struct block *block, size_t block_bytes);
void harden_alloc(struct cache *cache, const struct span *span, struct block *block);
struct block *harden_free(struct heap *heap, struct cache *cache, struct block *block,
                          size_t block_bytes);
struct block *harden_oldest(struct heap *heap, struct cache *cache);

// badfree.c: end the program with a line about addr.
ATTR_NORETURN void badfree_check(const struct span *span, void *addr, const char *call);
ATTR_NORETURN void badfree_foreign(void *addr, const char *call);

#endif
