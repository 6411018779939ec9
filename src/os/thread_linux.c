// SPDX-License-Identifier: MIT
//
// Threads on Linux: exit notice by a pthread key, bare threads by clone, barriers by membarrier.
//
// Go  1.16 os_linux.go, sys_linux_amd64.s clone.
#include "os/thread.h"

#include <errno.h>
#include <limits.h>
#include <linux/membarrier.h>
#include <linux/sched.h>
#include <pthread.h>
#include <signal.h>

#include "base/check.h"
#include "os/clock.h"
#include "os/futex.h"
#include "os/sys.h"

#define BARE_STACK_BYTES ((size_t)64 << 10)

// ThreadSanitizer forgets a thread in the last round, so that nothing of ours may run after it.
#define EXIT_ROUNDS (PTHREAD_DESTRUCTOR_ITERATIONS - RACE_BUILD)

static void (*exit_hook)(void *value);
static pthread_key_t exit_key;
static bool exit_key_made;

// Rounds of destructors this thread has seen; small, so that it fits the budget of initial-exec
// TLS.
static __thread uint8_t exit_rounds;

// The destructors of a thread run in rounds while any key has a value; ours asks for another round
// until the last, so that it comes after the program's own.
static void exit_destructor(void *value)
{
    exit_rounds++;
    if (exit_rounds < EXIT_ROUNDS && pthread_setspecific(exit_key, value) == 0) {
        return;
    }
    exit_hook(value);
}

void thread_set_exit_hook(void (*hook)(void *value))
{
    exit_hook = hook;
    exit_key_made = pthread_key_create(&exit_key, exit_destructor) == 0;
}

bool thread_watch(void *value)
{
    return exit_key_made && pthread_setspecific(exit_key, value) == 0;
}

// clone_run(flags, stack, child_tid, tls, run, arg) returns what clone returns, in the parent; the
// new thread starts on its own stack with nothing on it but run and arg, and ends when run returns.
// By hand, because no C function may return on two stacks.
long clone_run(unsigned long flags, void *stack, void *child_tid, void *tls, void (*run)(void *),
               void *arg) __attribute__((visibility("hidden")));
#if defined(__x86_64__)
__asm__(".pushsection .text\n\t.hidden clone_run\n\t.globl clone_run\n\t"
        ".type clone_run, @function\nclone_run:\n\t.cfi_startproc\n\t.cfi_undefined rip\n\t"
        "subq $16, %rsi\n\t"
        "movq %r8, 0(%rsi)\n\t"
        "movq %r9, 8(%rsi)\n\t"
        "movq %rcx, %r8\n\t"  // tls
        "movq %rdx, %r10\n\t" // child tid: cleared and woken at exit
        "xorl %edx, %edx\n\t" // parent tid: not asked for
        "movl $56, %eax\n\t"  // SYS_clone
        "syscall\n\t"
        "testq %rax, %rax\n\t"
        "jz 1f\n\t"
        "ret\n"
        "1:\n\t"
        "xorl %ebp, %ebp\n\t"
        "popq %rax\n\t"
        "popq %rdi\n\t"
        "callq *%rax\n\t"
        "xorl %edi, %edi\n\t"
        "movl $60, %eax\n\t" // SYS_exit: this thread only
        "syscall\n\t"
        "hlt\n\t.cfi_endproc\n\t.size clone_run, .-clone_run\n\t.popsection");
#else
__asm__(".pushsection .text\n\t.hidden clone_run\n\t.globl clone_run\n\t"
        ".type clone_run, %function\nclone_run:\n\t.cfi_startproc\n\t.cfi_undefined x30\n\t"
        "stp x4, x5, [x1, #-16]!\n\t"
        "mov x4, x2\n\t" // arm64 order: flags, stack, parent tid, tls, child tid
        "mov x2, #0\n\t"
        "mov x8, #220\n\t" // SYS_clone
        "svc #0\n\t"
        "cbz x0, 1f\n\t"
        "ret\n"
        "1:\n\t"
        "mov x29, #0\n\t"
        "ldp x1, x0, [sp], #16\n\t"
        "blr x1\n\t"
        "mov x0, #0\n\t"
        "mov x8, #93\n\t" // SYS_exit
        "svc #0\n\t.cfi_endproc\n\t.size clone_run, .-clone_run\n\t.popsection");
#endif

// The block of a bare thread: stack below, thread-local storage above. The thread pointer stands so
// that the offset of our own thread-locals (initial-exec, below the pointer on x86-64, above it on
// arm64) falls inside.
#define BARE_TLS_BELOW ((size_t)16 << 10)
#define BARE_TLS_ABOVE ((size_t)16 << 10)

