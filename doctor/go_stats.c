// SPDX-License-Identifier: MIT
//
// Doctor, the counters of a Go runtime: what runtime.ReadMemStats would say, without asking it.
//
// ReadMemStats stops the world and empties the caches of all Ps first. Here nothing stops: what the
// caches hold is worked out from their spans, so that a sum may be a moment older than another.
//
// Go  src/runtime/mstats.go readmemstats_m, mcache.go releaseAll.
#include <string.h>

#include "go_look.h"

#define CLASSES_MAX 256
#define SPANS_MAX (2 * CLASSES_MAX)
#define STATS_SLOTS_MAX 8
#define CENTRAL_BYTES_MAX MIB
#define SPAN_BYTES_MAX 1024

static uint64_t value_or_zero(const struct exam *exam, const struct go_layout *layout,
                              enum go_field field)
{
    uint64_t value;
    return go_value_read(exam, layout, field, &value) ? value : 0;
}

// slots_sum adds up count counters of heapStats, side by side, each of which is kept as three
// differences.
static bool slots_sum(const struct exam *exam, const struct go_layout *layout, enum go_field field,
                      size_t count, uint64_t *sums)
{
    uint64_t words[CLASSES_MAX];
    const struct go_value *all = &layout->fields[GO_STATS];
    const struct go_value *one = &layout->fields[GO_STATS_ONE];
    memset(sums, 0, count * sizeof(*sums));
    if (!layout->fields[field].known || !one->known || one->size == 0 ||
        all->size / one->size > STATS_SLOTS_MAX) {
        return false;
    }
    for (uint64_t i = 0; i < all->size / one->size; i++) {
        uint64_t addr = layout->fields[field].at + i * one->size;
        if (exam_read(exam, words, addr, count * sizeof(*words)) != 0) {
            return false;
        }
        for (size_t k = 0; k < count; k++) {
            sums[k] += words[k]; // differences may be negative; the sum is not
        }
    }
    return true;
}

// words_read copies the 64-bit word so far behind each address; false if one cannot be read.
static bool words_read(const struct exam *exam, const uint64_t *addrs, size_t count,
                       uint64_t offset, uint64_t *words)
{
    uint64_t places[GO_P_MAX] = {0};
    for (size_t i = 0; i < count; i++) {
        places[i] = addrs[i] + offset;
    }
    return exam_read_many(exam, words, places, count, sizeof(*words)) == count;
}

// array_read copies the same 64-bit word of the elements of an array, of so many bytes each; false
// if it is not known or one cannot be read.
static bool array_read(const struct exam *exam, const struct go_layout *layout, enum go_field field,
                       uint64_t element_bytes, size_t count, uint64_t *words)
{
    uint64_t addrs[GO_P_MAX];
    for (size_t i = 0; i < count; i++) {
        addrs[i] = i * element_bytes;
    }
    return layout->fields[field].known &&
           words_read(exam, addrs, count, layout->fields[field].at, words);
}

size_t go_p_list(const struct exam *exam, const struct go_layout *layout, uint64_t *ps, size_t cap)
{
    uint64_t array;
    uint64_t count;
    if (!go_value_read(exam, layout, GO_ALLP, &array) ||
        !go_value_read(exam, layout, GO_ALLP_LEN, &count)) {
        return 0;
    }
    count = min_u64(count, cap);
    return exam_read(exam, ps, array, (size_t)count * sizeof(*ps)) == 0 ? (size_t)count : 0;
}

// ---- bytes in use -------------------------------------------------------------------------------

// caches_list reads the addresses of the Ps' caches; how many.
static size_t caches_list(const struct exam *exam, const struct go_layout *layout, uint64_t *caches)
{
    uint64_t ps[GO_P_MAX];
    const struct go_value *mcache = &layout->fields[GO_P_MCACHE];
    size_t kept = 0;
    if (!mcache->known) {
        return 0;
    }
    size_t count = go_p_list(exam, layout, ps, GO_P_MAX);
    words_read(exam, ps, count, mcache->at, caches);
    for (size_t i = 0; i < count; i++) {
        if (caches[i] != 0) {
            caches[kept++] = caches[i];
        }
    }
    return kept;
}

