// SPDX-License-Identifier: MIT
//
// Doctor, evidence of a Go program, without an agent in it and without stopping it: its counters,
// goroutines and heap profile out of its memory; which mappings are its heap, and what is in them.
//
// Model
//   The heap's addresses are its arenas, of 64 MiB each, whose numbers the runtime lists; without
//   symbols, what it has mapped from where its heap always begins. Other anonymous memory is the
//   runtime's own tables as far as its counters (Sys without the heap) account for it, smallest
//   mapping first: a large one that does not fit is somebody else's (cgo, syscall.Mmap).
//   The parts: live is what ReadMemStats calls HeapAlloc, dead objects that no collection has found
//   yet among it, and stacks of goroutines; pinned HeapInuse - HeapAlloc; kept HeapIdle -
//   HeapReleased; lazy what the kernel has marked, at most HeapReleased; meta the tables, and work
//   buffers. What is resident beyond these stays undivided: pages that the runtime believes to be
//   given back, or never used, which the kernel holds nevertheless, mostly in huge pages.
//
// Go       src/runtime/mstats.go, malloc.go (arenas), mem_linux.go (MADV_FREE).
// Tests    test/unit/go_look_test.c  test/unit/go_memory_test.c  test/system/doctor_go.py
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "go_look.h"
#include "os/clock.h"

#define GO_ARENAS_MAX 65536
// Where heaps begin on 64-bit systems, and how far the first hint reaches.
#define HEAP_START UINT64_C(0xc000000000)
#define HEAP_HINT_BYTES (UINT64_C(1) << 40)
// Inflating and walking DWARF, bytes per microsecond, on a slow machine.
#define DWARF_BYTES_PER_US 120
#define DWARF_BYTES_MAX (512 * MIB)
// A range has two cuts, and each may move all mappings: of 65530, so many ranges move 75 MB.
#define CUTS_CHECK 8
#define CUTS_COST_NS (UINT64_C(10) * NS_PER_MS)

struct go_range {
    uint64_t start, end;
};

// Open from evidence_go to evidence_go_divide: goroutines and profile are read when the pages have
// been counted, with what is left of the budget.
struct go_state {
    struct go_file file;
    uint64_t bias;
    struct go_layout layout;
    bool partly; // the layout has less than its version should have
    struct go_pcln pcln;
    uint64_t heap_meta_bytes;
    size_t ranges_count;
    struct go_range ranges[GO_ARENAS_MAX];
};

// ---- what releases do ---------------------------------------------------------------------------

bool go_releases_lazily(int minor, const char *godebug)
{
    bool lazily = minor >= 12 && minor <= 15;
    // The last one counts.
    for (const char *at = godebug; at != NULL && *at != '\0'; at += strcspn(at, ",")) {
        at += *at == ',';
        if (strncmp(at, "madvdontneed=", 13) == 0) {
            lazily = minor >= 12 && at[13] == '0';
        }
    }
    return lazily;
}

static bool releases_lazily(const struct exam *exam, const struct go_layout *layout)
{
    const struct facts *facts = exam->facts;
    uint64_t value;
    if (facts->go.minor >= 12 && layout != NULL &&
        go_value_read(exam, layout, GO_MADVDONTNEED, &value)) {
        return value == 0;
    }
    return go_releases_lazily(facts->go.minor, facts_setting(facts, "GODEBUG"));
}

// ---- claims -------------------------------------------------------------------------------------

static int range_compare(const void *a, const void *b)
{
    const struct go_range *x = a;
    const struct go_range *y = b;
    return x->start > y->start ? 1 : x->start < y->start ? -1 : 0;
}

static void ranges_join(struct go_state *state)
{
    size_t kept = 0;
    qsort(state->ranges, state->ranges_count, sizeof(state->ranges[0]), range_compare);
    for (size_t i = 0; i < state->ranges_count; i++) {
        struct go_range *last = kept == 0 ? NULL : &state->ranges[kept - 1];
        if (last != NULL && state->ranges[i].start <= last->end) {
            last->end = max_u64(last->end, state->ranges[i].end);
        } else {
            state->ranges[kept++] = state->ranges[i];
        }
    }
    state->ranges_count = kept;
}

