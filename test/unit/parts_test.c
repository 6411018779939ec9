// SPDX-License-Identifier: MIT
// Tier  quick
//
// parts.h: parts are put in order, claim what is theirs and divide it; whatever another process
// shows in place of an allocator's tables or of a JVM's counters, nothing is read beyond its
// bounds, nor what is not resident, nor for longer than there is time, and no heap is divided into
// more than it has.
//
// Go  none
#include "doctor/parts.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "os/clock.h"
#include "support/unit.h"

static struct facts facts;
static const struct doctor_options options = {.root = ""};

// An examination of this process itself.
static void begin(struct exam *exam)
{
    memset(&facts, 0, sizeof(facts));
    facts.pid = getpid();
    *exam = (struct exam){.facts = &facts, .options = &options, .reader = {.pid = facts.pid}};
    exam->deadline_ns = clock_thread_cpu_ns() + 200 * NS_PER_MS;
    facts.kernel.page_bytes = 4096;
    evidence_maps(exam);
    evidence_pagemap(exam);
    cr_assert_gt(exam->vmas_count, 5);
}

static void end(struct exam *exam)
{
    if (exam->scans) {
        residency_close(&exam->residency);
    }
    free(exam->scan_buf);
    free(exam->anonymous.addrs);
    free(exam->huge.addrs);
    parts_free(exam);
    vmas_free(exam);
}

static unsigned char *pages(size_t bytes)
{
    unsigned char *p =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(p, MAP_FAILED);
    return p;
}

Test(parts, neighbours_of_a_kind_are_one)
{
    struct exam exam;
    begin(&exam);
    struct parts *parts = parts_new(&exam, HEAP_MIMALLOC);
    parts_add(parts, 0x1000, 0x2000, PART_FREE);
    parts_add(parts, 0x2000, 0x3000, PART_FREE);
    parts_add(parts, 0x3000, 0x4000, PART_SLAB);
    parts_add(parts, 0x5000, 0x5000, PART_SLAB);
    parts_add(parts, 0x6000, 0x5000, PART_SLAB);
    cr_expect_eq(parts->count, 2);
    cr_expect_eq(parts->list[0].end, 0x3000);
    cr_expect_eq(parts_of(&exam, HEAP_MIMALLOC), parts);
    cr_expect_null(parts_of(&exam, HEAP_JEMALLOC));
    end(&exam);
}

Test(parts, overlaps_are_counted_once)
{
    struct exam exam;
    begin(&exam);
    struct parts *parts = parts_new(&exam, HEAP_MIMALLOC);
    parts_add(parts, 0x4000, 0x8000, PART_SLAB);
    parts_add(parts, 0x1000, 0x5000, PART_FREE);
    parts_add(parts, 0x2000, 0x3000, PART_META);
    parts_claim(&exam, parts, HEAPS_MAX);
    cr_assert_eq(parts->count, 2);
    cr_expect_eq(parts->list[0].end, 0x5000);
    cr_expect_eq(parts->list[1].start, 0x5000);
    cr_expect_eq(parts->list[1].end, 0x8000);
    end(&exam);
}

