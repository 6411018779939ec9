// SPDX-License-Identifier: MIT
//
// libc's names for the heap, each a jump to Ebb's own, so that a preloaded or linked library serves
// every malloc of the process. What glibc's extras can mean here is said at each.
//
// Go  none.
#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/base.h"
#include "boot/boot.h"
#include "malloc/malloc.h"

#define PUBLIC ATTR_EXPORT

// malloc and free themselves are made by the linker: second names of ebb_malloc and ebb_free
// (meson.build, tools/mkarchive.sh), because a jump is an instruction.

PUBLIC void *calloc(size_t count, size_t each)
{
    return ebb_calloc(count, each);
}

PUBLIC void *realloc(void *block, size_t bytes)
{
    return ebb_realloc(block, bytes);
}

PUBLIC void *reallocarray(void *block, size_t count, size_t each)
{
    return ebb_reallocarray(block, count, each);
}

PUBLIC int posix_memalign(void **result, size_t align, size_t bytes)
{
    return ebb_posix_memalign(result, align, bytes);
}

PUBLIC void *aligned_alloc(size_t align, size_t bytes)
{
    return ebb_aligned_alloc(align, bytes);
}

// memalign takes any alignment and rounds it up to a power of two, as glibc's does.
PUBLIC void *memalign(size_t align, size_t bytes)
{
    if (align > MALLOC_MAX_BYTES / 2 + 1) {
        errno = EINVAL;
        return NULL;
    }
    size_t power = 16;
    while (power < align) {
        power *= 2;
    }
    return ebb_aligned_alloc(power, bytes);
}

PUBLIC void *valloc(size_t bytes)
{
    return ebb_aligned_alloc(vm_kernel.page_bytes, bytes);
}

PUBLIC void *pvalloc(size_t bytes)
{
    size_t page_bytes = vm_kernel.page_bytes;
    if (bytes > MALLOC_MAX_BYTES - page_bytes) {
        errno = ENOMEM;
        return NULL;
    }
    return ebb_aligned_alloc(page_bytes, align_up(bytes == 0 ? 1 : bytes, page_bytes));
}

PUBLIC size_t malloc_usable_size(void *block)
{
    return ebb_malloc_usable_size(block);
}

// C23: the size is a promise that need not be kept to; the block knows its own.
PUBLIC void free_sized(void *block, size_t bytes);
PUBLIC void free_sized(void *block, size_t bytes)
{
    (void)bytes;
    ebb_free(block);
}

PUBLIC void free_aligned_sized(void *block, size_t align, size_t bytes);
PUBLIC void free_aligned_sized(void *block, size_t align, size_t bytes)
{
    (void)align;
    (void)bytes;
    ebb_free(block);
}

// Names under which old programs and glibc's own parts reach malloc. Functions and not aliases:
// clang cannot give an alias the attributes that glibc's headers give the target.
#define OTHER_NAME(type, name, params, call)                                                       \
    PUBLIC type name params;                                                                       \
    PUBLIC type name params                                                                        \
    {                                                                                              \
        return call;                                                                               \
    }

OTHER_NAME(void, cfree, (void *block), ebb_free(block))
OTHER_NAME(void *, __libc_malloc, (size_t bytes), ebb_malloc(bytes))
OTHER_NAME(void, __libc_free, (void *block), ebb_free(block))
OTHER_NAME(void *, __libc_calloc, (size_t count, size_t each), ebb_calloc(count, each))
OTHER_NAME(void *, __libc_realloc, (void *block, size_t bytes), ebb_realloc(block, bytes))
OTHER_NAME(void *, __libc_memalign, (size_t align, size_t bytes), memalign(align, bytes))
OTHER_NAME(void *, __libc_valloc, (size_t bytes), valloc(bytes))
OTHER_NAME(void *, __libc_pvalloc, (size_t bytes), pvalloc(bytes))
OTHER_NAME(int, __posix_memalign, (void **result, size_t align, size_t bytes),
           ebb_posix_memalign(result, align, bytes))

