// SPDX-License-Identifier: MIT
// Tier  quick
//
// MemStats: each identity is noticed when it does not hold, the text, and the numbers against
// blocks that are counted here.
//
// Go  runtime/malloc_test.go TestMemStats, gc_test.go.
#include "support/unit.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "boot/boot.h"
#include "malloc/malloc.h"
#include "stats/stats.h"
#include "support/heapbox.h"

static struct ebb_memstats right(void)
{
    return (struct ebb_memstats){
        .size = sizeof(struct ebb_memstats),
        .alloc = 1000,
        .total_alloc = 5000,
        .mallocs = 30,
        .frees = 20,
        .heap_alloc = 1000,
        .heap_objects = 10,
        .heap_sys = 16384,
        .heap_inuse = 8192,
        .heap_idle = 8192,
        .heap_released = 4096,
        .heap_lazy = 4096,
        .mspan_inuse = 128,
        .mspan_sys = 256,
        .mcache_inuse = 64,
        .mcache_sys = 64,
        .other_sys = 100,
        .sys = 16384 + 256 + 64 + 100,
    };
}

EBB_TEST(memstats, identities_hold_or_are_named)
{
    struct ebb_memstats s = right();
    cr_assert(memstats_verify(&s) == NULL);
    const struct {
        size_t offset; // of the field that is one too large
        const char *wrong;
    } rows[] = {
        {offsetof(struct ebb_memstats, heap_idle),
         "memstats: heap_sys is not heap_idle + heap_inuse"},
        {offsetof(struct ebb_memstats, heap_inuse),
         "memstats: heap_sys is not heap_idle + heap_inuse"},
        {offsetof(struct ebb_memstats, sys), "memstats: sys is not the sum of its parts"},
        {offsetof(struct ebb_memstats, mspan_sys), "memstats: sys is not the sum of its parts"},
        {offsetof(struct ebb_memstats, gc_sys), "memstats: sys is not the sum of its parts"},
        {offsetof(struct ebb_memstats, other_sys), "memstats: sys is not the sum of its parts"},
        {offsetof(struct ebb_memstats, alloc), "memstats: live blocks are not mallocs minus frees"},
        {offsetof(struct ebb_memstats, mallocs),
         "memstats: live blocks are not mallocs minus frees"},
        {offsetof(struct ebb_memstats, frees), "memstats: live blocks are not mallocs minus frees"},
        {offsetof(struct ebb_memstats, heap_objects),
         "memstats: live blocks are not mallocs minus frees"},
        {offsetof(struct ebb_memstats, mcache_inuse), "memstats: more in use than there is"},
        {offsetof(struct ebb_memstats, stack_inuse), "memstats: more in use than there is"},
        {offsetof(struct ebb_memstats, heap_lazy), "memstats: a part is larger than the whole"},
    };
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        s = right();
        uint64_t value;
        memcpy(&value, (char *)&s + rows[i].offset, sizeof(value));
        value++;
        memcpy((char *)&s + rows[i].offset, &value, sizeof(value));
        const char *wrong = memstats_verify(&s);
        cr_assert(wrong != NULL, "row %zu: nothing noticed", i);
        cr_assert_str_eq(wrong, rows[i].wrong);
    }
    s = right();
    s.heap_released = 8193;
    cr_assert_str_eq(memstats_verify(&s), "memstats: heap_released is not a part of heap_idle");
    s = right();
    s.heap_alloc = s.alloc = 8193;
    cr_assert_str_eq(memstats_verify(&s), "memstats: more is live than is in use");
    s = right();
    s.total_alloc = 999;
    cr_assert_str_eq(memstats_verify(&s), "memstats: a part is larger than the whole");
}

EBB_TEST(memstats, text)
{
    struct ebb_memstats s = right();
    struct procfs_rollup kernel = {
        .rss_bytes = 3 * GIB / 2, .anonymous_bytes = 1536, .lazyfree_bytes = 0};
    char buf[2048];
    struct fmt out;
    fmt_init(&out, buf, sizeof(buf));
    memstats_print(&out, &s, &kernel);
    buf[out.len] = '\0';
    const char *lines[] = {
        "alloc: 1000 bytes\n",
        "total-alloc: 4.88KB (5000 bytes)\n",
        "mallocs: 30\n",
        "frees: 20\n",
        "heap-sys: 16.00KB (16384 bytes)\n",
        "heap-objects: 10\n",
        "kernel-rss: 1.50GB (1610612736 bytes)\n",
        "kernel-anonymous: 1.50KB (1536 bytes)\n",
        "kernel-lazyfree: 0 bytes\n",
    };
    const char *pos = buf;
    for (size_t i = 0; i < ARRAY_COUNT(lines); i++) {
        const char *found = strstr(pos, lines[i]);
        cr_assert(found != NULL, "not there, or not in order: %s in\n%s", lines[i], buf);
        pos = found + 1;
    }
    cr_assert(strstr(buf, "threads-not-asked") == NULL);
    s.skipped_count = 3;
    fmt_init(&out, buf, sizeof(buf));
    memstats_print(&out, &s, NULL);
    buf[out.len] = '\0';
    cr_assert(strstr(buf, "threads-not-asked: 3\n") != NULL);
    cr_assert(strstr(buf, "kernel-rss: unknown") != NULL);
}