// Of 16 pages 8 are claimed, 6 of these are resident: 2 of each of three kinds.
Test(parts, resident_pages_are_put_down_to_their_kind)
{
    struct exam exam;
    unsigned char *p = pages(16 * 4096);
    uint64_t at = (uintptr_t)p + 4 * 4096;
    madvise(p, 16 * 4096, MADV_NOHUGEPAGE);
    for (size_t i = 0; i < 16; i++) {
        if (i != 5 && i != 10) {
            p[i * 4096] = 1;
        }
    }
    begin(&exam);
    size_t index = heap_add(&exam, HEAP_TCMALLOC);
    struct parts *parts = parts_new(&exam, HEAP_TCMALLOC);
    parts_add(parts, at, at + 3 * 4096, PART_SLAB); // one of them is not there
    parts_add(parts, at + 3 * 4096, at + 5 * 4096, PART_LARGE);
    parts_add(parts, at + 5 * 4096, at + 8 * 4096, PART_FREE); // one of them neither
    parts->small_bytes = 5000;
    parts->cached_bytes = 1000;
    parts_claim(&exam, parts, index);
    evidence_pages(&exam);
    cr_expect_eq(facts.heaps[index].resident_bytes, 6 * 4096);
    const uint64_t *bytes = parts->resident_bytes;
    cr_expect_eq(bytes[PART_SLAB], 2 * 4096);
    cr_expect_eq(bytes[PART_LARGE], 2 * 4096);
    cr_expect_eq(bytes[PART_FREE], 2 * 4096);
    parts_divide(&facts.heaps[index], parts);
    cr_expect_eq(facts.heaps[index].live_bytes, 2 * 4096 + 4000);
    cr_expect_eq(facts.heaps[index].pinned_bytes, 2 * 4096 - 4000);
    cr_expect_eq(facts.heaps[index].kept_bytes, 2 * 4096);
    end(&exam);
    munmap(p, 16 * 4096);
}

// ---- what makes no sense ------------------------------------------------------------------------

#define GARBAGE_BYTES ((size_t)4 * MIB)
#define ROUNDS 60
// Behind the garbage lies as much memory that is never touched.
#define UNTOUCHED_BYTES GARBAGE_BYTES

// Random words, small numbers and addresses near to each other, in memory that is not there as
// well: what could be taken for tables.
static void scatter(unsigned char *p, size_t bytes, uint64_t *seed)
{
    uint64_t *words = (uint64_t *)(void *)p;
    for (size_t i = 0; i < bytes / 8; i++) {
        uint64_t draw = frame_random(seed);
        switch (draw % 8) {
        case 0:
            words[i] = draw;
            break;
        case 1:
        case 2:
            words[i] = (uintptr_t)p + (draw >> 8) % (bytes + UNTOUCHED_BYTES) / 64 * 64;
            break;
        case 3:
            words[i] = (draw >> 8) % 4;
            break;
        case 4:
            words[i] = (draw >> 8) % 4096 * 8192;
            break;
        default:
            words[i] = 0;
        }
    }
}

// Leaves out all other memory: a sanitizer's shadow has terabytes that might hold tables.
static void only(struct exam *exam, uint64_t start, uint64_t end)
{
    size_t count = 0;
    for (size_t i = 0; i < exam->vmas_count; i++) {
        if (exam->vmas[i].end > start && exam->vmas[i].start < end) {
            exam->vmas[count++] = exam->vmas[i];
        }
    }
    exam->vmas_count = count;
}

// What was only read has pages of zeros.
static size_t touched_count(unsigned char *p, size_t bytes)
{
    unsigned char present[UNTOUCHED_BYTES / 4096];
    size_t count = 0;
    cr_assert_eq(mincore(p, bytes, present), 0);
    for (size_t i = 0; i < bytes / 4096; i++) {
        count += present[i] & 1;
    }
    return count;
}

#define ROOM_BYTES (64 * MIB + GARBAGE_BYTES)
// Room for garbage; where it begins suits all allocators.
static unsigned char *room_make(unsigned char **base)
{
    *base = pages(ROOM_BYTES);
    madvise(*base, ROOM_BYTES, MADV_NOHUGEPAGE);
    return *base + (32 * MIB - (uintptr_t)*base % (32 * MIB)) % (32 * MIB);
}

typedef enum source_state find_heap(struct exam *exam, const struct module *module,
                                    size_t heap_index, char *why, size_t why_cap);

