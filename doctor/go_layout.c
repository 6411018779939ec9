// SPDX-License-Identifier: MIT
//
// Doctor, where a Go runtime keeps what: fields by name, with the names of each version.
//
// Go  src/runtime of 1.12 to 1.26: mstats.go, mheap.go, mgcpacer.go, runtime2.go, mprof.go,
//     time.go.
#include <string.h>

#include "go_look.h"

// A path is a root and what follows it; the first that the program has is taken. Newer names come
// first where an older name lives on with another meaning.
#define PATHS_MAX 3
static const char *const paths[GO_FIELD_COUNT][PATHS_MAX] = {
    [GO_HEAP_SYS] = {"runtime.memstats.heap_sys"},   // to 1.18
    [GO_HEAP_IDLE] = {"runtime.memstats.heap_idle"}, // to 1.15
    [GO_HEAP_INUSE] = {"runtime.gcController.heapInUse", "runtime.memstats.heap_inuse"},
    [GO_HEAP_FREE] = {"runtime.gcController.heapFree"}, // from 1.19
    [GO_HEAP_RELEASED] = {"runtime.gcController.heapReleased", "runtime.memstats.heap_released"},
    [GO_STACKS_INUSE] = {"runtime.memstats.stacks_inuse"},
    [GO_STACKS_SYS] = {"runtime.memstats.stacks_sys"},
    [GO_MSPAN_SYS] = {"runtime.memstats.mspan_sys"},
    [GO_MCACHE_SYS] = {"runtime.memstats.mcache_sys"},
    [GO_BUCKHASH_SYS] = {"runtime.memstats.buckhash_sys"},
    [GO_GC_SYS] = {"runtime.memstats.gcMiscSys", "runtime.memstats.gc_sys"},
    [GO_OTHER_SYS] = {"runtime.memstats.other_sys"},
    [GO_TOTAL_ALLOC] = {"runtime.gcController.totalAlloc"}, // from 1.19
    [GO_TOTAL_FREE] = {"runtime.gcController.totalFree"},
    [GO_STATS] = {"runtime.memstats.heapStats.stats"}, // from 1.16
    [GO_STATS_ONE] = {"runtime.memstats.heapStats.stats["},
    [GO_STATS_STACKS] = {"runtime.memstats.heapStats.stats[.inStacks"},
    [GO_STATS_WORKBUFS] = {"runtime.memstats.heapStats.stats[.inWorkBufs"},
    [GO_STATS_PTRBITS] = {"runtime.memstats.heapStats.stats[.inPtrScalarBits"},
    [GO_STATS_LARGE_ALLOC] = {"runtime.memstats.heapStats.stats[.largeAlloc"},
    [GO_STATS_LARGE_FREE] = {"runtime.memstats.heapStats.stats[.largeFree"},
    [GO_STATS_SMALL_ALLOC] = {"runtime.memstats.heapStats.stats[.smallAllocCount"},
    [GO_STATS_SMALL_FREE] = {"runtime.memstats.heapStats.stats[.smallFreeCount"},
    [GO_OLD_LARGE_ALLOC] = {"runtime.mheap_.largealloc"}, // to 1.15
    [GO_OLD_LARGE_FREE] = {"runtime.mheap_.largefree"},
    [GO_OLD_SMALL_FREE] = {"runtime.mheap_.nsmallfree"},
    [GO_OLD_CENTRAL] = {"runtime.mheap_.central"},
    [GO_OLD_CENTRAL_ONE] = {"runtime.mheap_.central["},
    [GO_OLD_NMALLOC] = {"runtime.mheap_.central[.mcentral.nmalloc"},
    [GO_CLASS_SIZES] = {"runtime.class_to_size"},
    [GO_P_MCACHE] = {"runtime.p.mcache"},
    [GO_MCACHE_ALLOC] = {"runtime.mcache.alloc"},
    [GO_MCACHE_SMALL_FREE] = {"runtime.mcache.local_nsmallfree"}, // to 1.15
    [GO_MCACHE_LARGE_FREE] = {"runtime.mcache.local_largefree"},
    [GO_SPAN_NELEMS] = {"runtime.mspan.nelems"},
    [GO_SPAN_ALLOC_COUNT] = {"runtime.mspan.allocCount"},
    [GO_SPAN_ELEM_SIZE] = {"runtime.mspan.elemsize"},
    [GO_SPAN_COUNT_BEFORE] = {"runtime.mspan.allocCountBeforeCache"},
    [GO_NEXT_GC] = {"runtime.gcController.gcPercentHeapGoal", "runtime.gcController.heapGoal",
                    "runtime.memstats.next_gc"},
    [GO_NUM_GC] = {"runtime.memstats.numgc"},
    [GO_GC_PERCENT] = {"runtime.gcController.gcPercent", "runtime.gcpercent"},
    [GO_MEMORY_LIMIT] = {"runtime.gcController.memoryLimit"},
    [GO_MADVDONTNEED] = {"runtime.debug.madvdontneed"},
    [GO_ARENAS] = {"runtime.mheap_.heapArenas.array", "runtime.mheap_.allArenas.array"},
    [GO_ARENAS_LEN] = {"runtime.mheap_.heapArenas.len", "runtime.mheap_.allArenas.len"},
    [GO_ALLGS] = {"runtime.allgs.array"},
    [GO_ALLGS_LEN] = {"runtime.allgs.len"},
    [GO_ALLP] = {"runtime.allp.array"},
    [GO_ALLP_LEN] = {"runtime.allp.len"},
    [GO_NGSYS] = {"runtime.sched.ngsys"},
    [GO_SCHED_FREE] = {"runtime.sched.gFree.n", "runtime.sched.gFree.stack.size"},
    [GO_SCHED_FREE_STACKLESS] = {"runtime.sched.gFree.noStack.size"}, // from 1.25
    [GO_P_ID] = {"runtime.p.id"},
    [GO_P_FREE] = {"runtime.p.gFree.n", "runtime.p.gFree.size"},
    [GO_G_STATUS] = {"runtime.g.atomicstatus"},
    [GO_G_REASON] = {"runtime.g.waitreason"},
    [GO_G_SINCE] = {"runtime.g.waitsince"},
    [GO_G_GOPC] = {"runtime.g.gopc"},
    [GO_G_STARTPC] = {"runtime.g.startpc"},
    [GO_G_STACK_LO] = {"runtime.g.stack.lo"},
    [GO_G_STACK_HI] = {"runtime.g.stack.hi"},
    [GO_G_PC] = {"runtime.g.sched.pc"},
    [GO_G_SP] = {"runtime.g.sched.sp"},
    [GO_G_BP] = {"runtime.g.sched.bp"},
    [GO_REASONS] = {"runtime.waitReasonStrings"},
    [GO_P_TIMERS] = {"runtime.p.timers.heap.len", "runtime.p.timers.len"}, // from 1.23; from 1.14
    [GO_P_TIMERS_DEAD] = {"runtime.p.timers.zombies", "runtime.p.deletedTimers"},
    [GO_TIMERS] = {"runtime.timers"}, // to 1.13
    [GO_TIMERS_ONE] = {"runtime.timers["},
    [GO_TIMERS_LEN] = {"runtime.timers[.timersBucket.t.len"},
    [GO_BUCKETS] = {"runtime.mbuckets"},
    [GO_PROFILE_RATE] = {"runtime.MemProfileRate"},
    [GO_BUCKET] = {"runtime.bucket"},
    [GO_BUCKET_NEXT] = {"runtime.bucket.allnext"},
    [GO_BUCKET_TYPE] = {"runtime.bucket.typ"},
    [GO_BUCKET_SIZE] = {"runtime.bucket.size"},
    [GO_BUCKET_DEPTH] = {"runtime.bucket.nstk"},
    [GO_RECORD_ALLOCS] = {"runtime.memRecord.active.allocs"},
    [GO_RECORD_FREES] = {"runtime.memRecord.active.frees"},
    [GO_RECORD_ALLOC_BYTES] = {"runtime.memRecord.active.alloc_bytes"},
    [GO_RECORD_FREE_BYTES] = {"runtime.memRecord.active.free_bytes"},
    [GO_MODULE_TABLE] = {"runtime.firstmoduledata.pcHeader", // from 1.16
                         "runtime.firstmoduledata.pclntable.array"},
    [GO_MODULE_TEXT] = {"runtime.firstmoduledata.text"},
    [GO_MODULE_FUNCS] = {"runtime.firstmoduledata.gofunc"}, // from 1.18
};

