// SPDX-License-Identifier: MIT
//
// Doctor, evidence of glibc's malloc: its arenas and mapped blocks, and how much of them is in use.
//
// Model
//   Claim: [heap]; each multiple of 64 MiB that begins with a plausible heap_info; anonymous
//   mappings that begin with the header of a mapped block. What another allocator has claimed
//   before stays its own.
//   Division: up to WALK_BYTES every chunk is walked. Beyond, WINDOWS pieces of 256 KiB, spread
//   evenly over what is resident, stand for the whole, with the interval that goes with it.
//
// Go       none.
// Tests    test/system/doctor.py
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "glibc.h"

#define WALK_BYTES (160 * MIB)
#define WALK_COST_NS_PER_MIB (UINT64_C(400) * NS_PER_US)
#define WINDOWS 64
#define WINDOW_COST_NS (UINT64_C(300) * NS_PER_US)
// Mappings are whole pages of any kernel's.
#define PAGE_READ_BYTES (4 * KIB)
// The words with the version stand among libc's constants.
#define LIBC_PIECE_BYTES (256 * KIB)
#define LIBC_BYTES_MAX (8 * MIB)
// More than a third without a chain of chunks: this is no heap of glibc's, or it is in turmoil.
#define LOST_SHARE_MAX 3
// Of 127 bins some are empty even in a heap in turmoil: those of sizes nobody asks for.
#define BINS_EMPTY_MIN 8

// As glibc has it at the start of each heap but the first arena's.
struct heap_info {
    uint64_t arena, previous, size, mprotect_size;
};

// ---- the state of arenas ------------------------------------------------------------------------

static bool in_brk(const struct exam *exam, uint64_t addr)
{
    const struct vma *vma = vma_at(exam, addr);
    return vma != NULL && strcmp(vma->path, "[heap]") == 0;
}

// state_empty returns how many bins of a struct malloc_state at addr are empty, which then point at
// themselves; 0 if words are no such struct: its top ends where a page does, its bins form rings.
static size_t state_empty(const struct exam *exam, uint64_t addr, const uint64_t *words)
{
    uint64_t top = words[GLIBC_STATE_TOP / 8];
    uint64_t head;
    size_t empty = 0;
    if (top % GLIBC_ALIGN != 0 || !in_brk(exam, top) ||
        exam_read(exam, &head, top + 8, sizeof(head)) != 0 ||
        (top + (head & ~GLIBC_FLAGS)) % (4 * KIB) != 0) {
        return 0;
    }
    for (size_t i = 0; i < GLIBC_BINS; i++) {
        uint64_t own = addr + GLIBC_STATE_BINS + 16 * i - 16;
        uint64_t forward = words[GLIBC_STATE_BINS / 8 + 2 * i];
        uint64_t back = words[GLIBC_STATE_BINS / 8 + 2 * i + 1];
        if ((forward == own) != (back == own) || forward % GLIBC_ALIGN != 0) {
            return 0;
        }
        empty += forward == own;
    }
    return empty;
}

uint64_t glibc_main_find(struct exam *exam)
{
    uint64_t found = 0;
    size_t most = BINS_EMPTY_MIN;
    for (size_t i = 0; i < exam->vmas_count; i++) {
        const struct vma *vma = &exam->vmas[i];
        const char *name = strrchr(vma->path, '/');
        bool libc = name != NULL && strncmp(name, "/libc", 5) == 0 && vma->perms[1] == 'w';
        uint64_t bytes = vma->end - vma->start;
        if (!libc || bytes > MIB || bytes < GLIBC_STATE_BYTES) {
            continue;
        }
        uint64_t *words = calloc(1, bytes);
        for (uint64_t at = 0; words != NULL && at < bytes; at += PAGE_READ_BYTES) {
            (void)exam_peek(exam, (char *)words + at, vma->start + at, PAGE_READ_BYTES);
        }
        bytes = words != NULL ? bytes : 0;
        for (uint64_t at = 0; at + GLIBC_STATE_BYTES <= bytes; at += 8) {
            size_t empty = state_empty(exam, vma->start + at, words + at / 8);
            found = empty > most ? vma->start + at : found;
            most = max_size(most, empty);
        }
        free(words);
    }
    return found;
}

