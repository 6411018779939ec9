// SPDX-License-Identifier: MIT
//
// Malloc: the contract of C, C23 and POSIX on top of spans and large blocks.
//
// Model
//   Up to 1 KiB: by size / 16 to the current span. Up to 32 KiB: by size class. Above: a run of
//   pages. Alignment is 16 for every size, more on request. Zero bytes give a block of 16.
//   Nothing larger than PTRDIFF_MAX is given out. Failure is NULL and errno ENOMEM (EINVAL where
//   the standard says so); free keeps errno. A wrong address ends the program with a line
//   (span/badfree.c).
//
// Locking
//   None of its own.
//
// Flow
//   preload/libc.c malloc -> ebb_malloc -> span/span.h cache_alloc_small -> slower paths below.
//
// Why this way
//   The file of each entry point is small; what they share is in span. The public names and their
//   contracts are in include/ebb/malloc.h.
//
// Go       1.16 malloc.go mallocgc (small, large).
// Tests    test/unit/malloc_test.c  test/model/malloc_model.c  test/system/api.py
#ifndef EBB_MALLOC_MALLOC_H
#define EBB_MALLOC_MALLOC_H

#include "ebb/malloc.h"
#include "span/span.h"

#define MALLOC_MAX_BYTES ((size_t)PTRDIFF_MAX)

// malloc_large serves bytes > SMALL_MAX_BYTES. NULL and ENOMEM.
void *malloc_large(size_t bytes, size_t align);

// malloc_add_profiles makes heap, allocs, growth and pins known. Called by boot, once.
void malloc_add_profiles(void);

#endif
