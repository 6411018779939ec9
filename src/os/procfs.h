// SPDX-License-Identifier: MIT
//
// Procfs: what the kernel says about a process, ours or another.
//
// Model
//   All sizes are bytes. pid 0 is the calling process. A read that fails (no /proc, no permission,
//   the process is gone) returns false, or -1, and leaves *out alone; a field the kernel does not
//   have is 0. RSS of the status file comes from counters that lag behind by some pages per
//   processor or thread; the rollup walks the page tables and is exact, but its cost grows with the
//   memory.
//
// Locking
//   None. Raw system calls (openat, read, getdents64, close), errno untouched, nothing allocated;
//   up to 10 KiB of stack. Opens a descriptor with CLOEXEC for the length of the call: not for the
//   core after start-up, where a seccomp filter may forbid openat.
//
// Flow
//   procfs_x_read -> procfs_file_read -> procfs_x_parse, which is pure.
//
// Why this way
//   The parsers are functions on text, so that tests can show them the files of other kernels.
//
// Go       runtime/os_linux.go reads /proc/self/auxv and the huge page size in the same manner.
// Tests    test/unit/procfs_test.c
#ifndef EBB_OS_PROCFS_H
#define EBB_OS_PROCFS_H

#include "base/base.h"

// From /proc/PID/status.
struct procfs_memory {
    uint64_t rss_bytes, rss_anon_bytes, rss_file_bytes, rss_shmem_bytes;
    uint64_t vm_size_bytes, vm_peak_bytes;
    uint64_t vm_hwm_bytes; // largest RSS so far
    uint64_t swap_bytes;
    uint64_t threads_count;
    // Of the thread whose number is PID alone, the first one; procfs_switches_read adds all
    // threads.
    uint64_t voluntary_switches_count, involuntary_switches_count;
    int seccomp; // 0 none, 1 strict, 2 filter; -1 the kernel does not say
};

// From /proc/PID/smaps_rollup.
struct procfs_rollup {
    uint64_t rss_bytes, pss_bytes;
    uint64_t private_dirty_bytes, private_clean_bytes;
    uint64_t anonymous_bytes;
    uint64_t lazyfree_bytes; // advised MADV_FREE and still resident
    uint64_t anon_huge_bytes;
    uint64_t swap_bytes;
};

// From /proc/PID/stat, what the others have not.
struct procfs_stat {
    char state; // as in ps: R S D Z T
    bool kernel_thread, exiting;
    uint64_t user_ticks, system_ticks; // of processor time; 100 a second
    uint64_t start_ticks; // since the machine came up: with the PID it names one process for good
};
#define PROCFS_TICKS_PER_S 100 // USER_HZ, on both processors

struct procfs_switches {
    uint64_t voluntary_count, involuntary_count;
    uint64_t threads_count;
};

bool procfs_memory_read(int pid, struct procfs_memory *out);
bool procfs_rollup_read(int pid, struct procfs_rollup *out);
bool procfs_stat_read(int pid, struct procfs_stat *out);
// procfs_switches_read sums the context switches of the threads that live now.
bool procfs_switches_read(int pid, struct procfs_switches *out);

// procfs_maps_count returns the number of mappings (what max_map_count bounds), or -1.
int64_t procfs_maps_count(int pid);
// procfs_overcommit returns vm.overcommit_memory: 0 heuristic, 1 always, 2 strict; -1 unknown.
int procfs_overcommit(void);
// procfs_seccomp returns 0 none, 1 strict, 2 filter; -1 unknown.
int procfs_seccomp(int pid);

// Parsers of the text of such a file; false if it is another one.
bool procfs_status_parse(const char *text, size_t len, struct procfs_memory *out);
bool procfs_rollup_parse(const char *text, size_t len, struct procfs_rollup *out);
bool procfs_stat_parse(const char *text, size_t len, struct procfs_stat *out);

// procfs_file_read fills buf with the start of a file, closed by a zero (cap > 0), and returns the
// number of bytes before it, or a negative errno.
long procfs_file_read(const char *path, char *buf, size_t cap);

// procfs_number_u64 reads the decimal number at text, after blanks; false if there is none. A
// number too large is UINT64_MAX.
bool procfs_number_u64(const char *text, size_t len, uint64_t *value);

// procfs_field_u64 finds the line of text that starts with name and returns the decimal number
// after blanks; false if there is none. Lines are "Name:   123 kB" or "name 123"; name includes the
// colon.
bool procfs_field_u64(const char *text, size_t len, const char *name, uint64_t *value);

#endif