static void large_add(struct glibc_heap *heap, uint64_t start, uint64_t bytes)
{
    if (heap->large_count < GLIBC_LARGE_MAX && bytes >= GLIBC_WINDOW_BYTES) {
        heap->large[heap->large_count++] = (struct glibc_large){start, start + bytes};
    }
}

// Walks one ring of free chunks, by a bounded number of steps.
static void bin_walk(const struct exam *exam, struct glibc_heap *heap, uint64_t own, uint64_t first,
                     size_t *steps)
{
    uint64_t chunk[4]; // size of the one before, size, forward, back
    for (uint64_t at = first; at != own && *steps > 0; at = chunk[2]) {
        (*steps)--;
        if (*steps % 256 == 0 && !exam_affords(exam, WINDOWS * WINDOW_COST_NS)) {
            *steps = 0;
            return;
        }
        // Where nothing is swapped out a header is resident.
        long error = exam->facts->process.swap_bytes == 0
                         ? exam_read(exam, chunk, at, sizeof(chunk))
                         : exam_peek(exam, chunk, at, sizeof(chunk));
        if (error != 0 || chunk[2] % GLIBC_ALIGN != 0) {
            return;
        }
        large_add(heap, at, chunk[1] & ~GLIBC_FLAGS);
    }
}

void glibc_states_read(struct exam *exam, struct glibc_heap *heap)
{
    uint64_t words[GLIBC_STATE_BYTES / 8];
    // Bins 125 and 126 have chunks from 256 KiB on, bin 1 what is not sorted yet.
    static const size_t bins[] = {126, 125, 1};
    size_t steps = GLIBC_LARGE_MAX;
    for (size_t i = 0; i < heap->states_count; i++) {
        uint64_t state = heap->states[i];
        uint64_t head;
        if (exam_read(exam, words, state, sizeof(words)) != 0) {
            continue;
        }
        uint64_t top = words[GLIBC_STATE_TOP / 8];
        if (exam_read(exam, &head, top + 8, sizeof(head)) == 0) {
            large_add(heap, top, head & ~GLIBC_FLAGS);
        }
        for (size_t k = 0; k < ARRAY_COUNT(bins); k++) {
            uint64_t own = state + GLIBC_STATE_BINS + 16 * (bins[k] - 1) - 16;
            bin_walk(exam, heap, own, words[GLIBC_STATE_BINS / 8 + 2 * (bins[k] - 1)], &steps);
        }
    }
}

// ---- claim --------------------------------------------------------------------------------------

static void state_add(struct glibc_heap *heap, uint64_t addr)
{
    for (size_t i = 0; i < heap->states_count; i++) {
        if (heap->states[i] == addr) {
            return;
        }
    }
    if (heap->states_count < ARRAY_COUNT(heap->states)) {
        heap->states[heap->states_count++] = addr;
    }
}

static bool range_add(struct glibc_heap *heap, uint64_t start, uint64_t end, bool main)
{
    if (heap->ranges_count == heap->ranges_cap) {
        size_t cap = heap->ranges_cap == 0 ? 64 : 2 * heap->ranges_cap;
        struct glibc_range *ranges = realloc(heap->ranges, cap * sizeof(*ranges));
        if (ranges == NULL) {
            return false;
        }
        heap->ranges = ranges;
        heap->ranges_cap = cap;
    }
    heap->ranges[heap->ranges_count++] = (struct glibc_range){start, end, main};
    return true;
}

static bool info_holds(const struct heap_info *info, uint64_t at)
{
    uint64_t own = info->arena - at;
    bool first = own >= sizeof(*info) && own <= 256 && info->previous == 0;
    bool later = info->previous != 0 && info->previous % GLIBC_HEAP_BYTES == 0 &&
                 info->arena % 8 == 0 && info->arena != 0;
    return (first || later) && info->size != 0 && info->size % (4 * KIB) == 0 &&
           info->size <= info->mprotect_size && info->mprotect_size <= GLIBC_HEAP_BYTES;
}

static bool claimable(const struct vma *vma)
{
    return vma->place == PLACE_NATIVE && vma_is_anonymous(vma);
}

