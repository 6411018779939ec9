// SPDX-License-Identifier: MIT
//
// Ledger: where each resident byte of a process is, from inside and from outside.
//
// Model
//   The counters page (struct ledger_page) is a variable of libebb that says where everything else
//   is. An ELF note names it, so that who may read the process's memory finds it: no thread, no
//   socket and no file of the process takes part, and the process does not stop.
//   A reader is a process's memory: ours by memcpy, another's by process_vm_readv. All that is read
//   may be torn, because the process runs on: every number is bounded before it is used, and what
//   does not fit is left out and counted (refused_count).
//   The walk goes over arenas, span records and thread caches. Each page of the heap gets exactly
//   one place in it, so that the identities of MemStats hold by construction.
//   The ledger asks the kernel page by page what is resident, and puts each page into one class.
//   No class is a difference: what the kernel counts beyond their sum is "unexplained".
//
// Locking
//   None, on either side. Scratch memory is a mapping of its own for the time of the call.
//
// Flow
//   ledger_find (maps -> ELF header -> note -> page) -> ledger_walk (caches, arenas, records)
//   -> with a residency: classes of heap pages; ledger_outside: all other mappings
//   -> ledger_read: RSS before, walk, outside, RSS after; again if the sum lies beyond both.
//
// Why this way
//   A counters page with ready sums would cost stores on fast paths, or be wrong while the program
//   sleeps. The records are there anyway; walking them costs about 2 ms per GiB of small blocks.
//   The headers are read from the process's memory and not from the file: the file may be deleted,
//   replaced, or in another mount namespace.
//
// Go       1.16 mstats.go readmemstats_m. Unlike Go: readable from outside.
// Tests    test/unit/ledger_test.c  test/system/ledger.py  test/cli/look_test.py
#ifndef EBB_LEDGER_LEDGER_H
#define EBB_LEDGER_LEDGER_H

#include "base/atomic.h"
#include "base/fmt.h"
#include "base/option.h"
#include "ebb/stats.h"
#include "span/span.h"

// --- the counters page (page.c) ---

#define LEDGER_NOTE_OWNER "Ebb"
#define LEDGER_NOTE_TYPE 0x45424201u
#define LEDGER_NOTE_VERSION 1u

// What the ELF note holds. Relative to itself, so that loading the library relocates nothing.
struct ledger_note {
    uint32_t version;    // LEDGER_NOTE_VERSION
    uint32_t reserved;   // 0
    int64_t page_offset; // address of the page minus the address of this field
};

#define LEDGER_PAGE_MAGIC UINT64_C(0x6567615020626245) // "Ebb Page" in memory
#define LEDGER_PAGE_VERSION 1u
#define LEDGER_OWN_COUNT 8
#define LEDGER_NAME_BYTES 24

struct ledger_range {
    uint64_t start;
    uint64_t bytes;
};

// The first five fields are the same in every version of the page.
struct ledger_page {
    uint64_t magic;                  // (C) LEDGER_PAGE_MAGIC, once the library has started
    uint64_t self;                   // (C) the page's address: proof that this is not a mapped file
    uint32_t version;                // (C) LEDGER_PAGE_VERSION
    uint32_t bytes;                  // (C) sizeof(struct ledger_page)
    char library[LEDGER_NAME_BYTES]; // (C) version of the library
    uint64_t layout;                 // (C) ledger_layout of the library
    uint64_t pages;                  // (C) &pageheap_main
    uint64_t heap;                   // (C) &heap_main
    uint64_t options;                // (C) &options_main
    uint32_t options_bytes;          // (C) sizeof(struct options)
    uint32_t kernel_page_bytes;      // (C)
    char policy[LEDGER_NAME_BYTES];  // written by ledger_page_set_policy
    atomic_u64 limit_bytes;          // (A) memory limit; UINT64_MAX: none
    uint64_t control;                // (C) &control_page; 0 until it is made (control/control.h)
    struct ledger_range own[LEDGER_OWN_COUNT]; // more memory of Ebb's: stacks of its threads
};

extern struct ledger_page ledger_page_main ATTR_HIDDEN;

// ledger_page_init fills the page; called once, by boot, when the heap is ready.
void ledger_page_init(void);

// ledger_page_set_policy tells the page which policy is in force.
void ledger_page_set_policy(const char *name);

// ledger_page_add_own tells the page of memory that is Ebb's and not of its meta memory: the stack
// of a thread of ours, a buffer from vm_reserve. The same start again replaces the size. What does
// not fit in the table counts as other anonymous memory.
void ledger_page_add_own(const void *start, size_t bytes);

// ledger_layout tells two builds apart whose structures differ.
uint64_t ledger_layout(void);

// --- reading a process (reader.c, find.c) ---

struct ledger_reader {
    int pid; // 0: our own memory, by memcpy
};

// ledger_read_memory copies bytes from addr of the process. 0 or a negative errno: ESRCH it has
// ended, EPERM it may not be read, EFAULT nothing is there.
long ledger_read_memory(const struct ledger_reader *reader, void *to, uint64_t addr, size_t bytes);