static void garbage(find_heap *find, enum heap_kind kind,
                    void (*shape)(unsigned char *p, uint64_t *seed))
{
    unsigned char *base;
    unsigned char *p = room_make(&base);
    uint64_t seed = 0x2545f4914f6cdd1d;
    int found_count = 0;
    for (int round = 0; round < ROUNDS; round++) {
        struct exam exam;
        char why[SOURCE_WHY_BYTES] = "";
        struct module module = {.path = "/nowhere", .ranges_count = 1};
        scatter(p, GARBAGE_BYTES, &seed);
        shape(p, &seed);
        begin(&exam);
        only(&exam, (uintptr_t)base, (uintptr_t)base + ROOM_BYTES);
        facts.process.swap_bytes = 1; // so that what is not there might be swapped out
        module.ranges[0] = (struct range){(uintptr_t)p, (uintptr_t)p + GARBAGE_BYTES};
        size_t index = kind == HEAP_PYTHON ? 0 : heap_add(&exam, kind);
        if (find(&exam, &module, index, why, sizeof(why)) == SOURCE_READ) {
            found_count++;
            facts.sources[SOURCE_JEMALLOC].state = SOURCE_READ;
            facts.sources[SOURCE_MIMALLOC].state = SOURCE_READ;
            facts.sources[SOURCE_TCMALLOC].state = SOURCE_READ;
            evidence_pages(&exam);
            evidence_allocators_divide(&exam);
            const struct facts_heap *heap = &facts.heaps[index];
            uint64_t sum = heap->live_bytes + heap->kept_bytes + heap->pinned_bytes +
                           heap->lazy_bytes + heap->meta_bytes;
            cr_expect_leq(sum, heap->resident_bytes);
        } else {
            cr_expect_neq(why[0], '\0');
        }
        cr_assert_eq(touched_count(p + GARBAGE_BYTES, UNTOUCHED_BYTES), 0);
        end(&exam);
    }
    // The shape is good enough to be taken for tables now and then.
    cr_expect_gt(found_count, 0);
    munmap(base, ROOM_BYTES);
}

static void put64(unsigned char *p, size_t offset, uint64_t value)
{
    memcpy(p + offset, &value, sizeof(value));
}

static void put32(unsigned char *p, size_t offset, uint32_t value)
{
    memcpy(p + offset, &value, sizeof(value));
}

static void class_put(unsigned char *p, uint64_t class_bytes, uint32_t shards_count)
{
    uint64_t slab_bytes = 4096;
    while (slab_bytes % class_bytes != 0) {
        slab_bytes += 4096;
    }
    put64(p, 0, class_bytes);
    put64(p, 8, slab_bytes);
    put32(p, 16, (uint32_t)(slab_bytes / class_bytes));
    put32(p, 20, shards_count);
    put64(p, 24, slab_bytes / class_bytes);
}

// An arena that passes all checks, in garbage.
static void shape_jemalloc(unsigned char *p, uint64_t *seed)
{
    unsigned char *arena = p + 64 * 1024;
    put64(p, 4096, (uintptr_t)arena);
    memset(p + 4104, 0, 4095 * 8);
    put32(arena, 78888, 0);
    put32(arena, 78928, 0);
    put64(arena, 78936, (uintptr_t)p + 256 * 1024);
    put64(arena, 78920, (uintptr_t)p + 256 * 1024);
    put64(arena, 78912, (uintptr_t)p + MIB);
    for (uint32_t i = 0; i < 3; i++) {
        put32(arena, 10728 + i * 19440 + 19424, i + 1);
    }
    uint64_t class_bytes = 8;
    for (uint32_t i = 0; i < 36; i++) {
        class_put(p + 3 * MIB + i * 40, class_bytes, 1 + (uint32_t)(frame_random(seed) % 64));
        // Sixteen more, from 64 on four classes in each doubling.
        uint64_t double_bytes = (uint64_t)1 << (63 - __builtin_clzl(class_bytes));
        class_bytes += i == 0 ? 8 : class_bytes < 64 ? 16 : double_bytes / 4;
    }
    // Leaves of the map that are garbage in turn.
    for (size_t i = 0; i < 4; i++) {
        uint64_t slot = ((uintptr_t)p >> 30) + i;
        put64(p, MIB + 120 + slot % ((size_t)1 << 18) * 8,
              (uintptr_t)p + frame_random(seed) % (GARBAGE_BYTES - 64) / 8 * 8);
    }
}