static const char *const roots_names[GO_ROOTS] = {
    [GO_ROOT_MEMSTATS] = "runtime.memstats",
    [GO_ROOT_CONTROLLER] = "runtime.gcController",
    [GO_ROOT_MHEAP] = "runtime.mheap_",
    [GO_ROOT_CLASS_SIZES] = "runtime.class_to_size",
    [GO_ROOT_DEBUG] = "runtime.debug",
    [GO_ROOT_PERCENT] = "runtime.gcpercent",
    [GO_ROOT_ALLGS] = "runtime.allgs",
    [GO_ROOT_ALLP] = "runtime.allp",
    [GO_ROOT_SCHED] = "runtime.sched",
    [GO_ROOT_BUCKETS] = "runtime.mbuckets",
    [GO_ROOT_RATE] = "runtime.MemProfileRate",
    [GO_ROOT_TIMERS] = "runtime.timers",
    [GO_ROOT_REASONS] = "runtime.waitReasonStrings",
    [GO_ROOT_MODULE] = "runtime.firstmoduledata",
    [GO_ROOT_P] = "runtime.p",
    [GO_ROOT_MCACHE] = "runtime.mcache",
    [GO_ROOT_MSPAN] = "runtime.mspan",
    [GO_ROOT_G] = "runtime.g",
    [GO_ROOT_BUCKET] = "runtime.bucket",
    [GO_ROOT_RECORD] = "runtime.memRecord",
};
#define ABBREVS_BYTES_MAX (KIB * 256)
#define STRINGS_BYTES_MAX (32 * MIB)

