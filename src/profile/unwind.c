// SPDX-License-Identifier: MIT
//
// Unwinding by the tables every program carries for exceptions (libgcc's unwinder, linked in), and
// by what has been learned from doing so.
//
// Model
//   The tables are found by fde.c, which takes no lock and allocates nothing: a thread in the
//   middle of dlopen may be unwound, and so may a signal handler. A JIT's frames have no tables;
//   the stack ends there.
//   Reading the tables costs some 2,000 instructions a frame. But at nearly every return address
//   the frame has always the same size. So sizes are remembered by return address:
//     1 to 3    seen so often, always with this size; from 2 on it is believed
//     END       the outermost frame
//     VARIES    seen with two sizes (alloca, VLAs): only the tables know
//   A stack is taken from the sizes only if all its frames are known and lie within the thread's
//   stack; else the tables are asked. They are asked for one stack in 256 anyway, and what was
//   believed and was wrong VARIES from then on: code may come and go at an address.
//
// Locking
//   None: an entry is one word.
//
// Flow
//   unwind_stack -> own frames by their frame pointers -> learned_walk; else tables_walk -> learn.
//
// Why this way
//   Frame pointers would be as fast, but Debian's libraries have none.
//
// Go       1.19 traceback.go gentraceback, mprof.go callers.
// Tests    test/unit/unwind_test.c
#include <dlfcn.h>
#include <link.h>
#include <ucontext.h>

// libgcc's unwinder as it is in libparts.a (tools/mkparts.sh): beside that of the program, and with
// fde.c to find the tables.
#define _Unwind_Backtrace parts__Unwind_Backtrace
#define _Unwind_GetCFA parts__Unwind_GetCFA
#define _Unwind_GetIP parts__Unwind_GetIP
#define _Unwind_GetIPInfo parts__Unwind_GetIPInfo
#include <unwind.h>

#include "os/thread.h"
#include "profile/fde.h"
#include "profile/profile.h"

// A frame above is not farther away than this: tables can be wrong, and what they name is read.
#define FRAME_MAX_BYTES (8 * MIB)

// --- what was learned ---

// Bits 17 up: the return address. Bits 3 to 16: the size in words. Bits 0 to 2: the state.
#define ENTRY_ADDR_SHIFT 17
#define ENTRY_SIZE_SHIFT 3
#define ENTRY_WORDS_MAX ((uint64_t)512) // larger frames are left to the tables
#define ENTRY_COUNT ((size_t)4096)
#define ENTRY_COUNT_SHIFT 12

enum entry_state {
    ENTRY_NONE,
    ENTRY_ONCE,
    ENTRY_TWICE,
    ENTRY_SURE,
    ENTRY_END = 6,
    ENTRY_VARIES = 7,
};

// One stack in so many is taken by the tables although its sizes are known.
#define CHECK_EVERY 256

static atomic_u64 entries[ENTRY_COUNT]; // (A)
static atomic_u32 walk_count;           // (A)

static uintptr_t main_stack_end; // (C) after start-up; 0: not known

static atomic_u64 *entry_of(uintptr_t pc)
{
    return &entries[(pc * UINT64_C(0x9e3779b97f4a7c15)) >> (64 - ENTRY_COUNT_SHIFT)];
}

static uint64_t entry_make(uintptr_t pc, uint64_t words, enum entry_state state)
{
    return (uint64_t)pc << ENTRY_ADDR_SHIFT | words << ENTRY_SIZE_SHIFT | state;
}

// A frame was seen with this size; bytes 0: it was the outermost.
static void learn(uintptr_t pc, uint64_t bytes)
{
    atomic_u64 *entry = entry_of(pc);
    uint64_t words = bytes / sizeof(uintptr_t);
    if (pc >> (64 - ENTRY_ADDR_SHIFT) != 0 || words > ENTRY_WORDS_MAX || bytes % 8 != 0) {
        return;
    }
    uint64_t old = load_relaxed(entry);
    uint64_t state = old & 7;
    enum entry_state now = bytes == 0 ? ENTRY_END : ENTRY_ONCE;
    if (old >> ENTRY_ADDR_SHIFT == pc && state != ENTRY_NONE) {
        bool same = old == entry_make(pc, words, (enum entry_state)state);
        now = !same || state == ENTRY_VARIES ? ENTRY_VARIES
              : state < ENTRY_SURE           ? (enum entry_state)(state + 1)
                                             : (enum entry_state)state;
    }
    store_relaxed(entry, entry_make(pc, words, now));
}

void unwind_main_stack(const void *end)
{
    main_stack_end = (uintptr_t)end;
}

// Up to where the stack that sp is on may be read; 0: not known. The thread pointer lies above the
// stacks that libc has made.
static uintptr_t stack_end(uintptr_t sp)
{
    uintptr_t tp = thread_pointer();
    if (sp < tp && tp - sp < FRAME_MAX_BYTES) {
        return tp;
    }
    return sp < main_stack_end && main_stack_end - sp < FRAME_MAX_BYTES ? main_stack_end : 0;
}

// Reads frames of others: what a sanitizer takes for the edges of their variables may be among it.
#define ATTR_ANY_STACK __attribute__((no_sanitize("address", "thread")))

