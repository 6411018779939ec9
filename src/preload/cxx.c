// SPDX-License-Identifier: MIT
//
// C++: operator new and delete, under the names the Itanium ABI gives them. In C,
// so that libstdc++ is never linked; what C++ needs of it (the new_handler, throwing bad_alloc) is
// reached by weak symbols, which are there exactly when the program is C++.
//
// The nothrow forms of new are left to libstdc++: they call ours, and have to catch what a handler
// throws, which C cannot.
//
// Go  none: new.
#include <stddef.h>

#include "base/base.h"
#include "base/fatal.h"
#include "malloc/malloc.h"

#define PUBLIC ATTR_EXPORT
#define CXX(symbol) __asm__(symbol)

typedef void (*new_handler)(void);
extern new_handler std_get_new_handler(void) CXX("_ZSt15get_new_handlerv") __attribute__((weak));
extern void std_throw_bad_alloc(void) CXX("_ZSt17__throw_bad_allocv") __attribute__((weak));

// Tries until it works or the program's handler gives up by throwing, as the standard wants.
static ATTR_NOINLINE void *new_slow(size_t bytes, size_t align)
{
    for (;;) {
        new_handler handler = std_get_new_handler != NULL ? std_get_new_handler() : NULL;
        if (handler == NULL) {
            break;
        }
        handler();
        void *block = align <= 16 ? ebb_malloc(bytes) : ebb_aligned_alloc(align, bytes);
        if (block != NULL) {
            return block;
        }
    }
    if (std_throw_bad_alloc != NULL) {
        std_throw_bad_alloc();
    }
    fatal("cxx: operator new found no memory, and there is no C++ library to throw bad_alloc");
}

static inline void *new_plain(size_t bytes)
{
    void *block = ebb_malloc(bytes);
    return likely(block != NULL) ? block : new_slow(bytes, 16);
}

static inline void *new_aligned(size_t bytes, size_t align)
{
    void *block = ebb_aligned_alloc(align, bytes);
    return likely(block != NULL) ? block : new_slow(bytes, align);
}

#define NEW(name, symbol, params, call)                                                            \
    PUBLIC void *name params CXX(symbol);                                                          \
    PUBLIC void *name params                                                                       \
    {                                                                                              \
        return call;                                                                               \
    }

NEW(cxx_new, "_Znwm", (size_t n), new_plain(n))
NEW(cxx_new_array, "_Znam", (size_t n), new_plain(n))
NEW(cxx_new_aligned, "_ZnwmSt11align_val_t", (size_t n, size_t a), new_aligned(n, a))
NEW(cxx_new_array_aligned, "_ZnamSt11align_val_t", (size_t n, size_t a), new_aligned(n, a))
#define DELETE(name, symbol, params)                                                               \
    PUBLIC void name params CXX(symbol);                                                           \
    PUBLIC void name params                                                                        \
    {                                                                                              \
        ebb_free(p);                                                                               \
    }

typedef const void *tag; // const std::nothrow_t &
#define UNUSED __attribute__((unused))

DELETE(cxx_delete, "_ZdlPv", (void *p))
DELETE(cxx_delete_array, "_ZdaPv", (void *p))
DELETE(cxx_delete_sized, "_ZdlPvm", (void *p, UNUSED size_t n))
DELETE(cxx_delete_array_sized, "_ZdaPvm", (void *p, UNUSED size_t n))
DELETE(cxx_delete_nothrow, "_ZdlPvRKSt9nothrow_t", (void *p, UNUSED tag t))
DELETE(cxx_delete_array_nothrow, "_ZdaPvRKSt9nothrow_t", (void *p, UNUSED tag t))
DELETE(cxx_delete_aligned, "_ZdlPvSt11align_val_t", (void *p, UNUSED size_t a))
DELETE(cxx_delete_array_aligned, "_ZdaPvSt11align_val_t", (void *p, UNUSED size_t a))
DELETE(cxx_delete_sized_aligned, "_ZdlPvmSt11align_val_t",
       (void *p, UNUSED size_t n, UNUSED size_t a))
DELETE(cxx_delete_array_sized_aligned, "_ZdaPvmSt11align_val_t",
       (void *p, UNUSED size_t n, UNUSED size_t a))
DELETE(cxx_delete_aligned_nothrow, "_ZdlPvSt11align_val_tRKSt9nothrow_t",
       (void *p, UNUSED size_t a, UNUSED tag t))
DELETE(cxx_delete_array_aligned_nothrow, "_ZdaPvSt11align_val_tRKSt9nothrow_t",
       (void *p, UNUSED size_t a, UNUSED tag t))
