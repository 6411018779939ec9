// SPDX-License-Identifier: MIT
//
// Doctor, whether a layout of a known version holds in the memory of a process.
//
// Each part has something that hardly any wrong address or offset satisfies: sizes of classes, ids
// of Ps, powers of two as stacks of goroutines, arenas that are mapped, and counters that add up to
// what the heap grows by. The process runs on, and counters are changed one after the other: they
// are looked at a few times.
//
// Go  src/runtime/mheap.go grow, stack.go, proc.go, mprof.go.

#include "go_look.h"

// From 1.12 on heaps grow by whole arenas or by pieces of them that are multiples of this.
#define GROWTH_BYTES (4 * MIB)
#define GO_PAGE_BYTES (8 * KIB)
#define TRIES 200
#define LOOKED_AT 32
#define CLASSES_MAX 256
#define LARGEST_SMALL 32768
#define STACK_BYTES_MIN UINT64_C(2048)
#define TIMERS_MAX (UINT64_C(1) << 32)

struct check {
    const struct exam *exam;
    const struct go_layout *layout;
    const struct go_file *file;
    uint64_t bias;
};

static void forget(struct go_layout *layout, enum go_field first, enum go_field last)
{
    for (size_t i = first; i <= last; i++) {
        layout->fields[i].known = false;
    }
}

static bool word_read(const struct exam *exam, uint64_t addr, uint64_t *value)
{
    return exam_read(exam, value, addr, sizeof(*value)) == 0;
}

// A member of a structure in memory; false if it is not known or not readable.
static bool member_read(const struct exam *exam, const struct go_layout *layout,
                        enum go_field field, uint64_t base, uint64_t *value)
{
    const struct go_value *at = &layout->fields[field];
    *value = 0;
    return at->known && at->size <= sizeof(*value) &&
           exam_read(exam, value, base + at->at, (size_t)at->size) == 0;
}

// ---- counters -----------------------------------------------------------------------------------

// sums_hold: up to 1.15 what is idle has a counter of its own, and work buffers are not to be told
// from other memory of the collector; since then all that is taken from the heap is counted.
static bool sums_hold(const struct exam *exam, const struct go_layout *layout,
                      const struct facts_go *go)
{
    uint64_t idle;
    if (layout->fields[GO_HEAP_IDLE].known) {
        return go_value_read(exam, layout, GO_HEAP_IDLE, &idle) &&
               go->heap_sys_bytes == idle + go->heap_inuse_bytes;
    }
    uint64_t whole = go->heap_sys_bytes + go->stacks_bytes + go_heap_meta_read(exam, layout);
    return whole % GROWTH_BYTES == 0;
}

static bool sizes_hold(const struct facts_go *go)
{
    return go->heap_inuse_bytes != 0 && go->heap_inuse_bytes % GO_PAGE_BYTES == 0 &&
           go->heap_idle_bytes % GO_PAGE_BYTES == 0 && go->heap_released_bytes % 4096 == 0 &&
           go->heap_released_bytes <= go->heap_idle_bytes && go->stacks_bytes % 4096 == 0 &&
           go->heap_sys_bytes < UINT64_C(1) << 47;
}

static bool counters_hold(const struct exam *exam, const struct go_layout *layout)
{
    struct facts_go go = {0};
    uint64_t live;
    bool hold = false;
    for (size_t i = 0; i < TRIES && !hold; i++) {
        hold = go_sizes_read(exam, layout, &go) && sizes_hold(&go) && sums_hold(exam, layout, &go);
    }
    // A little later the heap may have grown.
    return hold && go_live_read(exam, layout, &live) &&
           live <= 2 * go.heap_inuse_bytes + GROWTH_BYTES;
}

// From 1.25 on they belong to another package, and nothing here needs them.
static bool classes_hold(const struct exam *exam, const struct go_layout *layout)
{
    const struct go_value *value = &layout->fields[GO_CLASS_SIZES];
    uint16_t sizes[CLASSES_MAX];
    size_t count = (size_t)min_u64(value->size / sizeof(*sizes), CLASSES_MAX);
    if (!value->known) {
        return layout->minor >= 25;
    }
    if (count < 2 || exam_read(exam, sizes, value->at, count * sizeof(*sizes)) != 0) {
        return false;
    }
    for (size_t i = 1; i < count; i++) {
        if (sizes[i] <= sizes[i - 1]) {
            return false;
        }
    }
    return sizes[0] == 0 && sizes[1] == 8 && sizes[count - 1] == LARGEST_SMALL;
}

