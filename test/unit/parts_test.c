// SPDX-License-Identifier: MIT
// Tier  quick
//
// parts.h: parts are put in order, claim what is theirs and divide it; whatever another process
// shows in place of an allocator's tables or of a JVM's counters, nothing is read beyond its bounds
// and no heap is divided into more than it has.
//
// Go  none
#include "doctor/parts.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "os/clock.h"

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

static uint64_t next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
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

// Random words, small numbers and addresses near to each other: what could be taken for tables.
static void scatter(unsigned char *p, size_t bytes, uint64_t *seed)
{
    uint64_t *words = (uint64_t *)(void *)p;
    for (size_t i = 0; i < bytes / 8; i++) {
        uint64_t draw = next(seed);
        switch (draw % 8) {
        case 0:
            words[i] = draw;
            break;
        case 1:
        case 2:
            words[i] = (uintptr_t)p + (draw >> 8) % bytes / 64 * 64;
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

static void garbage(bool (*find)(struct exam *, const struct module *, size_t, char *, size_t),
                    enum heap_kind kind, void (*shape)(unsigned char *p, uint64_t *seed))
{
    size_t room = 64 * MIB + GARBAGE_BYTES;
    unsigned char *base = pages(room);
    unsigned char *p = base + (32 * MIB - (uintptr_t)base % (32 * MIB)) % (32 * MIB);
    uint64_t seed = 0x2545f4914f6cdd1d;
    int found_count = 0;
    for (int round = 0; round < ROUNDS; round++) {
        struct exam exam;
        char why[SOURCE_WHY_BYTES] = "";
        struct module module = {.path = "/nowhere", .ranges_count = 1};
        scatter(p, GARBAGE_BYTES, &seed);
        shape(p, &seed);
        begin(&exam);
        only(&exam, (uintptr_t)base, (uintptr_t)base + room);
        module.ranges[0] = (struct range){(uintptr_t)p, (uintptr_t)p + GARBAGE_BYTES};
        size_t index = kind == HEAP_PYTHON ? 0 : heap_add(&exam, kind);
        if (find(&exam, &module, index, why, sizeof(why))) {
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
        end(&exam);
    }
    // The shape is good enough to be taken for tables now and then.
    cr_expect_gt(found_count, 0);
    munmap(base, room);
}

static void put64(unsigned char *p, size_t offset, uint64_t value)
{
    memcpy(p + offset, &value, sizeof(value));
}

static void put32(unsigned char *p, size_t offset, uint32_t value)
{
    memcpy(p + offset, &value, sizeof(value));
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
    for (uint32_t i = 0; i < 5; i++) {
        put64(p, 3 * MIB + i * 8, i == 0 ? 8 : i * 16);
    }
    for (uint32_t i = 5; i < 37; i++) {
        uint64_t base = (uint64_t)64 << (i - 5) / 4;
        put64(p, 3 * MIB + i * 8, base + ((i - 5) % 4 + 1) * base / 4);
    }
    // Leaves of the map that are garbage in turn.
    for (size_t i = 0; i < 4; i++) {
        uint64_t slot = ((uintptr_t)p >> 30) + i;
        put64(p, MIB + 120 + slot % ((size_t)1 << 18) * 8,
              (uintptr_t)p + next(seed) % (GARBAGE_BYTES - 64) / 8 * 8);
    }
}

// A segment's header that passes, over garbage slices.
static void shape_mimalloc(unsigned char *p, uint64_t *seed)
{
    put64(p, 208, next(seed) % 512);
    put64(p, 216, (uintptr_t)p ^ 0x1234567890abcdefu);
    put64(p, 224, next(seed) % 2 == 0 ? 512 : next(seed) % ((uint64_t)1 << 27));
    put64(p, 232, 1);
    put32(p, 240, (uint32_t)(next(seed) % 2));
    put64(p, 248, next(seed) % 520);
    put32(p, 264, 1);
    bool fits = next(seed) % 2 == 0;
    for (size_t i = 1; i < 513; i++) {
        put32(p, 264 + i * 80, fits ? 1 : (uint32_t)(next(seed) % 12));
        put32(p, 264 + i * 80 + 28, (uint32_t)next(seed));
    }
}

// Counters that fit together, classes, and a root whose leaves are garbage.
static void shape_tcmalloc(unsigned char *p, uint64_t *seed)
{
    size_t at = 2 * MIB;
    uint64_t counters[11] = {MIB, 0, 0, MIB, 1, 2, MIB, 0, 0, 1, MIB};
    memcpy(p + at, counters, sizeof(counters));
    for (size_t i = 0; i < 4; i++) {
        uint64_t slot = ((uintptr_t)p >> 31) % ((uint64_t)1 << 17) + i;
        put64(p, at - (1585256 - 524288) + slot * 8,
              (uintptr_t)p + next(seed) % (GARBAGE_BYTES - 64) / 8 * 8);
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

Test(parts, tcmalloc_in_garbage, .timeout = 50)
{
    garbage(heap_tcmalloc_find, HEAP_TCMALLOC, shape_tcmalloc);
}

// An array of arenas that passes, with addresses into garbage, behind a variable.
static void shape_python(unsigned char *p, uint64_t *seed)
{
    unsigned char *array = p + 2 * MIB;
    put64(p, 4096, (uintptr_t)array + 48 * (next(seed) % 16));
    for (size_t i = 0; i < 64; i++) {
        uint64_t address = (uintptr_t)p + next(seed) % (3 * MIB);
        put64(array, i * 48, i % 5 == 4 ? 0 : address);
        put64(array, i * 48 + 8, address + next(seed) % MIB);
        put32(array, i * 48 + 16, (uint32_t)(next(seed) % 64));
        put32(array, i * 48 + 20, 64);
    }
}

static bool python_find(struct exam *exam, const struct module *module, size_t heap_index,
                        char *why, size_t why_cap)
{
    (void)heap_index;
    bool found = heap_python_find(exam, module, 11);
    (void)snprintf(why, why_cap, "%s", found ? "" : "no arenas");
    facts.sources[SOURCE_PYTHON].state = SOURCE_READ;
    return found;
}

Test(parts, python_in_garbage, .timeout = 50)
{
    garbage(python_find, HEAP_PYTHON, shape_python);
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

static size_t counters_put(unsigned char *p)
{
    static const struct {
        const char *name;
        uint64_t value;
    } numbers[] = {
        {"sun.gc.generation.0.maxCapacity", 1000},   {"sun.gc.generation.1.maxCapacity", 3000},
        {"sun.gc.generation.0.space.0.used", 10},    {"sun.gc.generation.1.space.0.used", 200},
        {"sun.gc.generation.0.space.0.capacity", 5}, {"sun.gc.generation.1.space.0.capacity", 70},
        {"sun.gc.collector.0.invocations", 4},       {"sun.gc.collector.1.invocations", 5},
    };
    put32(p, 0, 0xc0c0feca);
    p[4] = 1;
    p[5] = 2;
    p[6] = 0;
    p[7] = 1;
    put32(p, 24, 32);
    size_t at = 32;
    for (size_t i = 0; i < ARRAY_COUNT(numbers); i++) {
        at = entry_put(p, at, numbers[i].name, 'J', &numbers[i].value, 8);
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
    size_t bytes = counters_put(p);
    cr_assert(jvm_counters_parse(p, bytes, &c));
    cr_expect_str_eq(c.version, "17.0.15");
    cr_expect_str_eq(c.policy, "Copy?MSC");
    cr_expect_eq(c.max_sum_bytes, 4000);
    cr_expect_eq(c.max_most_bytes, 3000);
    cr_expect_eq(c.used_bytes, 210);
    cr_expect_eq(c.capacity_bytes, 75);
    cr_expect_eq(c.collected_count, 9);
    for (size_t cut = 0; cut < bytes; cut++) {
        cr_expect_not(jvm_counters_parse(p, cut, &c), "cut at %zu", cut);
    }
}

// On the heap and of the exact size, so that the sanitizer sees what is read beyond.
Test(parts, jvm_counters_in_garbage)
{
    unsigned char whole[4096] = {0};
    size_t bytes = counters_put(whole);
    uint64_t seed = 88172645463325252u;
    struct jvm_counters c;
    for (int round = 0; round < 20000; round++) {
        size_t len = 1 + next(&seed) % bytes;
        unsigned char *p = malloc(len);
        memcpy(p, whole, len);
        for (uint64_t n = next(&seed) % 8; n > 0; n--) {
            p[next(&seed) % len] = (unsigned char)(next(&seed) % 3 == 0 ? 0xff : next(&seed));
        }
        (void)jvm_counters_parse(p, len, &c);
        cr_assert_lt(strlen(c.args), sizeof(c.args));
        free(p);
    }
}
