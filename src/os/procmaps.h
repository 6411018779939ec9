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
//   Two readers of mappings, the ledger and the doctor, and one parser.
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
    long error;
};
void lines_init(struct lines *lines, long fd, char *buf, size_t cap);
// lines_next returns the next line without its end, closed by a zero, or NULL. A line longer than
// the buffer is cut.
char *lines_next(struct lines *lines);

// One line of /proc/PID/maps. path points into the line.
struct mapping {
    uint64_t start, end, offset, inode;
    char perms[5];
    const char *path;
};
bool mapping_parse(char *line, struct mapping *out);

#endif
