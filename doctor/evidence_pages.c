// SPDX-License-Identifier: MIT
//
// Doctor, evidence of the pages: which are resident, which are lazily freed, and how much of the
// huge ones was ever written.
//
// Model
//   One scan of pagemap counts the resident pages of each vma. While it goes, every n-th page of
//   anonymous memory is noted, and likewise the huge ones: two samples, spread evenly.
//   Lazily freed: smaps_rollup counts them exactly and looks at every page for it, which costs 6 to
//   50 ms per GiB. Beyond ROLLUP_BYTES the sample is asked instead, of /proc/kpageflags: a page is
//   lazily freed if it is anonymous and not backed by swap. That takes root.
//   Huge pages: a small page in them that holds nothing but zeros was most likely never touched.
//
// Why this way
//   A sample of 2048 pages tells a share within 2 % at 95 %, at the same cost for any size.
//
// Go       none.
// Tests    test/system/doctor.py
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "doctor_int.h"
#include "os/procfs.h"
#include "parts.h"

#define SCAN_BUF_BYTES (64 * KIB)
// The scan looks at the clock between pieces of this much address space.
#define PIECE_BYTES (4 * GIB)
// For each GiB; 2 to 8 ms were measured.
#define SCAN_COST_NS (UINT64_C(8) * NS_PER_MS)
#define ROLLUP_BYTES GIB
#define SAMPLE_PAGES 2048
#define HUGE_SAMPLE_PAGES 512
// From linux/kernel-page-flags.h.
#define FLAG_ANON (UINT64_C(1) << 12)
#define FLAG_SWAPBACKED (UINT64_C(1) << 14)
#define FLAG_TAIL (UINT64_C(1) << 16)
#define WORD_IS_PRESENT (UINT64_C(1) << 63)
#define WORD_FRAME ((UINT64_C(1) << 55) - 1)
// One system call for the word, and for the flags one or, in a huge page, six on average.
#define FLAGS_COST_NS (SAMPLE_PAGES * UINT64_C(4) * NS_PER_US)

struct scan {
    struct exam *exam;
    struct vma *vma;
};

static void sample_pages(struct page_sample *sample, uint64_t start, uint64_t end, uint64_t page)
{
    uint64_t count = (end - start) / page;
    sample->seen_count += count;
    uint64_t at = sample->skipped;
    for (; at < count; at += sample->step) {
        if (sample->count < sample->cap) {
            sample->addrs[sample->count++] = start + at * page;
        }
    }
    sample->skipped = at - count;
}

static void visit(void *arg, uint64_t start, uint64_t end, unsigned flags)
{
    struct scan *scan = arg;
    uint64_t page = scan->exam->facts->kernel.page_bytes;
    scan->vma->resident_bytes += end - start;
    if ((flags & RESIDENT_FILE) != 0) {
        scan->vma->file_bytes += end - start;
        return;
    }
    if (scan->vma->place == PLACE_SPECIAL) {
        return;
    }
    if (scan->vma->place == PLACE_HEAP) {
        parts_visit(scan->exam, scan->vma, start, end);
    }
    sample_pages(&scan->exam->anonymous, start, end, page);
    if ((flags & RESIDENT_HUGE) != 0) {
        scan->vma->huge_bytes += end - start;
        sample_pages(&scan->exam->huge, start, end, page);
    }
}

static bool shared(const struct vma *vma)
{
    return vma->perms[3] == 's';
}

// Whether a page is a file's costs five times the rest of the scan: asked only where both may be.
static long vma_scan(struct scan *scan, struct vma *vma)
{
    struct exam *exam = scan->exam;
    bool of_file = vma->path[0] == '/' || strncmp(vma->path, "anon_inode", 10) == 0;
    exam->residency.files = of_file && !shared(vma);
    scan->vma = vma;
    uint64_t pos = vma->start;
    while (pos < vma->end) {
        uint64_t stop = min_u64(vma->end, pos + PIECE_BYTES);
        if (!exam_affords(exam, 0)) {
            return -ETIME;
        }
        long error = residency_scan(&exam->residency, pos, stop, visit, scan);
        if (error != 0) {
            return error;
        }
        pos = stop;
    }
    if (shared(vma)) {
        vma->file_bytes = vma->resident_bytes;
    }
    return 0;
}

// vvar has no pages of its own; hugetlbfs is not in RSS.
static bool counted(const struct vma *vma)
{
    return strncmp(vma->path, "[vvar", 5) != 0 && strstr(vma->path, "/hugepages") == NULL &&
           strncmp(vma->path, "/anon_hugepage", 14) != 0;
}

