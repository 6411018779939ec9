// SPDX-License-Identifier: MIT
//
// signals: handlers that allocate, at moments when the thread they interrupt is not in the heap.
// The standard forbids it, glibc tolerates it, programs do it. Where libc allocates by itself, in
// pthread_create, at a thread's end and in printf, and in a handler, the signals are blocked.
// Go  none
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>

#include "proglib.h"

enum { SECONDS = 3, KEPT = 64 };

static _Thread_local volatile sig_atomic_t in_heap;
static _Thread_local void *kept[KEPT];
static atomic_ulong handled;
static atomic_bool over;

static void handler(int number)
{
    static _Thread_local uint64_t seed = 77;
    size_t slot = rand_next(&seed) % KEPT;

    (void)number;
    if (in_heap) {
        return;
    }
    free(kept[slot]);
    kept[slot] = malloc(16 + rand_next(&seed) % 900);
    REQUIRE(kept[slot], "malloc in a handler failed");
    memset(kept[slot], 1, 16);
    atomic_fetch_add(&handled, 1);
}

static void signals(int how)
{
    sigset_t both;

    sigemptyset(&both);
    sigaddset(&both, SIGALRM);
    sigaddset(&both, SIGUSR1);
    REQUIRE(pthread_sigmask(how, &both, NULL) == 0, "the signals cannot be blocked");
}

static void *work(void *arg)
{
    uint64_t seed = (uint64_t)(uintptr_t)arg;
    unsigned char *blocks[100] = {0};

    signals(SIG_UNBLOCK);
    while (!atomic_load(&over)) {
        size_t slot = rand_next(&seed) % 100;
        size_t bytes = 16 + rand_next(&seed) % 900;

        if (blocks[slot]) {
            REQUIRE(blocks[slot][0] == slot && blocks[slot][15] == slot, "a block was damaged");
        }
        in_heap = 1;
        free(blocks[slot]);
        blocks[slot] = malloc(bytes);
        in_heap = 0;
        REQUIRE(blocks[slot], "malloc failed");
        memset(blocks[slot], (int)slot, bytes);
        for (int i = 0; i < 200; i++) {
            rand_next(&seed); // time spent outside the heap
        }
    }
    signals(SIG_BLOCK);
    return NULL;
}

int main(void)
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
    struct itimerval often = {{0, 200}, {0, 200}};
    pthread_t threads[2];
    time_t end = time(NULL) + SECONDS;

    sigfillset(&action.sa_mask);
    signals(SIG_BLOCK); // the threads begin with that
    sigaction(SIGALRM, &action, NULL);
    sigaction(SIGUSR1, &action, NULL);
    setitimer(ITIMER_REAL, &often, NULL);
    for (size_t i = 0; i < 2; i++) {
        REQUIRE(pthread_create(&threads[i], NULL, work, (void *)(i + 1)) == 0, "no thread");
    }
    signals(SIG_UNBLOCK);
    while (time(NULL) < end) {
        struct timespec pause = {0, 100000};

        pthread_kill(threads[0], SIGUSR1);
        pthread_kill(threads[1], SIGUSR1);
        nanosleep(&pause, NULL);
    }
    signals(SIG_BLOCK);
    atomic_store(&over, 1);
    for (size_t i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
    }
    REQUIRE(atomic_load(&handled) > 100, "only %lu signals were handled", atomic_load(&handled));
    printf("%lu handlers have allocated\n", atomic_load(&handled));
    return 0;
}
