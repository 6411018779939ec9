// SPDX-License-Identifier: MIT
// Tier  quick
//
// Size classes, every size: the smallest class that fits, its waste, and the division by
// multiplying.
//
// Go  runtime/sizeof_test.go, mksizeclasses.go checks.
#include "support/unit.h"

#include "base/base.h"
#include "span/span.h"

// By looking at the whole table, not by shifts.
static unsigned naive_class(size_t bytes)
{
    for (unsigned i = 1; i < SIZECLASS_COUNT; i++) {
        if (sizeclass_table[i].block_bytes >= bytes) {
            return i;
        }
    }
    return 0;
}

EBB_TEST(sizeclass, smallest_that_fits)
{
    for (size_t bytes = 0; bytes <= SMALL_MAX_BYTES; bytes++) {
        unsigned size_class = sizeclass_of(bytes);
        cr_assert(size_class >= 1 && size_class < SIZECLASS_COUNT, "%zu bytes: class %u", bytes,
                  size_class);
        cr_assert(size_class == naive_class(bytes), "%zu bytes: class %u, not %u", bytes,
                  size_class, naive_class(bytes));
    }
    cr_assert(sizeclass_table[SIZECLASS_COUNT - 1].block_bytes == SMALL_MAX_BYTES);
}

EBB_TEST(sizeclass, waste_is_bounded)
{
    for (size_t bytes = 1; bytes <= SMALL_MAX_BYTES; bytes++) {
        size_t block_bytes = sizeclass_table[sizeclass_of(bytes)].block_bytes;
        size_t waste = block_bytes - bytes;
        if (bytes > 128) {
            cr_assert(waste * 8 <= block_bytes, "%zu bytes in %zu: more than 12.5 %%", bytes,
                      block_bytes);
        } else {
            cr_assert(waste < 16, "%zu bytes in %zu", bytes, block_bytes);
        }
    }
}

EBB_TEST(sizeclass, table_is_in_order)
{
    for (unsigned i = 1; i < SIZECLASS_COUNT; i++) {
        const struct sizeclass *sc = &sizeclass_table[i];
        cr_assert(sc->block_bytes % 16 == 0);
        cr_assert(i == 1 || sc->block_bytes > sizeclass_table[i - 1].block_bytes);
        cr_assert(sc->first_pages >= 1 && sc->full_pages >= sc->first_pages);
        cr_assert((size_t)sc->first_pages << PAGE_SHIFT >= sc->block_bytes,
                  "class %u: no block fits", i);
        // What does not make a block at the end of a full span.
        size_t span_bytes = (size_t)sc->full_pages << PAGE_SHIFT;
        cr_assert((span_bytes % sc->block_bytes) * 8 <= span_bytes, "class %u: tail waste", i);
    }
}

// offset * magic < magic exactly when block_bytes divides offset: every offset of a full span, and
// those around large multiples up to 2^32.
EBB_TEST(sizeclass, magic_divides, .timeout = 60)
{
    for (unsigned i = 1; i < SIZECLASS_COUNT; i++) {
        const struct sizeclass *sc = &sizeclass_table[i];
        uint64_t span_bytes = (uint64_t)sc->full_pages << PAGE_SHIFT;
        for (uint64_t offset = 0; offset < span_bytes; offset++) {
            bool divides = offset * sc->magic < sc->magic;
            cr_assert(divides == (offset % sc->block_bytes == 0), "class %u offset %llu", i,
                      (unsigned long long)offset);
        }
        for (uint64_t n = 0xffffffff / sc->block_bytes; n > 0; n /= 3) {
            for (uint64_t offset = n * sc->block_bytes - 1; offset <= n * sc->block_bytes + 1;
                 offset++) {
                bool divides = offset * sc->magic < sc->magic;
                cr_assert(offset > 0xffffffff || divides == (offset % sc->block_bytes == 0));
            }
        }
    }
}
