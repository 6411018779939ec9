// SPDX-License-Identifier: MIT
//
// Procmaps: the files of a process read line by line, and one line of its maps.
//
// Model
//   A file of /proc may be longer than any buffer: lines pass through one of the caller's. A
//   mapping is a line of /proc/PID/maps, whose last field may hold blanks and "(deleted)".
//
// Locking
//   None. As in procfs.h: raw system calls, errno untouched, nothing allocated.
//
// Flow
//   proc_open -> lines_init -> lines_next until NULL, each through mapping_parse -> close.
//
// Why this way
//   Two readers of mappings, the ledger and the doctor: one parser, and one word for what it is.
//
// Go       runtime/pprof parseProcSelfMaps.
// Tests    test/unit/ledger_test.c
#ifndef EBB_OS_PROCMAPS_H
#define EBB_OS_PROCMAPS_H

#include "base/base.h"

// proc_open opens /proc/PID/name (pid 0: self); a descriptor or a negative errno.
long proc_open(int pid, const char *name);

// Reads a file line by line through a buffer of the caller.
struct lines {
    long fd;
    char *buf;
    size_t cap, len, pos;
    bool cut; // what follows belongs to a line that was longer than the buffer
    long error;
};
void lines_init(struct lines *lines, long fd, char *buf, size_t cap);
// lines_next returns the next line without its end, closed by a zero, or NULL. A line longer than
// the buffer is cut, and its rest passed over: whoever chose it may have made it look like a line.
char *lines_next(struct lines *lines);

// One line of /proc/PID/maps. path points into the line.
struct mapping {
    uint64_t start, end, offset, inode;
    char perms[5];
    const char *path;
};
bool mapping_parse(char *line, struct mapping *out);

// What the memory of a mapping is, where it is not a file's.
enum mapping_kind {
    MAPPING_ANONYMOUS,
    MAPPING_STACK,   // what the kernel calls [stack]; a thread's
    MAPPING_DATA,    // private copies of a file's pages, and the zeroed part behind them (.bss)
    MAPPING_SHMEM,   // shared memory
    MAPPING_SPECIAL, // the kernel's: vdso and the like
};
// What is kept from the mapping before; zeros for the first.
struct mapping_before {
    uint64_t end;
    bool of_file; // variables may follow it
    bool guard;
};
// mapping_kind tells it by the line and the one before, for which it leaves this one in *before. A
// thread's stack is anonymous memory right above a small inaccessible mapping, glibc's guard.
enum mapping_kind mapping_kind(const struct mapping *m, struct mapping_before *before);

#endif
