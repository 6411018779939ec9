// SPDX-License-Identifier: MIT
//
// Aligned allocation. Spans start at page borders (8 KiB), so every block of a class whose size is
// a multiple of the alignment is aligned; beyond a page a run of pages is cut to fit.
//
// Go  1.16 malloc.go persistentalloc (align).
#include <errno.h>

#include "malloc/malloc.h"

static void *alloc_aligned(size_t align, size_t bytes)
{
    if (align <= 16) {
        return ebb_malloc(bytes);
    }
    if (bytes > MALLOC_MAX_BYTES - align) {
        errno = ENOMEM;
        return NULL;
    }
    size_t rounded = align_up(bytes == 0 ? 1 : bytes, align);
    if (align > PAGE_BYTES || rounded > SMALL_MAX_BYTES) {
        return malloc_large(bytes, align);
    }
    // Rounded up to the alignment; classes grow by steps that powers of two below them divide, so
    // the next fitting class is near: at most a few steps up.
    unsigned size_class = sizeclass_of(rounded);
    while (size_class < SIZECLASS_COUNT && sizeclass_table[size_class].block_bytes % align != 0) {
        size_class++;
    }
    void *block = cache_alloc_class(size_class);
    if (block == NULL) {
        errno = ENOMEM;
    }
    return block;
}

void *ebb_aligned_alloc(size_t align, size_t bytes)
{
    if (!is_power_of_two(align)) {
        errno = EINVAL;
        return NULL;
    }
    return alloc_aligned(align, bytes);
}

int ebb_posix_memalign(void **result, size_t align, size_t bytes)
{
    if (!is_power_of_two(align) || align % sizeof(void *) != 0) {
        return EINVAL;
    }
    int saved = errno;
    void *block = alloc_aligned(align, bytes);
    errno = saved;
    if (block == NULL) {
        return ENOMEM;
    }
    *result = block;
    return 0;
}
