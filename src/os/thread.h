// SPDX-License-Identifier: MIT
//
// Threads: who am I, tell me when a thread ends, and a bare thread for work of our own.
//
// Model
//   A thread is known by its thread pointer, which is unique among living threads.
//   The exit hook runs in the ending thread, in the last round of key destructors, so that the
//   destructors of the program still find a working cache. libc itself frees after it.
//   A bare thread is a kernel thread that libc does not know.
//
// Locking
//   None. thread_watch is called once by each thread.
//
// Flow
//   span/cache.c thread_watch -> (thread ends) -> the hook set by thread_set_exit_hook.
//   release/releaser.c bare_start -> the function, on a stack of its own.
//
// Why this way
//   pthread_create inside malloc would allocate, take locks of the dynamic linker that the caller
//   may hold, switch off glibc's fast paths for single-threaded programs (measured: a copy of
//   a shared_ptr 1.3 -> 17.6 ns) and keep a process alive whose main thread has called
//   pthread_exit. A bare thread does none of that; the price is that its code may use nothing of
//   libc that needs a thread (docs/design/003).
//
// Go       1.16 os_linux.go newosproc (clone with the same flags), proc.go newextram.
// Tests    test/unit/thread_test.c
#ifndef EBB_OS_THREAD_H
#define EBB_OS_THREAD_H

#include "base/atomic.h"
#include "base/base.h"
#include "os/vm.h"

// thread_pointer is the address the processor keeps for thread-local storage.
ATTR_INLINE uintptr_t thread_pointer(void)
{
    uintptr_t tp;
#if defined(__x86_64__)
    __asm__("movq %%fs:0, %0" : "=r"(tp));
#else
    __asm__("mrs %0, tpidr_el0" : "=r"(tp));
#endif
    return tp;
}

// thread_set_exit_hook says what runs when a watched thread ends, with the value it watched with.
// Called once, before the first thread_watch. No lock is held when the hook runs; it must not
// block.
void thread_set_exit_hook(void (*hook)(void *value));

// thread_watch arranges that the exit hook sees value when the calling thread ends. May allocate
// through the program's malloc (pthread_setspecific does, for late keys): the caller must already
// be able to serve that. Returns false if libc has no key left; the thread then leaks its cache.
bool thread_watch(void *value);

struct bare_thread {
    atomic_u32 alive; // (A) kernel clears it and wakes the futex when the thread is gone
    char *block;      // (C) stack and thread-local block, from vm; kept for the next start
    size_t block_bytes;
    size_t stack_bytes; // (C) 0: the usual 64 KiB
};

// bare_block_bytes tells how large a block has to be that the caller provides.
size_t bare_block_bytes(size_t stack_bytes, size_t page_bytes);

// bare_start runs run(arg) in a new kernel thread with all signals blocked. The thread has an own
// thread-local block, all zero. 0 or a negative errno (EAGAIN, ENOMEM, EPERM from a filter).
// run may use sys_call*, os/lock.h, os/futex.h, and no libc beyond memcpy and its like.
long bare_start(struct bare_thread *thread, const struct vm *vm, void (*run)(void *), void *arg);

// bare_wait_gone waits until the thread has ended and its stack is free, for at most limit_ns (0:
// without a limit); false if it has not by then. True at once for one that never ran.
bool bare_wait_gone(struct bare_thread *thread, uint64_t limit_ns);

// bare_forget makes the struct usable in a forked child, where the thread does not exist.
void bare_forget(struct bare_thread *thread);

// barrier_others returns after every other running thread of the process has passed a full memory
// barrier. Partner of fence_compiler in span/cache.c. By membarrier; where that is not allowed
// (barrier_restrict), by waiting longer than any store buffer lives.
void barrier_others(void);

// barrier_prepare does what barrier_others needs once in a process: registering, for which the
// kernel waits some ten milliseconds when there are other threads. So it comes before anybody is
// made to wait for whoever calls barrier_others.
void barrier_prepare(void);

// barrier_restrict says that a system call filter has come: no membarrier from now on.
void barrier_restrict(void);

#endif