// arenas_read lists the heap's address ranges; false if the runtime's own list cannot be had.
static bool arenas_read(const struct exam *exam, struct go_state *state)
{
    uint64_t array;
    uint64_t count;
    if (!go_value_read(exam, &state->layout, GO_ARENAS, &array) ||
        !go_value_read(exam, &state->layout, GO_ARENAS_LEN, &count) || count == 0 ||
        count > GO_ARENAS_MAX) {
        return false;
    }
    uint64_t *indexes = malloc((size_t)count * sizeof(*indexes));
    bool good =
        indexes != NULL && exam_read(exam, indexes, array, (size_t)count * sizeof(*indexes)) == 0;
    for (size_t i = 0; good && i < count; i++) {
        uint64_t start = indexes[i] * GO_ARENA_BYTES + GO_ARENA_BASE;
        if (start < UINT64_C(1) << 56) {
            state->ranges[state->ranges_count++] = (struct go_range){start, start + GO_ARENA_BYTES};
        }
    }
    free(indexes);
    ranges_join(state);
    return good && state->ranges_count != 0;
}

static bool in_ranges(const struct go_state *state, uint64_t addr)
{
    size_t low = 0;
    size_t high = state->ranges_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (state->ranges[middle].end <= addr) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < state->ranges_count && state->ranges[low].start <= addr;
}

static bool is_named_by_go(const struct vma *vma)
{
    return strncmp(vma->path, "[anon: Go:", 10) == 0;
}

static void claim(struct exam *exam, struct go_state *state, size_t heap)
{
    for (size_t i = 0; i < state->ranges_count; i++) {
        if (i % CUTS_CHECK == CUTS_CHECK - 1 && !exam_affords(exam, CUTS_COST_NS)) {
            break;
        }
        if (!vma_cut(exam, state->ranges[i].start) || !vma_cut(exam, state->ranges[i].end)) {
            return;
        }
    }
    for (size_t i = 0; i < exam->vmas_count; i++) {
        struct vma *vma = &exam->vmas[i];
        bool ours = in_ranges(state, vma->start) || is_named_by_go(vma);
        if (ours && vma_is_anonymous(vma)) {
            vma_claim(exam, vma, heap);
        }
    }
}

static void heap_claim(struct exam *exam, struct go_state *state)
{
    if (!arenas_read(exam, state)) {
        state->ranges[0] = (struct go_range){HEAP_START, HEAP_START + HEAP_HINT_BYTES};
        state->ranges_count = 1;
    }
    size_t heap = heap_add(exam, HEAP_GO);
    if (heap < HEAPS_MAX) {
        struct facts_heap *out = &exam->facts->heaps[heap];
        snprintf(out->version, sizeof(out->version), "%s", exam->facts->go.version);
        claim(exam, state, heap);
    }
}

// ---- looking ------------------------------------------------------------------------------------

uint64_t go_bias(const struct exam *exam, const struct go_file *file)
{
    const struct facts_process *process = &exam->facts->process;
    for (size_t i = 0; i < exam->vmas_count && file->is_pie; i++) {
        const struct vma *vma = &exam->vmas[i];
        if (vma->offset == 0 && process->exe[0] != '\0' && strcmp(vma->path, process->exe) == 0) {
            return vma->start - file->first_addr;
        }
    }
    return 0;
}

static uint64_t dwarf_budget(const struct exam *exam)
{
    uint64_t spent = clock_thread_cpu_ns() + exam->reserve_ns;
    uint64_t left = exam->deadline_ns > spent ? exam->deadline_ns - spent : 0;
    return exam->options->exact ? DWARF_BYTES_MAX
                                : min_u64(DWARF_BYTES_MAX, left / NS_PER_US * DWARF_BYTES_PER_US);
}