// A segment's header that passes, over garbage slices.
static void shape_mimalloc(unsigned char *p, uint64_t *seed)
{
    put64(p, 208, frame_random(seed) % 512);
    put64(p, 216, (uintptr_t)p ^ 0x1234567890abcdefu);
    put64(p, 224, frame_random(seed) % 2 == 0 ? 512 : frame_random(seed) % ((uint64_t)1 << 27));
    put64(p, 232, 1);
    put32(p, 240, (uint32_t)(frame_random(seed) % 2));
    put64(p, 248, frame_random(seed) % 520);
    put32(p, 264, 1);
    bool fits = frame_random(seed) % 2 == 0;
    for (size_t i = 1; i < 513; i++) {
        put32(p, 264 + i * 80, fits ? 1 : (uint32_t)(frame_random(seed) % 12));
        put32(p, 264 + i * 80 + 28, (uint32_t)frame_random(seed));
    }
}

// Counters that fit together, classes, and a root whose leaves are garbage, or one leads to the one
// span there is.
static void shape_tcmalloc(unsigned char *p, uint64_t *seed)
{
    size_t at = 2 * MIB;
    uint64_t counters[11] = {MIB, 0, 0, MIB, 1, 2, MIB, 0, 0, 1, MIB};
    memcpy(p + at, counters, sizeof(counters));
    for (size_t i = 0; i < 4; i++) {
        uint64_t slot = ((uintptr_t)p >> 31) % ((uint64_t)1 << 17) + i;
        put64(p, at - (1585256 - 524288) + slot * 8,
              (uintptr_t)p + frame_random(seed) % (GARBAGE_BYTES - 64) / 8 * 8);
    }
    if (frame_random(seed) % 2 == 0) {
        uint64_t page = (uintptr_t)p >> 13;
        uint64_t leaf = (uintptr_t)p + 3 * MIB + 512 * KIB - page % (1 << 18) * 8;
        put64(p, at - (1585256 - 524288) + (page >> 18) % (1 << 17) * 8, leaf);
        put64(p, 3 * MIB + 512 * KIB, (uintptr_t)p + 256 * KIB);
        put64(p, 256 * KIB, page);
        put64(p, 256 * KIB + 8, MIB >> 13);
    }
    for (uint32_t i = 0; i < 128; i++) {
        put32(p, 3 * MIB + i * 4, i < 3 ? i * 8 : (i - 1) * 16);
    }
}

Test(parts, jemalloc_in_garbage, .timeout = 50)
{
    garbage(heap_jemalloc_find, HEAP_JEMALLOC, shape_jemalloc);
}

Test(parts, mimalloc_in_garbage, .timeout = 50)
{
    garbage(heap_mimalloc_find, HEAP_MIMALLOC, shape_mimalloc);
}

// Of a segment's header all but the first page is not there.
Test(parts, mimalloc_header_in_part)
{
    struct exam exam;
    unsigned char *base;
    unsigned char *p = room_make(&base);
    char why[SOURCE_WHY_BYTES] = "";
    struct module module = {.path = "/nowhere"};
    put64(p, 216, (uintptr_t)p ^ 0x1234567890abcdefu);
    put64(p, 224, 512);
    put64(p, 232, 1);
    put64(p, 248, 512);
    put32(p, 264, 1);
    begin(&exam);
    only(&exam, (uintptr_t)base, (uintptr_t)base + ROOM_BYTES);
    size_t index = heap_add(&exam, HEAP_MIMALLOC);
    cr_expect_eq(heap_mimalloc_find(&exam, &module, index, why, sizeof(why)), SOURCE_BROKEN);
    cr_expect_eq(touched_count(p + 4096, UNTOUCHED_BYTES), 0);
    end(&exam);
    munmap(base, ROOM_BYTES);
}

Test(parts, tcmalloc_in_garbage, .timeout = 50)
{
    garbage(heap_tcmalloc_find, HEAP_TCMALLOC, shape_tcmalloc);
}