// Claims [start, end), cutting what it shares a mapping with off.
static void claim(struct exam *exam, uint64_t start, uint64_t end, size_t index)
{
    if (!vma_cut(exam, start) || !vma_cut(exam, end)) {
        return;
    }
    const struct vma *last = exam->vmas + exam->vmas_count;
    for (struct vma *vma = vma_at(exam, start); vma != NULL && vma < last && vma->start < end;
         vma++) {
        if (vma->place == PLACE_NATIVE || vma->place == PLACE_STACK) {
            vma_claim(exam, vma, index);
        }
    }
}

// An arena's heap at each multiple of 64 MiB: neighbours may share a mapping.
static void arenas_find(struct exam *exam, struct glibc_heap *heap)
{
    for (size_t i = 0; i < exam->vmas_count; i++) {
        const struct vma *vma = &exam->vmas[i];
        if (!vma_is_anonymous(vma) || vma->place == PLACE_HEAP) {
            continue;
        }
        for (uint64_t at = align_up(vma->start, GLIBC_HEAP_BYTES); at < vma->end;
             at += GLIBC_HEAP_BYTES) {
            struct heap_info info;
            if (exam_peek(exam, &info, at, sizeof(info)) == 0 && info_holds(&info, at)) {
                uint64_t first = info.previous == 0 ? info.arena + GLIBC_STATE_BYTES : at + 32;
                state_add(heap, info.arena);
                (void)range_add(heap, first, at + info.size, false);
            }
        }
    }
}

// Mapped blocks: one header after the other from the start of a mapping on.
static uint64_t mapped_blocks_end(const struct exam *exam, const struct vma *vma)
{
    uint64_t at = vma->start;
    uint64_t chunk[2];
    while (at < vma->end && exam_peek(exam, chunk, at, sizeof(chunk)) == 0) {
        uint64_t size = chunk[1] & ~GLIBC_FLAGS;
        if ((chunk[1] & GLIBC_FLAGS) != GLIBC_MMAPPED || chunk[0] != 0 || size == 0 ||
            size % (4 * KIB) != 0 || size > vma->end - at) {
            break;
        }
        at += size;
    }
    return at;
}

static void claim_all(struct exam *exam, struct glibc_heap *heap, size_t index)
{
    for (size_t i = 0; i < heap->ranges_count; i++) {
        const struct glibc_range *range = &heap->ranges[i];
        claim(exam, range->main ? range->start : align_down(range->start, 4 * KIB), range->end,
              index);
    }
    for (size_t i = 0; i < exam->vmas_count; i++) {
        struct vma *vma = &exam->vmas[i];
        uint64_t end = claimable(vma) ? mapped_blocks_end(exam, vma) : 0;
        if (end > vma->start) {
            claim(exam, exam->vmas[i].start, end, index);
        }
    }
}

// version_of writes "2.36" of a text that holds "stable release version 2.36"; false if it does
// not.
static bool version_of(const char *text, size_t len, char *version, size_t cap)
{
    static const char words[] = "stable release version ";
    const char *at = memmem(text, len, words, sizeof(words) - 1);
    if (at == NULL || (size_t)(text + len - at) < sizeof(words) + 8) {
        return false;
    }
    at += sizeof(words) - 1;
    snprintf(version, cap, "%.*s", (int)min_size(strspn(at, "0123456789."), cap - 1), at);
    size_t end = strlen(version);
    if (end != 0 && version[end - 1] == '.') {
        version[end - 1] = '\0';
    }
    return true;
}

// version_read looks into libc's file, because pages of it that are not resident would be if they
// were read in the process.
static void version_read(const struct exam *exam, const struct vma *libc, char *version, size_t cap)
{
    char path[PATH_MAX + 64];
    snprintf(path, sizeof(path), "/proc/%d/root%s", exam->facts->pid, libc->path);
    FILE *file = fopen(path, "re");
    char *text = malloc(LIBC_PIECE_BYTES);
    size_t kept = 0;
    for (size_t read = 0; file != NULL && text != NULL && read < LIBC_BYTES_MAX;) {
        size_t got = fread(text + kept, 1, LIBC_PIECE_BYTES - kept, file);
        size_t len = kept + got;
        if (got == 0 || version_of(text, len, version, cap)) {
            break;
        }
        // What the end of a piece may have cut comes first in the next one.
        kept = min_size(len, 64);
        memmove(text, text + len - kept, kept);
        read += got;
    }
    free(text);
    if (file != NULL) {
        fclose(file);
    }
}

