// SPDX-License-Identifier: MIT
//
// Hardening, EBB=check=2: finds writes to freed blocks and more double frees, at a price.
//
// Model
//   heap->hardened sends every small malloc and free to the slow path: direct[] stays empty and
//   spans get no tag. A free block is filled with a pattern behind its link and key; malloc looks
//   whether it still is, and fills what it gives out with another, so that reading uninitialised
//   memory shows. A freed block waits in its thread's quarantine before it may be used again, up to
//   1 MiB or 1,024 blocks; there its key stands, so a second free is found however many mallocs lie
//   between. To MemStats a block in quarantine is live. Large blocks are not filled.
//   Releases and the end of the program run the verifiers (boot).
//
// Locking
//   As the slow paths: the bracket of the cache.
//
// Why this way
//   At run time and not at compile time: the library that runs in production can be asked.
//
// Go       none; the poison of GODEBUG=clobberfree=1 is the nearest.
// Tests    test/unit/malloc_test.c  test/system/badinput.py
#include <string.h>

#include "base/fmt.h"
#include "span/span_int.h"

#define FREE_BYTE 0xdb
#define NEW_BYTE 0xab
#define QUARANTINE_COUNT 1024u
#define QUARANTINE_BYTES MIB

struct quarantine {
    struct block *blocks[QUARANTINE_COUNT]; // (T) a ring
    uint32_t first;                         // (T) oldest
    uint32_t count;                         // (T)
    size_t bytes;                           // (T)
};

static void untag_list(struct span *span)
{
    for (; span != NULL; span = span->next) {
        store_relaxed(&span->tag, TAG_NONE);
    }
}

void harden_enable(struct heap *heap)
{
    world_freeze(heap);
    heap->hardened = true;
    for (struct cache *c = heap_first_cache(heap); c != NULL; c = c->all_next) {
        for (unsigned size_class = 1; size_class < SIZECLASS_COUNT; size_class++) {
            struct span *current = c->current[size_class];
            if (current != &span_empty) {
                store_relaxed(&current->tag, TAG_NONE);
            }
            cache_set_current(c, size_class, current); // direct[] becomes empty
            untag_list(c->partial[size_class].head);
            // What is free already has no pattern: it is given one now.
            for (struct block *b = current->free; b != NULL; b = b->next) {
                harden_poison(b, current->block_bytes);
            }
            for (struct span *s = c->partial[size_class].head; s != NULL; s = s->next) {
                for (struct block *b = s->free; b != NULL; b = b->next) {
                    harden_poison(b, s->block_bytes);
                }
            }
        }
    }
    world_thaw(heap);
}

void harden_poison(struct block *block, size_t block_bytes)
{
    memset(block + 1, FREE_BYTE, block_bytes - sizeof(*block));
}

ATTR_COLD static void die_written(const struct span *span, const struct block *block, size_t offset)
{
    char buf[256];
    struct fmt line;
    fmt_init(&line, buf, sizeof(buf));
    fmt_str(&line, "use after free: the block of ");
    fmt_u64(&line, span->block_bytes);
    fmt_str(&line, " bytes at ");
    fmt_hex(&line, (uintptr_t)block);
    fmt_str(&line, " was written to at offset ");
    fmt_u64(&line, offset);
    fmt_str(&line, " after it had been freed");
    fatal_user(&line);
}

// Ends the program if the free block was written to.
static void check_pattern(const struct cache *cache, const struct span *span,
                          const struct block *block)
{
    const unsigned char *bytes = (const unsigned char *)block;
    if (block->key != block_key(cache, block)) {
        die_written(span, block, offsetof(struct block, key));
    }
    for (size_t i = sizeof(*block); i < span->block_bytes; i++) {
        if (bytes[i] != FREE_BYTE) {
            die_written(span, block, i);
        }
    }
}

void harden_alloc(struct cache *cache, const struct span *span, struct block *block)
{
    check_pattern(cache, span, block);
    memset(block, NEW_BYTE, span->block_bytes);
}

// harden_free keeps the block, and returns the one that may be freed instead, or NULL.
struct block *harden_free(struct heap *heap, struct cache *cache, struct block *block,
                          size_t block_bytes)
{
    struct quarantine *q = cache->quarantine;
    if (q == NULL) {
        q = meta_alloc(&heap->meta, sizeof(*q), META_CACHE);
        cache->quarantine = q;
        if (q == NULL) {
            return block;
        }
    }
    harden_poison(block, block_bytes);
    block->key = block_key(cache, block);
    q->blocks[(q->first + q->count) % QUARANTINE_COUNT] = block;
    q->count++;
    q->bytes += block_bytes;
    if (q->count < QUARANTINE_COUNT && q->bytes <= QUARANTINE_BYTES) {
        return NULL;
    }
    return harden_oldest(heap, cache);
}

// harden_oldest takes a block out of the quarantine, or returns NULL.
struct block *harden_oldest(struct heap *heap, struct cache *cache)
{
    struct quarantine *q = cache->quarantine;
    if (q == NULL || q->count == 0) {
        return NULL;
    }
    struct block *block = q->blocks[q->first];
    q->first = (q->first + 1) % QUARANTINE_COUNT;
    q->count--;
    const struct span *span = span_of(heap->pages, block);
    q->bytes -= span->block_bytes;
    check_pattern(cache, span, block); // its span may be deleted before malloc comes to it
    return block;
}
