// SPDX-License-Identifier: MIT
//
// CPU samples: who runs, asked a hundred times in each second of processor time of each thread.
//
// Model
//   Each thread has a timer of its own, driven by the processor time it uses, that sends it a
//   signal. The handler unwinds the stack it interrupts into the next slot of a buffer. Threads
//   that begin during the profile get their timers when they are found, ten times a second.
//   A thread that sleeps gets no signal.
//   state   IDLE, RUNNING. One profile at a time.
//
// Locking
//   None. The handler takes a slot by adding to a counter. What it does is nothing that the thread
//   it interrupts could be in the middle of: no lock, no memory, no libc (docs/design/009).
//
// Flow
//   cpu_sample_run: signal and buffer -> a timer for each thread -> handlers -> timers away -> set.
//
// Why this way
//   One timer for the process (ITIMER_PROF) favours threads at random and loses most signals when
//   many run; by thread, each is asked by its own use.
//
// Go       1.19 os_linux.go setThreadCPUProfiler, sigprof; cpuprof.go.
// Tests    test/system/cpu_profile.py
#ifndef EBB_PROFILE_CPU_SAMPLE_H
#define EBB_PROFILE_CPU_SAMPLE_H

#include "base/atomic.h"
#include "profile/profile.h"

// Samples in a second of processor time, as in Go: 100. Threads are out of step with one another.
#define CPU_SAMPLE_HZ 100

// Columns samples and cpu, label thread: its name.
extern const struct profile_kind cpu_sample_kind ATTR_HIDDEN;

// cpu_sample_run profiles for duration_ns, or until *stop is not 0 (NULL: never), and fills the
// set, which profile_set_init has made for cpu_sample_kind. Looks at stop ten times a second.
// Returns 0; -EBUSY while another one runs; -EAGAIN if no real-time signal is free; -ENOMEM; -EPERM
// after cpu_sample_restrict. Any thread, also a bare one.
long cpu_sample_run(struct profile_set *set, uint64_t duration_ns, const atomic_u32 *stop);

// cpu_sample_restrict: a system call filter has come. No timers any more.
void cpu_sample_restrict(void);

// cpu_sample_fork_child: timers are not inherited; what was under way is over.
void cpu_sample_fork_child(void);

#endif