static const struct vma *libc_find(const struct exam *exam)
{
    // Older ones are called libc-2.31.so; a static program has none.
    const struct vma *libc = vma_named(exam, "libc.so");
    return libc != NULL ? libc : vma_named(exam, "libc-2");
}

void evidence_glibc(struct exam *exam)
{
    uint64_t begun = source_begin();
    const struct vma *libc = libc_find(exam);
    struct glibc_heap *heap = libc != NULL ? calloc(1, sizeof(*heap)) : NULL;
    char version[16] = "";
    int minor = 0;
    if (heap == NULL) {
        return;
    }
    version_read(exam, libc, version, sizeof(version));
    (void)sscanf(version, "2.%d", &minor);
    heap->mangled = minor == 0 || minor >= 32;
    size_t index = heap_add(exam, HEAP_GLIBC);
    for (size_t i = 0; i < exam->vmas_count; i++) {
        const struct vma *vma = &exam->vmas[i];
        if (strcmp(vma->path, "[heap]") == 0 && vma->place == PLACE_NATIVE) {
            (void)range_add(heap, vma->start, vma->end, true);
        }
    }
    uint64_t first = glibc_main_find(exam);
    if (first != 0) {
        state_add(heap, first);
    }
    heap->main_known = first != 0;
    arenas_find(exam, heap);
    claim_all(exam, heap, index);
    if (index < HEAPS_MAX) {
        struct facts_heap *out = &exam->facts->heaps[index];
        snprintf(out->version, sizeof(out->version), "%s", version);
        out->arenas_count = heap->states_count;
    }
    exam->glibc = heap;
    source_end(exam, SOURCE_GLIBC, begun, SOURCE_READ, NULL);
}

void glibc_free(struct exam *exam)
{
    if (exam->glibc != NULL) {
        free(exam->glibc->ranges);
        free(exam->glibc);
    }
}

// ---- division -----------------------------------------------------------------------------------

// What all ranges of one kind add up to.
struct division {
    struct glibc_sums main, others;
    uint64_t range_bytes;
    double kept_squares; // of the kept share, window by window
    size_t windows;
};

static struct glibc_sums *sums_of(struct division *division, const struct glibc_range *range)
{
    return range->main ? &division->main : &division->others;
}

static bool walk_all(struct exam *exam, const struct glibc_heap *heap, struct division *division)
{
    bool readable = true;
    for (size_t i = 0; i < heap->ranges_count && readable; i++) {
        const struct glibc_range *range = &heap->ranges[i];
        readable = glibc_walk(exam, heap, range, sums_of(division, range));
    }
    return readable;
}

static bool walk_windows(struct exam *exam, const struct glibc_heap *heap,
                         struct division *division)
{
    bool readable = true;
    uint64_t step = max_u64(division->range_bytes / WINDOWS, GLIBC_WINDOW_BYTES);
    uint64_t skip = step / 2;
    for (size_t i = 0; i < heap->ranges_count && readable; i++) {
        const struct glibc_range *range = &heap->ranges[i];
        uint64_t at = align_up(range->start + skip, 4 * KIB);
        for (; at < range->end && readable; at += step) {
            struct glibc_sums one = {0};
            readable = glibc_window(exam, heap, range, at, &one);
            struct glibc_sums *sums = sums_of(division, range);
            sums->live_bytes += one.live_bytes;
            sums->kept_bytes += one.kept_bytes;
            sums->pinned_bytes += one.pinned_bytes;
            sums->seen_bytes += one.seen_bytes;
            sums->lost_bytes += one.lost_bytes;
            sums->chunks_count += one.chunks_count;
            double share =
                one.seen_bytes == 0 ? 0 : (double)one.kept_bytes / (double)one.seen_bytes;
            division->kept_squares += share * share;
            division->windows++;
        }
        skip = at > range->end ? at - range->end : 0;
    }
    return readable;
}

static uint64_t scaled(uint64_t part, uint64_t seen, uint64_t whole)
{
    return seen == 0 ? 0 : (uint64_t)((double)part / (double)seen * (double)whole);
}

