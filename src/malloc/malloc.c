// SPDX-License-Identifier: MIT
//
// Malloc and free, the fast entries, and calloc.
//
// Go  1.16 malloc.go mallocgc.
#include "malloc/malloc.h"

#include <errno.h>
#include <string.h>

ATTR_NOINLINE void *malloc_large(size_t bytes, size_t align)
{
    if (bytes > MALLOC_MAX_BYTES || align > MALLOC_MAX_BYTES / 2) {
        errno = ENOMEM;
        return NULL;
    }
    int saved = errno;
    struct span *span = large_alloc(bytes, align);
    if (span == NULL) {
        errno = ENOMEM;
        return NULL;
    }
    errno = saved;
    return (void *)span->base;
}

static ATTR_NOINLINE void *malloc_above_direct(size_t bytes)
{
    if (bytes > SMALL_MAX_BYTES) {
        return malloc_large(bytes, 16);
    }
    void *block = cache_alloc_medium(bytes);
    if (unlikely(block == NULL)) {
        errno = ENOMEM;
    }
    return block;
}

void *ebb_malloc(size_t bytes)
{
    if (unlikely(bytes > DIRECT_MAX_BYTES)) {
        return malloc_above_direct(bytes);
    }
    return cache_alloc_small(bytes); // its slow path sets errno
}

void ebb_free(void *block)
{
    cache_free(block);
}

void *ebb_calloc(size_t count, size_t each)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, each, &bytes) || bytes > MALLOC_MAX_BYTES) {
        errno = ENOMEM;
        return NULL;
    }
    if (bytes <= SMALL_MAX_BYTES) {
        void *block = ebb_malloc(bytes);
        return block == NULL ? NULL : memset(block, 0, bytes);
    }
    struct span *span = large_alloc(bytes, 16);
    if (span == NULL) {
        errno = ENOMEM;
        return NULL;
    }
    // Pages that have never been touched, or were given back for good, are zero.
    void *block = (void *)span->base;
    return span->zero != 0 ? block : memset(block, 0, bytes);
}
