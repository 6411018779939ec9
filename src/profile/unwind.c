// SPDX-License-Identifier: MIT
//
// Unwinding by the tables every program carries for exceptions (libgcc's unwinder, linked in).
// Since GCC 12 it finds them through glibc's _dl_find_object, which takes no lock and allocates
// nothing: a thread in the middle of dlopen may be unwound, and so may a signal handler. A JIT's
// frames have no tables; the stack ends there.
//
// Go  1.19 traceback.go gentraceback, mprof.go callers.
#include <dlfcn.h>
#include <link.h>
#include <ucontext.h>
#include <unwind.h>

#include "os/thread.h"
#include "profile/heap_sample.h"

// A frame above is not farther away than this: tables can be wrong, and what they name is read.
#define FRAME_MAX_BYTES (8 * MIB)

struct unwinding {
    uintptr_t *stack;
    uint32_t max;
    uint32_t depth;
    uintptr_t frame;     // the canonical frame address of the last frame
    uintptr_t own_start; // of Ebb's text, if it is a library of its own
    uintptr_t own_end;
};

static _Unwind_Reason_Code unwind_frame(struct _Unwind_Context *context, void *arg)
{
    struct unwinding *u = arg;
    uintptr_t pc = _Unwind_GetIP(context);
    uintptr_t frame = _Unwind_GetCFA(context);
    bool first = u->frame == 0;
    if (pc == 0 || (!first && (frame < u->frame || frame - u->frame > FRAME_MAX_BYTES))) {
        return _URC_NORMAL_STOP;
    }
    u->frame = frame;
    if (u->depth == 0 && (first || pc - u->own_start < u->own_end - u->own_start)) {
        return _URC_NO_REASON;
    }
    u->stack[u->depth++] = pc;
    return u->depth == u->max ? _URC_NORMAL_STOP : _URC_NO_REASON;
}

// Where the library lies; empty if it is part of the program.
static void own_find(struct unwinding *u)
{
    struct dl_find_object found;
    if (_dl_find_object((void *)unwind_stack, &found) == 0 && found.dlfo_link_map != NULL &&
        found.dlfo_link_map->l_name[0] != '\0') {
        u->own_start = (uintptr_t)found.dlfo_map_start;
        u->own_end = (uintptr_t)found.dlfo_map_end;
    }
}

uint32_t unwind_stack(uintptr_t *stack, uint32_t max)
{
    struct unwinding u = {.stack = stack, .max = max};
    own_find(&u);
    _Unwind_Backtrace(unwind_frame, &u);
    return u.depth;
}

// --- from a signal handler ---

static uintptr_t context_pc(const void *context)
{
    const ucontext_t *interrupted = context;
#if defined(__x86_64__)
    return (uintptr_t)interrupted->uc_mcontext.gregs[REG_RIP];
#else
    return (uintptr_t)interrupted->uc_mcontext.pc;
#endif
}

// The frame whose address is not one that a call returns to is the interrupted one: what comes
// before it is the handler's. It may be on another stack.
static _Unwind_Reason_Code unwind_interrupted_frame(struct _Unwind_Context *context, void *arg)
{
    struct unwinding *u = arg;
    int exact = 0;
    uintptr_t pc = _Unwind_GetIPInfo(context, &exact);
    uintptr_t frame = _Unwind_GetCFA(context);
    if (pc == 0 || u->depth == u->max) {
        return _URC_NORMAL_STOP;
    }
    if (u->frame == 0) {
        u->frame = exact != 0 && pc == u->stack[0] ? frame : 0;
        return _URC_NO_REASON;
    }
    if (frame < u->frame || frame - u->frame > FRAME_MAX_BYTES) {
        return _URC_NORMAL_STOP;
    }
    u->frame = frame;
    u->stack[u->depth++] = pc;
    return _URC_NO_REASON;
}

uint32_t unwind_interrupted(const void *context, uintptr_t *stack, uint32_t max)
{
    struct unwinding u = {.stack = stack, .max = max, .depth = 1};
    stack[0] = context_pc(context);
    _Unwind_Backtrace(unwind_interrupted_frame, &u);
    return u.depth;
}
