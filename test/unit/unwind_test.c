// SPDX-License-Identifier: MIT
// Tier  quick
//
// Unwinding: every stack is exactly the return addresses that the functions on it know themselves,
// whatever was learned from other stacks: frames of fixed and of changing size, other threads,
// stacks that libc does not know, signal handlers.
//
// Go  runtime/traceback_test.go.
#include "support/unit.h"

#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <ucontext.h>

#include "profile/profile.h"

#define DEPTH_MAX 40

// The return addresses of the levels under way, outermost first, as each level knows its own.
static __thread uintptr_t known[DEPTH_MAX];
static __thread unsigned known_count;

static __thread volatile char *escape; // what alloca gave: it must not be dropped

static void step(uint64_t *random, unsigned left);

static __attribute__((noinline)) void compare(void)
{
    uintptr_t stack[PROFILE_DEPTH_MAX];
    uint32_t depth = unwind_stack(stack, PROFILE_DEPTH_MAX);
    cr_assert(depth > known_count, "%u frames, and %u levels", depth, known_count);
    // Somewhere near the leaf, behind the frames of this test's own making, they come in order.
    uint32_t first = 0;
    while (first < depth && stack[first] != known[known_count - 1]) {
        first++;
    }
    cr_assert(first < 4 && first + known_count <= depth, "the innermost level is not there");
    for (unsigned i = 0; i < known_count; i++) {
        cr_assert(stack[first + i] == known[known_count - 1 - i], "frame %u of %u differs", i,
                  known_count);
    }
}

#define LEVEL(name, body)                                                                          \
    static __attribute__((noinline)) void name(uint64_t *random, unsigned left)                    \
    {                                                                                              \
        known[known_count++] = (uintptr_t)__builtin_return_address(0);                             \
        body;                                                                                      \
        known_count--;                                                                             \
        __asm__ volatile("");                                                                      \
    }

LEVEL(level_small, step(random, left))
LEVEL(level_array, {
    volatile char array[300];
    escape = array;
    array[0] = 1;
    step(random, left);
    array[1] = 2;
})
LEVEL(level_alloca, {
    volatile char *some = __builtin_alloca(16 + frame_below(random, 2000));
    escape = some;
    some[0] = 1;
    step(random, left);
})
// Most of the time the same size: what is believed of it is wrong now and then.
LEVEL(level_rarely, {
    volatile char *some = __builtin_alloca(frame_below(random, 50) == 0 ? 512 : 64);
    escape = some;
    some[0] = 1;
    step(random, left);
})
LEVEL(level_aligned, {
    volatile char array[64] __attribute__((aligned(256)));
    escape = array;
    array[0] = 1;
    step(random, left);
})

static __attribute__((noinline)) void step(uint64_t *random, unsigned left)
{
    known[known_count++] = (uintptr_t)__builtin_return_address(0);
    if (left == 0) {
        compare();
    } else {
        switch (frame_below(random, 5)) {
        case 0:
            level_small(random, left - 1);
            break;
        case 1:
            level_array(random, left - 1);
            break;
        case 2:
            level_aligned(random, left - 1);
            break;
        case 3:
            level_rarely(random, left - 1);
            break;
        default:
            level_alloca(random, left - 1);
            break;
        }
    }
    known_count--;
    __asm__ volatile("");
}

static void many(uint64_t seed, int count)
{
    uint64_t random = seed;
    for (int i = 0; i < count; i++) {
        known_count = 0;
        step(&random, (unsigned)frame_below(&random, 15));
    }
}

EBB_TEST(unwind, stacks_are_what_the_functions_know)
{
    many(frame_seed(), 30000);
}

static void *thread_run(void *arg)
{
    many((uint64_t)(uintptr_t)arg, 10000);
    return NULL;
}

EBB_TEST(unwind, threads_learn_from_one_another)
{
    pthread_t threads[4];
    uint64_t seed = frame_seed();
    for (size_t i = 0; i < 4; i++) {
        cr_assert(pthread_create(&threads[i], NULL, thread_run, (void *)(seed + i)) == 0);
    }
    for (size_t i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
}

static ucontext_t outside;
static ucontext_t inside;
static uint64_t coroutine_seed;

static void coroutine(void)
{
    many(coroutine_seed, 5000);
}

EBB_TEST(unwind, stacks_that_libc_does_not_know)
{
    static char stack[256 * 1024];
    coroutine_seed = frame_seed();
    many(coroutine_seed, 1000); // on this one first
    cr_assert(getcontext(&inside) == 0);
    inside.uc_stack.ss_sp = stack;
    inside.uc_stack.ss_size = sizeof(stack);
    inside.uc_link = &outside;
    makecontext(&inside, coroutine, 0);
    cr_assert(swapcontext(&outside, &inside) == 0);
}

// --- interrupted ---

static volatile sig_atomic_t interrupted_depth;
static uintptr_t interrupted[PROFILE_DEPTH_MAX];

static void handler(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)info;
    interrupted_depth = (int)unwind_interrupted(context, interrupted, PROFILE_DEPTH_MAX);
}

static __attribute__((noinline)) void raise_here(void)
{
    known[known_count++] = (uintptr_t)__builtin_return_address(0);
    interrupted_depth = 0;
    __asm__ volatile("ud2");
}

static void skip_ud2(int number, siginfo_t *info, void *context)
{
    handler(number, info, context);
    ((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] += 2;
}

static void handle(int flags)
{
    struct sigaction action;
    memset(&action, 0, sizeof(action));
    action.sa_sigaction = skip_ud2;
    action.sa_flags = SA_SIGINFO | flags;
    cr_assert(sigaction(SIGILL, &action, NULL) == 0);
    for (int i = 0; i < 100; i++) {
        known_count = 0;
        raise_here();
        cr_assert(interrupted_depth > 2);
        cr_assert(interrupted[0] - (uintptr_t)raise_here < 200, "the first is where it was");
        cr_assert(interrupted[1] == known[0], "the second is where it will return to");
    }
    signal(SIGILL, SIG_DFL);
}

EBB_TEST(unwind, what_a_signal_interrupts)
{
    handle(0);
    static char stack[64 * 1024];
    stack_t other = {.ss_sp = stack, .ss_size = sizeof(stack)};
    cr_assert(sigaltstack(&other, NULL) == 0);
    handle(SA_ONSTACK);
    other.ss_flags = SS_DISABLE;
    cr_assert(sigaltstack(&other, NULL) == 0);
}