static bool arenas_hold(const struct exam *exam, const struct go_layout *layout)
{
    uint64_t array;
    uint64_t count;
    if (!go_value_read(exam, layout, GO_ARENAS, &array) ||
        !go_value_read(exam, layout, GO_ARENAS_LEN, &count) || count == 0 || count > UINT32_MAX) {
        return false;
    }
    for (uint64_t i = 0; i < min_u64(count, LOOKED_AT); i++) {
        uint64_t index;
        if (!word_read(exam, array + i * sizeof(index), &index) ||
            vma_at(exam, index * GO_ARENA_BYTES + GO_ARENA_BASE) == NULL) {
            return false;
        }
    }
    return true;
}

// Spans that Ps have taken hold blocks of one class each.
static bool spans_hold(const struct exam *exam, const struct go_layout *layout, uint64_t p)
{
    uint64_t cache;
    uint64_t spans[4];
    const struct go_value *alloc = &layout->fields[GO_MCACHE_ALLOC];
    if (!member_read(exam, layout, GO_P_MCACHE, p, &cache) || !alloc->known) {
        return false;
    }
    if (cache == 0) {
        return true;
    }
    if (exam_read(exam, spans, cache + alloc->at, sizeof(spans)) != 0) {
        return false;
    }
    for (size_t i = 0; i < ARRAY_COUNT(spans); i++) {
        uint64_t room;
        uint64_t size;
        if (!member_read(exam, layout, GO_SPAN_NELEMS, spans[i], &room) ||
            !member_read(exam, layout, GO_SPAN_ELEM_SIZE, spans[i], &size) ||
            size > LARGEST_SMALL || size % 8 != 0 || room * size > MIB) {
            return false;
        }
    }
    return true;
}

// ---- the others ---------------------------------------------------------------------------------

static bool ps_hold(const struct exam *exam, const struct go_layout *layout)
{
    uint64_t ps[GO_P_MAX];
    size_t count = go_p_list(exam, layout, ps, GO_P_MAX);
    for (size_t i = 0; i < min_size(count, LOOKED_AT); i++) {
        uint64_t id;
        if (!member_read(exam, layout, GO_P_ID, ps[i], &id) || id != i ||
            !spans_hold(exam, layout, ps[i])) {
            return false;
        }
    }
    return count != 0;
}

static bool in_code(const struct check *check, uint64_t pc)
{
    return go_segments_hold(check->file, pc - check->bias, GO_SEGMENT_CODE);
}

// g_holds looks at one goroutine; live counts those that have not ended.
static bool g_holds(const struct check *check, uint64_t g, size_t *live)
{
    static const enum go_field fields[] = {GO_G_STATUS, GO_G_STACK_LO, GO_G_STACK_HI, GO_G_SP,
                                           GO_G_PC,     GO_G_STARTPC,  GO_G_REASON};
    enum { STATUS, LO, HI, SP, PC, START, REASON };
    uint64_t has[ARRAY_COUNT(fields)];
    for (size_t i = 0; i < ARRAY_COUNT(fields); i++) {
        if (!member_read(check->exam, check->layout, fields[i], g, &has[i])) {
            return false;
        }
    }
    uint64_t status = has[STATUS] & ~(uint64_t)G_SCAN;
    uint64_t size = has[HI] - has[LO];
    bool stack = size >= STACK_BYTES_MIN && size <= GIB && (size & (size - 1)) == 0;
    if (status > G_DEAD_EXTRA || !(stack || (has[LO] == 0 && has[HI] == 0))) {
        return false;
    }
    if (status == G_IDLE || status == G_DEAD || status == G_DEAD_EXTRA) {
        return true;
    }
    ++*live;
    bool waits = status == G_WAITING;
    // That of a thread of C which has called into Go was not started anywhere.
    return stack && (has[START] == 0 || in_code(check, has[START])) &&
           (!waits || (has[SP] >= has[LO] && has[SP] <= has[HI] && in_code(check, has[PC]) &&
                       has[REASON] <= GO_REASONS_MAX));
}