static void page_totals(struct exam *exam)
{
    struct facts_pages *pages = &exam->facts->pages;
    for (size_t i = 0; i < exam->vmas_count; i++) {
        const struct vma *vma = &exam->vmas[i];
        uint64_t own = vma->resident_bytes - vma->file_bytes;
        bool shmem = vma->place == PLACE_SHMEM;
        pages->resident_bytes[vma->place] += own;
        pages->resident_bytes[shmem ? PLACE_SHMEM : PLACE_FILE] += vma->file_bytes;
        pages->huge_bytes += vma->huge_bytes;
        if (vma->place == PLACE_HEAP) {
            exam->facts->heaps[vma->heap].resident_bytes += own;
        }
        if (vma->place == PLACE_STACK) {
            pages->stack_most_bytes = max_u64(pages->stack_most_bytes, own);
        }
        uint64_t *most = shmem ? &pages->shmem_most_bytes : &pages->file_most_bytes;
        if (vma->file_bytes > *most) {
            *most = vma->file_bytes;
            snprintf(shmem ? pages->shmem_most : pages->file_most,
                     shmem ? sizeof(pages->shmem_most) : sizeof(pages->file_most), "%s", vma->path);
        }
    }
}

static bool sample_make(struct page_sample *sample, size_t cap, uint64_t pages)
{
    *sample = (struct page_sample){.step = pages / cap + 1, .cap = cap};
    sample->addrs = malloc(cap * sizeof(*sample->addrs));
    return sample->addrs != NULL;
}

static long scan_open(struct exam *exam)
{
    size_t page = (size_t)exam->facts->kernel.page_bytes;
    uint64_t pages = exam->facts->process.anon_bytes / page;
    exam->scan_buf = malloc(SCAN_BUF_BYTES);
    if (exam->scan_buf == NULL || !sample_make(&exam->anonymous, SAMPLE_PAGES, pages) ||
        !sample_make(&exam->huge, HUGE_SAMPLE_PAGES, pages)) {
        return -ENOMEM;
    }
    long error =
        residency_open(&exam->residency, exam->facts->pid, page, exam->scan_buf, SCAN_BUF_BYTES);
    exam->scans = error == 0;
    return error;
}

// Opens pagemap before any memory is read: what is not resident is left alone.
void evidence_pagemap(struct exam *exam)
{
    uint64_t begun = source_begin();
    if (exam->vmas_count == 0) {
        return; // maps has said why
    }
    long error = scan_open(exam);
    if (error != 0) {
        source_error(exam, SOURCE_PAGES, begun, error);
        return;
    }
    uint64_t cost = exam->facts->process.rss_bytes / MIB * SCAN_COST_NS / 1024;
    exam->reserve_ns = min_u64(cost + SCAN_COST_NS, exam->options->budget_ns / 2);
}

void evidence_pages(struct exam *exam)
{
    uint64_t begun = source_begin();
    long error = 0;
    if (!exam->scans) {
        return;
    }
    struct scan scan = {.exam = exam};
    exam->reserve_ns = 0;
    size_t i = 0;
    for (; i < exam->vmas_count && error == 0; i++) {
        if (counted(&exam->vmas[i])) {
            error = vma_scan(&scan, &exam->vmas[i]);
        }
    }
    page_totals(exam);
    exam->facts->pages.whole = error == 0;
    if (error == -ETIME) {
        source_end(exam, SOURCE_PAGES, begun, SOURCE_LEFT,
                   "%zu of %zu mappings were counted when the time was up", i - 1,
                   exam->vmas_count);
    } else if (error != 0) {
        source_error(exam, SOURCE_PAGES, begun, error);
    } else {
        source_end(exam, SOURCE_PAGES, begun, SOURCE_READ, NULL);
    }
}

// ---- lazily freed -------------------------------------------------------------------------------

static void rollup_read(struct exam *exam)
{
    uint64_t begun = source_begin();
    char text[4096];
    struct procfs_rollup rollup;
    long len = exam_file_read(exam, "smaps_rollup", text, sizeof(text));
    if (len < 0) {
        source_error(exam, SOURCE_ROLLUP, begun, len);
    } else if (!procfs_rollup_parse(text, (size_t)len, &rollup)) {
        source_end(exam, SOURCE_ROLLUP, begun, SOURCE_BROKEN, "it has no Rss line");
    } else {
        exam->facts->pages.lazyfree_bytes = rollup.lazyfree_bytes;
        exam->facts->pages.lazyfree_known = true;
        source_end(exam, SOURCE_ROLLUP, begun, SOURCE_READ, NULL);
    }
}

// interval_bytes is half the 95 % interval of hits out of count, scaled to total (Wilson would be
// nicer near 0 and 1; there the half width of one page serves).
static uint64_t interval_bytes(size_t hits, size_t count, uint64_t total_bytes)
{
    double share = (double)hits / (double)count;
    double half = 1.96 * sqrt(share * (1 - share) / (double)count) + 1.0 / (double)count;
    return (uint64_t)(half * (double)total_bytes);
}