// memory_read reads what the layout leads to, and says how it went.
static void memory_read(struct exam *exam, struct go_state *state, uint64_t begun)
{
    struct facts_go *go = &exam->facts->go;
    go->memory_known = go_stats_read(exam, &state->layout, go);
    state->heap_meta_bytes = go_heap_meta_read(exam, &state->layout);
    if (go->memory_known) {
        source_end(exam, SOURCE_GO, begun, SOURCE_READ,
                   state->partly
                       ? "in part: memory contradicts some of what is known of its version"
                       : NULL);
    } else {
        source_end(exam, SOURCE_GO, begun, SOURCE_BROKEN, "its counters contradict each other");
    }
}

// What is known of the version costs little; DWARF tells of other versions too, and of those that
// say to be one of these.
static bool layout_find(const struct exam *exam, struct go_state *state, const char **first,
                        const char **why)
{
    static struct go_layout known;
    known.minor = state->layout.minor;
    enum go_trust trust = go_known_layout(exam, &state->file, &state->pcln, &known, first);
    if (trust != GO_TRUST_ALL &&
        go_layout_make(&state->file, state->bias, dwarf_budget(exam), &state->layout, why)) {
        return true;
    }
    state->layout = known;
    state->partly = trust == GO_TRUST_SOME;
    return trust != GO_TRUST_NONE;
}

static void look(struct exam *exam, struct go_state *state)
{
    uint64_t begun = source_begin();
    struct facts_go *go = &exam->facts->go;
    const char *first = "";
    const char *why = "";
    uint64_t probe;
    state->bias = go_bias(exam, &state->file);
    state->layout.minor = go->minor;
    // Who may open the file and list mappings may still not read memory: Yama.
    long error = exam_read(exam, &probe, state->file.first_addr + state->bias, sizeof(probe));
    if (error != 0) {
        source_error(exam, SOURCE_GO, begun, error);
        return;
    }
    go_pcln_file(&state->pcln, &state->file, state->bias, exam);
    if (!layout_find(exam, state, &first, &why)) {
        source_end(exam, SOURCE_GO, begun, SOURCE_ABSENT, "%s; %s", first, why);
        return;
    }
    go_pcln_module(&state->pcln, exam, &state->layout);
    memory_read(exam, state, begun);
    if (go->memory_known && exam->error == DOCTOR_OK) {
        go->layout = state->layout;
        go->timers_known = go_timers_read(exam, &state->layout, &go->timers_count);
    }
}

void evidence_go(struct exam *exam)
{
    if (!exam->facts->go.is_go) {
        return;
    }
    exam->go = calloc(1, sizeof(*exam->go));
    if (exam->go == NULL) {
        return;
    }
    if (!go_file_open(&exam->go->file, elf_open(exam, "exe"))) {
        free(exam->go); // it could be opened a moment ago: it has ended, as the next source says
        exam->go = NULL;
        return;
    }
    look(exam, exam->go);
    const struct go_layout *layout = exam->facts->go.memory_known ? &exam->go->layout : NULL;
    exam->facts->go.madvise_free = releases_lazily(exam, layout);
    heap_claim(exam, exam->go);
}

void go_free(struct exam *exam)
{
    if (exam->go != NULL) {
        go_pcln_close(&exam->go->pcln);
        go_file_close(&exam->go->file);
        free(exam->go);
        exam->go = NULL;
    }
}

// ---- dividing -----------------------------------------------------------------------------------

static int vma_compare(const void *a, const void *b)
{
    const struct vma *x = *(struct vma *const *)a;
    const struct vma *y = *(struct vma *const *)b;
    return x->resident_bytes > y->resident_bytes ? 1 : x->resident_bytes < y->resident_bytes;
}