// An array of arenas that passes, with addresses into garbage, behind a variable.
static void shape_python(unsigned char *p, uint64_t *seed)
{
    unsigned char *array = p + 2 * MIB;
    put64(p, 4096, (uintptr_t)array + 48 * (frame_random(seed) % 16));
    for (size_t i = 0; i < 64; i++) {
        uint64_t address = (uintptr_t)p + frame_random(seed) % (6 * MIB);
        put64(array, i * 48, i % 5 == 4 ? 0 : address);
        put64(array, i * 48 + 8, address + frame_random(seed) % MIB);
        put32(array, i * 48 + 16, (uint32_t)(frame_random(seed) % 64));
        put32(array, i * 48 + 20, 64);
    }
}

static enum source_state python_find(struct exam *exam, const struct module *module,
                                     size_t heap_index, char *why, size_t why_cap)
{
    (void)heap_index;
    enum source_state state = heap_python_find(exam, module, 11);
    (void)snprintf(why, why_cap, "%s", state == SOURCE_READ ? "" : "no arenas");
    facts.sources[SOURCE_PYTHON].state = SOURCE_READ;
    return state;
}

Test(parts, python_in_garbage, .timeout = 50)
{
    garbage(python_find, HEAP_PYTHON, shape_python);
}

// One span of a MiB, of 64 that the counters tell.
Test(parts, tcmalloc_spans_that_do_not_add_up)
{
    unsigned char *base;
    unsigned char *p = room_make(&base);
    uint64_t counters[11] = {64 * MIB, 0, 0, 64 * MIB, 1, 2, 64 * MIB, 0, 0, 1, 64 * MIB};
    uint64_t seed = 88172645463325252u;
    for (int round = 0; round < 8; round++) {
        struct exam exam;
        char why[SOURCE_WHY_BYTES] = "";
        struct module module = {.path = "/nowhere", .ranges_count = 1};
        module.ranges[0] = (struct range){(uintptr_t)p, (uintptr_t)p + GARBAGE_BYTES};
        memset(p, 0, GARBAGE_BYTES);
        shape_tcmalloc(p, &seed);
        memcpy(p + 2 * MIB, counters, sizeof(counters));
        begin(&exam);
        only(&exam, (uintptr_t)base, (uintptr_t)base + ROOM_BYTES);
        size_t index = heap_add(&exam, HEAP_TCMALLOC);
        cr_expect_eq(heap_tcmalloc_find(&exam, &module, index, why, sizeof(why)), SOURCE_BROKEN);
        cr_expect_not_null(strstr(why, "add up"), "%s", why);
        end(&exam);
    }
    munmap(base, ROOM_BYTES);
}

// Of two arenas the first has pools in use, free ones and some never used, and holds them all; the
// second is wholly free.
Test(parts, python_gives_back_whole_arenas_only)
{
    struct exam exam;
    unsigned char *base;
    unsigned char *p = room_make(&base);
    struct module module = {.path = "/nowhere", .ranges_count = 1};
    module.ranges[0] = (struct range){(uintptr_t)p, (uintptr_t)p + 4096};
    put64(p, 64, (uintptr_t)p + 8192);
    for (size_t i = 0; i < 16; i++) {
        uint64_t address = (uintptr_t)p + (i + 1) * MIB;
        put64(p, 8192 + i * 48, i < 2 ? address : 0);
        put64(p, 8192 + i * 48 + 8, address + (i == 0 ? 256 * KIB : MIB));
        put32(p, 8192 + i * 48 + 16, i == 0 ? 62 : 64);
        put32(p, 8192 + i * 48 + 20, 64);
    }
    // 100 blocks of 32 bytes in each of two pools, a free pool beside them.
    for (size_t i = 0; i < 2; i++) {
        put32(p, MIB + i * 32 * KIB, 100);
        put32(p, MIB + i * 32 * KIB + 36, 1);
    }
    memset(p + MIB + 16 * KIB + 4096, 1, 4096);
    memset(p + 2 * MIB, 1, 4096);
    begin(&exam);
    only(&exam, (uintptr_t)p, (uintptr_t)p + 4 * MIB);
    cr_assert_eq(heap_python_find(&exam, &module, 11), SOURCE_READ);
    evidence_pages(&exam);
    parts_divide(&facts.heaps[0], parts_of(&exam, HEAP_PYTHON));
    cr_expect_eq(facts.heaps[0].live_bytes, 6400);
    cr_expect_eq(facts.heaps[0].pinned_bytes, 3 * 4096 - 6400);
    cr_expect_eq(facts.heaps[0].kept_bytes, 4096);
    end(&exam);
    munmap(base, ROOM_BYTES);
}

