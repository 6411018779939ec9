// SPDX-License-Identifier: MIT
//
// Doctor, evidence of glibc's malloc: its arenas and mapped blocks, and how much of them is in use.
//
// Model
//   Claim: [heap]; each multiple of 64 MiB that begins with a plausible heap_info; anonymous
//   mappings that begin with the header of a mapped block. What another allocator has claimed
//   before stays its own.
//   Division: every chunk is walked where the time suffices. Else WINDOWS pieces of 256 KiB stand
//   for the whole, with the interval that goes with it. They lie where resident pages of the sample
//   do that was taken when pages were counted, at even distances in it: so a piece is looked at as
//   likely as it has pages, each counts as much as any other, and a heap that was trimmed is not
//   mistaken for its holes.
//
// Go       none.
// Tests    test/system/doctor.py
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "glibc.h"
#include "os/clock.h"

// Nearly all of it is the kernel's copying of memory that is in no cache.
#define WALK_COST_NS_PER_MIB (UINT64_C(900) * NS_PER_US)
// A MiB without pages: the kernel is asked, and that is all.
#define EMPTY_COST_NS_PER_MIB (UINT64_C(4) * NS_PER_US)
// So many are made sure of; more as long as a quarter of the time is left: arenas differ.
#define WINDOWS_KEPT 64
#define WINDOWS 192
// Fewer tell nothing.
#define WINDOWS_MIN 16
// Has no divisor with WINDOWS: in steps of it any start of the row is spread over the whole.
#define WINDOWS_STRIDE 37
#define WINDOW_COST_NS (UINT64_C(300) * NS_PER_US)
#define WINDOWS_COST_NS (WINDOWS_KEPT * WINDOW_COST_NS)
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

// The search for arenas and blocks leaves a quarter of the time to the division.
static bool claim_affords(const struct exam *exam)
{
    return exam_affords(exam, exam->options->budget_ns / 4);
}

// ---- the state of arenas ------------------------------------------------------------------------

static bool is_brk(const struct vma *vma)
{
    return strcmp(vma->path, "[heap]") == 0;
}

