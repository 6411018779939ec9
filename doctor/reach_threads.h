// SPDX-License-Identifier: MIT
//
// Doctor, reachability: what the threads of a process hold, as far as it shows from outside.
//
// Model
//   Of a thread that waits in the kernel /proc shows the stack pointer, the program counter and the
//   six arguments of its system call. The other registers do not show, and of a thread that runs
//   none. A thread that waits twice with as many voluntary switches has not run in between.
//
// Go  none: the collector stops its threads, and their stack maps name the registers.
#ifndef EBB_DOCTOR_REACH_THREADS_H
#define EBB_DOCTOR_REACH_THREADS_H

#include "doctor_int.h"

#define THREAD_WORDS 6
struct reach_thread {
    int tid;
    bool waits;                   // in the kernel; else nothing below is known
    uint64_t sp, pc;              // 0: not known
    uint64_t words[THREAD_WORDS]; // arguments of its system call
    uint64_t switches_count;      // voluntary, so far
};

struct reach_threads {
    struct reach_thread *threads; // by address of their stack pointers
    size_t count, cap;
    bool whole; // none is missing
};

// threads_read looks at all threads.
void threads_read(const struct exam *exam, struct reach_threads *threads);
// threads_sp returns the lowest known stack pointer in [start, end), or start: then all of it may
// be in use.
uint64_t threads_sp(const struct reach_threads *threads, uint64_t start, uint64_t end);
// threads_still tells whether none of them has run in between.
bool threads_still(const struct reach_threads *before, const struct reach_threads *after);
// threads_hidden_count returns how many registers may hold pointers that do not show.
size_t threads_hidden_count(const struct reach_threads *threads);
void threads_free(struct reach_threads *threads);

// epoll_words visits the words that the process has given to epoll(7), which hands them back: the
// kernel may be the only one that knows them. False if there are more than there is time for.
typedef void epoll_visit(void *arg, uint64_t word);
bool epoll_words(const struct exam *exam, epoll_visit *visit, void *arg);

#endif
