// SPDX-License-Identifier: MIT
//
// Boot: coming to life, forking, ending. The only folder that knows all others.
//
// Model
//   Phase 0  zeroed globals. Nothing has run.
//   Phase 1  the first malloc, maybe before any constructor: heap_init. No environment, no stdio.
//   Phase 2  our constructor: options, fork handlers, the releaser's doorbell.
//   Phase 3  the releaser's thread, when there is something to give back; again in a forked child.
//
// Locking
//   Fork takes, in order: the release round, WORLD, every claim, CENTRAL, PAGEHEAP, META.
//
// Flow
//   constructor -> option_parse -> releaser_init; pthread_atfork.
//   fork: boot_fork_prepare -> releaser_fork_prepare -> world_freeze; then parent or child.
//
// Why this way
//   -z initfirst lets our constructor run before others', so that our fork handlers are the
//   innermost: prepare runs last, parent and child first (docs/design/003).
//
// Go       1.16 proc.go schedinit, runtime1.go parsedebugvars.
// Tests    test/system/forkstorm.py  test/system/badoption.py  test/system/setuid.py
#ifndef EBB_BOOT_BOOT_H
#define EBB_BOOT_BOOT_H

#include "ebb/ebb.h"
#include "os/vm.h"
#include "release/release.h" // memstats_read, for preload

// boot_release_now is malloc_trim: bytes given back.
uint64_t boot_release_now(void);

// boot_print_stats writes MemStats and the kernel's numbers beside them.
void boot_print_stats(int fd);

// boot_watch_waits puts the watch on locks and threads where their names are ours.
void boot_watch_waits(void);

// boot_filter_coming: the program may be about to forbid system calls (prctl).
void boot_filter_coming(void);

// boot_credentials_change: the program is about to change what the kernel keeps for each thread.
void boot_credentials_change(void);
// boot_credentials_changed: that is done, or has failed. errno stays.
void boot_credentials_changed(void);

#endif