static bool in_brk(const struct exam *exam, uint64_t addr)
{
    const struct vma *vma = vma_at(exam, addr);
    return vma != NULL && is_brk(vma);
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

// Looks for a state in one mapping of libc's variables; `most` is how many empty bins it must beat.
static uint64_t state_find(const struct exam *exam, const struct vma *vma, size_t *most)
{
    uint64_t found = 0;
    uint64_t bytes = vma->end - vma->start;
    uint64_t *words = calloc(1, bytes);
    for (uint64_t at = 0; words != NULL && at < bytes; at += PAGE_READ_BYTES) {
        (void)exam_peek(exam, words + at / 8, vma->start + at, PAGE_READ_BYTES);
    }
    for (uint64_t at = 0; words != NULL && at + GLIBC_STATE_BYTES <= bytes; at += 8) {
        if (at % PAGE_READ_BYTES == 0 && !claim_affords(exam)) {
            break;
        }
        size_t empty = state_empty(exam, vma->start + at, words + at / 8);
        found = empty > *most ? vma->start + at : found;
        *most = max_size(*most, empty);
    }
    free(words);
    return found;
}

// main_find looks for the first arena's state in libc's variables; 0 if there is none.
static uint64_t main_find(const struct exam *exam, const struct vma *libc)
{
    uint64_t found = 0;
    size_t most = BINS_EMPTY_MIN;
    for (size_t i = 0; i < exam->vmas_count && claim_affords(exam); i++) {
        const struct vma *vma = &exam->vmas[i];
        uint64_t bytes = vma->end - vma->start;
        if (strcmp(vma->path, libc->path) == 0 && vma->perms[1] == 'w' && bytes <= MIB &&
            bytes >= GLIBC_STATE_BYTES) {
            uint64_t better = state_find(exam, vma, &most);
            found = better != 0 ? better : found;
        }
    }
    return found;
}

// A chunk that is larger than all address space is none: its end would lie before its start.
static void large_add(struct glibc_heap *heap, uint64_t start, uint64_t bytes)
{
    if (heap->large_count < GLIBC_LARGE_MAX && bytes >= GLIBC_WINDOW_BYTES &&
        bytes < UINT64_MAX - start) {
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
        if (*steps % 256 == 0 && !exam_affords(exam, WINDOWS_COST_NS)) {
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

static int by_address(const void *a, const void *b)
{
    const struct glibc_large *left = a;
    const struct glibc_large *right = b;
    return left->start < right->start ? -1 : left->start > right->start;
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
    qsort(heap->large, heap->large_count, sizeof(heap->large[0]), by_address);
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

static int by_start(const void *a, const void *b)
{
    const struct glibc_range *left = a;
    const struct glibc_range *right = b;
    return left->start < right->start ? -1 : left->start > right->start;
}

const struct glibc_range *glibc_range_behind(const struct glibc_heap *heap, uint64_t addr)
{
    size_t low = 0;
    size_t high = heap->ranges_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (heap->ranges[middle].end <= addr) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < heap->ranges_count ? &heap->ranges[low] : NULL;
}

// An arena's heap at each multiple of 64 MiB: neighbours may share a mapping. From the top down,
// where the kernel puts them: the terabytes that a sanitizer reserves lie lower.
static void arenas_find(struct exam *exam, struct glibc_heap *heap)
{
    for (size_t i = exam->vmas_count; i-- > 0 && !heap->cut;) {
        const struct vma *vma = &exam->vmas[i];
        if (!vma_is_anonymous(vma) || vma->place == PLACE_HEAP || is_brk(vma)) {
            continue;
        }
        for (uint64_t at = align_up(vma->start, GLIBC_HEAP_BYTES); at < vma->end && !heap->cut;
             at += GLIBC_HEAP_BYTES) {
            struct heap_info info;
            heap->cut = !claim_affords(exam);
            if (exam_peek(exam, &info, at, sizeof(info)) == 0 && info_holds(&info, at)) {
                uint64_t first = info.previous == 0 ? info.arena + GLIBC_STATE_BYTES : at + 32;
                state_add(heap, info.arena);
                (void)range_add(heap, first, at + info.size, false);
            }
        }
    }
}

uint64_t glibc_mapped_bytes(const struct exam *exam, uint64_t addr, uint64_t end)
{
    uint64_t chunk[2];
    if (addr >= end || exam_peek(exam, chunk, addr, sizeof(chunk)) != 0) {
        return 0;
    }
    uint64_t size = chunk[1] & ~GLIBC_FLAGS;
    bool holds = (chunk[1] & GLIBC_FLAGS) == GLIBC_MMAPPED && chunk[0] == 0 &&
                 size % (4 * KIB) == 0 && size <= end - addr;
    return holds ? size : 0;
}

// Mapped blocks: one header after the other from the start of a mapping on.
static uint64_t mapped_blocks_end(const struct exam *exam, struct glibc_heap *heap,
                                  const struct vma *vma)
{
    uint64_t at = vma->start;
    for (uint64_t bytes = 1; bytes != 0 && !heap->cut; at += bytes) {
        heap->cut = !claim_affords(exam);
        bytes = heap->cut ? 0 : glibc_mapped_bytes(exam, at, vma->end);
    }
    return at;
}

static void claim_all(struct exam *exam, struct glibc_heap *heap, size_t index)
{
    for (size_t i = 0; i < heap->ranges_count; i++) {
        const struct glibc_range *range = &heap->ranges[i];
        if (!exam_affords(exam, 0)) {
            heap->cut = true;
            return;
        }
        claim(exam, range->main ? range->start : align_down(range->start, 4 * KIB), range->end,
              index);
    }
    for (size_t i = 0; i < exam->vmas_count && !heap->cut; i++) {
        struct vma *vma = &exam->vmas[i];
        uint64_t end = claimable(vma) ? mapped_blocks_end(exam, heap, vma) : 0;
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

// libc_open opens libc's file by the kernel's link to what is mapped, which holds after an upgrade
// too. Only root may do that.
static int libc_open(const struct exam *exam, const struct vma *libc)
{
    char name[64];
    snprintf(name, sizeof(name), "map_files/%lx-%lx", libc->start, libc->end);
    int fd = elf_open(exam, name);
    return fd < 0 ? elf_open(exam, libc->path) : fd;
}

// version_read looks into libc's file, because pages of it that are not resident would be if they
// were read in the process.
static void version_read(const struct exam *exam, const struct vma *libc, char *version, size_t cap)
{
    int fd = libc_open(exam, libc);
    char *text = malloc(LIBC_PIECE_BYTES + 1);
    size_t kept = 0;
    for (size_t done = 0; fd >= 0 && text != NULL && done < LIBC_BYTES_MAX;) {
        ssize_t got = read(fd, text + kept, LIBC_PIECE_BYTES - kept);
        size_t len = kept + (size_t)(got > 0 ? got : 0);
        text[len] = '\0';
        if (got <= 0 || version_of(text, len, version, cap)) {
            break;
        }
        // What the end of a piece may have cut comes first in the next one.
        kept = min_size(len, 64);
        memmove(text, text + len - kept, kept);
        done += (size_t)got;
    }
    free(text);
    if (fd >= 0) {
        close(fd);
    }
}

static const struct vma *libc_find(const struct exam *exam)
{
    // Older ones are called libc-2.31.so; a static program has none.
    const struct vma *libc = vma_named(exam, "libc.so");
    return libc != NULL ? libc : vma_named(exam, "libc-2");
}

static void found_note(struct exam *exam, const struct glibc_heap *heap, uint64_t begun)
{
    if (heap->cut) {
        source_end(exam, SOURCE_GLIBC, begun, SOURCE_LEFT,
                   "some of its arenas and mapped blocks: the time was up");
    } else {
        source_end(exam, SOURCE_GLIBC, begun, SOURCE_READ, NULL);
    }
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
        if (is_brk(vma) && vma->place == PLACE_NATIVE) {
            (void)range_add(heap, vma->start, vma->end, true);
        }
    }
    uint64_t first = main_find(exam, libc);
    if (first != 0) {
        state_add(heap, first);
    }
    heap->main_known = first != 0;
    arenas_find(exam, heap);
    if (heap->ranges_count != 0) {
        qsort(heap->ranges, heap->ranges_count, sizeof(*heap->ranges), by_start);
    }
    claim_all(exam, heap, index);
    if (index < HEAPS_MAX) {
        struct facts_heap *out = &exam->facts->heaps[index];
        snprintf(out->version, sizeof(out->version), "%s", version);
        out->arenas_count = heap->states_count;
    }
    exam->glibc = heap;
    found_note(exam, heap, begun);
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
    uint64_t chunks_count, looked_bytes;
    double kept_squares; // of the kept share, window by window
    size_t windows;      // in which something was seen
    bool whole;          // every chunk was walked
};

static uint64_t scaled(uint64_t part, uint64_t seen, uint64_t whole)
{
    return seen == 0 ? 0 : (uint64_t)((double)part / (double)seen * (double)whole);
}

static struct glibc_sums *sums_of(struct division *division, const struct glibc_range *range)
{
    return range->main ? &division->main : &division->others;
}

static bool walk_all(struct exam *exam, const struct glibc_heap *heap, uint64_t keep_ns,
                     struct division *division)
{
    bool readable = true;
    for (size_t i = 0; i < heap->ranges_count && readable; i++) {
        const struct glibc_range *range = &heap->ranges[i];
        readable = glibc_walk(exam, heap, range, keep_ns, sums_of(division, range));
    }
    const struct glibc_sums *main = &division->main;
    const struct glibc_sums *others = &division->others;
    division->chunks_count = main->chunks_count + others->chunks_count;
    division->looked_bytes =
        main->seen_bytes + main->lost_bytes + others->seen_bytes + others->lost_bytes;
    return readable;
}

// The pages of the sample that lie in arenas, by address; the caller frees. NULL without memory.
static uint64_t *pages_find(const struct exam *exam, const struct glibc_heap *heap, size_t *count)
{
    uint64_t *pages = malloc((exam->anonymous.count + 1) * sizeof(*pages));
    *count = 0;
    for (size_t i = 0; i < exam->anonymous.count && pages != NULL; i++) {
        uint64_t page = exam->anonymous.addrs[i];
        const struct glibc_range *range = glibc_range_behind(heap, page);
        if (range != NULL && align_down(range->start, 4 * KIB) <= page) {
            pages[(*count)++] = page;
        }
    }
    return pages;
}

// Adds the window that a page lies in.
static bool window_add(struct exam *exam, const struct glibc_heap *heap, uint64_t page,
                       struct division *division)
{
    const struct glibc_range *range = glibc_range_behind(heap, page);
    uint64_t start = max_u64(align_down(page, GLIBC_WINDOW_BYTES), range->start);
    struct glibc_sums one = {0};
    struct glibc_sums *sums = sums_of(division, range);
    bool readable = glibc_window(exam, heap, range, start, &one);
    uint64_t whole = one.seen_bytes + one.lost_bytes;
    if (whole != 0) {
        sums->kept_bytes += scaled(one.kept_bytes, whole, GLIBC_WINDOW_BYTES);
        sums->pinned_bytes += scaled(one.pinned_bytes, whole, GLIBC_WINDOW_BYTES);
        sums->seen_bytes += scaled(one.seen_bytes, whole, GLIBC_WINDOW_BYTES);
        sums->lost_bytes += scaled(one.lost_bytes, whole, GLIBC_WINDOW_BYTES);
        double share = (double)one.kept_bytes / (double)whole;
        division->kept_squares += share * share;
        division->chunks_count += one.chunks_count;
        division->looked_bytes += whole;
        division->windows++;
    }
    return readable;
}

// The first few whatever the time: without them all that was looked at before says nothing.
static bool window_affords(const struct exam *exam, size_t tried)
{
    return tried < WINDOWS_MIN ||
           (tried < WINDOWS_KEPT ? exam_affords(exam, WINDOW_COST_NS) : claim_affords(exam));
}

static bool walk_windows(struct exam *exam, const struct glibc_heap *heap, size_t windows,
                         struct division *division)
{
    size_t count;
    uint64_t *pages = pages_find(exam, heap, &count);
    windows = min_size(windows, count);
    size_t tried = 0;
    bool readable = pages != NULL;
    for (size_t k = 0; k < WINDOWS && readable && window_affords(exam, tried); k++) {
        size_t i = k * WINDOWS_STRIDE % WINDOWS;
        if (i < windows) {
            tried++;
            readable = window_add(exam, heap, pages[(2 * i + 1) * count / (2 * windows)], division);
        }
    }
    free(pages);
    return readable;
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
    uint64_t free_bytes = out->kept_bytes + out->pinned_bytes;
    out->live_bytes = out->resident_bytes - min_u64(out->resident_bytes, free_bytes);
    out->divided = true;
    if (division->windows != 0) {
        double n = (double)division->windows;
        double share = (double)(division->main.kept_bytes + division->others.kept_bytes) /
                       (n * (double)GLIBC_WINDOW_BYTES);
        double variance = division->kept_squares / n - share * share;
        double half = 1.96 * sqrt((variance > 0 ? variance : 0) / n) + 1 / n;
        out->error_bytes = (uint64_t)(half * (double)(main + others));
    }
    heap->chunks_count = scaled(division->chunks_count, division->looked_bytes, main + others);
    snprintf(out->note, sizeof(out->note), "%llu chunks looked at%s.",
             (unsigned long long)division->chunks_count,
             division->windows != 0 ? ", a sample" : "");
}

// Walks all chunks if there is time, else windows. False if its memory cannot be read.
static bool division_make(struct exam *exam, struct glibc_heap *heap, struct division *division)
{
    uint64_t resident = arena_bytes(exam, heap, true) + arena_bytes(exam, heap, false);
    uint64_t range_bytes = 0;
    for (size_t i = 0; i < heap->ranges_count; i++) {
        range_bytes += heap->ranges[i].end - heap->ranges[i].start;
    }
    size_t windows = (size_t)min_u64(resident / GLIBC_WINDOW_BYTES, WINDOWS);
    uint64_t keep_ns = (min_size(windows, WINDOWS_KEPT) + 1) * WINDOW_COST_NS;
    uint64_t begun_ns = clock_thread_cpu_ns();
    heap->walk_ns =
        resident / MIB * WALK_COST_NS_PER_MIB + range_bytes / MIB * EMPTY_COST_NS_PER_MIB;
    if (exam_affords(exam, heap->walk_ns + keep_ns) && walk_all(exam, heap, keep_ns, division)) {
        heap->walk_ns = clock_thread_cpu_ns() - begun_ns;
        division->whole = true;
        return true;
    }
    *division = (struct division){0};
    glibc_states_read(exam, heap);
    return walk_windows(exam, heap, windows, division);
}

void evidence_glibc_divide(struct exam *exam)
{
    uint64_t begun = source_begin();
    struct glibc_heap *heap = exam->glibc;
    struct facts_heap *out = facts_heap(exam->facts, HEAP_GLIBC);
    struct division division = {0};
    if (heap == NULL || out == NULL || !exam->scans) {
        return;
    }
    bool readable = division_make(exam, heap, &division);
    uint64_t lost = division.main.lost_bytes + division.others.lost_bytes;
    uint64_t seen = division.main.seen_bytes + division.others.seen_bytes;
    if (!readable) {
        source_end(exam, SOURCE_GLIBC, begun, SOURCE_BROKEN, "its memory could not be read");
    } else if (!division.whole && division.windows < WINDOWS_MIN) {
        source_end(exam, SOURCE_GLIBC, begun, SOURCE_LEFT, "its chunks: %s",
                   exam_affords(exam, WINDOW_COST_NS) ? "too few pages of it were in the sample"
                                                      : "the time was up");
    } else if (!heap->main_known && lost > seen / LOST_SHARE_MAX) {
        source_end(exam, SOURCE_GLIBC, begun, SOURCE_BROKEN,
                   "no chain of chunks in %llu of %llu KiB", (unsigned long long)(lost / KIB),
                   (unsigned long long)((lost + seen) / KIB));
    } else {
        division_note(exam, heap, &division, out);
        found_note(exam, heap, begun);
    }
}
