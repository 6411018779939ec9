// SPDX-License-Identifier: MIT
//
// Doctor, evidence of reachability: which blocks of glibc's malloc no pointer leads to.
//
// Model
//   A pass walks the chunks, reads all memory that may hold a pointer (variables, stacks from their
//   stack pointers on, other anonymous memory, other heaps, shared memory, the blocks themselves,
//   what epoll keeps), resident pages only, and marks. If no thread has run meanwhile, one pass is
//   as good as if the process had been stopped. If one has, a pointer that moved may have been
//   missed: so what is unreachable must be so in every pass, at the same place and size, and passes
//   go on until they agree; what is new since the first one is taken as reachable, with all it
//   leads to.
//   The state of arenas is no root: its lists lead to free chunks only.
//   What it cannot see: registers other than the arguments of a system call; pointers that are
//   masked, shorter than eight bytes, not aligned to eight, or in swap. What is in swap is not
//   brought back: then nothing is said. What it takes for a pointer but is none keeps a block: so
//   does what a program without a pointer still has on an old part of its stack.
//   Blocks of Ebb are left out: from outside a block on a thread's list of free ones looks as one
//   in use, and it is most of what such a heap keeps.
//
// Locking
//   None; the process runs on.
//
// Flow
//   evidence_reach -> affordable -> pass_run (blocks_index, memory_feed, reach_mark) up to
//   PASSES_MAX times -> facts.reach.
//
// Why this way
//   LeakSanitizer and memcheck stop the program, and must have been there from its start. To read
//   it from outside needs neither, and says less: for a verdict from 5 % of RSS on it is enough.
//
// Go       runtime/mgcmark.go marks from the same roots, with barriers for what moves meanwhile.
// Tests    test/system/doctor_leak.py  test/unit/reach_test.c
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "glibc.h"
#include "os/clock.h"
#include "reach.h"
#include "reach_threads.h"

// A smaller heap has no leak that matters (rules.h).
#define HEAP_BYTES_MIN (16 * MIB)
#define READ_BYTES_MAX (64 * MIB)
#define READ_BYTES_MAX_SCAN (8 * GIB)
// Measured, of a pass beside the walk over the chunks: for each MiB, for each block with its
// pointers, for each line of maps, which is read twice.
#define COST_NS_PER_MIB (UINT64_C(400) * NS_PER_US)
#define COST_NS_PER_CHUNK 120
#define COST_NS_PER_THREAD (UINT64_C(60) * NS_PER_US)
#define COST_NS_PER_MAPPING (UINT64_C(2) * NS_PER_US)
// The cost of a piece that is read before the clock is looked at again.
#define PIECE_COST_NS (UINT64_C(500) * NS_PER_US)
#define BUF_BYTES (256 * KIB)
// The index of a heap's address space takes a 64th of it: a quarter of what is read, or 4 MiB.
#define SPACE_FACTOR 16
#define SPACE_BYTES_MIN (256 * MIB)
#define PASSES_MAX 16
// So much is not worth another pass.
#define CRUMBS_BYTES (256 * KIB)
#define GAPS_TRIES 16
#define PAUSE_NS (UINT64_C(60) * NS_PER_MS)
#define PAUSE_NS_SHORT (UINT64_C(5) * NS_PER_MS)

struct pass {
    struct exam *exam;
    struct reach reach;
    struct reach_threads threads;
    uint64_t *buf;
    bool first;   // stacks count from their stack pointers on
    bool outside; // what is read now lies in no vma that was known
    bool torn;    // it has gone before it was read
    uint64_t gaps_sum;
    uint64_t stack_from; // what lies before it, in the mapping that is read, is no root
    bool still;
    long error;
};

// The first error counts: what goes well afterwards does not make up for what is missing.
static void error_note(struct pass *pass, long error)
{
    pass->error = pass->error == 0 ? error : pass->error;
}

// ---- what to read -------------------------------------------------------------------------------

static bool is_huge_file(const struct vma *vma)
{
    return strstr(vma->path, "/hugepages") != NULL || strncmp(vma->path, "/anon_hugepage", 14) == 0;
}

// What of a vma may hold pointers: private copies and anonymous memory, and shared memory.
static uint64_t root_bytes(const struct vma *vma)
{
    if (vma->place == PLACE_SPECIAL || is_huge_file(vma)) {
        return 0;
    }
    return vma->place == PLACE_SHMEM ? vma->resident_bytes : vma->resident_bytes - vma->file_bytes;
}