// What the spans in one cache hold beyond what is counted; negative where all their room is
// counted already, as up to 1.18.
static int64_t spans_uncounted(const struct exam *exam, const struct go_layout *layout,
                               uint64_t cache)
{
    const struct go_value *alloc = &layout->fields[GO_MCACHE_ALLOC];
    uint64_t spans[SPANS_MAX];
    static uint8_t copies[SPANS_MAX * SPAN_BYTES_MAX];
    size_t count = min_size((size_t)alloc->size / sizeof(*spans), SPANS_MAX);
    size_t len = 0;
    static const enum go_field used[] = {GO_SPAN_NELEMS, GO_SPAN_ALLOC_COUNT, GO_SPAN_ELEM_SIZE,
                                         GO_SPAN_COUNT_BEFORE};
    for (size_t i = 0; i < ARRAY_COUNT(used); i++) {
        const struct go_value *value = &layout->fields[used[i]];
        len = max_size(len,
                       value->known ? (size_t)min_u64(value->at + value->size, SPAN_BYTES_MAX) : 0);
    }
    if (exam_read(exam, spans, cache + alloc->at, count * sizeof(*spans)) != 0) {
        return 0;
    }
    if (len == 0) {
        return 0;
    }
    exam_read_many(exam, copies, spans, count, len);
    int64_t sum = 0;
    for (size_t i = 0; i < count; i++) {
        const uint8_t *copy = copies + i * len;
        int64_t room = (int64_t)(uint32_t)go_member(layout, GO_SPAN_NELEMS, copy, len);
        int64_t held = (int64_t)(uint16_t)go_member(layout, GO_SPAN_ALLOC_COUNT, copy, len);
        int64_t size = (int64_t)(uint32_t)go_member(layout, GO_SPAN_ELEM_SIZE, copy, len);
        int64_t before = layout->fields[GO_SPAN_COUNT_BEFORE].known
                             ? (int64_t)(uint16_t)go_member(layout, GO_SPAN_COUNT_BEFORE, copy, len)
                             : room;
        // A span of small blocks has 32 KiB at most for each block of it.
        sum += held <= room && before <= room && size <= (int64_t)(64 * KIB)
                   ? (held - before) * size
                   : 0;
    }
    return sum;
}

static int64_t caches_uncounted(const struct exam *exam, const struct go_layout *layout)
{
    uint64_t caches[GO_P_MAX];
    int64_t sum = 0;
    bool known = layout->fields[GO_MCACHE_ALLOC].known;
    size_t count = known ? caches_list(exam, layout, caches) : 0;
    for (size_t i = 0; i < count; i++) {
        sum += spans_uncounted(exam, layout, caches[i]);
    }
    return sum;
}

static size_t class_sizes(const struct exam *exam, const struct go_layout *layout, uint16_t *sizes)
{
    const struct go_value *value = &layout->fields[GO_CLASS_SIZES];
    size_t count = min_size((size_t)value->size / sizeof(*sizes), CLASSES_MAX);
    if (!value->known || exam_read(exam, sizes, value->at, count * sizeof(*sizes)) != 0) {
        return 0;
    }
    return count;
}

// From 1.16 to 1.18: allocations and frees are counted by size class.
static bool live_by_class(const struct exam *exam, const struct go_layout *layout, uint64_t *live)
{
    uint16_t sizes[CLASSES_MAX];
    size_t count = class_sizes(exam, layout, sizes);
    uint64_t large[2];
    uint64_t made[CLASSES_MAX];
    uint64_t freed[CLASSES_MAX];
    if (count == 0 || !slots_sum(exam, layout, GO_STATS_LARGE_ALLOC, 1, &large[0]) ||
        !slots_sum(exam, layout, GO_STATS_LARGE_FREE, 1, &large[1]) ||
        !slots_sum(exam, layout, GO_STATS_SMALL_ALLOC, count, made) ||
        !slots_sum(exam, layout, GO_STATS_SMALL_FREE, count, freed)) {
        return false;
    }
    *live = large[0] - large[1];
    for (size_t i = 0; i < count; i++) {
        *live += (made[i] - freed[i]) * sizes[i];
    }
    return true;
}

// Up to 1.15 frees that a P has seen are in its cache until it is flushed.
static uint64_t old_cache_frees(const struct exam *exam, const struct go_layout *layout,
                                const uint16_t *sizes, size_t count)
{
    uint64_t caches[GO_P_MAX];
    uint64_t large[GO_P_MAX];
    uint64_t freed[CLASSES_MAX];
    uint64_t sum = 0;
    const struct go_value *small_at = &layout->fields[GO_MCACHE_SMALL_FREE];
    const struct go_value *large_at = &layout->fields[GO_MCACHE_LARGE_FREE];
    bool known = small_at->known && large_at->known;
    size_t caches_count = known ? caches_list(exam, layout, caches) : 0;
    words_read(exam, caches, caches_count, large_at->at, large);
    for (size_t p = 0; p < caches_count; p++) {
        sum += large[p];
        if (exam_read(exam, freed, caches[p] + small_at->at, count * sizeof(*freed)) != 0) {
            continue;
        }
        for (size_t i = 0; i < count; i++) {
            sum += freed[i] * sizes[i];
        }
    }
    return sum;
}