// The part of a path behind its root; NULL if that is another root.
static const char *path_behind(const char *path, const char *root)
{
    size_t len = strlen(root);
    bool same = strncmp(path, root, len) == 0;
    return same && (path[len] == '\0' || path[len] == '.' || path[len] == '[') ? path + len : NULL;
}

static bool path_find(struct go_dwarf *dwarf, const struct go_root *roots, const char *path,
                      struct go_part *out)
{
    for (uint8_t i = 0; i < GO_ROOTS; i++) {
        const struct go_root *root = &roots[i];
        const char *behind = path_behind(path, root->name);
        uint64_t offset = 0;
        uint64_t size = 0;
        if (behind != NULL && root->type != 0 &&
            go_dwarf_path(dwarf, root->type, behind, &offset, &size) && offset <= UINT32_MAX &&
            size <= UINT32_MAX) {
            *out = (struct go_part){i, (uint32_t)offset, (uint32_t)size};
            return true;
        }
    }
    return false;
}

static void parts_find(struct go_dwarf *dwarf, const struct go_root *roots, struct go_shape *shape)
{
    for (size_t i = 0; i < GO_FIELD_COUNT; i++) {
        shape->parts[i] = (struct go_part){.root = GO_ROOT_NONE};
        for (size_t k = 0; k < PATHS_MAX && paths[i][k] != NULL; k++) {
            if (path_find(dwarf, roots, paths[i][k], &shape->parts[i])) {
                break;
            }
        }
    }
}

const char *const *go_root_names(void)
{
    return roots_names;
}

void go_layout_join(struct go_layout *layout, const struct go_shape *shape, const uint64_t *addrs,
                    uint64_t bias)
{
    for (size_t i = 0; i < GO_FIELD_COUNT; i++) {
        const struct go_part *part = &shape->parts[i];
        bool is_type = part->root >= GO_VARIABLES;
        bool known = part->root < GO_ROOTS && (is_type || addrs[part->root] != 0);
        uint64_t base = known && !is_type ? addrs[part->root] + bias : 0;
        layout->fields[i] = (struct go_value){base + part->offset, part->size, known};
    }
}