static uint64_t read_bytes(const struct exam *exam)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < exam->vmas_count; i++) {
        bytes += root_bytes(&exam->vmas[i]);
    }
    return bytes;
}

static void closed_look(void *arg, uint64_t start, uint64_t end, unsigned flags)
{
    struct pass *pass = arg;
    uint64_t word;
    (void)end;
    (void)flags;
    if (pass->error == 0) {
        pass->error = exam_read(pass->exam, &word, start, sizeof(word));
    }
}

// Closed memory with pages may have been opened since the mappings were read: an arena grows so.
static bool is_closed(struct exam *exam, const struct vma *vma)
{
    struct pass pass = {.exam = exam};
    exam->residency.files = false;
    return residency_scan(&exam->residency, vma->start, vma->end, closed_look, &pass) != 0 ||
           pass.error != 0;
}

// hidden_why says what of the memory cannot be looked at, so that nothing can be called lost.
static const char *hidden_why(struct exam *exam)
{
    if (exam->facts->process.swap_bytes != 0) {
        return "part of it is in swap, where pointers are not seen unless it is brought back";
    }
    if (!exam->facts->pages.whole) {
        return "not all pages were counted";
    }
    for (size_t i = 0; i < exam->vmas_count; i++) {
        const struct vma *vma = &exam->vmas[i];
        if (is_huge_file(vma)) {
            return "it has memory of hugetlbfs, which is not read";
        }
        if (vma->perms[0] == 'r' || root_bytes(vma) == 0) {
            continue;
        }
        if (!reach_affords(exam, 0)) {
            return "there was no time to look at what is closed to reading";
        }
        if (is_closed(exam, vma)) {
            return "part of its memory is closed to reading";
        }
    }
    return NULL;
}

// ---- blocks -------------------------------------------------------------------------------------

static void chunk_add(void *arg, uint64_t chunk, uint64_t size_bytes, bool free)
{
    struct pass *pass = arg;
    reach_block_add(&pass->reach, chunk + GLIBC_ALIGN, size_bytes, free ? REACH_FREE : 0);
}

// Mapped blocks: one header after the other, to the end of the vma.
static void mapped_add(struct pass *pass, const struct vma *vma)
{
    uint64_t at = vma->start;
    reach_piece_begin(&pass->reach, vma->start, vma->end);
    for (uint64_t bytes; reach_affords(pass->exam, PIECE_COST_NS) &&
                         (bytes = glibc_mapped_bytes(pass->exam, at, vma->end)) != 0;) {
        reach_block_add(&pass->reach, at + GLIBC_ALIGN, bytes - GLIBC_ALIGN, 0);
        at += bytes;
    }
}

static bool range_add(struct pass *pass, const struct glibc_range *range)
{
    uint64_t keep_ns = pass->exam->options->scan ? 0 : PIECE_COST_NS;
    reach_piece_begin(&pass->reach, range->start, range->end);
    return pass->reach.failed ||
           glibc_chunks(pass->exam, pass->exam->glibc, range, keep_ns, chunk_add, pass);
}

static void blocks_index(struct pass *pass)
{
    struct exam *exam = pass->exam;
    const struct glibc_heap *heap = exam->glibc;
    size_t index = (size_t)(facts_heap(exam->facts, HEAP_GLIBC) - exam->facts->heaps);
    const struct glibc_range *done = NULL;
    for (size_t i = 0; i < exam->vmas_count; i++) {
        const struct vma *vma = &exam->vmas[i];
        if (vma->place != PLACE_HEAP || vma->heap != index || vma->resident_bytes == 0) {
            continue;
        }
        const struct glibc_range *range = glibc_range_behind(heap, vma->start);
        if (range == NULL || range->start >= vma->end) {
            mapped_add(pass, vma);
        } else if (range != done) {
            if (!range_add(pass, range)) {
                pass->error = reach_affords(exam, PIECE_COST_NS) ? -EFAULT : -ETIME;
                return;
            }
            done = range;
        }
    }
    reach_index(&pass->reach);
    if (pass->reach.failed) {
        pass->error = pass->reach.sparse ? -E2BIG : -ENOMEM;
        return;
    }
    glibc_tcache_tell(exam, &pass->reach);
}

// ---- memory -------------------------------------------------------------------------------------

