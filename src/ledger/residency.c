// SPDX-License-Identifier: MIT
//
// Ledger, residency: which pages the kernel holds in memory, by the best means it has.
//
// A page of zeros that was only ever read is mapped but shared and not counted in RSS: PAGEMAP_SCAN
// tells it apart. The words of pagemap do not without privileges, mincore not at all; there it
// counts as resident. Asking whether a page is a file's costs a look at the kernel's record of each
// page, five times as much as all the rest: so only where there may be any.
//
// Go  none.
#include <errno.h>
#include <sys/ioctl.h>

#include "ledger/ledger_int.h"
#include "os/sys.h"

// From linux/fs.h of Linux 6.7, newer than the headers we compile with.
struct scan_arg {
    uint64_t size, flags;
    uint64_t start, end, walk_end;
    uint64_t vec, vec_len;
    uint64_t max_pages;
    uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
struct scan_region {
    uint64_t start, end, categories;
};
#define SCAN_IOCTL _IOWR('f', 16, struct scan_arg)
#define SCAN_IS_FILE (UINT64_C(1) << 2)
#define SCAN_IS_PRESENT (UINT64_C(1) << 3)
#define SCAN_IS_PFNZERO (UINT64_C(1) << 5)
#define SCAN_IS_HUGE (UINT64_C(1) << 6)

// From Documentation/admin-guide/mm/pagemap.rst.
#define WORD_IS_FILE (UINT64_C(1) << 61)
#define WORD_IS_PRESENT (UINT64_C(1) << 63)

static long scan_some(struct residency *r, uint64_t start, uint64_t end, uint64_t *walk_end)
{
    struct scan_arg arg = {
        .size = sizeof(arg),
        .start = start,
        .end = end,
        .vec = (uintptr_t)r->buf,
        .vec_len = r->buf_bytes / sizeof(struct scan_region),
        .category_inverted = SCAN_IS_PFNZERO,
        .category_mask = SCAN_IS_PRESENT | SCAN_IS_PFNZERO,
        .return_mask = SCAN_IS_HUGE | (r->files ? SCAN_IS_FILE : 0),
    };
    long n = sys_call3(SYS_ioctl, r->fd, SCAN_IOCTL, &arg);
    *walk_end = arg.walk_end;
    return n;
}

static long walk_scan(struct residency *r, uint64_t start, uint64_t end, residency_visit *visit,
                      void *arg)
{
    const struct scan_region *regions = r->buf;
    while (start < end) {
        uint64_t walk_end = end;
        long n = scan_some(r, start, end, &walk_end);
        if (n < 0) {
            return n;
        }
        for (long i = 0; i < n; i++) {
            unsigned flags = ((regions[i].categories & SCAN_IS_FILE) != 0 ? RESIDENT_FILE : 0) |
                             ((regions[i].categories & SCAN_IS_HUGE) != 0 ? RESIDENT_HUGE : 0);
            visit(arg, max_u64(regions[i].start, start), min_u64(regions[i].end, end), flags);
        }
        // The kernel collects 512 regions at a time. Where a walk goes on after such a batch and
        // comes to its end, it leaves walk_end at the end of the batch (Linux 6.7 to 6.18): what
        // lies beyond would be visited again. A buffer that is not full tells that the walk is
        // over.
        bool full = (size_t)n == r->buf_bytes / sizeof(struct scan_region);
        walk_end = full ? max_u64(walk_end, regions[n - 1].end) : end;
        if (walk_end <= start) {
            return -EIO; // no progress: no kernel that we know
        }
        start = walk_end;
    }
    return 0;
}

// A run of pages of one kind, visited when the next one differs.
struct run {
    uint64_t start, end;
    unsigned flags;
};

static void run_page(struct run *run, uint64_t addr, size_t page_bytes, unsigned flags,
                     residency_visit *visit, void *arg)
{
    if (run->end == addr && run->flags == flags && run->start != run->end) {
        run->end += page_bytes;
        return;
    }
    if (run->start != run->end) {
        visit(arg, run->start, run->end, run->flags);
    }
    *run = (struct run){addr, addr + page_bytes, flags};
}

static void run_end(struct run *run, residency_visit *visit, void *arg)
{
    if (run->start != run->end) {
        visit(arg, run->start, run->end, run->flags);
    }
}

static long walk_words(struct residency *r, uint64_t start, uint64_t end, residency_visit *visit,
                       void *arg)
{
    const uint64_t *words = r->buf;
    struct run run = {0, 0, 0};
    while (start < end) {
        size_t count = min_size(r->buf_bytes / sizeof(*words), (end - start) / r->page_bytes);
        long n = sys_call4(SYS_pread64, r->fd, r->buf, count * sizeof(*words),
                           start / r->page_bytes * sizeof(*words));
        if (n < (long)sizeof(*words)) {
            return n < 0 ? n : -EIO;
        }
        count = (size_t)n / sizeof(*words);
        for (size_t i = 0; i < count; i++) {
            if ((words[i] & WORD_IS_PRESENT) != 0) {
                run_page(&run, start + i * r->page_bytes, r->page_bytes,
                         (words[i] & WORD_IS_FILE) != 0 ? RESIDENT_FILE : 0, visit, arg);
            }
        }
        start += count * r->page_bytes;
    }
    run_end(&run, visit, arg);
    return 0;
}

static long walk_mincore(struct residency *r, uint64_t start, uint64_t end, residency_visit *visit,
                         void *arg)
{
    const unsigned char *bytes = r->buf;
    struct run run = {0, 0, 0};
    while (start < end) {
        size_t count = min_size(r->buf_bytes, (end - start) / r->page_bytes);
        long error = sys_call3(SYS_mincore, start, count * r->page_bytes, r->buf);
        if (error < 0) {
            return error;
        }
        for (size_t i = 0; i < count; i++) {
            if ((bytes[i] & 1) != 0) {
                run_page(&run, start + i * r->page_bytes, r->page_bytes, 0, visit, arg);
            }
        }
        start += count * r->page_bytes;
    }
    run_end(&run, visit, arg);
    return 0;
}

long residency_open(struct residency *r, int pid, size_t page_bytes, void *buf, size_t buf_bytes)
{
    *r = (struct residency){
        .pid = pid, .page_bytes = page_bytes, .buf = buf, .buf_bytes = buf_bytes};
    long fd = proc_open(pid, "pagemap");
    r->fd = fd < 0 ? -1 : (int)fd;
    if (fd < 0) {
        r->how = RESIDENCY_MINCORE;
        return pid == 0 ? 0 : fd;
    }
    uint64_t walk_end;
    r->how = scan_some(r, 0, page_bytes, &walk_end) >= 0 ? RESIDENCY_SCAN : RESIDENCY_WORDS;
    return 0;
}

long residency_scan(struct residency *r, uint64_t start, uint64_t end, residency_visit *visit,
                    void *arg)
{
    start = align_down(start, r->page_bytes);
    switch (r->how) {
    case RESIDENCY_SCAN:
        return walk_scan(r, start, end, visit, arg);
    case RESIDENCY_WORDS:
        return walk_words(r, start, end, visit, arg);
    case RESIDENCY_MINCORE:
        return walk_mincore(r, start, end, visit, arg);
    }
    return -EINVAL;
}

void residency_close(struct residency *r)
{
    if (r->fd >= 0) {
        sys_call1(SYS_close, r->fd);
        r->fd = -1;
    }
}
