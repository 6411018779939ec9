// SPDX-License-Identifier: MIT
//
// forkstorm COUNT: forks while eight threads allocate and free each other's blocks. The child uses
// its heap, the parent's is undisturbed; whoever hangs is ended by an alarm, which is a failure.
// Go  none
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "proglib.h"

enum { THREADS = 8, SLOTS = 512, CHILD_SECONDS = 20, STALL_SECONDS = 60 };

struct block {
    size_t bytes;
    unsigned char data[];
};

static struct block *_Atomic slots[SLOTS];
static atomic_bool over;
static atomic_ulong turns;

static struct block *make(uint64_t *seed)
{
    size_t bytes = rand_next(seed) % 2000 + (rand_next(seed) % 200 == 0 ? 100000 : 0);
    struct block *block = malloc(sizeof *block + bytes);

    REQUIRE(block, "malloc failed");
    block->bytes = bytes;
    memset(block->data, (int)(bytes & 0xff), bytes);
    return block;
}

static void end(struct block *block)
{
    if (!block) {
        return;
    }
    for (size_t i = 0; i < block->bytes; i += 61) {
        REQUIRE(block->data[i] == (block->bytes & 0xff), "a block was damaged");
    }
    free(block);
}

static void *work(void *arg)
{
    uint64_t seed = (uint64_t)(uintptr_t)arg;

    // Behind the forking thread, or it waits for a turn most of the time.
    setpriority(PRIO_PROCESS, (id_t)gettid(), 15);
    while (!atomic_load(&over)) {
        end(atomic_exchange(&slots[rand_next(&seed) % SLOTS], make(&seed)));
        atomic_fetch_add_explicit(&turns, 1, memory_order_relaxed);
    }
    return NULL;
}

// The child is alone: it frees what other threads had, allocates, and starts a thread.
static void child(uint64_t seed, int with_thread)
{
    alarm(CHILD_SECONDS);
    for (size_t i = 0; i < SLOTS; i++) {
        end(atomic_exchange(&slots[i], make(&seed)));
    }
    if (with_thread) {
        pthread_t thread;

        atomic_store(&over, 1);
        REQUIRE(pthread_create(&thread, NULL, work, (void *)(uintptr_t)seed) == 0, "no thread");
        pthread_join(thread, NULL);
    }
    _exit(0);
}

int main(int argc, char **argv)
{
    long count = argc > 1 ? atol(argv[1]) : 10000;
    pthread_t threads[THREADS];

    for (size_t i = 0; i < THREADS; i++) {
        REQUIRE(pthread_create(&threads[i], NULL, work, (void *)(i + 1)) == 0, "no thread");
    }
    for (long i = 0; i < count; i++) {
        int status = 0;
        pid_t pid;

        alarm(STALL_SECONDS);
        pid = fork();
        REQUIRE(pid >= 0, "fork: errno %d", errno);
        if (pid == 0) {
            child((uint64_t)i + 1, i % 16 == 0);
        }
        REQUIRE(waitpid(pid, &status, 0) == pid, "waitpid: errno %d", errno);
        REQUIRE(!WIFSIGNALED(status), "child %ld: killed by signal %d%s", i, WTERMSIG(status),
                WTERMSIG(status) == SIGALRM ? " (it hung)" : "");
        REQUIRE(WEXITSTATUS(status) == 0, "child %ld: status %d", i, WEXITSTATUS(status));
    }
    atomic_store(&over, 1);
    for (size_t i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    printf("%ld forks, %lu turns beside them\n", count, atomic_load(&turns));
    return 0;
}
