// SPDX-License-Identifier: MIT
//
// Doctor, walking glibc's chunks from outside: which bytes of an arena are in use.
//
// Model
//   The memory is read in segments, resident pages only: to read a page that is not there would
//   bring it back. Where a chain of chunks begins is not known: it is looked for, an offset from
//   which a row of plausible headers follows. A chunk is free if the one behind it says so. Those
//   on fast bins say that they are in use; they are told by their link, which leads to another
//   chunk of the same arena.
//   A window in the middle has a trap: where neighbours were freed one after the other, the chunk
//   that they became still holds their old headers, which form a chain of their own. It ends where
//   the true one does, and there stands the size of the whole free chunk: so a window is read some
//   way beyond its end, and what turns out to have been inside of a free chunk is made free.
//   A page is kept if a free run covers it but for the 48 bytes of its header, as malloc_trim has
//   it; what is free on other pages is pinned.
//
// Locking
//   None. The program allocates meanwhile: a chain that breaks is looked for again.
//
// Flow
//   glibc_walk -> segment_load -> chunks_walk -> run_emit -> sums, segment by segment.
//   glibc_window -> segment_load -> chain_find -> pieces_walk -> run_emit -> sums.
//
// Why this way
//   Free lists are not walked: a list of a million chunks costs a million reads, one after the
//   other. Reading the memory itself costs 0.2 ms for each MiB, and tells where the free bytes lie,
//   which lists do not.
//
// Go       none.
// Tests    test/system/doctor.py
#include <stdlib.h>
#include <string.h>

#include "glibc.h"

#define SEGMENT_BYTES MIB
#define SEGMENT_PAGES (SEGMENT_BYTES / (4 * KIB))
// The header of a free chunk with its four links, which malloc_trim leaves alone.
#define FREE_HEADER_BYTES 48
#define CHUNK_BYTES_MIN 32
// Largest chunk that goes to a fast bin, by default.
#define FAST_BYTES_MAX 128
// So many plausible headers in a row are no accident; fewer, if one of them is free and its size
// stands at both its ends.
#define CHAIN_MIN 6
#define CHAIN_MIN_WITH_FREE 3
// Headers beyond the segment are read one by one, while a chain is looked for: 1 us each.
#define REMOTE_READS_MAX 2000
#define REMOTE_READS_MAX_WINDOW 100

struct walker {
    struct exam *exam;
    const struct glibc_heap *heap;
    const struct glibc_range *range;
    struct glibc_sums *sums;
    glibc_visit *each; // or NULL
    void *arg;
    uint64_t keep_ns;    // of the budget; 0: without one
    uint64_t start, end; // of the segment
    uint64_t resident[SEGMENT_PAGES / 64];
    char *buf;
    size_t remote_left;

    uint64_t next;      // the chunk to look at next; 0: not known
    uint64_t run_start; // of what has not been added yet, in this segment
    uint64_t free_from; // where its free run begins, maybe before the segment; 0: in use
};

// ---- memory of a segment ------------------------------------------------------------------------

static size_t page_index(const struct walker *w, uint64_t addr)
{
    return (size_t)((addr - w->start) / (4 * KIB));
}

static bool page_resident(const struct walker *w, uint64_t addr)
{
    size_t index = page_index(w, addr);
    return (w->resident[index / 64] >> (index % 64) & 1) != 0;
}

static void visit(void *arg, uint64_t start, uint64_t end, unsigned flags)
{
    struct walker *w = arg;
    (void)flags;
    start = max_u64(start, w->start);
    end = min_u64(end, w->end);
    for (uint64_t addr = start; addr < end; addr += 4 * KIB) {
        size_t index = page_index(w, addr);
        w->resident[index / 64] |= UINT64_C(1) << (index % 64);
    }
    // What cannot be read, because it has gone meanwhile, is zero: no header is that.
    char *to = w->buf + (start - w->start);
    if (start < end && exam_read(w->exam, to, start, end - start) != 0) {
        memset(to, 0, end - start);
    }
}

static bool segment_load(struct walker *w, uint64_t start, uint64_t end)
{
    w->start = start;
    w->end = end;
    memset(w->resident, 0, sizeof(w->resident));
    w->exam->residency.files = false;
    return residency_scan(&w->exam->residency, start, end, visit, w) == 0;
}

static bool in_segment(const struct walker *w, uint64_t addr, uint64_t bytes)
{
    return addr >= w->start && addr < w->end && w->end - addr >= bytes;
}