static bool live_old(const struct exam *exam, const struct go_layout *layout, uint64_t *live)
{
    uint16_t sizes[CLASSES_MAX];
    size_t count = class_sizes(exam, layout, sizes);
    const struct go_value *central = &layout->fields[GO_OLD_CENTRAL];
    const struct go_value *one = &layout->fields[GO_OLD_CENTRAL_ONE];
    uint64_t large[2];
    uint64_t made[2 * CLASSES_MAX];
    uint64_t freed[CLASSES_MAX];
    if (count == 0 || !central->known || one->size == 0 || central->size > CENTRAL_BYTES_MAX ||
        !layout->fields[GO_OLD_SMALL_FREE].known ||
        !go_value_read(exam, layout, GO_OLD_LARGE_ALLOC, &large[0]) ||
        !go_value_read(exam, layout, GO_OLD_LARGE_FREE, &large[1])) {
        return false;
    }
    // Two lists for each class: of blocks with and without pointers.
    size_t lists_count = (size_t)min_u64(central->size / one->size, 2 * count);
    if (!array_read(exam, layout, GO_OLD_NMALLOC, one->size, lists_count, made) ||
        exam_read(exam, freed, layout->fields[GO_OLD_SMALL_FREE].at, count * sizeof(*freed)) != 0) {
        return false;
    }
    *live = large[0] - large[1];
    for (size_t i = 0; i < lists_count; i++) {
        *live += made[i] * sizes[i / 2];
    }
    for (size_t i = 0; i < count; i++) {
        *live -= freed[i] * sizes[i];
    }
    *live -= old_cache_frees(exam, layout, sizes, count);
    return true;
}

bool go_live_read(const struct exam *exam, const struct go_layout *layout, uint64_t *bytes)
{
    uint64_t made;
    uint64_t freed;
    bool known;
    if (go_value_read(exam, layout, GO_TOTAL_ALLOC, &made) &&
        go_value_read(exam, layout, GO_TOTAL_FREE, &freed)) {
        *bytes = made - freed;
        known = true;
    } else if (layout->fields[GO_STATS_LARGE_ALLOC].known) {
        known = live_by_class(exam, layout, bytes);
    } else {
        known = live_old(exam, layout, bytes);
    }
    // More than a process can have: the pieces were not of one moment, or not what they seem.
    if (!known || *bytes >= UINT64_C(1) << 47) {
        return false;
    }
    int64_t sum = (int64_t)*bytes + caches_uncounted(exam, layout);
    *bytes = sum > 0 ? (uint64_t)sum : 0;
    return *bytes < UINT64_C(1) << 47;
}

// ---- sizes --------------------------------------------------------------------------------------

uint64_t go_heap_meta_read(const struct exam *exam, const struct go_layout *layout)
{
    uint64_t work;
    uint64_t bits;
    slots_sum(exam, layout, GO_STATS_WORKBUFS, 1, &work);
    slots_sum(exam, layout, GO_STATS_PTRBITS, 1, &bits);
    return work + bits;
}

static uint64_t sys_sum(const struct exam *exam, const struct go_layout *layout,
                        const struct facts_go *go)
{
    static const enum go_field parts[] = {GO_STACKS_SYS,   GO_MSPAN_SYS, GO_MCACHE_SYS,
                                          GO_BUCKHASH_SYS, GO_GC_SYS,    GO_OTHER_SYS};
    uint64_t sum = go->heap_sys_bytes + go->stacks_bytes + go_heap_meta_read(exam, layout);
    for (size_t i = 0; i < ARRAY_COUNT(parts); i++) {
        sum += value_or_zero(exam, layout, parts[i]);
    }
    return sum;
}

