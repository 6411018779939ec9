// SPDX-License-Identifier: MIT
// Tier  quick
//
// Regions: aligned, zero, apart, up to a limit, and gone at the end.
//
// Go  none
#include "support/unit.h"

#include <string.h>

#include "os/procfs.h"
#include "os/region.h"

static bool all_zero(const char *addr, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        if (addr[i] != 0) {
            return false;
        }
    }
    return true;
}

EBB_TEST(region, aligned_zero_and_apart)
{
    struct region region;
    region_init(&region, 16 * MIB);
    cr_assert(region.mapped_bytes == 0, "no memory before the first piece");
    for (size_t bytes = 0; bytes < 200000; bytes += 1 + bytes / 5) {
        char *addr = region_alloc(&region, bytes);
        cr_assert(addr != NULL && (uintptr_t)addr % 16 == 0, "%zu bytes", bytes);
        cr_assert(all_zero(addr, bytes), "%zu bytes", bytes);
        memset(addr, 0xff, bytes); // if it were another's, that one would not be zero
    }
    cr_assert(region.mapped_bytes <= 8 * MIB, "%zu mapped for about 1 MiB", region.mapped_bytes);
    region_end(&region);
    cr_assert(region.mapped_bytes == 0 && region.blocks == NULL);
    cr_assert(region_alloc(&region, 10) != NULL, "usable again");
    region_end(&region);
}

EBB_TEST(region, limit)
{
    struct region region;
    region_init(&region, MIB);
    size_t got = 0;
    while (region_alloc(&region, 1000) != NULL) {
        got += 1008;
    }
    cr_assert(got > MIB * 3 / 4 && got <= MIB, "%zu of a MiB", got);
    cr_assert(region.mapped_bytes <= MIB);
    cr_assert(region_alloc(&region, 2 * MIB) == NULL);
    cr_assert(region_alloc(&region, SIZE_MAX) == NULL);
    cr_assert(region_alloc(&region, SIZE_MAX - 8) == NULL);
    region_end(&region);
    cr_assert(region.limit_bytes == MIB, "the limit stays");
    cr_assert(region_alloc(&region, 900 * KIB) != NULL, "one large piece");
    region_end(&region);
    region_init(&region, 0);
    cr_assert(region_alloc(&region, 1) == NULL);
    region_end(&region);
}

EBB_TEST(region, text)
{
    struct region region;
    region_init(&region, MIB);
    const char *copy = region_text(&region, "abcdef", 3);
    cr_assert_str_eq(copy, "abc");
    cr_assert_str_eq(region_text(&region, "x", 0), "");
    region_end(&region);
}

EBB_TEST(region, gives_everything_back)
{
    int64_t before = procfs_maps_count(0);
    struct region region;
    region_init(&region, 64 * MIB);
    for (int i = 0; i < 3000; i++) {
        cr_assert(region_alloc(&region, 10000) != NULL);
    }
    region_end(&region);
    cr_assert(procfs_maps_count(0) <= before, "mappings are left");
}
