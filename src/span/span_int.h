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
// span_extend threads some more blocks; false if all are threaded.
bool span_extend(struct span *span, uint64_t secret);

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

// cache.c. Each is called by the owner in its bracket, or by who has claimed the cache.
void *cache_alloc_owned(struct heap *heap, struct cache *cache, unsigned size_class);
void cache_set_current(struct cache *cache, unsigned size_class, struct span *span);
void cache_detach_all(struct heap *heap, struct cache *cache);
void cache_span_emptied(struct heap *heap, struct cache *cache, struct span *span);
size_t cache_flush_empty(struct heap *heap, struct cache *cache);
void cache_uncount_empty(struct cache *cache, struct span *span);
void cache_adopt(struct cache *cache, struct span *span);
void cache_disown(struct cache *cache, struct span *span);
void cache_full_to_partial(struct heap *heap, struct cache *cache, struct span *span);
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

// central.c
struct span *central_get(struct heap *heap, struct cache *cache, unsigned size_class);
void central_put(struct heap *heap, struct span *span);
void central_notify(struct heap *heap, struct span *span);
void central_collect(struct heap *heap, struct span *span, unsigned size_class);
size_t central_flush(struct heap *heap);

void cache_retire(struct heap *heap, struct cache *cache);

// large.c: large blocks and the page cache, by the owner or a claimer.
struct span *large_alloc_owned(struct heap *heap, struct cache *cache, size_t bytes, size_t align);
void large_free_owned(struct heap *heap, struct cache *cache, struct span *span);
bool large_resize_owned(struct heap *heap, struct cache *cache, struct span *span, size_t bytes);
size_t runs_flush(struct heap *heap, struct cache *cache);

// The tag that makes frees into the owner's spans fast; none when hardened.
ATTR_INLINE uint32_t cache_span_tag(const struct cache *cache)
{
    return heap_main.hardened ? TAG_NONE : cache->id;
}

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
