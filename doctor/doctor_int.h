// SPDX-License-Identifier: MIT
//
// Doctor, what only its own files share: an examination under way, its vmas and its sources.
//
// Go  none.
#ifndef EBB_DOCTOR_DOCTOR_INT_H
#define EBB_DOCTOR_DOCTOR_INT_H

#include <libelf.h>

#include "doctor.h"
#include "ledger/ledger.h"

#define VMA_NO_HEAP UINT8_MAX
// A process has at most vm.max_map_count mappings, 65530 by default; more are cut and said so.
#define VMAS_MAX ((size_t)1 << 20)

// A mapping. The scan of pages fills the resident sizes.
struct vma {
    uint64_t start, end, offset;
    uint64_t resident_bytes; // all of it
    uint64_t file_bytes;     // of these: of a file or of shared memory, not a private copy
    uint64_t huge_bytes;     // of these: anonymous, in huge pages
    const char *path;        // as in maps, but for "(deleted)" of a file; "" for anonymous memory
    char perms[5];
    uint8_t place; // enum place, of what is not file_bytes
    uint8_t heap;  // index into facts.heaps, for PLACE_HEAP
    bool removed;  // the file was: its path may be another's by now
};

// Every step-th page that goes by is kept, as long as there is room.
struct page_sample {
    uint64_t step, skipped;
    uint64_t seen_count; // pages that went by
    size_t count, cap;
    uint64_t *addrs;
};

struct exam {
    struct facts *facts;
    const struct doctor_options *options;
    struct ledger_reader reader; // of the process's memory
    struct ledger_target ebb;    // where facts.ebb.in_use
    // Of this thread's processor time: on a busy machine an answer counts more than the clock.
    uint64_t deadline_ns;
    uint64_t reserve_ns; // of it, kept for counting pages until they are counted
    struct vma *vmas;    // by address
    size_t vmas_count, vmas_cap;
    struct name_block *names;   // memory of the paths
    struct residency residency; // open while `scans`
    bool scans;
    void *scan_buf;
    struct page_sample anonymous, huge; // resident pages, spread evenly; by evidence_pages
    struct go_state *go;                // between evidence_go and its division; or NULL
    struct parts *parts;                // of heaps that other allocators have made: parts.h
    struct glibc_heap *glibc;           // between evidence_glibc and its division; or NULL
    enum doctor_error error;            // the process cannot be examined any further
};

// ---- sources (exam.c) ---------------------------------------------------------------------------

// source_begin starts the clock of a source; source_end stops it and notes the outcome. format may
// be NULL.
uint64_t source_begin(void);
void source_end(struct exam *exam, enum source_id id, uint64_t begun_ns, enum source_state state,
                const char *format, ...) ATTR_PRINTF(5, 6);
// source_error notes a negative errno: REFUSED, ABSENT or, if the process has gone, the end of the
// examination.
void source_error(struct exam *exam, enum source_id id, uint64_t begun_ns, long error);

// exam_affords tells whether so many nanoseconds are left in the budget.
bool exam_affords(const struct exam *exam, uint64_t cost_ns);
// reach_affords is exam_affords, but for a look with --scan, which takes the time it needs.
bool reach_affords(const struct exam *exam, uint64_t cost_ns);

// exam_read copies from the process's memory. 0 or a negative errno.
long exam_read(const struct exam *exam, void *to, uint64_t addr, size_t bytes);
// exam_peek is exam_read for pages that may not be there: what is not resident is not read, because
// that would bring it in. -ENODATA then. At most two pages.
long exam_peek(const struct exam *exam, void *to, uint64_t addr, size_t bytes);
// exam_read_many copies count pieces of `bytes` each, one behind the other into to. Pieces that
// cannot be read are zeros. Returns how many could.
size_t exam_read_many(const struct exam *exam, void *to, const uint64_t *addrs, size_t count,
                      size_t bytes);

// exam_file_read reads the start of /proc/PID/name below options->root, closed by a zero. Bytes, or
// a negative errno.
long exam_file_read(const struct exam *exam, const char *name, char *buf, size_t cap);