// The runtime has goroutines of its own, which never end, among the first.
static bool routines_hold(const struct check *check)
{
    uint64_t array;
    uint64_t count;
    size_t live = 0;
    if (!go_value_read(check->exam, check->layout, GO_ALLGS, &array) ||
        !go_value_read(check->exam, check->layout, GO_ALLGS_LEN, &count) || count == 0 ||
        count > UINT32_MAX) {
        return false;
    }
    for (uint64_t i = 0; i < min_u64(count, LOOKED_AT); i++) {
        uint64_t g;
        // One may be between two states just now, or its stack be moved.
        if (!word_read(check->exam, array + i * sizeof(g), &g) ||
            (!g_holds(check, g, &live) && !g_holds(check, g, &live))) {
            return false;
        }
    }
    return live != 0;
}

static bool scheduler_holds(const struct exam *exam, const struct go_layout *layout)
{
    uint64_t all;
    uint64_t own;
    uint64_t free_count;
    uint64_t count;
    return go_value_read(exam, layout, GO_ALLGS_LEN, &all) &&
           go_value_read(exam, layout, GO_NGSYS, &own) &&
           go_value_read(exam, layout, GO_SCHED_FREE, &free_count) && own <= all &&
           free_count <= all && go_count_read(exam, layout, &count) && count <= all;
}

static bool profile_holds(const struct exam *exam, const struct go_layout *layout)
{
    uint64_t rate;
    uint64_t bucket;
    if (!go_value_read(exam, layout, GO_PROFILE_RATE, &rate) || rate > INT32_MAX ||
        !go_value_read(exam, layout, GO_BUCKETS, &bucket)) {
        return false;
    }
    for (size_t i = 0; i < LOOKED_AT && bucket != 0; i++) {
        uint64_t type;
        uint64_t depth;
        if (!member_read(exam, layout, GO_BUCKET_TYPE, bucket, &type) || type != GO_BUCKET_MEMORY ||
            !member_read(exam, layout, GO_BUCKET_DEPTH, bucket, &depth) || depth > GO_DEPTH_MAX ||
            !member_read(exam, layout, GO_BUCKET_NEXT, bucket, &bucket)) {
            return false;
        }
    }
    return true;
}

static bool reasons_hold(const struct exam *exam, const struct go_layout *layout)
{
    const struct go_value *all = &layout->fields[GO_REASONS];
    for (uint64_t i = 0; i < min_u64(all->size / 16, 8) && all->known; i++) {
        uint64_t len;
        if (!word_read(exam, all->at + i * 16 + 8, &len) || len > 64) {
            return false;
        }
    }
    return all->known;
}

static bool heap_holds(const struct exam *exam, const struct go_layout *layout)
{
    return classes_hold(exam, layout) && arenas_hold(exam, layout) && ps_hold(exam, layout) &&
           counters_hold(exam, layout);
}

enum go_trust go_layout_check(const struct exam *exam, const struct go_file *file, uint64_t bias,
                              struct go_layout *layout)
{
    const struct check check = {exam, layout, file, bias};
    uint64_t count;
    enum go_trust trust = GO_TRUST_ALL;
    // Once more: arrays are moved when they grow.
    if (!heap_holds(exam, layout) && !heap_holds(exam, layout)) {
        return GO_TRUST_NONE;
    }
    if (!routines_hold(&check)) {
        forget(layout, GO_ALLGS, GO_ALLGS_LEN);
        forget(layout, GO_G_STATUS, GO_G_BP);
        trust = GO_TRUST_SOME;
    }
    if (!scheduler_holds(exam, layout)) {
        forget(layout, GO_NGSYS, GO_P_FREE);
        trust = GO_TRUST_SOME;
    }
    if (!reasons_hold(exam, layout)) {
        forget(layout, GO_REASONS, GO_REASONS);
        trust = GO_TRUST_SOME;
    }
    if (!profile_holds(exam, layout)) {
        forget(layout, GO_BUCKETS, GO_RECORD_FREE_BYTES);
        trust = GO_TRUST_SOME;
    }
    // A count of timers may be any: it is not better than the others.
    if (trust != GO_TRUST_ALL || !go_timers_read(exam, layout, &count) || count > TIMERS_MAX) {
        forget(layout, GO_P_TIMERS, GO_TIMERS_LEN);
        trust = GO_TRUST_SOME;
    }
    return trust;
}
