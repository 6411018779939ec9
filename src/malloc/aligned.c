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
    // Between two powers of two, classes are all the multiples of an eighth of the lower. So the
    // class of a multiple of align is one too: align divides that eighth, or is a multiple of it.
    unsigned size_class = sizeclass_of(rounded);
    ASSERT(sizeclass_table[size_class].block_bytes % align == 0, "malloc: class not aligned");
    void *block = cache_alloc_class(size_class, bytes == 0 ? 1 : bytes, align);
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