static size_t stack_bytes_of(size_t stack_bytes)
{
    return stack_bytes != 0 ? stack_bytes : BARE_STACK_BYTES;
}

size_t bare_block_bytes(size_t stack_bytes, size_t page_bytes)
{
    return align_up(stack_bytes_of(stack_bytes) + BARE_TLS_BELOW + BARE_TLS_ABOVE, page_bytes);
}

static bool bare_block_ensure(struct bare_thread *thread, const struct vm *vm)
{
    if (thread->block != NULL) {
        return true;
    }
    size_t bytes = bare_block_bytes(thread->stack_bytes, vm->page_bytes);
    char *block = vm_reserve(vm, NULL, bytes, vm->page_bytes);
    if (block == NULL || !vm_prepare(vm, block, bytes)) {
        return false;
    }
    thread->block = block;
    thread->block_bytes = bytes;
    return true;
}

long bare_start(struct bare_thread *thread, const struct vm *vm, void (*run)(void *), void *arg)
{
    if (!bare_block_ensure(thread, vm)) {
        return -ENOMEM;
    }
    intptr_t offset = (intptr_t)&exit_rounds - (intptr_t)thread_pointer();
    if (offset < -(intptr_t)BARE_TLS_BELOW + 256 || offset > (intptr_t)BARE_TLS_ABOVE - 256) {
        return -ENOMEM; // a program with more static TLS than any we have seen
    }
    char *stack = thread->block + stack_bytes_of(thread->stack_bytes);
    char *tls = stack + BARE_TLS_BELOW;
    // Word 0 (and 2, for glibc's inline helpers) of the block is the thread pointer itself.
    ((void **)(void *)tls)[0] = tls;
    ((void **)(void *)tls)[2] = tls;
    uint64_t all = ~UINT64_C(0);
    uint64_t before = 0;
    sys_call4(SYS_rt_sigprocmask, SIG_SETMASK, &all, &before, sizeof(all));
    store_relaxed(&thread->alive, 1);
    unsigned long flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD |
                          CLONE_SYSVSEM | CLONE_SETTLS | CLONE_CHILD_CLEARTID;
    long ret = clone_run(flags, stack, &thread->alive.v_, tls, run, arg);
    sys_call4(SYS_rt_sigprocmask, SIG_SETMASK, &before, 0, sizeof(before));
    if (ret < 0) {
        store_relaxed(&thread->alive, 0);
        return ret;
    }
    return 0;
}

bool bare_wait_gone(struct bare_thread *thread, uint64_t limit_ns)
{
    uint64_t until_ns = limit_ns == 0 ? UINT64_MAX : clock_now_ns() + limit_ns;
    // The kernel clears alive and wakes; pairs with nothing of ours.
    while (load_acquire(&thread->alive) != 0) {
        if (clock_now_ns() >= until_ns) {
            return false;
        }
        futex_wait(&thread->alive, 1, NS_PER_MS / 10);
    }
    return true;
}

void bare_forget(struct bare_thread *thread)
{
    store_relaxed(&thread->alive, 0);
}

// 0 not tried, 1 membarrier works, 2 wait instead.
static atomic_u32 barrier_kind;

// Longer than a store waits in any processor's buffer by several orders of magnitude.
#define BARRIER_WAIT_NS (2 * NS_PER_MS)

static uint32_t barrier_choose(void)
{
    long ret = sys_call3(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0);
    uint32_t kind = ret == 0 ? 1 : 2;
    uint32_t expected = 0;
    if (!cas_acq_rel(&barrier_kind, &expected, kind)) { // pairs with load_acquire below
        return expected;
    }
    return kind;
}

void barrier_prepare(void)
{
    if (load_acquire(&barrier_kind) == 0) { // pairs with cas_acq_rel in barrier_choose
        barrier_choose();
    }
}

void barrier_restrict(void)
{
    store_release(&barrier_kind, 2); // pairs with load_acquire in barrier_others
}

void barrier_others(void)
{
    uint32_t kind = load_acquire(&barrier_kind); // pairs with the store in barrier_restrict
    if (kind == 0) {
        kind = barrier_choose();
    }
    if (kind == 1 && sys_call3(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) == 0) {
        return;
    }
    fence_seq();
    atomic_u32 never = {0};
    futex_wait(&never, 0, BARRIER_WAIT_NS);
    fence_seq();
}