static bool word_at(int fd, uint64_t index, uint64_t *word)
{
    return pread(fd, word, sizeof(*word), (off_t)(index * sizeof(*word))) == sizeof(*word);
}

bool frame_flags(int fd, uint64_t frame, uint64_t *flags)
{
    bool read = word_at(fd, frame, flags);
    while (read && (*flags & FLAG_TAIL) != 0 && frame != 0) {
        frame &= frame - 1;
        read = word_at(fd, frame, flags);
    }
    return read;
}

// lazy_count asks the flags of every page of the sample; those that have gone do not count.
static size_t lazy_count(const struct exam *exam, int flags_fd, size_t *asked)
{
    size_t lazy = 0;
    *asked = 0;
    for (size_t i = 0; i < exam->anonymous.count; i++) {
        uint64_t word;
        uint64_t flags;
        uint64_t index = exam->anonymous.addrs[i] / exam->facts->kernel.page_bytes;
        if (!word_at(exam->residency.fd, index, &word) || (word & WORD_IS_PRESENT) == 0 ||
            (word & WORD_FRAME) == 0 || !frame_flags(flags_fd, word & WORD_FRAME, &flags)) {
            continue;
        }
        (*asked)++;
        lazy += (flags & FLAG_ANON) != 0 && (flags & FLAG_SWAPBACKED) == 0;
    }
    return lazy;
}

static void flags_read(struct exam *exam)
{
    uint64_t begun = source_begin();
    struct facts_pages *pages = &exam->facts->pages;
    size_t asked;
    int fd = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        source_error(exam, SOURCE_PAGEFLAGS, begun, -errno);
        return;
    }
    size_t lazy = lazy_count(exam, fd, &asked);
    close(fd);
    if (asked == 0) {
        source_end(exam, SOURCE_PAGEFLAGS, begun, SOURCE_REFUSED,
                   "the kernel shows page frames to root alone");
        return;
    }
    uint64_t total = exam->anonymous.seen_count * exam->facts->kernel.page_bytes;
    pages->lazyfree_bytes = (uint64_t)((double)total * (double)lazy / (double)asked);
    pages->lazyfree_error_bytes = interval_bytes(lazy, asked, total);
    pages->lazyfree_known = true;
    source_end(exam, SOURCE_PAGEFLAGS, begun, SOURCE_READ, "a sample of %zu pages", asked);
}

void evidence_lazyfree(struct exam *exam)
{
    const struct facts_process *process = &exam->facts->process;
    if (process->rss_bytes <= ROLLUP_BYTES || exam->options->exact) {
        rollup_read(exam);
        return;
    }
    uint64_t begun = source_begin();
    source_end(exam, SOURCE_ROLLUP, begun, SOURCE_LEFT,
               "it looks at every page under a lock of the process: up to %.0f ms here; --exact",
               (double)process->rss_bytes / (double)GIB * 50);
    if (!exam->scans) {
        return;
    }
    if (!exam_affords(exam, FLAGS_COST_NS)) {
        source_end(exam, SOURCE_PAGEFLAGS, begun, SOURCE_LEFT, "the time was up");
        return;
    }
    flags_read(exam);
}

// ---- huge pages ---------------------------------------------------------------------------------

static bool is_zero(const char *page, size_t bytes)
{
    return page[0] == 0 && memcmp(page, page + 1, bytes - 1) == 0;
}

void evidence_huge(struct exam *exam)
{
    uint64_t begun = source_begin();
    struct facts_pages *pages = &exam->facts->pages;
    size_t page = (size_t)exam->facts->kernel.page_bytes;
    if (pages->huge_bytes == 0 || exam->huge.count == 0 || !exam->scans) {
        return;
    }
    char *copy = malloc(HUGE_SAMPLE_PAGES * page);
    if (copy == NULL) {
        source_error(exam, SOURCE_HUGE, begun, -ENOMEM);
        return;
    }
    size_t read = exam_read_many(exam, copy, exam->huge.addrs, exam->huge.count, page);
    size_t zero = 0;
    for (size_t i = 0; i < exam->huge.count; i++) {
        zero += is_zero(copy + i * page, page);
    }
    free(copy);
    if (read != exam->huge.count) {
        source_end(exam, SOURCE_HUGE, begun, SOURCE_REFUSED, "%zu of %zu pages could be read", read,
                   exam->huge.count);
        return;
    }
    pages->huge_zero_bytes = (uint64_t)((double)pages->huge_bytes * (double)zero / (double)read);
    pages->huge_error_bytes = interval_bytes(zero, read, pages->huge_bytes);
    source_end(exam, SOURCE_HUGE, begun, SOURCE_READ, "a sample of %zu small pages", read);
}
