// SPDX-License-Identifier: MIT
//
// ebb/ebb.h: all of Ebb's public interface, and which version this is.
//
// Ebb needs no start: the first call of any of its functions brings it to life, and under
// `ebb run PROGRAM` or LD_PRELOAD=libebb.so a program uses it without knowing. Options come from
// the environment variable EBB (name=value,...); `ebb options` lists them.
#ifndef EBB_EBB_H
#define EBB_EBB_H

#include "agent.h"
#include "api.h"
#include "malloc.h"
#include "profile.h"
#include "release.h"
#include "stats.h"

#define EBB_VERSION_MAJOR 0
#define EBB_VERSION_MINOR 1
#define EBB_VERSION_PATCH 0
#define EBB_VERSION_STRING "0.1.0"

#ifdef __cplusplus
extern "C" {
#endif

// ebb_version tells the version of the library that is loaded.
//
// Returns   a constant like "0.1.0"; EBB_VERSION_STRING is that of the header
// Context   any
// Blocks    nothing
// Go        runtime.Version
// Since     0.1
EBB_API const char *ebb_version(void);

#ifdef __cplusplus
}
#endif

#endif