// Copies what lies on one page of the segment: zeros where it is not resident, which no header is.
static void segment_copy(const struct walker *w, void *to, uint64_t addr, size_t bytes)
{
    if (page_resident(w, addr)) {
        memcpy(to, w->buf + (addr - w->start), bytes);
    } else {
        memset(to, 0, bytes);
    }
}

static uint64_t word_at(const struct walker *w, uint64_t addr)
{
    uint64_t word = 0;
    if (in_segment(w, addr, sizeof(word))) {
        segment_copy(w, &word, addr, sizeof(word));
    } else {
        (void)exam_peek(w->exam, &word, addr, sizeof(word));
    }
    return word;
}

// ---- chunks -------------------------------------------------------------------------------------

static uint64_t size_of(uint64_t head)
{
    return head & ~GLIBC_FLAGS;
}

static bool head_plausible(const struct walker *w, uint64_t at, uint64_t head)
{
    uint64_t size = size_of(head);
    return (head & GLIBC_MMAPPED) == 0 && size >= CHUNK_BYTES_MIN && size % GLIBC_ALIGN == 0 &&
           at < w->range->end && size <= w->range->end - at &&
           (!w->range->main || (head & GLIBC_NON_MAIN) == 0);
}

// A heap that is not the last of its arena ends in fence posts: two headers of 16 bytes.
static bool is_end(const struct walker *w, uint64_t at, uint64_t head)
{
    return w->range->end - at <= 2 * CHUNK_BYTES_MIN && size_of(head) <= GLIBC_ALIGN;
}

// head_at reads the header of a chunk of a chain that is looked for, with the word before it.
static bool head_at(struct walker *w, uint64_t at, uint64_t words[2])
{
    if (in_segment(w, at, GLIBC_ALIGN)) {
        segment_copy(w, words, at, GLIBC_ALIGN);
        return true;
    }
    if (w->remote_left == 0) {
        return false;
    }
    w->remote_left--;
    return exam_peek(w->exam, words, at, GLIBC_ALIGN) == 0;
}

// chain_holds tells whether a row of chunks begins at `at`.
static bool chain_holds(struct walker *w, uint64_t at)
{
    uint64_t words[2];
    bool free_seen = false;
    if (!head_at(w, at, words)) {
        return false;
    }
    for (size_t count = 1; head_plausible(w, at, words[1]); count++) {
        uint64_t size = size_of(words[1]);
        at += size;
        if (at == w->range->end) {
            return count > 1;
        }
        if (!head_at(w, at, words)) {
            return false;
        }
        if ((words[1] & GLIBC_PREV_INUSE) == 0) {
            // More than the size: of a free chunk in which this one, a header left over, lies.
            if (words[0] < size || words[0] % GLIBC_ALIGN != 0 || words[0] > at - w->range->start) {
                return false;
            }
            free_seen = true;
        }
        if (count >= (free_seen ? CHAIN_MIN_WITH_FREE : CHAIN_MIN)) {
            return true;
        }
    }
    return is_end(w, at, words[1]);
}

static uint64_t chain_find(struct walker *w)
{
    for (uint64_t at = w->start; in_segment(w, at, GLIBC_ALIGN); at += GLIBC_ALIGN) {
        if (!page_resident(w, at)) {
            at = align_down(at, 4 * KIB) + 4 * KIB - GLIBC_ALIGN;
        } else if (chain_holds(w, at)) {
            return at;
        }
    }
    return 0;
}

// on_fast_bin tells a chunk on a fast bin, of which the chunk behind says that it is in use: its
// first word is a link to another chunk of the arena, or the end of the list.
static bool on_fast_bin(const struct walker *w, uint64_t at, uint64_t size)
{
    if (size > FAST_BYTES_MAX) {
        return false;
    }
    uint64_t word = word_at(w, at + GLIBC_ALIGN);
    if (w->heap->mangled) {
        uint64_t link = word ^ ((at + GLIBC_ALIGN) >> 12);
        return link == 0 || (link % GLIBC_ALIGN == 0 && link >= w->range->start &&
                             link < w->range->end && link != at);
    }
    // Without the mask any pointer to a block looks like a link, but for the size behind it.
    return word % GLIBC_ALIGN == 0 && in_segment(w, word, GLIBC_ALIGN) && word != at &&
           size_of(word_at(w, word + 8)) == size;
}

static bool is_free(const struct walker *w, uint64_t at, uint64_t size)
{
    uint64_t next = at + size;
    if (next >= w->range->end) {
        return true; // the top
    }
    return (word_at(w, next + 8) & GLIBC_PREV_INUSE) == 0 || on_fast_bin(w, at, size);
}

