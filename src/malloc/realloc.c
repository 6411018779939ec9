// SPDX-License-Identifier: MIT
//
// Realloc: keeps the block where it is as long as it fits and is at least half used; large blocks
// grow into free pages behind them.
//
// Go  none; append grows by copying.
#include <errno.h>
#include <string.h>

#include "malloc/malloc.h"

// Shrinking a small block moves it only if that saves more than half of it.
static bool fits_in_place(const struct block_found *found, size_t bytes)
{
    size_t have = found->bytes;
    return bytes <= have && bytes >= have / 2 && found->span->size_class != 0;
}

static bool resize_large(struct span *span, size_t bytes)
{
    return span->size_class == 0 && bytes > SMALL_MAX_BYTES && large_resize(span, bytes);
}

void *ebb_realloc(void *block, size_t bytes)
{
    if (block == NULL) {
        return ebb_malloc(bytes);
    }
    if (bytes == 0) {
        ebb_free(block);
        return NULL;
    }
    if (bytes > MALLOC_MAX_BYTES) {
        errno = ENOMEM;
        return NULL;
    }
    struct block_found found = block_find(block, "realloc()");
    if (fits_in_place(&found, bytes) || resize_large(found.span, bytes)) {
        return block;
    }
    size_t have = found.bytes;
    if (unlikely(found.sampled)) {
        void *moved = sample_move(found.span, block, have, bytes);
        if (moved != NULL) {
            return moved;
        }
    }
    sample_growing_from(have);
    void *moved = ebb_malloc(bytes);
    sample_growing_from(0);
    if (moved == NULL) {
        // A block that should shrink may stay as it is rather than fail.
        return bytes <= have ? block : NULL;
    }
    memcpy(moved, block, have < bytes ? have : bytes);
    ebb_free(block);
    return moved;
}

void *ebb_reallocarray(void *block, size_t count, size_t each)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, each, &bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    return ebb_realloc(block, bytes);
}

size_t ebb_malloc_usable_size(void *block)
{
    return block == NULL ? 0 : block_find(block, "malloc_usable_size()").bytes;
}
