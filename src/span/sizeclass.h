// SPDX-License-Identifier: MIT
//
// Size classes: which block size serves a request, and how many pages its spans have. Pure.
//
// Go  1.16 sizeclasses.go, msize.go. Unlike Go: eight classes to a doubling, computed by shifts.
#ifndef EBB_SPAN_SIZECLASS_H
#define EBB_SPAN_SIZECLASS_H

#include "base/base.h"
#include "span/sizeclass_table.h"

#define SIZECLASS_COUNT 73 // 1 .. 72; 0 stands for large
#define SMALL_MAX_BYTES ((size_t)32768)
#define DIRECT_MAX_BYTES ((size_t)1024) // sizes whose span is found by size / 16 alone
#define DIRECT_COUNT (DIRECT_MAX_BYTES / 16 + 1)

struct sizeclass {
    uint64_t magic; // offset * magic < magic exactly when block_bytes divides offset < 2^32
    uint32_t block_bytes;
    uint16_t first_pages; // of the first spans of a class
    uint16_t full_pages;  // of later ones
};

extern const struct sizeclass sizeclass_table[SIZECLASS_COUNT];

// sizeclass_of returns the class that serves bytes, at most SMALL_MAX_BYTES.
ATTR_INLINE unsigned sizeclass_of(size_t bytes)
{
    if (bytes <= 128) {
        return (unsigned)((bytes + 15) >> 4) + (bytes == 0);
    }
    unsigned log = 63 - (unsigned)__builtin_clzll(bytes - 1);
    return 9 + (log - 7) * 8 + (unsigned)((bytes - 1 - ((size_t)1 << log)) >> (log - 3));
}

#endif
