// SPDX-License-Identifier: MIT
//
// Children of ebb node: what reads memory that others have written runs in a process of its own.
//
// A look follows pointers of programs that may be broken, hostile, or changing under it. It bounds
// each step; where that has a hole, a child ends and not the node that watches a machine. A child
// costs half a millisecond.
//
// Go  none.
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "node.h"

bool child_run(void (*work)(void *arg), void *arg, unsigned seconds)
{
    int status = -1;
    fflush(NULL);
    pid_t parent = getpid();
    pid_t child = fork();
    if (child < 0) {
        work(arg); // no process is to be had: without the safety
        return true;
    }
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        signal(SIGALRM, SIG_DFL);
        alarm(seconds);
        if (getppid() == parent) {
            work(arg);
        }
        _exit(0);
    }
    while (waitpid(child, &status, 0) < 0) {
        if (errno != EINTR) {
            return false;
        }
    }
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

void *child_memory(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        cli_fail("node", "out of memory");
        exit(DOCTOR_FAILED);
    }
    return memory;
}

void child_memory_free(void *memory, size_t bytes)
{
    munmap(memory, bytes);
}