// ---- what has no end ----------------------------------------------------------------------------

#define SHORT_NS (UINT64_C(20) * NS_PER_MS)
// Some hundred steps beyond the budget, under a sanitizer.
#define LATE_NS (UINT64_C(20) * NS_PER_MS)

static void jemalloc_ends(void (*shape)(unsigned char *p))
{
    struct exam exam;
    unsigned char *base;
    unsigned char *p = room_make(&base);
    uint64_t seed = 0x2545f4914f6cdd1d;
    char why[SOURCE_WHY_BYTES] = "";
    struct module module = {.path = "/nowhere", .ranges_count = 1};
    module.ranges[0] = (struct range){(uintptr_t)p, (uintptr_t)p + GARBAGE_BYTES};
    memset(p, 0, GARBAGE_BYTES);
    shape_jemalloc(p, &seed);
    shape(p);
    begin(&exam);
    only(&exam, (uintptr_t)base, (uintptr_t)base + ROOM_BYTES);
    size_t index = heap_add(&exam, HEAP_JEMALLOC);
    exam.deadline_ns = clock_thread_cpu_ns() + SHORT_NS;
    cr_expect_eq(heap_jemalloc_find(&exam, &module, index, why, sizeof(why)), SOURCE_LEFT);
    cr_expect_neq(why[0], '\0');
    cr_expect_lt(clock_thread_cpu_ns(), exam.deadline_ns + LATE_NS);
    end(&exam);
    munmap(base, ROOM_BYTES);
}

static const struct {
    enum heap_kind kind;
    find_heap *find;
    void (*shape)(unsigned char *p, uint64_t *seed);
} finders[] = {
    {HEAP_JEMALLOC, heap_jemalloc_find, shape_jemalloc},
    {HEAP_MIMALLOC, heap_mimalloc_find, shape_mimalloc},
    {HEAP_TCMALLOC, heap_tcmalloc_find, shape_tcmalloc},
    {HEAP_PYTHON, python_find, shape_python},
};

// It was there and might have made sense.
Test(parts, without_time_all_are_left_out)
{
    unsigned char *base;
    unsigned char *p = room_make(&base);
    uint64_t seed = 88172645463325252u;
    for (size_t i = 0; i < ARRAY_COUNT(finders); i++) {
        struct exam exam;
        char why[SOURCE_WHY_BYTES] = "";
        struct module module = {.path = "/nowhere", .ranges_count = 1};
        module.ranges[0] = (struct range){(uintptr_t)p, (uintptr_t)p + GARBAGE_BYTES};
        memset(p, 0, GARBAGE_BYTES);
        finders[i].shape(p, &seed);
        begin(&exam);
        only(&exam, (uintptr_t)base, (uintptr_t)base + ROOM_BYTES);
        size_t index = heap_add(&exam, finders[i].kind);
        exam.deadline_ns = 0;
        cr_expect_eq(finders[i].find(&exam, &module, index, why, sizeof(why)), SOURCE_LEFT, "%s",
                     heap_kind_name(finders[i].kind));
        cr_expect_neq(why[0], '\0');
        end(&exam);
    }
    munmap(base, ROOM_BYTES);
}

// A ring of caches that the first is no part of.
static void shape_ring(unsigned char *p)
{
    put64(p, 64 * 1024 + 10400, (uintptr_t)p + 32 * KIB);
    put64(p, 32 * KIB, (uintptr_t)p + 40 * KIB);
    put64(p, 32 * KIB + 16, (uintptr_t)p + 48 * KIB);
    put64(p, 40 * KIB, (uintptr_t)p + 40 * KIB);
    put64(p, 40 * KIB + 16, (uintptr_t)p + 48 * KIB);
}