// The state of an arena names headers of chunks, each of which lies right behind some block, and
// would keep it: the top of an arena its last one.
static void states_blank(struct pass *pass, uint64_t start, uint64_t end)
{
    const struct glibc_heap *heap = pass->exam->glibc;
    for (size_t i = 0; i < heap->states_count; i++) {
        uint64_t from = max_u64(heap->states[i], start);
        uint64_t to = min_u64(heap->states[i] + GLIBC_STATE_BYTES, end);
        if (from < to) {
            memset((char *)pass->buf + (from - start), 0, to - from);
        }
    }
}

static void piece_feed(struct pass *pass, uint64_t start, uint64_t bytes)
{
    // What has gone meanwhile points to nothing.
    if (exam_read(pass->exam, pass->buf, start, bytes) != 0) {
        for (uint64_t at = 0; at < bytes; at += 4 * KIB) {
            char *page = (char *)pass->buf + at;
            if (exam_read(pass->exam, page, start + at, 4 * KIB) != 0) {
                memset(page, 0, 4 * KIB);
                pass->torn = true;
            }
        }
    }
    states_blank(pass, start, start + bytes);
    if (pass->stack_from > start) {
        memset(pass->buf, 0, min_u64(pass->stack_from - start, bytes));
    }
    if (pass->outside) {
        reach_feed_roots(&pass->reach, pass->buf, bytes / sizeof(*pass->buf));
    } else {
        reach_feed_heap(&pass->reach, start, pass->buf, bytes / sizeof(*pass->buf));
    }
}

static void resident_feed(void *arg, uint64_t start, uint64_t end, unsigned flags)
{
    struct pass *pass = arg;
    if ((flags & RESIDENT_FILE) != 0 && pass->exam->residency.files) {
        return;
    }
    for (uint64_t bytes; start < end && pass->error == 0; start += bytes) {
        if (!reach_affords(pass->exam, PIECE_COST_NS)) {
            pass->error = -ETIME;
            return;
        }
        bytes = min_u64(end - start, BUF_BYTES);
        piece_feed(pass, start, bytes);
    }
}

static void area_feed(struct pass *pass, uint64_t start, uint64_t end, bool files)
{
    if (pass->error == 0) {
        pass->exam->residency.files = files;
        error_note(pass, residency_scan(&pass->exam->residency, start, end, resident_feed, pass));
    }
}

static void gap_note(void *arg, uint64_t start, uint64_t end)
{
    uint64_t *sum = arg;
    *sum = (*sum ^ start) * UINT64_C(0x9e3779b97f4a7c15) + end;
}

static void gap_feed(void *arg, uint64_t start, uint64_t end)
{
    struct pass *pass = arg;
    gap_note(&pass->gaps_sum, start, end);
    area_feed(pass, start, end, false);
}

// What was mapped since the mappings were read holds pointers, but no block that is judged. A block
// that is made larger may move each time: then it is looked for again.
static void gaps_feed(struct pass *pass)
{
    uint64_t after = 0;
    pass->outside = true;
    for (size_t i = 0; i < GAPS_TRIES && pass->error == 0; i++) {
        pass->torn = false;
        pass->gaps_sum = 0;
        after = 0;
        error_note(pass, maps_gaps(pass->exam, gap_feed, pass));
        error_note(pass, maps_gaps(pass->exam, gap_note, &after));
        if (!pass->torn && after == pass->gaps_sum) {
            return;
        }
    }
}

static void word_feed(void *arg, uint64_t word)
{
    struct pass *pass = arg;
    reach_root(&pass->reach, word);
}

static void memory_feed(struct pass *pass)
{
    const struct exam *exam = pass->exam;
    pass->outside = false;
    for (size_t i = 0; i < exam->vmas_count; i++) {
        const struct vma *vma = &exam->vmas[i];
        // A copy made since the pages were counted is of a page that could be written then, too.
        bool writable = vma->perms[1] == 'w' && vma->perms[3] == 'p';
        if ((root_bytes(vma) == 0 && !(writable && vma->place != PLACE_SPECIAL)) ||
            vma->perms[0] != 'r') {
            continue;
        }
        uint64_t start = vma->start;
        pass->stack_from = 0;
        if (vma->place == PLACE_STACK && pass->first) {
            pass->stack_from = threads_sp(&pass->threads, vma->start, vma->end);
            start = align_down(pass->stack_from, 4 * KIB);
        }
        bool of_file = vma->path[0] == '/' && vma->place != PLACE_SHMEM;
        area_feed(pass, start, vma->end, of_file);
    }
    pass->stack_from = 0;
    gaps_feed(pass);
    for (size_t i = 0; i < pass->threads.count; i++) {
        for (size_t k = 0; k < THREAD_WORDS; k++) {
            reach_root(&pass->reach, pass->threads.threads[i].words[k]);
        }
    }
    if (pass->error == 0 && !epoll_words(exam, word_feed, pass)) {
        pass->error = exam->options->scan ? -EFBIG : -ETIME;
    }
}

