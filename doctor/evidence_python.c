// SPDX-License-Identifier: MIT
//
// Doctor, evidence of Python: the arenas of its allocator of small objects.
//
// Model
//   CPython takes arenas of 1 MiB (256 KiB before 3.10) and cuts them into pools of 16 KiB (4 KiB)
//   for blocks of one size up to 512 bytes. Where they are is an array that one of its variables
//   points to, found by what each entry must fulfil. A pool says in its
//   header how many of its blocks are in use. What is larger is malloc's, and belongs to whoever
//   that is. With PYTHONMALLOC=malloc there are no arenas.
//   Layouts are of CPython 3.8 to 3.13 for 64 bits.
//
// Go     none.
// Tests  test/unit/parts_test.c  test/system/doctor_heaps.py
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "parts.h"

#define ARENAS_FIRST 16
#define ARENAS_MAX ((uint32_t)1 << 16)
// Records that fit into a page; at the edge of what is resident they are read one by one.
#define STEP_COUNT 80
#define BATCH_COUNT 256
#define POOLS_COUNT 64
#define BLOCK_STEP 16
#define CLASSES_COUNT 32
// What reading the headers of all pools costs for each GiB.
#define POOLS_COST_NS (UINT64_C(20) * NS_PER_MS)

struct arena_record {
    uint64_t address, pool_address;
    uint32_t free_count, total_count;
    uint64_t free_pools, next, previous;
};

struct pool_head {
    uint64_t count, free_block, next, previous;
    uint32_t arena, size_class, next_offset, last_offset;
};

struct python {
    struct exam *exam;
    struct parts *parts;
    uint64_t arena_bytes, pool_bytes;
    struct arena_record *arenas;
    uint32_t arenas_count;
};

// The minor version, from the name of the library or of the program; 0: it is no Python.
static unsigned minor_of(const struct exam *exam, const char **path)
{
    unsigned minor = 0;
    const struct vma *library = vma_named(exam, "libpython3.");
    *path = library != NULL ? library->path : exam->facts->process.exe;
    const char *name = strrchr(*path, '/');
    if (name == NULL ||
        (sscanf(name, "/libpython3.%u", &minor) != 1 && sscanf(name, "/python3.%u", &minor) != 1)) {
        return 0;
    }
    return minor < 100 ? minor : 0;
}

static bool arena_check(const struct python *python, const struct arena_record *arena)
{
    return arena->total_count >= POOLS_COUNT - 1 && arena->total_count <= POOLS_COUNT &&
           arena->free_count <= arena->total_count && arena->pool_address >= arena->address &&
           arena->pool_address <= arena->address + python->arena_bytes &&
           in_anonymous(python->exam, arena->address, python->arena_bytes);
}

static bool record_plausible(const struct python *python, const struct arena_record *record)
{
    return record->address == 0 || arena_check(python, record);
}

// records_walk copies plausible records behind `at` (or before it), a step at a time, since an
// array is short and what lies around it may be large. How many there are.
static size_t records_walk(const struct python *python, uint64_t at, bool up,
                           struct arena_record *to, size_t cap)
{
    struct arena_record step[STEP_COUNT];
    uint64_t bytes = sizeof(step[0]);
    size_t count = 0;
    size_t n = STEP_COUNT;
    while (count + n <= cap) {
        uint64_t from = up ? at + count * bytes : at - (count + n) * bytes;
        if (exam_peek(python->exam, step, from, n * bytes) != 0) {
            if (n == 1) {
                return count;
            }
            n = 1;
            continue;
        }
        for (size_t i = 0; i < n; i++) {
            const struct arena_record *record = &step[up ? i : n - 1 - i];
            if (!record_plausible(python, record)) {
                return count;
            }
            to[count++] = *record;
        }
    }
    return count;
}

// array_keep keeps the array that a record in use belongs to. Its length is in another variable,
// and one that leads into its middle may have been found first: so it goes as far to both sides as
// the records make sense. Unused ones have no address.
static bool array_keep(struct python *python, uint64_t addr)
{
    struct arena_record *all = malloc(2 * ARENAS_MAX * sizeof(*all));
    if (all == NULL) {
        return false;
    }
    size_t count = records_walk(python, addr, true, all, ARENAS_MAX);
    count += records_walk(python, addr, false, all + count, ARENAS_MAX);
    python->arenas = all;
    python->arenas_count = (uint32_t)count;
    return count >= ARENAS_FIRST;
}

// Of what a batch of variables leads to, the first that is a record in use.
static bool batch_try(struct python *python, const uint64_t *addrs, size_t count)
{
    struct arena_record records[BATCH_COUNT];
    (void)exam_read_many(python->exam, records, addrs, count, sizeof(records[0]));
    for (size_t i = 0; i < count; i++) {
        if (records[i].address != 0 && arena_check(python, &records[i]) &&
            array_keep(python, addrs[i])) {
            return true;
        }
        free(python->arenas);
        python->arenas = NULL;
    }
    return false;
}

