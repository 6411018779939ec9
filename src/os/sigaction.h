// SPDX-License-Identifier: MIT
//
// Sigaction: a real-time signal that nobody uses, and a handler for it, past libc.
//
// Model
//   Searched downwards from SIGRTMAX - 1: valgrind keeps the last, Java SIGRTMAX - 2, glibc the
//   first three, and programs count their own from SIGRTMIN up. A signal whose action is not the
//   default is somebody's.
//   Handlers get SA_SIGINFO, SA_RESTART and SA_ONSTACK, and run with all signals blocked.
//
// Locking
//   None.
//
// Flow
//   control/signal.c, profile/cpu_sample.c -> sigaction_choose.
//
// Why this way
//   Raw, because libc's sigaction takes a lock in programs that intercept it (sanitizers, JVMs).
//
// Go       1.16 os_linux.go setsig, signal_unix.go initsig.
// Tests    test/unit/control_test.c  test/system/cpu_profile.py
#ifndef EBB_OS_SIGACTION_H
#define EBB_OS_SIGACTION_H

#include <signal.h>

#include "base/base.h"

// sigaction_choose installs the handler for a signal that was free; returns its number, or 0.
uint32_t sigaction_choose(void (*handler)(int number, siginfo_t *info, void *context));

// sigaction_is tells whether the signal still has that handler.
bool sigaction_is(uint32_t number, void (*handler)(int number, siginfo_t *info, void *context));

#endif