// root_open opens a file by a path that the process says, below its root: links are followed there,
// never out of it (openat2, Linux 5.6; before, only those on the way, and in our root). A
// descriptor to read, or a negative errno, -ENOEXEC for what is no file: that is not even opened.
int root_open(const struct exam *exam, const char *path);
// elf_open opens /proc/PID/name, "exe" for the program, or a path below its root, from "/" on; as
// root_open returns.
int elf_open(const struct exam *exam, const char *name);
// elf_head_good tells a 64-bit ELF file whose counts fit into its head: others are no program's,
// and libelf would allocate by them.
bool elf_head_good(int fd);
// elf_names reads a section of names, each ended by a zero, of at most cap bytes. NULL if the
// section is not that. The bytes are elf's, and there is at least one.
Elf_Data *elf_names(Elf *elf, size_t index, uint64_t cap);

// text_printable puts '?' for all but ASCII that prints: what another process says must not command
// our terminal.
void text_printable(char *text);

// ---- vmas (evidence_maps.c) ------------------------------------------------------------------

// vma_behind returns the index of the first vma that ends behind addr; their number if there is
// none. vma_at returns the vma that holds addr, or NULL.
size_t vma_behind(const struct exam *exam, uint64_t addr);
struct vma *vma_at(const struct exam *exam, uint64_t addr);
// vma_named returns the first vma whose file's name begins so ("libc.so", "libc-2."), or NULL.
struct vma *vma_named(const struct exam *exam, const char *prefix);
// vma_cut makes addr a boundary between two vmas, where it lies inside one, before pages are
// counted. Returns false if there is no memory. Pointers to vmas are stale afterwards.
bool vma_cut(struct exam *exam, uint64_t addr);
// vma_claim gives a vma to a heap.
void vma_claim(struct exam *exam, struct vma *vma, size_t heap_index);
void vmas_free(struct exam *exam);
// maps_gaps visits what can be read and written now but lies in no vma that could, in order of
// address. 0 or a negative errno.
typedef void maps_visit(void *arg, uint64_t start, uint64_t end);
long maps_gaps(const struct exam *exam, maps_visit *visit, void *arg);
// vma_is_anonymous tells private memory without a file that can be written.
bool vma_is_anonymous(const struct vma *vma);

// heap_add adds a heap to the facts and returns its index, or HEAPS_MAX if there is no room.
size_t heap_add(struct exam *exam, enum heap_kind kind);

// ---- cgroups (find.c) ---------------------------------------------------------------------------

// group_processes counts the processes of a cgroup and of all below it, also those that cannot be
// seen from here.
uint64_t group_processes(const char *dir);

// ---- evidence -----------------------------------------------------------------------------------

// Before the pages are counted: what is there, and which vmas belong to whom.
void evidence_status(struct exam *exam);
void evidence_command(struct exam *exam);
void evidence_environ(struct exam *exam);
void evidence_kernel(struct exam *exam);
void evidence_cgroup(struct exam *exam);
void evidence_maps(struct exam *exam);
void evidence_pagemap(struct exam *exam);
void evidence_exe(struct exam *exam);
void evidence_ebb(struct exam *exam);
void evidence_go(struct exam *exam);
void evidence_jvm(struct exam *exam);
void evidence_allocators(struct exam *exam);
void evidence_glibc(struct exam *exam);
// Counting pages.
void evidence_pages(struct exam *exam);
void evidence_rss_again(struct exam *exam);
void evidence_lazyfree(struct exam *exam);
void evidence_huge(struct exam *exam);
// frame_flags reads the flags of a page frame from /proc/kpageflags. Those of a page inside of a
// larger one are the flags of its head, which lies at a multiple of its size: before Linux 6.10
// swapbacked shows there alone. false if they cannot be read.
bool frame_flags(int fd, uint64_t frame, uint64_t *flags);
// Afterwards: the heaps are divided.
void evidence_ebb_divide(struct exam *exam);
void evidence_go_divide(struct exam *exam);
void go_free(struct exam *exam); // of what evidence_go holds for it
void evidence_glibc_divide(struct exam *exam);
void glibc_free(struct exam *exam);
void evidence_allocators_divide(struct exam *exam);
void evidence_reach(struct exam *exam);
// Last of all: whether it is still there, and no other has its number by now.
void evidence_end(struct exam *exam);

#endif