// ---- passes -------------------------------------------------------------------------------------

static bool pass_run(struct pass *pass)
{
    struct reach_threads after;
    threads_read(pass->exam, &pass->threads);
    blocks_index(pass);
    if (pass->error == 0) {
        memory_feed(pass);
    }
    if (pass->error == 0) {
        pass->error = pass->reach.failed ? -ENOMEM : 0;
        reach_mark(&pass->reach);
    }
    if (pass->error == -ETIME) {
        return false;
    }
    threads_read(pass->exam, &after);
    pass->still = threads_still(&pass->threads, &after);
    if (after.count == 0) {
        pass->error = -ESRCH;
    }
    threads_free(&after);
    return pass->error == 0;
}

static void pass_end(struct pass *pass)
{
    threads_free(&pass->threads);
    reach_free(&pass->reach);
}

static void facts_take(struct pass *pass, struct facts_reach *out)
{
    struct reach_sums sums;
    reach_sum(&pass->reach, threads_hidden_count(&pass->threads), &sums);
    *out = (struct facts_reach){
        .known = true,
        .asked = pass->exam->options->scan,
        .still = pass->still,
        .reachable_bytes = sums.reachable_bytes,
        .unreachable_bytes = sums.unreachable_bytes,
        .unreachable_count = sums.unreachable_count,
        .common_bytes = sums.common_bytes,
        .common_count = sums.common_count,
        .heads_count = sums.heads_count,
        .held_bytes = sums.few_bytes,
        .read_bytes = pass->reach.read_bytes,
    };
}

// Of a different length each time, a half to one and a half of ns: a process may move its blocks in
// step with an even one.
static void pause_for(uint64_t ns, size_t turn)
{
    ns = ns / 2 + ns * (turn * 7 % 16) / 16;
    const struct timespec time = {(time_t)(ns / NS_PER_S), (long)(ns % NS_PER_S)};
    clock_nanosleep(CLOCK_MONOTONIC, 0, &time, NULL);
}

// What is unreachable in all passes so far.
struct tally {
    struct reach_key *lost;
    struct reach_series series;
    struct facts_reach facts;
};

// tally_take takes what a pass has found; false, with its error, if there is no memory.
static bool tally_take(struct tally *tally, struct pass *pass)
{
    size_t count = 0;
    size_t own = reach_lost_count(&pass->reach);
    if (tally->series.passes != 0) {
        reach_excuse(&pass->reach, tally->lost, tally->series.count);
    }
    free(tally->lost);
    tally->lost = reach_lost(&pass->reach, &count);
    reach_series_add(&tally->series, own, count);
    facts_take(pass, &tally->facts);
    pass->error = tally->lost == NULL ? -ENOMEM : 0;
    return tally->lost != NULL;
}

static bool tally_settled(const struct tally *tally)
{
    const struct facts_reach *facts = &tally->facts;
    bool few = facts->held_bytes < facts->unreachable_bytes / 2;
    if (facts->still || tally->series.count == 0) {
        return true;
    }
    return reach_series_settled(&tally->series, few, facts->unreachable_bytes < CRUMBS_BYTES);
}

// passes_run makes passes until they agree, or time is over; returns how many. The facts are known
// if they agree.
static size_t passes_run(struct exam *exam, struct pass *pass, uint64_t bytes)
{
    uint64_t begun_ns = clock_thread_cpu_ns(); // the budget is processor time
    struct tally tally = {0};
    bool settled = false;
    uint64_t *buf = pass->buf;
    while (!settled && tally.series.passes < PASSES_MAX) {
        if (tally.series.passes != 0) {
            uint64_t pass_ns = (clock_thread_cpu_ns() - begun_ns) / tally.series.passes;
            if (!reach_affords(exam, pass_ns)) {
                break;
            }
            pass_end(pass);
            pause_for(exam->options->scan ? PAUSE_NS : PAUSE_NS_SHORT, tally.series.passes);
        }
        *pass = (struct pass){.exam = exam, .buf = buf, .first = tally.series.passes == 0};
        pass->reach.space_max_bytes = max_u64(SPACE_FACTOR * bytes, SPACE_BYTES_MIN);
        if (!pass_run(pass) || !tally_take(&tally, pass)) {
            tally.series.passes = pass->error == -ETIME ? tally.series.passes : 0;
            break;
        }
        settled = tally_settled(&tally);
    }
    if (settled) {
        exam->facts->reach = tally.facts;
    }
    free(tally.lost);
    return tally.series.passes;
}