// tables_claim moves other anonymous mappings to the heap, smallest first, as far as the runtime
// accounts for them.
static void tables_claim(struct exam *exam, size_t heap, uint64_t room_bytes)
{
    struct facts_pages *pages = &exam->facts->pages;
    struct vma **others = malloc((exam->vmas_count + 1) * sizeof(*others));
    size_t count = 0;
    if (others == NULL) {
        return;
    }
    for (size_t i = 0; i < exam->vmas_count; i++) {
        struct vma *vma = &exam->vmas[i];
        if (vma->place == PLACE_NATIVE && vma_is_anonymous(vma) && vma->resident_bytes != 0) {
            others[count++] = vma;
        }
    }
    qsort(others, count, sizeof(*others), vma_compare);
    for (size_t i = 0; i < count && others[i]->resident_bytes <= room_bytes; i++) {
        uint64_t bytes = others[i]->resident_bytes;
        room_bytes -= bytes;
        vma_claim(exam, others[i], heap);
        pages->resident_bytes[PLACE_NATIVE] -= min_u64(bytes, pages->resident_bytes[PLACE_NATIVE]);
        pages->resident_bytes[PLACE_HEAP] += bytes;
        exam->facts->heaps[heap].resident_bytes += bytes;
    }
    free(others);
}

void go_divide(const struct facts_go *go, const struct facts_pages *pages, uint64_t arenas_bytes,
               uint64_t heap_meta_bytes, struct facts_heap *heap)
{
    uint64_t left = arenas_bytes;
    uint64_t idle = go->heap_idle_bytes;
    uint64_t kept = idle - min_u64(idle, go->heap_released_bytes);
    uint64_t pinned = go->heap_inuse_bytes - min_u64(go->heap_inuse_bytes, go->heap_live_bytes);
    uint64_t used = go->heap_inuse_bytes + go->stacks_bytes + heap_meta_bytes + kept;
    uint64_t tables = heap->resident_bytes - min_u64(heap->resident_bytes, arenas_bytes);
    uint64_t lazy = 0;
    if (go->madvise_free) {
        lazy = pages->lazyfree_known ? pages->lazyfree_bytes
                                     : arenas_bytes - min_u64(arenas_bytes, used);
    }
    heap->divided = true;
    heap->error_bytes = pages->lazyfree_error_bytes;
    heap->meta_bytes = tables + take_u64(&left, heap_meta_bytes);
    heap->lazy_bytes = take_u64(&left, min_u64(lazy, go->heap_released_bytes));
    heap->live_bytes = take_u64(&left, go->heap_live_bytes + go->stacks_bytes);
    heap->pinned_bytes = take_u64(&left, pinned);
    heap->kept_bytes = take_u64(&left, kept);
    heap->released_bytes = go->heap_released_bytes;
    heap->arenas_count = 1;
}

void evidence_go_divide(struct exam *exam)
{
    struct facts *facts = exam->facts;
    struct facts_heap *heap = facts_heap(facts, HEAP_GO);
    const struct facts_go *go = &facts->go;
    uint64_t arenas = 0;
    if (heap == NULL || exam->go == NULL || !go->memory_known) {
        return;
    }
    size_t index = (size_t)(heap - facts->heaps);
    for (size_t i = 0; i < exam->vmas_count; i++) {
        const struct vma *vma = &exam->vmas[i];
        if (vma->place == PLACE_HEAP && vma->heap == index && in_ranges(exam->go, vma->start)) {
            arenas += vma->resident_bytes - vma->file_bytes;
        }
    }
    uint64_t heap_own = go->heap_sys_bytes + go->stacks_bytes + exam->go->heap_meta_bytes;
    uint64_t named = heap->resident_bytes - arenas;
    uint64_t room = go->sys_bytes - min_u64(go->sys_bytes, heap_own);
    // A few tables are not in Sys, among them the list of arenas.
    tables_claim(exam, index, room + MIB - min_u64(room, named));
    go_divide(go, &facts->pages, arenas, exam->go->heap_meta_bytes, heap);
    go_routines_read(exam, &exam->go->layout, &exam->go->pcln);
    go_profile_read(exam, &exam->go->layout, &exam->go->pcln);
}
