// SPDX-License-Identifier: MIT
//
// Doctor, evidence of Python: the arenas of its allocator of small objects.
//
// Model
//   CPython takes arenas of 1 MiB (256 KiB before 3.10) and cuts them into pools of 16 KiB (4 KiB)
//   for blocks of one size up to 512 bytes. Where they are is an array that one of its variables
//   points to, found by what each entry must fulfil. A pool says in its header how many of its
//   blocks are in use. Memory goes back by whole arenas, and one that is wholly free is kept at
//   most: all that is free in the others is pinned, also whole pools.
//   What is larger is malloc's, and belongs to whoever that is. With PYTHONMALLOC=malloc there are
//   no arenas.
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

// Of what a batch of variables leads to, the first that is a record in use. Where nothing is
// swapped out it is resident.
static bool batch_try(struct python *python, const uint64_t *addrs, size_t count)
{
    const struct exam *exam = python->exam;
    struct arena_record records[BATCH_COUNT] = {0};
    bool swapped = exam->facts->process.swap_bytes != 0;
    if (!swapped) {
        (void)exam_read_many(exam, records, addrs, count, sizeof(records[0]));
    }
    for (size_t i = 0; i < count; i++) {
        if (swapped && exam_peek(exam, &records[i], addrs[i], sizeof(records[0])) != 0) {
            continue;
        }
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

// The pools of an arena whose heads are resident.
struct pools {
    uint64_t pool_bytes;
    uint64_t addrs[POOLS_COUNT];
    size_t count;
};

static void pools_visit(void *arg, uint64_t start, uint64_t end, unsigned flags)
{
    struct pools *pools = arg;
    (void)flags;
    uint64_t at = (start + pools->pool_bytes - 1) / pools->pool_bytes * pools->pool_bytes;
    for (; at < end && pools->count < POOLS_COUNT; at += pools->pool_bytes) {
        pools->addrs[pools->count++] = at;
    }
}

// Pools from pool_address on were never used.
static void arena_take(struct python *python, const struct arena_record *arena)
{
    struct pools pools = {.pool_bytes = python->pool_bytes};
    struct pool_head heads[POOLS_COUNT];
    struct residency residency = python->exam->residency;
    bool unused = arena->free_count == arena->total_count;
    parts_add(python->parts, arena->address, arena->address + python->arena_bytes,
              unused ? PART_FREE : PART_SLAB);
    residency.files = false;
    if (unused ||
        residency_scan(&residency, arena->address, arena->pool_address, pools_visit, &pools) != 0) {
        return;
    }
    (void)exam_read_many(python->exam, heads, pools.addrs, pools.count, sizeof(heads[0]));
    for (size_t i = 0; i < pools.count; i++) {
        uint64_t block_bytes = ((uint64_t)heads[i].size_class % CLASSES_COUNT + 1) * BLOCK_STEP;
        python->parts->small_bytes +=
            min_u64((uint32_t)heads[i].count * block_bytes, python->pool_bytes);
    }
}

static enum source_state arenas_take(struct python *python, unsigned minor)
{
    uint64_t used_count = 0;
    python->parts = parts_new(python->exam, HEAP_PYTHON);
    for (uint32_t i = 0; i < python->arenas_count && python->parts != NULL; i++) {
        if (python->arenas[i].address != 0) {
            if (!exam_affords(python->exam, 0)) {
                return SOURCE_LEFT;
            }
            arena_take(python, &python->arenas[i]);
            used_count++;
        }
    }
    size_t index = python->parts == NULL ? HEAPS_MAX : heap_add(python->exam, HEAP_PYTHON);
    if (index == HEAPS_MAX) {
        return SOURCE_LEFT;
    }
    struct facts_heap *heap = &python->exam->facts->heaps[index];
    heap->arenas_count = used_count;
    snprintf(heap->version, sizeof(heap->version), "3.%u", minor);
    snprintf(heap->note, sizeof(heap->note), "objects up to 512 bytes; larger ones are malloc's");
    parts_claim(python->exam, python->parts, index);
    return SOURCE_READ;
}

enum source_state heap_python_find(struct exam *exam, const struct module *module, unsigned minor)
{
    struct python python = {
        .exam = exam,
        .arena_bytes = minor >= 10 ? MIB : 256 * KIB,
        .pool_bytes = minor >= 10 ? 16 * KIB : 4 * KIB,
    };
    enum source_state state = SOURCE_ABSENT;
    if (minor >= 8 && arenas_find(&python, module)) {
        state = arenas_take(&python, minor);
    } else if (!exam_affords(exam, 0)) {
        state = SOURCE_LEFT;
    }
    free(python.arenas);
    return state;
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
    long refused = memory_refused(exam);
    if (refused != 0) {
        source_error(exam, SOURCE_PYTHON, begun, refused);
        return;
    }
    module_find(exam, path, &module);
    enum source_state state =
        parts_affords(exam, POOLS_COST_NS) ? heap_python_find(exam, &module, minor) : SOURCE_LEFT;
    if (state == SOURCE_LEFT) {
        source_end(exam, SOURCE_PYTHON, begun, state,
                   "its pools would take longer than is left: they count as native memory");
    } else if (state == SOURCE_ABSENT) {
        source_end(exam, SOURCE_PYTHON, begun, state, "3.%u: no arenas were found", minor);
    } else {
        source_end(exam, SOURCE_PYTHON, begun, state, NULL);
    }
}