EBB_TEST(memstats, text_of_every_unit)
{
    char want[40];
    char buf[2048];
    struct fmt out;
    const char *units[] = {"KB", "MB", "GB", "TB", "PB"};
    for (unsigned unit = 0; unit < 5; unit++) {
        struct ebb_memstats s = right();
        s.alloc = (UINT64_C(1) << (10 * unit + 10)) * 5 / 4;
        fmt_init(&out, buf, sizeof(buf));
        memstats_print(&out, &s, NULL);
        buf[out.len] = '\0';
        snprintf(want, sizeof(want), "alloc: 1.25%s (", units[unit]);
        cr_assert(strncmp(buf, want, strlen(want)) == 0, "%s", buf);
    }
}

EBB_TEST(memstats, reading_needs_its_size)
{
    struct ebb_memstats s = {.size = 0};
    cr_assert(ebb_memstats_read(NULL) == -EINVAL);
    cr_assert(ebb_memstats_read(&s) == -EINVAL);
    s.size = sizeof(s) + 8;
    cr_assert(ebb_memstats_read(&s) == -EINVAL);
    s.size = sizeof(s);
    cr_assert(ebb_memstats_read(&s) == 0 && s.size == sizeof(s));
}

EBB_TEST(memstats, numbers_are_those_of_the_blocks)
{
    struct heapbox box;
    static void *small[777];
    static void *large[33];
    heapbox_adopt_main(&box, 4 * KIB, GIB, 1);
    struct ebb_memstats before = {.size = sizeof(before)};
    struct ebb_memstats s = {.size = sizeof(s)};
    cr_assert(ebb_memstats_read(&before) == 0);
    for (size_t i = 0; i < ARRAY_COUNT(small); i++) {
        small[i] = ebb_malloc(100); // 112
    }
    for (size_t i = 0; i < ARRAY_COUNT(large); i++) {
        large[i] = ebb_malloc(100000); // 13 pages
    }
    const uint64_t large_bytes = 13 * PAGE_BYTES;
    unsigned size_class = sizeclass_of(100);
    cr_assert(ebb_memstats_read(&s) == 0 && memstats_verify(&s) == NULL);
    cr_assert(s.mallocs == before.mallocs + 777 + 33 && s.frees == before.frees);
    cr_assert(s.heap_alloc == before.heap_alloc + 777 * 112 + 33 * large_bytes);
    cr_assert(s.total_alloc == before.total_alloc + 777 * 112 + 33 * large_bytes);
    cr_assert(s.by_size[size_class].bytes == 112 && s.by_size[size_class].mallocs == 777);
    cr_assert(s.large_count == 33 && s.large_bytes == 33 * large_bytes);
    cr_assert(s.by_size[0].mallocs == 33 && s.by_size[0].frees == 0);
    cr_assert(s.heap_sys == box.sim.prepared_bytes - s.mspan_sys ||
                  s.heap_sys < box.sim.prepared_bytes,
              "heap and tables are what was prepared");
    cr_assert(s.heap_inuse >= s.heap_alloc && s.thread_count >= 1);
    for (size_t i = 0; i < ARRAY_COUNT(small); i += 2) {
        ebb_free(small[i]);
    }
    ebb_free(large[0]);
    cr_assert(ebb_memstats_read(&s) == 0 && memstats_verify(&s) == NULL);
    cr_assert(s.by_size[size_class].frees == 389 && s.large_count == 32);
    cr_assert(s.heap_objects == before.heap_objects + 388 + 32);
    cr_assert(s.heap_cached == large_bytes, "it rests in the page cache");
    cr_assert(s.total_alloc == before.total_alloc + 777 * 112 + 33 * large_bytes,
              "never decreases");
    // A size change counts as the bytes more or less.
    void *grown = ebb_realloc(large[32], 200000); // 25 pages, in place: nothing is behind it
    cr_assert(grown == large[32]);
    cr_assert(ebb_memstats_read(&s) == 0 && s.large_bytes == 31 * large_bytes + 25 * PAGE_BYTES);
    heap_main_verify("at the end");
}
