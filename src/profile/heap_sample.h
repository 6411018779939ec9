// SPDX-License-Identifier: MIT
//
// Heap samples: which blocks are sampled, from where they were allocated, and which still live.
//
// Model
//   interval  the mean number of bytes from one sample to the next, 512 KiB by default; the bytes
//             in between are exponentially distributed, so a block of b bytes is sampled with the
//             probability 1 - exp(-b / interval), whatever came before it.
//   stack     of the call to malloc, with the size of the block and the interval in force: one
//             record for all equal ones, with raw counts. Never freed; the number is bounded.
//   sample    a sampled block in use: its address, its stack, when it was made. In a table by
//             address. Its memory is used again.
//
// Locking
//   One lock, rank PROFILE: nothing but meta memory is asked for under it. Stacks are unwound
//   before it is taken.
//
// Flow
//   span/spansample.c (a countdown has come to its end) -> unwind_stack -> heap_sample_add
//   span/spansample.c (the free of a sampled block)     -> heap_sample_remove
//   profile_collect -> heap_kinds.c -> heap_sample_each_stack, heap_sample_each
//
// Why this way
//   Counts are kept raw, by size and interval, and scaled when they are read: the scale of a size
//   is exact then, and a thread may change its interval (docs/design/009).
//
// Go       1.19 mprof.go mProf_Malloc, mProf_Free, malloc.go nextSample. Unlike Go: the interval is
//          by thread, frees count at once, and realloc keeps the sample.
// Tests    test/unit/heap_sample_test.c  test/system/heap_profile.py
#ifndef EBB_PROFILE_HEAP_SAMPLE_H
#define EBB_PROFILE_HEAP_SAMPLE_H

#include "base/base.h"
#include "os/meta.h"
#include "profile/labels.h"

// Go's MemProfileRate.
#define SAMPLE_INTERVAL_BYTES ((uint64_t)512 * 1024)

// Frames that are kept of a stack, from the leaf on.
#define HEAP_DEPTH_MAX 64

// HEAP_SAMPLE_BLOCKS_MAX: a draw is at most so many blocks. Where the interval asks for more, or
// nothing is sampled, the draw is repeated.
#define HEAP_SAMPLE_BLOCKS_MAX ((uint32_t)1 << 30)

// --- chance, pure ---

// heap_sample_draw returns how many blocks of block_bytes it takes to the next sample, that one
// included, for 64 random bits: 1 to HEAP_SAMPLE_BLOCKS_MAX. interval 0: nothing is sampled;
// up to 1: every block.
uint32_t heap_sample_draw(uint64_t random, uint64_t interval_bytes, uint64_t block_bytes);

// heap_sample_draw_bytes is the same in bytes, for blocks of different sizes: at least 1.
int64_t heap_sample_draw_bytes(uint64_t random, uint64_t interval_bytes);

// heap_sample_chance returns the probability with which a block of bytes is sampled.
double heap_sample_chance(uint64_t interval_bytes, double bytes);

// heap_sample_pace returns the interval a thread should have, that has spent spent_ns with stacks
// in elapsed_ns: twice the present one above 0.5 %, half of it below 0.1 %, never below base.
uint64_t heap_sample_pace(uint64_t interval_bytes, uint64_t base_bytes, uint64_t spent_ns,
                          uint64_t elapsed_ns);

// --- recording ---

struct heap_stack {
    struct heap_stack *chain;
    uint64_t hash;
    uint64_t block_bytes;
    uint64_t interval_bytes;
    const struct labels *labels; // of the thread, NULL: none
    uint64_t alloc_count;        // (L) sampled ever
    uint64_t free_count;         // (L) of these, freed
    uint32_t depth;
    uintptr_t stack[]; // leaf first
};

struct heap_sample {
    struct heap_sample *chain;
    struct heap_stack *stack;
    uintptr_t addr;   // as the program has it
    uintptr_t place;  // the block that it would be, were it not sampled (span/spansample.c)
    uint64_t made_ns; // monotonic
};

// heap_sample_init says where memory comes from. Called once, before any sample.
void heap_sample_init(struct meta *meta);

// A call to malloc that is to be sampled.
struct heap_call {
    uintptr_t stack[HEAP_DEPTH_MAX];
    uint32_t depth;
    uint64_t interval_bytes;
    uint64_t block_bytes;
    const struct labels *labels;
};

// heap_sample_add records that the block at addr is sampled, and its place. False: no memory,
// nothing recorded.
bool heap_sample_add(uintptr_t addr, uintptr_t place, const struct heap_call *call);

// heap_sample_has tells whether addr is a sampled block in use.
bool heap_sample_has(uintptr_t addr);

// heap_sample_remove forgets it, counts it as freed, and returns its place. 0: it is none.
uintptr_t heap_sample_remove(uintptr_t addr);

// heap_sample_move: realloc moves the block, or has changed its size. It keeps its stack and its
// age. Returns the place it had; 0: it is none.
uintptr_t heap_sample_move(uintptr_t addr, uintptr_t new_addr, uintptr_t new_place,
                           uint64_t block_bytes);

// --- reading ---

struct heap_sample_totals {
    uint64_t stack_count;
    uint64_t live_count;
    uint64_t dropped_count; // not recorded for lack of memory
};

void heap_sample_totals(struct heap_sample_totals *totals);

// A stack and its counts at one moment. What else a stack has never changes.
struct heap_stack_count {
    const struct heap_stack *stack;
    uint64_t alloc_count;
    uint64_t free_count;
};

// heap_sample_stacks and heap_sample_live copy the stacks, or the live samples, and return how many
// there are; of more than max only the first max are copied.
size_t heap_sample_stacks(struct heap_stack_count *out, size_t max);
size_t heap_sample_live(struct heap_sample *out, size_t max);

// heap_sample_each calls visit for each live sample, under the lock: visit must be short, take no
// lock and allocate nothing.
void heap_sample_each(void (*visit)(void *arg, const struct heap_sample *sample), void *arg);

// heap_sample_freeze and heap_sample_thaw belong to a fork: see lock_freeze.
void heap_sample_freeze(void);
void heap_sample_thaw(void);

// heap_sample_verify returns NULL, or what is wrong.
const char *heap_sample_verify(void);

// --- stacks ---

// unwind_stack writes the return addresses of the calling thread's stack, leaf first, without those
// of Ebb itself, and returns how many. Takes no lock and allocates nothing (docs/design/009).
uint32_t unwind_stack(uintptr_t *stack, uint32_t max);

// unwind_main_stack says where the main thread's stack ends, as far as is known: an address above
// all its frames. Called once, at start.
void unwind_main_stack(const void *end);

// unwind_interrupted writes the stack that a signal handler has interrupted; context is the
// handler's third argument. The first address is where it was, the others are return addresses.
uint32_t unwind_interrupted(const void *context, uintptr_t *stack, uint32_t max);

#endif