static uint64_t cost_of(const struct exam *exam, uint64_t bytes)
{
    return exam->glibc->walk_ns + bytes / MIB * COST_NS_PER_MIB +
           exam->glibc->chunks_count * COST_NS_PER_CHUNK +
           exam->facts->process.threads_count * COST_NS_PER_THREAD +
           exam->vmas_count * COST_NS_PER_MAPPING;
}

// Whether there is something to look at, and it may be looked at; says why not.
static bool affordable(struct exam *exam, uint64_t begun, uint64_t bytes)
{
    const struct facts_heap *heap = facts_heap_const(exam->facts, HEAP_GLIBC);
    uint64_t cost_ns = cost_of(exam, bytes);
    if (!exam->options->scan && heap->divided && heap->live_bytes < HEAP_BYTES_MIN) {
        return false;
    }
    const char *hidden = hidden_why(exam);
    if (exam->facts->sources[SOURCE_GLIBC].state == SOURCE_BROKEN) {
        source_end(exam, SOURCE_REACH, begun, SOURCE_LEFT, "the chunks of its heap are not known");
    } else if (hidden != NULL) {
        source_end(exam, SOURCE_REACH, begun, SOURCE_LEFT, "%s", hidden);
    } else if (bytes > READ_BYTES_MAX_SCAN) {
        source_end(exam, SOURCE_REACH, begun, SOURCE_LEFT,
                   "%llu MiB would be read, more than 8 GiB", (unsigned long long)(bytes / MIB));
    } else if ((!exam->options->scan && bytes > READ_BYTES_MAX) || !reach_affords(exam, cost_ns)) {
        source_end(
            exam, SOURCE_REACH, begun, SOURCE_LEFT,
            "%llu MiB would be read, three times or more if it runs, in about %.1f s: --scan",
            (unsigned long long)(bytes / MIB),
            (double)(cost_ns * REACH_PASSES_MIN + PAUSE_NS * 2) / (double)NS_PER_S);
    } else {
        return true;
    }
    return false;
}

void evidence_reach(struct exam *exam)
{
    uint64_t begun = source_begin();
    struct pass pass = {0};
    if (exam->glibc == NULL || !exam->scans || facts_heap(exam->facts, HEAP_GLIBC) == NULL) {
        return;
    }
    uint64_t bytes = read_bytes(exam);
    if (!affordable(exam, begun, bytes)) {
        return;
    }
    pass.buf = malloc(BUF_BYTES);
    size_t passes = pass.buf == NULL ? 0 : passes_run(exam, &pass, bytes);
    if (exam->facts->reach.known) {
        source_end(exam, SOURCE_REACH, begun, SOURCE_READ, "%zu %s over %llu MiB%s", passes,
                   passes == 1 ? "pass" : "passes",
                   (unsigned long long)(exam->facts->reach.read_bytes / MIB),
                   passes == 1 && pass.still ? ", while nothing ran" : "");
    } else if (passes != 0 || pass.error == -ETIME) {
        source_end(exam, SOURCE_REACH, begun, SOURCE_LEFT, "%s",
                   passes >= PASSES_MAX ? "its blocks change places faster than they can be read"
                   : passes != 0        ? "it runs meanwhile, so more passes are needed than there "
                                          "was time for: --scan"
                                        : "it took longer than the budget: --scan");
    } else if (pass.error == -E2BIG) {
        source_end(exam, SOURCE_REACH, begun, SOURCE_LEFT,
                   "its heap has more than %d times the address space of what would be read",
                   SPACE_FACTOR);
    } else {
        source_error(exam, SOURCE_REACH, begun, pass.buf == NULL ? -ENOMEM : pass.error);
    }
    uint64_t *buf = pass.buf;
    pass_end(&pass);
    free(buf);
}
