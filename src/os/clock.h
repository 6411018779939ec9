// SPDX-License-Identifier: MIT
//
// Clock: what time it is, in nanoseconds.
//
// Model
//   now         monotonic, for intervals and deadlines; stands still while the machine is suspended
//   wall        since 1970, for people and for logs; may jump
//   thread cpu  processor time of the calling thread, for the releaser's share
//
// Locking
//   None; callable from signal handlers and before constructors. now and wall cost tens of
//   nanoseconds (vDSO, no system call where the kernel has a usable clock source), thread cpu is a
//   system call.
//
// Flow
//   Policies get the time as an argument; only threads that do something read a clock.
//
// Why this way
//   libc's clock_gettime, because finding the vDSO by hand buys nothing: it neither allocates nor
//   touches errno when it succeeds, and these clocks always exist.
//
// Go       runtime/time_nofake.go nanotime, walltime; os_linux cputicks.
// Tests    test/unit/procfs_test.c
#ifndef EBB_OS_CLOCK_H
#define EBB_OS_CLOCK_H

#include "base/base.h"

uint64_t clock_now_ns(void);
// clock_coarse_ns is the monotonic clock as of the last timer tick (up to 10 ms ago), for less.
uint64_t clock_coarse_ns(void);
uint64_t clock_wall_ns(void);
uint64_t clock_thread_cpu_ns(void);

#endif