// What of the resident bytes lies in arenas, and not in mapped blocks.
static uint64_t arena_bytes(const struct exam *exam, const struct glibc_heap *heap, bool main)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < heap->ranges_count; i++) {
        const struct glibc_range *range = &heap->ranges[i];
        const struct vma *last = exam->vmas + exam->vmas_count;
        if (range->main != main) {
            continue;
        }
        for (const struct vma *vma = vma_at(exam, range->start);
             vma != NULL && vma < last && vma->start < range->end; vma++) {
            bytes += vma->resident_bytes;
        }
    }
    return bytes;
}

static void part_add(struct facts_heap *out, const struct glibc_sums *sums, uint64_t resident)
{
    // Where no chain was found lies the inside of a large block in use.
    uint64_t seen = sums->seen_bytes + sums->lost_bytes;
    out->kept_bytes += scaled(sums->kept_bytes, seen, resident);
    out->pinned_bytes += scaled(sums->pinned_bytes, seen, resident);
}

static void division_note(struct exam *exam, struct glibc_heap *heap,
                          const struct division *division, struct facts_heap *out)
{
    uint64_t main = arena_bytes(exam, heap, true);
    uint64_t others = arena_bytes(exam, heap, false);
    part_add(out, &division->others, others);
    out->arenas_free_bytes = out->kept_bytes + out->pinned_bytes;
    part_add(out, &division->main, main);
    out->free_total_bytes = out->kept_bytes + out->pinned_bytes;
    out->live_bytes = out->resident_bytes - min_u64(out->resident_bytes, out->free_total_bytes);
    out->divided = true;
    if (division->windows > 1) {
        double n = (double)division->windows;
        uint64_t seen = division->main.seen_bytes + division->others.seen_bytes;
        double share =
            seen == 0
                ? 0
                : (double)(division->main.kept_bytes + division->others.kept_bytes) / (double)seen;
        double variance = division->kept_squares / n - share * share;
        double half = 1.96 * sqrt((variance > 0 ? variance : 0) / n) + 1 / n;
        out->error_bytes = (uint64_t)(half * (double)(main + others));
    }
    uint64_t chunks = division->main.chunks_count + division->others.chunks_count;
    heap->chunks_count =
        scaled(chunks, division->main.seen_bytes + division->others.seen_bytes, main + others);
    snprintf(out->note, sizeof(out->note), "%llu chunks looked at%s.", (unsigned long long)chunks,
             division->windows != 0 ? ", a sample" : "");
}

void evidence_glibc_divide(struct exam *exam)
{
    uint64_t begun = source_begin();
    const struct glibc_heap *heap = exam->glibc;
    struct facts_heap *out = facts_heap(exam->facts, HEAP_GLIBC);
    struct division division = {0};
    if (heap == NULL || out == NULL || !exam->scans) {
        return;
    }
    for (size_t i = 0; i < heap->ranges_count; i++) {
        division.range_bytes += heap->ranges[i].end - heap->ranges[i].start;
    }
    uint64_t resident = arena_bytes(exam, heap, true) + arena_bytes(exam, heap, false);
    bool whole =
        exam->options->exact ||
        (resident <= WALK_BYTES && exam_affords(exam, resident / MIB * WALK_COST_NS_PER_MIB));
    if (!whole && !exam_affords(exam, WINDOWS * WINDOW_COST_NS)) {
        source_end(exam, SOURCE_GLIBC, begun, SOURCE_LEFT, "its chunks: the time was up");
        return;
    }
    if (!whole) {
        glibc_states_read(exam, exam->glibc);
    }
    bool readable = whole ? walk_all(exam, heap, &division) : walk_windows(exam, heap, &division);
    uint64_t lost = division.main.lost_bytes + division.others.lost_bytes;
    uint64_t seen = division.main.seen_bytes + division.others.seen_bytes;
    if (!readable) {
        source_end(exam, SOURCE_GLIBC, begun, SOURCE_BROKEN, "its memory could not be read");
    } else if (!heap->main_known && lost > seen / LOST_SHARE_MAX) {
        source_end(exam, SOURCE_GLIBC, begun, SOURCE_BROKEN,
                   "no chain of chunks in %llu of %llu KiB", (unsigned long long)(lost / KIB),
                   (unsigned long long)((lost + seen) / KIB));
    } else {
        division_note(exam, exam->glibc, &division, out);
        source_end(exam, SOURCE_GLIBC, begun, SOURCE_READ, NULL);
    }
}