static bool range_search(struct python *python, const uint64_t *words, size_t count)
{
    const struct vma *vma = NULL;
    uint64_t addrs[BATCH_COUNT] = {0};
    size_t n = 0;
    for (size_t k = 0; k < count; k++) {
        uint64_t addr = words[k];
        if (addr < 65536 || addr % 16 != 0 || addr >> 47 != 0) {
            continue;
        }
        if (vma == NULL || addr < vma->start || addr >= vma->end) {
            const struct vma *other = vma_at(python->exam, addr);
            vma = other != NULL ? other : vma;
        }
        if (vma == NULL || addr < vma->start || vma->end - addr < sizeof(struct arena_record) ||
            !is_unclaimed(vma)) {
            continue;
        }
        addrs[n++] = addr;
        if (n < BATCH_COUNT) {
            continue;
        }
        if (batch_try(python, addrs, n)) {
            return true;
        }
        if (!exam_affords(python->exam, 0)) {
            return false;
        }
        n = 0;
    }
    return batch_try(python, addrs, n);
}

static bool arenas_find(struct python *python, const struct module *module)
{
    bool found = false;
    for (size_t i = 0; i < module->ranges_count && !found && exam_affords(python->exam, 0); i++) {
        size_t count;
        uint64_t *words = module_copy(python->exam, &module->ranges[i], &count);
        found = range_search(python, words, count);
        free(words);
    }
    return found;
}

static void pool_take(struct python *python, const struct pool_head *pool, uint64_t start)
{
    uint64_t end = start + python->pool_bytes;
    if (pool->count == 0) {
        parts_add(python->parts, start, end, PART_FREE);
        return;
    }
    uint64_t block_bytes = ((uint64_t)pool->size_class % CLASSES_COUNT + 1) * BLOCK_STEP;
    python->parts->small_bytes += min_u64((uint32_t)pool->count * block_bytes, end - start);
    parts_add(python->parts, start, end, PART_SLAB);
}

// Pools from pool_address on were never used.
static void arena_take(struct python *python, const struct arena_record *arena)
{
    uint64_t addrs[POOLS_COUNT];
    struct pool_head pools[POOLS_COUNT];
    uint64_t end = arena->address + python->arena_bytes;
    uint64_t at =
        (arena->address + python->pool_bytes - 1) / python->pool_bytes * python->pool_bytes;
    size_t count = 0;
    parts_add(python->parts, arena->address, at, PART_META);
    while (at < arena->pool_address && end - at >= python->pool_bytes && count < POOLS_COUNT) {
        addrs[count++] = at;
        at += python->pool_bytes;
    }
    (void)exam_read_many(python->exam, pools, addrs, count, sizeof(pools[0]));
    for (size_t i = 0; i < count; i++) {
        pool_take(python, &pools[i], addrs[i]);
    }
    parts_add(python->parts, at, end, PART_FREE);
}

static void arenas_take(struct python *python, unsigned minor)
{
    size_t index = heap_add(python->exam, HEAP_PYTHON);
    python->parts = index == HEAPS_MAX ? NULL : parts_new(python->exam, HEAP_PYTHON);
    if (python->parts == NULL) {
        return;
    }
    struct facts_heap *heap = &python->exam->facts->heaps[index];
    for (uint32_t i = 0; i < python->arenas_count; i++) {
        if (python->arenas[i].address != 0) {
            arena_take(python, &python->arenas[i]);
            heap->arenas_count++;
        }
    }
    snprintf(heap->version, sizeof(heap->version), "3.%u", minor);
    snprintf(heap->note, sizeof(heap->note), "objects up to 512 bytes; larger ones are malloc's");
    parts_claim(python->exam, python->parts, index);
}

bool heap_python_find(struct exam *exam, const struct module *module, unsigned minor)
{
    struct python python = {
        .exam = exam,
        .arena_bytes = minor >= 10 ? MIB : 256 * KIB,
        .pool_bytes = minor >= 10 ? 16 * KIB : 4 * KIB,
    };
    bool found = minor >= 8 && arenas_find(&python, module);
    if (found) {
        arenas_take(&python, minor);
    }
    free(python.arenas);
    return found;
}

void evidence_python(struct exam *exam)
{
    uint64_t begun = source_begin();
    const char *path;
    struct module module;
    unsigned minor = minor_of(exam, &path);
    if (minor == 0) {
        return;
    }
    module_find(exam, path, &module);
    if (!parts_affords(exam, POOLS_COST_NS)) {
        source_end(exam, SOURCE_PYTHON, begun, SOURCE_LEFT,
                   "its pools would take longer than is left: they count as native memory");
    } else if (!heap_python_find(exam, &module, minor)) {
        source_end(exam, SOURCE_PYTHON, begun, SOURCE_ABSENT, "3.%u: no arenas were found", minor);
    } else {
        source_end(exam, SOURCE_PYTHON, begun, SOURCE_READ, NULL);
    }
}