// Each of many words leads to the first arena.
static void shape_same(unsigned char *p)
{
    for (size_t at = MIB + 512 * KIB; at < 3 * MIB; at += 8) {
        put64(p, at, (uintptr_t)p + 64 * KIB);
    }
}

Test(parts, jemalloc_ring_of_caches, .timeout = 50)
{
    jemalloc_ends(shape_ring);
}

Test(parts, jemalloc_words_that_all_lead_to_an_arena, .timeout = 50)
{
    jemalloc_ends(shape_same);
}

// ---- what may not be read -----------------------------------------------------------------------

// As where only a parent may trace its children: the mappings can be seen, the memory not.
Test(parts, a_refusal_is_called_one)
{
    static const char *const libraries[] = {"/lib/libjemalloc.so.2", "/lib/libmimalloc.so.2",
                                            "/lib/libtcmalloc.so.4", "/lib/libpython3.11.so",
                                            "/lib/libjvm.so"};
    static const enum source_id ids[] = {SOURCE_JEMALLOC, SOURCE_MIMALLOC, SOURCE_TCMALLOC,
                                         SOURCE_PYTHON, SOURCE_JVM};
    struct exam exam;
    begin(&exam);
    cr_expect_eq(memory_refused(&exam), 0);
    for (size_t i = 0; i < ARRAY_COUNT(libraries); i++) {
        exam.vmas[i].path = libraries[i];
    }
    if (!frame_forbid(SYS_process_vm_readv, EPERM)) {
        cr_skip_test("no seccomp here");
    }
    cr_expect_eq(memory_refused(&exam), -EPERM);
    evidence_allocators(&exam);
    evidence_jvm(&exam);
    for (size_t i = 0; i < ARRAY_COUNT(ids); i++) {
        cr_expect_eq(facts.sources[ids[i]].state, SOURCE_REFUSED, "%s: %s", source_name(ids[i]),
                     facts.sources[ids[i]].why);
    }
    end(&exam);
}

// ---- the JVM's counters -------------------------------------------------------------------------

static size_t entry_put(unsigned char *p, size_t at, const char *name, char type, const void *data,
                        size_t data_bytes)
{
    size_t name_bytes = (strlen(name) + 1 + 7) / 8 * 8;
    size_t bytes = 20 + 4 + name_bytes + (data_bytes + 7) / 8 * 8;
    put32(p, at, (uint32_t)bytes);
    put32(p, at + 4, 20);
    put32(p, at + 8, type == 'J' ? 0 : (uint32_t)data_bytes);
    p[at + 12] = (unsigned char)type;
    put32(p, at + 16, (uint32_t)(24 + name_bytes));
    memcpy(p + at + 20, name, strlen(name) + 1);
    memcpy(p + at + 24 + name_bytes, data, data_bytes);
    return at + bytes;
}

static size_t counters_put(unsigned char *p, uint64_t unit)
{
    const struct {
        const char *name;
        uint64_t value;
    } numbers[] = {
        {"sun.gc.generation.0.maxCapacity", 1000},   {"sun.gc.generation.1.maxCapacity", 3000},
        {"sun.gc.generation.0.space.0.used", 10},    {"sun.gc.generation.1.space.0.used", 200},
        {"sun.gc.generation.0.space.0.capacity", 5}, {"sun.gc.generation.1.space.0.capacity", 70},
    };
    put32(p, 0, 0xc0c0feca);
    p[4] = 1;
    p[5] = 2;
    p[6] = 0;
    p[7] = 1;
    put32(p, 24, 32);
    size_t at = 32;
    for (size_t i = 0; i < ARRAY_COUNT(numbers); i++) {
        uint64_t value = numbers[i].value * unit;
        at = entry_put(p, at, numbers[i].name, 'J', &value, 8);
    }
    at = entry_put(p, at, "java.property.java.vm.version", 'B', "17.0.15", 8);
    at = entry_put(p, at, "sun.gc.policy.name", 'B', "Copy\nMSC", 9);
    put32(p, 28, ARRAY_COUNT(numbers) + 2);
    return at;
}