// ---- what the chunks add up to ------------------------------------------------------------------

static uint64_t resident_bytes(const struct walker *w, uint64_t start, uint64_t end)
{
    uint64_t bytes = 0;
    while (start < end) {
        uint64_t page_end = min_u64(align_down(start, 4 * KIB) + 4 * KIB, end);
        bytes += page_resident(w, start) ? page_end - start : 0;
        start = page_end;
    }
    return bytes;
}

// Adds what lies between run_start and end, both in the segment.
static void run_emit(struct walker *w, uint64_t end)
{
    uint64_t start = w->run_start;
    w->run_start = end;
    if (start >= end) {
        return;
    }
    uint64_t bytes = resident_bytes(w, start, end);
    w->sums->seen_bytes += bytes;
    if (w->free_from == 0) {
        return;
    }
    uint64_t inner = max_u64(align_up(w->free_from + FREE_HEADER_BYTES, 4 * KIB), start);
    uint64_t inner_end = align_down(end, 4 * KIB);
    uint64_t kept = inner < inner_end ? resident_bytes(w, inner, inner_end) : 0;
    w->sums->kept_bytes += kept;
    w->sums->pinned_bytes += bytes - kept;
}

// Walks the chunks that begin in the segment; false where the chain breaks.
static bool chunks_walk(struct walker *w)
{
    while (w->next < w->end) {
        uint64_t at = w->next;
        uint64_t head = word_at(w, at + 8);
        if (!head_plausible(w, at, head)) {
            // Fence posts belong to what is in use.
            w->next = is_end(w, at, head) ? w->range->end : 0;
            run_emit(w, at);
            w->free_from = 0;
            return w->next != 0;
        }
        uint64_t size = size_of(head);
        bool free = is_free(w, at, size);
        if (free != (w->free_from != 0)) {
            run_emit(w, at);
            w->free_from = free ? at : 0;
        }
        w->sums->chunks_count++;
        if (w->each != NULL) {
            w->each(w->arg, at, size, free);
        }
        w->next = at + size;
    }
    return true;
}

// Where the chain breaks in a heap that changes, the rest of the segment is lost.
static void segment_walk(struct walker *w)
{
    w->run_start = w->start;
    if (w->next == 0) {
        w->next = chain_find(w);
        w->run_start = w->next == 0 ? w->end : w->next;
        w->free_from = 0;
        w->sums->lost_bytes += resident_bytes(w, w->start, w->run_start);
    }
    if (w->next != 0 && chunks_walk(w)) {
        run_emit(w, w->end);
    } else {
        w->sums->lost_bytes += resident_bytes(w, w->run_start, w->end);
    }
}

static struct walker *walker_make(struct exam *exam, const struct glibc_heap *heap,
                                  const struct glibc_range *range, struct glibc_sums *sums)
{
    struct walker *w = calloc(1, sizeof(*w));
    if (w == NULL) {
        return NULL;
    }
    *w = (struct walker){
        .exam = exam,
        .heap = heap,
        .range = range,
        .sums = sums,
        .buf = malloc(SEGMENT_BYTES), // what of it is resident is filled
        .remote_left = REMOTE_READS_MAX,
    };
    if (w->buf == NULL) {
        free(w);
        return NULL;
    }
    return w;
}

static void walker_free(struct walker *w)
{
    free(w->buf);
    free(w);
}

// Walks the whole range of w, and frees it.
static bool walk(struct walker *w)
{
    bool readable = w != NULL;
    uint64_t end = readable ? w->range->end : 0;
    // The state of an arena may lie before the first chunk, on the same page.
    for (uint64_t at = readable ? align_down(w->range->start, 4 * KIB) : 0; readable && at < end;) {
        uint64_t stop = min_u64(at + SEGMENT_BYTES, align_up(end, 4 * KIB));
        readable =
            (w->keep_ns == 0 || exam_affords(w->exam, w->keep_ns)) && segment_load(w, at, stop);
        if (readable) {
            segment_walk(w);
        }
        at = stop;
    }
    if (w != NULL) {
        walker_free(w);
    }
    return readable;
}

bool glibc_walk(struct exam *exam, const struct glibc_heap *heap, const struct glibc_range *range,
                uint64_t keep_ns, struct glibc_sums *sums)
{
    struct walker *w = walker_make(exam, heap, range, sums);
    if (w != NULL) {
        w->keep_ns = keep_ns;
    }
    return walk(w);
}