bool go_sizes_read(const struct exam *exam, const struct go_layout *layout, struct facts_go *go)
{
    uint64_t value;
    if (!go_value_read(exam, layout, GO_HEAP_INUSE, &go->heap_inuse_bytes) ||
        !go_value_read(exam, layout, GO_HEAP_RELEASED, &go->heap_released_bytes)) {
        return false;
    }
    if (go_value_read(exam, layout, GO_HEAP_FREE, &value)) {
        go->heap_idle_bytes = value + go->heap_released_bytes;
        go->heap_sys_bytes = go->heap_idle_bytes + go->heap_inuse_bytes;
    } else if (go_value_read(exam, layout, GO_HEAP_SYS, &go->heap_sys_bytes)) {
        go->heap_idle_bytes =
            go->heap_sys_bytes - min_u64(go->heap_sys_bytes, go->heap_inuse_bytes);
    } else {
        return false;
    }
    if (!slots_sum(exam, layout, GO_STATS_STACKS, 1, &go->stacks_bytes)) {
        go->stacks_bytes = value_or_zero(exam, layout, GO_STACKS_INUSE);
    }
    return true;
}

bool go_stats_read(const struct exam *exam, const struct go_layout *layout, struct facts_go *go)
{
    if (!go_sizes_read(exam, layout, go) || !go_live_read(exam, layout, &go->heap_live_bytes)) {
        return false;
    }
    // Read a moment apart: a heap that grows may have more in use than it had.
    go->heap_live_bytes = min_u64(go->heap_live_bytes, go->heap_inuse_bytes);
    go->sys_bytes = sys_sum(exam, layout, go);
    go->next_gc_bytes = value_or_zero(exam, layout, GO_NEXT_GC);
    return go->heap_sys_bytes < UINT64_C(1) << 47;
}

// ---- counts -------------------------------------------------------------------------------------

bool go_count_read(const struct exam *exam, const struct go_layout *layout, uint64_t *count)
{
    uint64_t ps[GO_P_MAX];
    uint64_t free_here[GO_P_MAX];
    uint64_t len;
    uint64_t system_count;
    uint64_t free_count;
    const struct go_value *own = &layout->fields[GO_P_FREE];
    if (!own->known || !go_value_read(exam, layout, GO_ALLGS_LEN, &len) ||
        !go_value_read(exam, layout, GO_NGSYS, &system_count) ||
        !go_value_read(exam, layout, GO_SCHED_FREE, &free_count)) {
        return false;
    }
    // Of garbage too: so without signs, where a sum below 0 is a large one.
    uint64_t sum = len - (uint64_t)(int32_t)system_count - (uint64_t)(int32_t)free_count -
                   (uint64_t)(int32_t)value_or_zero(exam, layout, GO_SCHED_FREE_STACKLESS);
    size_t ps_count = go_p_list(exam, layout, ps, GO_P_MAX);
    words_read(exam, ps, ps_count, own->at, free_here);
    for (size_t i = 0; i < ps_count; i++) {
        sum -= (uint64_t)(int32_t)free_here[i];
    }
    // At least main runs.
    if (sum == 0 || sum > min_u64(len, UINT32_MAX)) {
        return false;
    }
    *count = sum;
    return true;
}

// Up to 1.13 timers were in 64 heaps of their own.
static bool timers_old(const struct exam *exam, const struct go_layout *layout, uint64_t *count)
{
    const struct go_value *all = &layout->fields[GO_TIMERS];
    const struct go_value *one = &layout->fields[GO_TIMERS_ONE];
    uint64_t lens[GO_P_MAX];
    *count = 0;
    if (one->size == 0 || all->size / one->size > GO_P_MAX) {
        return false;
    }
    size_t heaps_count = (size_t)(all->size / one->size);
    if (!array_read(exam, layout, GO_TIMERS_LEN, one->size, heaps_count, lens)) {
        return false;
    }
    for (size_t i = 0; i < heaps_count; i++) {
        *count += lens[i];
    }
    return true;
}

bool go_timers_read(const struct exam *exam, const struct go_layout *layout, uint64_t *count)
{
    uint64_t ps[GO_P_MAX];
    const struct go_value *len = &layout->fields[GO_P_TIMERS];
    const struct go_value *dead = &layout->fields[GO_P_TIMERS_DEAD];
    uint64_t all[GO_P_MAX];
    uint64_t gone[GO_P_MAX];
    if (!len->known) {
        return timers_old(exam, layout, count);
    }
    size_t ps_count = go_p_list(exam, layout, ps, GO_P_MAX);
    *count = 0;
    if (!words_read(exam, ps, ps_count, len->at, all) ||
        (dead->known && !words_read(exam, ps, ps_count, dead->at, gone))) {
        return false;
    }
    for (size_t i = 0; i < ps_count; i++) {
        int32_t less = dead->known ? (int32_t)gone[i] : 0;
        *count += less > 0 ? all[i] - min_u64(all[i], (uint64_t)less) : all[i];
    }
    return ps_count != 0;
}
