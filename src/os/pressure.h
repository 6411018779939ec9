// SPDX-License-Identifier: MIT
//
// Pressure: how much of the time tasks wait for memory, as the kernel counts it (PSI).
//
// Model
//   A share in hundredths of a percent: "some avg10=12.34" is 1234. PRESSURE_UNKNOWN where the
//   kernel does not say (before 4.20, CONFIG_PSI off, psi=0).
//
// Locking
//   None; as in procfs.h: raw calls, nothing allocated, not after a seccomp filter came. Up to
//   2 KiB of stack.
//
// Flow
//   release/limiter.c, at most once a second -> pressure_read -> pressure_parse, which is pure.
//
// Why this way
//   The cgroup's own file is asked first: in a container the machine's says how its neighbours are.
//
// Go       none.
// Tests    test/unit/pressure_test.c
#ifndef EBB_OS_PRESSURE_H
#define EBB_OS_PRESSURE_H

#include "os/cgroup.h"

#define PRESSURE_UNKNOWN UINT32_MAX

// pressure_read returns the share of the last ten seconds in which some task waited for memory: of
// the cgroup (version 2 has it; NULL: none), else of the machine below root ("" outside tests).
uint32_t pressure_read(const struct cgroup *group, const char *root);

// pressure_parse reads the text of such a file: "some avg10=0.00 avg60=...", PRESSURE_UNKNOWN if it
// is another one.
uint32_t pressure_parse(const char *text, size_t len);

#endif