// The stack from the return address pc on, with the stack pointer as it is there. 0: ask the
// tables.
ATTR_ANY_STACK static uint32_t learned_walk(uintptr_t pc, uintptr_t sp, uintptr_t *stack,
                                            uint32_t max)
{
    uintptr_t end = stack_end(sp);
    uint32_t depth = 0;
    while (depth < max) {
        uint64_t entry = load_relaxed(entry_of(pc));
        uint64_t state = entry & 7;
        if (entry >> ENTRY_ADDR_SHIFT != pc || state < ENTRY_TWICE || state == ENTRY_VARIES) {
            return 0;
        }
        stack[depth++] = pc;
        if (state == ENTRY_END) {
            break;
        }
        sp += (entry >> ENTRY_SIZE_SHIFT & 0x3fff) * sizeof(uintptr_t);
        if (sp > end) {
            return 0;
        }
        pc = ((const uintptr_t *)sp)[-1]; // where x86-64 calls put it
    }
    return depth;
}

// --- the tables ---

struct unwinding {
    uintptr_t *stack;
    uint32_t max;
    uint32_t depth;
    uintptr_t pc;        // of the last frame
    uintptr_t frame;     // the stack pointer in it
    bool stopped;        // by us, not at the stack's end
    uintptr_t own_start; // of Ebb's text; 0 if nobody knows where that ends (unit tests)
    uintptr_t own_end;
};

static bool is_own(const struct unwinding *u, uintptr_t pc)
{
    return pc - u->own_start < u->own_end - u->own_start;
}

static _Unwind_Reason_Code unwind_frame(struct _Unwind_Context *context, void *arg)
{
    struct unwinding *u = arg;
    uintptr_t pc = _Unwind_GetIP(context);
    uintptr_t frame = _Unwind_GetCFA(context);
    bool first = u->frame == 0;
    if (pc == 0 || u->depth == u->max ||
        (!first && (frame < u->frame || frame - u->frame > FRAME_MAX_BYTES))) {
        u->stopped = pc != 0;
        return _URC_NORMAL_STOP;
    }
    if (u->depth != 0 && frame > u->frame) {
        learn(u->pc, frame - u->frame);
    }
    u->frame = frame;
    u->pc = pc;
    if (u->depth == 0 && (first || is_own(u, pc))) {
        return _URC_NO_REASON;
    }
    u->stack[u->depth++] = pc;
    return _URC_NO_REASON;
}

// libebb.a has all its code in this section (tools/mkarchive.sh); the linker makes the names.
extern const char __start_ebb_text[] __attribute__((weak, visibility("hidden")));
extern const char __stop_ebb_text[] __attribute__((weak, visibility("hidden")));

// Where our code lies, the whole library or a section of the program: found once, by whoever is
// first; empty in unit tests, which have it among their own.
static atomic_u64 own_code[2]; // (A) start and end
static atomic_u32 own_tables;  // (A) 1: there are tables of it; without, libgcc ends the program
static atomic_u32 own_known;   // (A) 1: the others are set

static void own_find(struct unwinding *u)
{
    struct dl_find_object found;
    uintptr_t function;
    // Pairs with store_release below. A linker that does not know us yet is asked again.
    if (load_acquire(&own_known) == 0 && _dl_find_object((void *)unwind_stack, &found) == 0) {
        if (__start_ebb_text != NULL) {
            store_relaxed(&own_code[0], (uintptr_t)__start_ebb_text);
            store_relaxed(&own_code[1], (uintptr_t)__stop_ebb_text);
        } else if (found.dlfo_link_map != NULL && found.dlfo_link_map->l_name[0] != '\0') {
            store_relaxed(&own_code[0], (uintptr_t)found.dlfo_map_start);
            store_relaxed(&own_code[1], (uintptr_t)found.dlfo_map_end);
        }
        store_relaxed(&own_tables, fde_find((uintptr_t)unwind_stack, &function) != NULL);
        store_release(&own_known, 1); // pairs with load_acquire above
    }
    u->own_start = load_relaxed(&own_code[0]);
    u->own_end = load_relaxed(&own_code[1]);
}

static uint32_t tables_walk(struct unwinding *u)
{
    _Unwind_Backtrace(unwind_frame, u);
    if (u->depth != 0 && !u->stopped) {
        learn(u->pc, 0);
    }
    return u->depth;
}

// Passes our own frames, which all keep a frame pointer. The frame pointer of the first other one,
// above which its return address is; NULL if there is none, or nobody knows.
ATTR_ANY_STACK static uintptr_t *own_pass(const struct unwinding *u, uintptr_t *frame)
{
#if defined(__x86_64__)
    for (int i = 0; i < 16 && frame != NULL; i++) { // NULL: a bare thread, with no others
        if (!is_own(u, frame[1])) {
            return frame;
        }
        frame = (uintptr_t *)frame[0];
    }
#else
    (void)u;
    (void)frame; // the return address has no fixed place there
#endif
    return NULL;
}

ATTR_ANY_STACK uint32_t unwind_stack(uintptr_t *stack, uint32_t max)
{
    struct unwinding u = {.stack = stack, .max = max};
    own_find(&u);
    uintptr_t *frame = own_pass(&u, __builtin_frame_address(0));
    if (frame != NULL && add_relaxed(&walk_count, 1) % CHECK_EVERY != 0) {
        uint32_t depth = learned_walk(frame[1], (uintptr_t)(frame + 2), stack, max);
        if (depth != 0) {
            return depth;
        }
    }
    if (load_relaxed(&own_tables) != 0) {
        return tables_walk(&u);
    }
    if (frame == NULL || max == 0) {
        return 0;
    }
    stack[0] = frame[1];
    return 1;
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
    own_find(&u);
    if (load_relaxed(&own_tables) != 0) {
        _Unwind_Backtrace(unwind_interrupted_frame, &u);
    }
    return u.depth;
}
