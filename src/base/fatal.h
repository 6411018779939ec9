// SPDX-License-Identifier: MIT
//
// Fatal: the two ways in which Ebb ends a process.
//
// Model
//   fatal       an invariant of ours is broken: going on could damage the program's data.
//   fatal_user  the program broke the contract (double free, foreign pointer): says what it did.
//   Both print one line to stderr by one write and abort. The abort is the one of abort(3): a
//   handler for SIGABRT runs first; if it returns, or the signal was blocked or ignored, the
//   process dies of SIGABRT all the same.
//
// Locking
//   Takes no lock, ours or libc's, and does not allocate. A SIGABRT handler of the program may well
//   call malloc, therefore fatal_user is to be called with no lock of ours held; fatal may be
//   called anywhere.
//
// Flow
//   fatal -> line -> hook (once per process) -> abort; fatal_user -> line -> abort.
//
// Why this way
//   Not abort(3): glibc takes a lock in it that a thread may hold while it forks or aborts.
//
// Go       runtime/panic.go throw, fatalthrow; signal_unix.go dieFromSignal.
// Tests    test/unit/fmt_test.c
#ifndef EBB_BASE_FATAL_H
#define EBB_BASE_FATAL_H

#include "base/base.h"
#include "base/fmt.h"

// fatal prints "ebb: fatal: <text>", calls the hook and aborts. text is constant: "component:
// what".
ATTR_NORETURN ATTR_COLD void fatal(const char *text);

// fatal_user prints "ebb: <line>" and aborts. line comes without a newline.
ATTR_NORETURN ATTR_COLD void fatal_user(const struct fmt *line);

// fatal_set_hook names what fatal calls between its line and the abort (stacks, numbers). Called
// with any lock held: it must not block, lock or allocate. Set once, by boot.
void fatal_set_hook(void (*hook)(void));

#endif
