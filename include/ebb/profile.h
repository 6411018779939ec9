// SPDX-License-Identifier: MIT
//
// ebb/profile.h: who allocated, who runs, written as go tool pprof reads it.
//
//     int fd = open("heap.pb.gz", O_CREAT | O_WRONLY | O_TRUNC, 0644);
//     ebb_profile_write("heap", fd, 0);   // then: go tool pprof heap.pb.gz
//
// The heap is sampled all the time, one allocation in 512 KiB on average (option profile_rate).
#ifndef EBB_PROFILE_H
#define EBB_PROFILE_H

#include <stddef.h>

#include "api.h"

#ifdef __cplusplus
extern "C" {
#endif

// ebb_profile_write writes a profile to a descriptor.
//
// name      "heap" (memory in use), "allocs" (ever allocated), "growth" (in use, by age), "pins"
//           (in use, with the free memory each keeps from going back); more where
//           /debug/pprof/ lists them
// fd        open for writing; stays open; written from its present position
// debug     0: gzip'd profile.proto; 1: text
// Returns   0; -ENOENT if there is no profile of that name; -EINVAL if it is one that takes its
//           time (cpu), or debug is neither 0 nor 1; -ENOMEM; what write(2) says
// Context   any thread; not from a signal handler. Opens the files of the program and its
//           libraries for names and lines; takes no memory from the heap it describes
// Blocks    on files, up to some seconds for programs with much debugging information
// Go        pprof.Lookup(name).WriteTo
// Since     0.1
EBB_API int ebb_profile_write(const char *name, int fd, int debug);

// ebb_profile_cpu samples who runs for a while, a hundred times in each second of processor time
// of each thread, and writes the profile.
//
// fd        as for ebb_profile_write
// seconds   1 to 3600
// Returns   0; -EINVAL; -EBUSY while another CPU profile is under way; -EAGAIN if no real-time
//           signal is free; -EPERM after a system call filter was announced; -ENOMEM; what
//           write(2) says
// Context   any thread; not from a signal handler
// Blocks    the caller for so many seconds; others' calls may be interrupted as by any signal
// Go        pprof.StartCPUProfile, StopCPUProfile
// Since     0.1
EBB_API int ebb_profile_cpu(int fd, unsigned seconds);

// ebb_profile_set_rate says how many bytes lie between two samples of the heap on average.
//
// bytes     0: none; 1: every allocation; up to 1 GiB
// Returns   0; -EINVAL
// Context   any thread; not from a signal handler
// Blocks    all other threads' slow paths, for as long as it takes to visit every span
// Go        runtime.MemProfileRate. Unlike Go: may be changed at any time
// Since     0.1
EBB_API int ebb_profile_set_rate(size_t bytes);

// ebb_profile_rate tells it.
//
// Returns   bytes
// Context   any
// Blocks    nothing
// Go        runtime.MemProfileRate
// Since     0.1
EBB_API size_t ebb_profile_rate(void);

// ebb_label_set gives the calling thread a label, which everything that is sampled of it from now
// on carries: what it allocates, and its processor time. In pprof: -tagfocus, -tagroot, -tags.
//
// key       1 to 63 bytes; copied
// value     up to 63 bytes, copied; NULL takes the label away
// Returns   0; -EINVAL if key is NULL or empty; -E2BIG if key or value is too long, or it would be
//           the eighth label; -ENOSPC if the process has made 4,096 different sets of labels;
//           -ENOMEM
// Context   any thread; not from a signal handler
// Blocks    nothing for long: one lock
// Memory    a set of labels is kept for ever: use names of subsystems, not of requests
// Go        pprof.SetGoroutineLabels. Unlike Go: not inherited by threads that the thread starts
// Since     0.1
EBB_API int ebb_label_set(const char *key, const char *value);

#ifdef __cplusplus
}
#endif

#endif