// malloc_trim gives everything back at once, all caches of all threads included. Unlike glibc's the
// padding is not kept: the next malloc finds released pages as easily as ready ones.
PUBLIC int malloc_trim(size_t pad)
{
    (void)pad;
    return boot_release_now() != 0;
}

// mallopt: none of glibc's parameters has a counterpart except these: perturbing is check=2's, the
// trim threshold is the policy's. 1 says "accepted" for every parameter glibc knows, as programs
// take 0 for a reason to give up; 0 for others.
PUBLIC int mallopt(int param, int value)
{
    (void)value;
    switch (param) {
    case M_MXFAST:
    case M_TRIM_THRESHOLD:
    case M_TOP_PAD:
    case M_MMAP_THRESHOLD:
    case M_MMAP_MAX:
    case M_CHECK_ACTION:
    case M_PERTURB:
    case M_ARENA_TEST:
    case M_ARENA_MAX:
        return 1;
    default:
        return 0;
    }
}

// mallinfo2 maps MemStats to glibc's fields: arena is what the heap has from the kernel and not
// given back, hblkhd large blocks, uordblks live bytes, fordblks the rest, keepcost what a trim
// would free.
PUBLIC struct mallinfo2 mallinfo2(void)
{
    struct ebb_memstats stats;
    memstats_read(&stats);
    struct mallinfo2 info;
    memset(&info, 0, sizeof(info));
    info.arena = stats.heap_sys - stats.heap_released;
    info.ordblks = stats.span_count;
    info.hblks = stats.large_count;
    info.hblkhd = stats.large_bytes;
    info.uordblks = stats.heap_alloc;
    info.fordblks = info.arena > info.uordblks ? info.arena - info.uordblks : 0;
    info.keepcost = stats.heap_idle - stats.heap_released;
    return info;
}

static int clip(size_t n)
{
    return n > INT32_MAX ? INT32_MAX : (int)n;
}

PUBLIC struct mallinfo mallinfo(void)
{
    struct mallinfo2 wide = mallinfo2();
    struct mallinfo info;
    memset(&info, 0, sizeof(info));
    info.arena = clip(wide.arena);
    info.ordblks = clip(wide.ordblks);
    info.hblks = clip(wide.hblks);
    info.hblkhd = clip(wide.hblkhd);
    info.uordblks = clip(wide.uordblks);
    info.fordblks = clip(wide.fordblks);
    info.keepcost = clip(wide.keepcost);
    return info;
}

// malloc_info writes the same numbers as XML; elements that glibc has keep their names.
PUBLIC int malloc_info(int options, FILE *stream)
{
    if (options != 0) {
        errno = EINVAL;
        return -1;
    }
    struct ebb_memstats stats;
    memstats_read(&stats);
    uint64_t system = stats.heap_sys - stats.heap_released;
    fprintf(stream,
            "<malloc version=\"ebb-1\">\n<heap nr=\"0\">\n"
            "<total type=\"rest\" count=\"%llu\" size=\"%llu\"/>\n"
            "<total type=\"mmap\" count=\"%llu\" size=\"%llu\"/>\n"
            "<system type=\"current\" size=\"%llu\"/>\n"
            "<aspace type=\"total\" size=\"%llu\"/>\n",
            (unsigned long long)stats.span_count, (unsigned long long)stats.heap_idle,
            (unsigned long long)stats.large_count, (unsigned long long)stats.large_bytes,
            (unsigned long long)system, (unsigned long long)stats.sys);
    for (unsigned i = 1; i < SIZECLASS_COUNT; i++) {
        if (stats.by_size[i].mallocs != 0) {
            fprintf(stream, "<class size=\"%u\" mallocs=\"%llu\" frees=\"%llu\"/>\n",
                    stats.by_size[i].bytes, (unsigned long long)stats.by_size[i].mallocs,
                    (unsigned long long)stats.by_size[i].frees);
        }
    }
    return fprintf(stream, "</heap>\n</malloc>\n") < 0 ? -1 : 0;
}

PUBLIC void malloc_stats(void)
{
    boot_print_stats(STDERR_FILENO);
}
