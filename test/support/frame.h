// SPDX-License-Identifier: MIT
//
// Test frame: what every test gets besides its assertions: a seed that can be replayed, the tier it
// runs in, and a count of descriptors, mappings and threads before and after. Knows nothing of
// Criterion, because race tests are plain programs; unit.h puts Criterion on top.
//
// Go  none
#ifndef EBB_TEST_SUPPORT_FRAME_H
#define EBB_TEST_SUPPORT_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// The tier comes from EBB_TEST_TIER=quick|commit|long, set by Meson; a program started by hand runs
// as commit.
enum frame_tier {
    FRAME_QUICK,
    FRAME_COMMIT,
    FRAME_LONG,
};

enum frame_tier frame_tier(void);

// frame_rounds returns n, 10 n in tier long and n / 4 (at least 1) in tier quick.
unsigned frame_rounds(unsigned n);

// frame_seed returns the seed of this process: EBB_SEED if it is set, otherwise one made of the
// clock and the process id. The first call prints it with the words that replay it.
uint64_t frame_seed(void);

// frame_random returns the next number of the sequence that *state names (splitmix64). Begin with
// `uint64_t state = frame_seed();`; threads add their index to the seed.
uint64_t frame_random(uint64_t *state);

// frame_below returns a number in [0, limit); limit is not 0.
uint64_t frame_below(uint64_t *state, uint64_t limit);

// frame_begin remembers how many descriptors, mappings and threads the process has.
void frame_begin(void);

// frame_clean returns true if the process has no more descriptors and threads than at frame_begin
// and at most the allowed number of further mappings; otherwise it writes what is left over into
// text. A thread that was joined may be visible for a moment longer, so threads get a second to go.
bool frame_clean(char *text, size_t text_bytes);

// frame_allow_mappings raises the number of mappings a test may leave behind from 16 to count. A
// test that starts threads needs it: libc keeps the stacks and arenas of ended threads.
void frame_allow_mappings(int count);

// frame_forbid lets a system call end with an error, from here on, in this thread and those it
// makes; of several filters that fit, the first decides. false: the kernel has no seccomp.
bool frame_forbid(long number, int error);

// FRAME_CHECK ends a plain test program with status 1 and the place if cond is false.
#define FRAME_CHECK(cond) ((cond) ? (void)0 : frame_failed(__FILE__, __LINE__, __func__, #cond))

_Noreturn void frame_failed(const char *file, int line, const char *func, const char *cond);

// frame_skip ends a plain test program with status 77, which Meson counts as skipped.
_Noreturn void frame_skip(const char *reason);

#endif