Test(parts, jvm_counters)
{
    unsigned char p[4096] = {0};
    struct jvm_counters c;
    size_t bytes = counters_put(p, 1);
    cr_assert(jvm_counters_parse(p, bytes, &c));
    cr_expect_str_eq(c.version, "17.0.15");
    cr_expect_str_eq(c.policy, "Copy?MSC");
    cr_expect_eq(c.max_sum_bytes, 4000);
    cr_expect_eq(c.max_most_bytes, 3000);
    cr_expect_eq(c.used_bytes, 210);
    cr_expect_eq(c.capacity_bytes, 75);
    for (size_t cut = 0; cut < bytes; cut++) {
        cr_expect_not(jvm_counters_parse(p, cut, &c), "cut at %zu", cut);
    }
}

// On the heap and of the exact size, so that the sanitizer sees what is read beyond.
Test(parts, jvm_counters_in_garbage)
{
    unsigned char whole[4096] = {0};
    size_t bytes = counters_put(whole, 1);
    uint64_t seed = 88172645463325252u;
    struct jvm_counters c;
    for (int round = 0; round < 20000; round++) {
        size_t len = 1 + frame_random(&seed) % bytes;
        unsigned char *p = malloc(len);
        memcpy(p, whole, len);
        for (uint64_t n = frame_random(&seed) % 8; n > 0; n--) {
            p[frame_random(&seed) % len] =
                (unsigned char)(frame_random(&seed) % 3 == 0 ? 0xff : frame_random(&seed));
        }
        (void)jvm_counters_parse(p, len, &c);
        cr_assert_lt(strlen(c.args), sizeof(c.args));
        free(p);
    }
}

// A heap that might begin at each of many mappings, all of them smaller than it.
Test(parts, jvm_with_many_mappings, .timeout = 50)
{
    const size_t count = 60000;
    struct exam exam;
    unsigned char *p = pages(4096);
    struct vma *vmas = calloc(count, sizeof(*vmas));
    (void)counters_put(p, MIB);
    begin(&exam);
    for (size_t i = 0; i < count; i++) {
        vmas[i].start = (UINT64_C(1) << 40) + i * 4096;
        vmas[i].end = vmas[i].start + 4096;
        vmas[i].path = "";
        memcpy(vmas[i].perms, "rw-p", 5);
    }
    vmas[0].path = "/lib/libjvm.so";
    vmas[1].start = (uintptr_t)p;
    vmas[1].end = (uintptr_t)p + 4096;
    vmas[1].path = "/tmp/hsperfdata_x/1";
    struct exam many = exam;
    many.vmas = vmas;
    many.vmas_count = count;
    many.deadline_ns = clock_thread_cpu_ns() + SHORT_NS;
    evidence_jvm(&many);
    cr_expect_eq(facts.sources[SOURCE_JVM].state, SOURCE_LEFT, "%s", facts.sources[SOURCE_JVM].why);
    cr_expect_lt(clock_thread_cpu_ns(), many.deadline_ns + LATE_NS);
    free(vmas);
    end(&exam);
    munmap(p, 4096);
}

Test(parts, jvm_whose_pages_were_not_all_counted)
{
    struct exam exam;
    begin(&exam);
    size_t index = heap_add(&exam, HEAP_JVM);
    facts.heaps[index].live_bytes = MIB;
    facts.heaps[index].resident_bytes = 2 * MIB;
    evidence_jvm_divide(&exam);
    cr_expect_not(facts.heaps[index].divided);
    cr_expect_eq(facts.heaps[index].live_bytes, 0);
    cr_expect_eq(facts.sources[SOURCE_JVM].state, SOURCE_LEFT);
    facts.pages.whole = true;
    facts.heaps[index].live_bytes = MIB;
    evidence_jvm_divide(&exam);
    cr_expect(facts.heaps[index].divided);
    cr_expect_eq(facts.heaps[index].kept_bytes, MIB);
    end(&exam);
}
