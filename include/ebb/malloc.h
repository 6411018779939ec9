// SPDX-License-Identifier: MIT
//
// ebb/malloc.h: memory by hand. The functions of <stdlib.h> under Ebb's own names, for programs
// that link Ebb without replacing malloc everywhere:
//
//     #include <ebb/ebb.h>
//
//     char *line = ebb_malloc(80);
//     if (line == NULL) { ... errno is ENOMEM ... }
//     line = ebb_realloc(line, 200);
//     ebb_free(line);
//
// Blocks of ebb_malloc and of malloc under the preload library are the same blocks: each may be
// freed by the other name. Every function may be called from any thread at any time, before
// constructors and in destructors of thread-local data too; none from a signal handler that may
// have interrupted one of them; all of them in the child of fork, also of a program with many
// threads.
#ifndef EBB_MALLOC_H
#define EBB_MALLOC_H

#include <stddef.h>

#include "api.h"

#ifdef __cplusplus
extern "C" {
#endif

// ebb_malloc allocates bytes of memory with undefined contents.
//
// bytes     0 to PTRDIFF_MAX; 0 gives a block that may only be freed
// Returns   the block, aligned to 16, owned by the caller until ebb_free; NULL and errno ENOMEM
// Context   any thread; not from a signal handler that may have interrupted malloc
// Blocks    rarely, on a lock of the heap; never on I/O
// Cost      at most 24 instructions when a block is at hand (test/golden/instructions.py)
// Go        none: new and make
// Since     0.1
EBB_API void *ebb_malloc(size_t bytes);

// ebb_calloc allocates an array and sets it to zero.
//
// count     0 to PTRDIFF_MAX / each
// each      bytes of an element
// Returns   as ebb_malloc; NULL and ENOMEM also if count * each overflows
// Context   as ebb_malloc
// Blocks    as ebb_malloc
// Go        make([]T, count)
// Since     0.1
EBB_API void *ebb_calloc(size_t count, size_t each);

// ebb_realloc changes the size of a block, moving it if need be.
//
// block     from a function of this header, or NULL: then as ebb_malloc(bytes)
// bytes     the new size; 0 frees the block and returns NULL
// Returns   the block, maybe at another address, first bytes as before; NULL and ENOMEM: the old
//           block is as it was. A block that is not one ends the program with a line that says so
// Context   as ebb_malloc
// Blocks    as ebb_malloc
// Go        append
// Since     0.1
EBB_API void *ebb_realloc(void *block, size_t bytes);

// ebb_reallocarray is ebb_realloc(block, count * each) with a check for overflow.
//
// block     as ebb_realloc
// count     elements
// each      bytes of an element
// Returns   as ebb_realloc; NULL and ENOMEM also if count * each overflows
// Context   as ebb_malloc
// Blocks    as ebb_malloc
// Go        append
// Since     0.1
EBB_API void *ebb_reallocarray(void *block, size_t count, size_t each);

// ebb_free gives a block back.
//
// block     from a function of this header, not freed yet, or NULL
// Returns   nothing; errno is as before. Double free, an address inside a block and an address that
//           is not ours end the program with one line, as far as can be known (docs/DEBUGGING.md)
// Context   as ebb_malloc
// Blocks    as ebb_malloc
// Cost      at most 36 instructions in the thread that allocated the block
// Go        none: the collector
// Since     0.1
EBB_API void ebb_free(void *block);

// ebb_aligned_alloc allocates memory at a multiple of align.
//
// align     a power of two
// bytes     any size; need not be a multiple of align (C23)
// Returns   the block; NULL and EINVAL for another align, NULL and ENOMEM
// Context   as ebb_malloc
// Blocks    as ebb_malloc
// Go        none
// Since     0.1
EBB_API void *ebb_aligned_alloc(size_t align, size_t bytes);

// ebb_posix_memalign is posix_memalign(3).
//
// result    the block is stored here; on failure it is left as it is
// align     a power of two and a multiple of sizeof(void *)
// bytes     any size
// Returns   0; EINVAL for another align; ENOMEM. errno is not touched
// Context   as ebb_malloc
// Blocks    as ebb_malloc
// Go        none
// Since     0.1
EBB_API int ebb_posix_memalign(void **result, size_t align, size_t bytes);

// ebb_malloc_usable_size tells how many bytes the block really has.
//
// block     as ebb_free
// Returns   at least what was asked for, all of it usable; 0 for NULL
// Context   as ebb_malloc
// Blocks    nothing
// Go        none
// Since     0.1
EBB_API size_t ebb_malloc_usable_size(void *block);

#ifdef __cplusplus
}
#endif

#endif