struct ledger_target {
    struct ledger_reader reader;
    struct ledger_page page; // as read
    uint64_t page_addr;      // where it is
    uint64_t object_start;   // the ELF object that has the note: first address
    char object[256];        // and its path, as in maps
};

// ledger_own_target makes the target that is this process itself; false if the heap has not
// started.
bool ledger_own_target(struct ledger_target *target);

// ledger_find looks for the counters page of another process. 0, or
//   -ESRCH   there is no such process, or it ended meanwhile
//   -EACCES  it belongs to somebody else, or protects itself; -EPERM: its memory may not be read
//   -ENOENT  no note of ours in what it has mapped: it does not run on Ebb
//   -EAGAIN  the library is mapped, but has not started (yet)
//   -EPROTO  the page is of another version or layout: target->page.version and .library say which
long ledger_find(struct ledger_target *target, int pid);

// Pure parts of it. ledger_elf_notes finds the note segments in the first len bytes of an ELF
// object; returns how many of at most cap. bias is load address minus the first segment's.
struct ledger_segment {
    uint64_t addr; // without bias
    uint64_t bytes;
};
size_t ledger_elf_notes(const void *head, size_t len, struct ledger_segment *out, size_t cap,
                        uint64_t *first_addr);

// ledger_note_find looks through a note segment; the offset of the note's content, or SIZE_MAX.
size_t ledger_note_find(const void *notes, size_t len);

// ledger_page_check tells whether a page that was read at addr can be used: 0, -EAGAIN, -EPROTO.
long ledger_page_check(const struct ledger_page *page, uint64_t addr);

// --- residency (residency.c) ---

enum residency_how {
    RESIDENCY_SCAN,    // PAGEMAP_SCAN, Linux 6.7
    RESIDENCY_WORDS,   // the words of pagemap: zero pages cannot be told from others
    RESIDENCY_MINCORE, // our own process only
};

enum {
    RESIDENT_FILE = 1, // of a file or shared memory, not a private copy
    RESIDENT_HUGE = 2, // mapped by a huge page
};

struct residency {
    int pid;
    int fd; // of pagemap, or -1
    enum residency_how how;
    bool files;        // ask for RESIDENT_FILE too; set and cleared by the caller
    size_t page_bytes; // the kernel's
    void *buf;
    size_t buf_bytes; // at least 4096
};

typedef void residency_visit(void *arg, uint64_t start, uint64_t end, unsigned flags);

// residency_open prepares for a process; buf is the caller's. 0 or a negative errno.
long residency_open(struct residency *residency, int pid, size_t page_bytes, void *buf,
                    size_t buf_bytes);
// residency_scan visits the resident parts of [start, end) in order of address. 0 or a negative
// errno; some may have been visited then.
long residency_scan(struct residency *residency, uint64_t start, uint64_t end,
                    residency_visit *visit, void *arg);
void residency_close(struct residency *residency);

// --- walking (walk.c, outside.c, ledger.c) ---

// What outside readers know of a heap besides MemStats and the ledger.
struct ledger_extra {
    uint64_t moved_count;   // by how many allocations and frees the totals may be off, because the
                            // heap moved while it was read; 0: two readings agreed
    uint64_t refused_count; // records and arenas that made no sense
    uint64_t hole_bytes;    // given back inside spans in use
    uint64_t remote_bytes;  // freed by other threads, not collected yet
    uint64_t withdrawn_bytes; // with the releaser, or between two states
    uint64_t retained_bytes;  // heap_sys - heap_released
    uint64_t hollow_bytes;    // of the ledger's slack: on kernel pages without a block in use, if
                              // blocks in use lie at random; by ledger_read alone
    uint64_t ops_count;       // page-heap operations ever
};

// RSS as the kernel has it. smaps_rollup looks at every page, 20 to 50 ms per GiB: it is asked of
// small processes (LEDGER_ROLLUP_BYTES) and where lazily freed memory must be known. Else the
// counters of /proc/PID/status serve: exact since Linux 6.17, before that they may lag behind by
// some pages per processor.
#define LEDGER_ROLLUP_BYTES (256 * MIB)
struct ledger_rss {
    uint64_t rss_bytes;
    uint64_t anon_bytes;
    uint64_t swap_bytes;
    uint64_t lazyfree_bytes;
    bool by_rollup; // else lazyfree_bytes is not known
};
bool ledger_rss_read(int pid, bool want_lazyfree, struct ledger_rss *out);

// ledger_memstats_read fills stats and extra (not NULL) from the target's records. It reads until
// two readings agree, at most six times. 0 or a negative errno.
long ledger_memstats_read(const struct ledger_target *target, struct ebb_memstats *stats,
                          struct ledger_extra *extra);

// ledger_read fills all of them.
long ledger_read(const struct ledger_target *target, struct ebb_ledger *ledger,
                 struct ebb_memstats *stats, struct ledger_extra *extra);

// ledger_restrict says that a system call filter has come: ebb_ledger_read opens nothing any more.
void ledger_restrict(void);

#endif