// Bytes of a section of which there may be more than are worth reading: then 0.
static uint64_t worth_bytes(const struct go_file *file, const char *name, uint64_t cap)
{
    uint64_t size = go_section_size(file, name, cap);
    return size > cap ? 0 : size;
}

static bool dwarf_load(const struct go_file *file, uint64_t budget_bytes, struct go_dwarf *dwarf,
                       const char **why)
{
    struct go_bytes info;
    struct go_bytes abbrevs;
    struct go_bytes strings;
    uint64_t size = go_section_size(file, ".debug_info", budget_bytes);
    if (size == 0) {
        *why = "the program was linked without DWARF (-ldflags=-w or strip)";
        return false;
    }
    if (size > budget_bytes || worth_bytes(file, ".debug_abbrev", ABBREVS_BYTES_MAX) +
                                       worth_bytes(file, ".debug_str", STRINGS_BYTES_MAX) >
                                   budget_bytes - size) {
        *why = "its DWARF is larger than the time allows: --exact";
        return false;
    }
    *why = "its DWARF makes no sense";
    if (!go_section(file, ".debug_info", (size_t)budget_bytes, &info) ||
        !go_section(file, ".debug_abbrev", ABBREVS_BYTES_MAX, &abbrevs)) {
        return false;
    }
    // Go's linker puts names where they are used: without strings only those of C are not known.
    go_section(file, ".debug_str", STRINGS_BYTES_MAX, &strings);
    return go_dwarf_open(dwarf, info, abbrevs, strings);
}

bool go_shape_dwarf(const struct go_file *file, uint64_t budget_bytes, struct go_shape *shape,
                    uint64_t *addrs, const char **why)
{
    struct go_root roots[GO_ROOTS];
    struct go_dwarf dwarf = {0};
    if (!dwarf_load(file, budget_bytes, &dwarf, why)) {
        go_dwarf_close(&dwarf);
        return false;
    }
    for (size_t i = 0; i < GO_ROOTS; i++) {
        roots[i] = (struct go_root){.name = roots_names[i], .is_type = i >= GO_VARIABLES};
    }
    go_dwarf_roots(&dwarf, roots, GO_ROOTS);
    parts_find(&dwarf, roots, shape);
    bool done = dwarf.work_left != 0;
    go_dwarf_close(&dwarf);
    if (!done) {
        *why = "its DWARF makes no sense";
        return false;
    }
    // Since 1.25 addresses are in a section of their own; the symbols have them too.
    go_symbols(file, roots_names, addrs, GO_VARIABLES);
    for (size_t i = 0; i < GO_VARIABLES; i++) {
        addrs[i] = addrs[i] != 0 ? addrs[i] : roots[i].addr;
    }
    return true;
}

bool go_layout_make(const struct go_file *file, uint64_t bias, uint64_t budget_bytes,
                    struct go_layout *layout, const char **why)
{
    struct go_shape shape;
    uint64_t addrs[GO_VARIABLES];
    int minor = layout->minor;
    *layout = (struct go_layout){.minor = minor};
    if (!go_shape_dwarf(file, budget_bytes, &shape, addrs, why)) {
        return false;
    }
    go_layout_join(layout, &shape, addrs, bias);
    bool enough = layout->fields[GO_HEAP_INUSE].known && layout->fields[GO_HEAP_RELEASED].known;
    if (!enough) {
        *why = "the runtime's counters are not where a known version has them";
    }
    return enough;
}

bool go_value_read(const struct exam *exam, const struct go_layout *layout, enum go_field field,
                   uint64_t *value)
{
    const struct go_value *at = &layout->fields[field];
    size_t size = at->size == 0 ? 8 : (size_t)at->size;
    *value = 0;
    return at->known && size <= sizeof(*value) && exam_read(exam, value, at->at, size) == 0;
}

uint64_t go_member(const struct go_layout *layout, enum go_field field, const uint8_t *copy,
                   size_t len)
{
    const struct go_value *at = &layout->fields[field];
    uint64_t value = 0;
    if (at->known && at->size <= sizeof(value) && at->at <= len && len - at->at >= at->size) {
        memcpy(&value, copy + at->at, at->size);
    }
    return value;
}