bool glibc_chunks(struct exam *exam, const struct glibc_heap *heap, const struct glibc_range *range,
                  uint64_t keep_ns, glibc_visit *each, void *arg)
{
    struct glibc_sums sums = {0};
    struct walker *w = walker_make(exam, heap, range, &sums);
    if (w != NULL) {
        w->keep_ns = keep_ns;
        w->each = each;
        w->arg = arg;
    }
    return walk(w);
}

// ---- windows ------------------------------------------------------------------------------------

struct piece {
    uint64_t start;
    bool free;
};
#define PIECES_CAP (2 * GLIBC_WINDOW_BYTES / CHUNK_BYTES_MIN)

static const struct glibc_large *large_around(const struct glibc_heap *heap, uint64_t addr)
{
    size_t low = 0;
    size_t high = heap->large_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (heap->large[middle].start < addr) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low != 0 && addr < heap->large[low - 1].end ? &heap->large[low - 1] : NULL;
}

// Makes all pieces from `start` on free.
static void pieces_free(struct piece *pieces, size_t count, uint64_t start)
{
    while (count > 0 && pieces[count - 1].start >= start) {
        pieces[--count].free = true;
    }
}

// Walks a chain that may be of headers left over, until the segment ends or it breaks. The count.
static size_t pieces_walk(struct walker *w, uint64_t at, struct piece *pieces)
{
    size_t count = 0;
    while (in_segment(w, at, GLIBC_ALIGN) && count < PIECES_CAP) {
        const struct glibc_large *large = large_around(w->heap, at + 1);
        uint64_t head = word_at(w, at + 8);
        uint64_t size = large != NULL ? large->end - at : size_of(head);
        if (large == NULL && !head_plausible(w, at, head)) {
            break;
        }
        pieces[count++] = (struct piece){at, large != NULL || is_free(w, at, size)};
        at += size;
        if (in_segment(w, at, GLIBC_ALIGN) && (word_at(w, at + 8) & GLIBC_PREV_INUSE) == 0) {
            uint64_t whole = word_at(w, at);
            if (whole > size && whole < at - w->range->start) {
                pieces_free(pieces, count, at - whole);
            }
        }
    }
    w->next = at;
    return count;
}

// Adds what the pieces hold before `end`.
static void pieces_emit(struct walker *w, const struct piece *pieces, size_t count, uint64_t end)
{
    w->run_start = pieces[0].start;
    w->free_from = 0;
    if (pieces[0].free) {
        // Where this free run begins is not known: before the window, most likely.
        w->run_start = align_up(pieces[0].start, 4 * KIB);
        w->free_from = w->run_start - FREE_HEADER_BYTES;
    }
    for (size_t i = 1; i < count && pieces[i].start < end; i++) {
        w->sums->chunks_count++;
        if (pieces[i].free != (w->free_from != 0)) {
            run_emit(w, pieces[i].start);
            w->free_from = pieces[i].free ? pieces[i].start : 0;
        }
    }
    run_emit(w, min_u64(max_u64(w->next, w->run_start), end));
}

// A window without any header lies inside of one chunk.
static void window_lost(struct walker *w, uint64_t end)
{
    const struct glibc_large *large = large_around(w->heap, w->start);
    if (large == NULL) {
        w->sums->lost_bytes += resident_bytes(w, w->start, end);
        return;
    }
    w->run_start = w->start;
    w->free_from = large->start;
    run_emit(w, min_u64(end, large->end));
}

bool glibc_window(struct exam *exam, const struct glibc_heap *heap, const struct glibc_range *range,
                  uint64_t start, struct glibc_sums *sums)
{
    struct walker *w = walker_make(exam, heap, range, sums);
    struct piece *pieces = malloc(PIECES_CAP * sizeof(*pieces));
    start = align_down(start, 4 * KIB);
    uint64_t end = min_u64(start + GLIBC_WINDOW_BYTES, align_up(range->end, 4 * KIB));
    uint64_t beyond = min_u64(end + GLIBC_WINDOW_BYTES, align_up(range->end, 4 * KIB));
    bool readable = w != NULL && pieces != NULL && segment_load(w, start, beyond);
    if (readable) {
        w->remote_left = REMOTE_READS_MAX_WINDOW;
        const struct glibc_large *large = large_around(heap, start);
        uint64_t found = large != NULL ? start : chain_find(w);
        bool inside = (large != NULL && large->end >= end) || found == 0 || found >= end;
        size_t count = inside ? 0 : pieces_walk(w, found, pieces);
        if (count == 0) {
            window_lost(w, end);
        } else {
            pieces_emit(w, pieces, count, end);
        }
    }
    free(pieces);
    if (w != NULL) {
        walker_free(w);
    }
    return readable;
}
