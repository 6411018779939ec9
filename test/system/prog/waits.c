// SPDX-License-Identifier: MIT
//
// A program whose threads wait for each other at known places for known times, and which writes
// its profiles. Knows nothing of Ebb but the name of a function, which it looks up.
//
//   waits known FOLDER     writes FOLDER/block, mutex, threadcreate; says how long each part waited
//   waits types            what locks of all types return; cancellation; signals; vfork
//   waits fork FOLDER      a child writes FOLDER/child while another thread of its parent waits
//   waits storm SECONDS    everything at once
//   waits pairs COUNT      locks and unlocks so many times
// Go  none
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>

#include "proglib.h"

#define ROUNDS 10
#define HELD_MS 30

static int (*profile_write)(const char *name, int fd, int debug);
static const char *folder;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t cond_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static pthread_rwlock_t rwlock = PTHREAD_RWLOCK_INITIALIZER;
static atomic_int turn;
static atomic_int over;
static int awaited;

static void profile(const char *name, const char *file)
{
    char path[4096];
    snprintf(path, sizeof(path), "%s/%s", folder, file);
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0644);
    REQUIRE(fd >= 0, "%s cannot be opened", path);
    int error = profile_write(name, fd, 0);
    REQUIRE(error == 0, "ebb_profile_write %s: %d", name, error);
    close(fd);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void sleep_ms(long ms)
{
    struct timespec t = {ms / 1000, ms % 1000 * 1000000};
    while (nanosleep(&t, &t) != 0) {
    }
}

static void turn_await(int value)
{
    while (atomic_load(&turn) < value) {
        sleep_ms(1);
    }
}

// --- known ---

// Holds what the other thread asks for, from an odd turn to the next.
static __attribute__((noinline)) void hold_mutex(int round)
{
    pthread_mutex_lock(&mutex);
    atomic_store(&turn, 2 * round + 1);
    sleep_ms(HELD_MS);
    pthread_mutex_unlock(&mutex);
    turn_await(2 * round + 2);
}

static __attribute__((noinline)) double want_mutex(int round)
{
    turn_await(2 * round + 1);
    double began = now();
    pthread_mutex_lock(&mutex);
    double waited = now() - began;
    pthread_mutex_unlock(&mutex);
    atomic_store(&turn, 2 * round + 2);
    return waited;
}

static __attribute__((noinline)) void hold_reading(int round)
{
    pthread_rwlock_rdlock(&rwlock);
    atomic_store(&turn, 2 * round + 1);
    sleep_ms(HELD_MS);
    pthread_rwlock_unlock(&rwlock);
    turn_await(2 * round + 2);
}

static __attribute__((noinline)) double want_writing(int round)
{
    turn_await(2 * round + 1);
    double began = now();
    pthread_rwlock_wrlock(&rwlock);
    double waited = now() - began;
    pthread_rwlock_unlock(&rwlock);
    atomic_store(&turn, 2 * round + 2);
    return waited;
}

static __attribute__((noinline)) void make_condition(int round)
{
    turn_await(2 * round + 1);
    sleep_ms(HELD_MS);
    pthread_mutex_lock(&cond_mutex);
    awaited = round + 1;
    pthread_cond_signal(&cond);
    pthread_mutex_unlock(&cond_mutex);
    turn_await(2 * round + 2);
}

static __attribute__((noinline)) double want_condition(int round)
{
    pthread_mutex_lock(&cond_mutex);
    atomic_store(&turn, 2 * round + 1);
    double began = now();
    while (awaited != round + 1) {
        pthread_cond_wait(&cond, &cond_mutex);
    }
    double waited = now() - began;
    pthread_mutex_unlock(&cond_mutex);
    atomic_store(&turn, 2 * round + 2);
    return waited;
}

static __attribute__((noinline)) double want_too_long(void)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += HELD_MS * 1000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    double began = now();
    pthread_mutex_lock(&cond_mutex);
    int ret = 0;
    while (ret == 0) {
        ret = pthread_cond_timedwait(&cond, &cond_mutex, &until);
    }
    pthread_mutex_unlock(&cond_mutex);
    REQUIRE(ret == ETIMEDOUT, "pthread_cond_timedwait: %d", ret);
    return now() - began;
}

static void *wanter(void *arg)
{
    double *waited = arg;
    for (int i = 0; i < ROUNDS; i++) {
        waited[0] += want_mutex(i);
    }
    for (int i = ROUNDS; i < 2 * ROUNDS; i++) {
        waited[1] += want_writing(i);
    }
    for (int i = 2 * ROUNDS; i < 3 * ROUNDS; i++) {
        waited[2] += want_condition(i);
    }
    for (int i = 0; i < ROUNDS; i++) {
        waited[3] += want_too_long();
    }
    return NULL;
}

static __attribute__((noinline)) pthread_t start_thread(void *(*body)(void *), void *arg)
{
    pthread_t thread;
    int error = pthread_create(&thread, NULL, body, arg);
    REQUIRE(error == 0, "pthread_create: %d", error);
    return thread;
}

static void known(void)
{
    double waited[4] = {0};
    pthread_t thread = start_thread(wanter, waited);
    for (int i = 0; i < ROUNDS; i++) {
        hold_mutex(i);
    }
    for (int i = ROUNDS; i < 2 * ROUNDS; i++) {
        hold_reading(i);
    }
    for (int i = 2 * ROUNDS; i < 3 * ROUNDS; i++) {
        make_condition(i);
    }
    pthread_join(thread, NULL);
    profile("block", "block");
    profile("mutex", "mutex");
    profile("threadcreate", "threadcreate");
    printf("want_mutex %f want_writing %f want_condition %f want_too_long %f\n", waited[0],
           waited[1], waited[2], waited[3]);
}

// --- types ---

static void *hold_a_while(void *arg)
{
    REQUIRE(pthread_mutex_lock(arg) == 0, "the lock was not free");
    atomic_store(&turn, 1);
    sleep_ms(20);
    REQUIRE(pthread_mutex_unlock(arg) == 0, "the holder could not unlock");
    return NULL;
}

static void *die_holding(void *arg)
{
    REQUIRE(pthread_mutex_lock(arg) == 0, "the lock was not free");
    atomic_store(&turn, 1);
    sleep_ms(20);
    return NULL;
}

static void type_check(const char *name, int type, int protocol, int robust, int again, int other)
{
    pthread_mutex_t m;
    pthread_mutexattr_t attr;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_settype(&attr, type);
    pthread_mutexattr_setprotocol(&attr, protocol);
    pthread_mutexattr_setrobust(&attr, robust);
    int ret = pthread_mutex_init(&m, &attr);
    REQUIRE(ret == 0, "%s: init %d", name, ret);
    REQUIRE(pthread_mutex_lock(&m) == 0, "%s: lock", name);
    if (again >= 0) {
        ret = pthread_mutex_lock(&m);
        REQUIRE(ret == again, "%s: locking again gives %d, not %d", name, ret, again);
        if (ret == 0) {
            pthread_mutex_unlock(&m);
        }
    }
    REQUIRE(pthread_mutex_unlock(&m) == 0, "%s: unlock", name);
    if (other >= 0) {
        ret = pthread_mutex_unlock(&m);
        REQUIRE(ret == other, "%s: unlocking what is free gives %d, not %d", name, ret, other);
    }
    // A lock that is held by another, who gives it back or dies.
    atomic_store(&turn, 0);
    pthread_t thread = start_thread(robust ? die_holding : hold_a_while, &m);
    turn_await(1);
    struct timespec past = {1, 0};
    ret = pthread_mutex_timedlock(&m, &past);
    REQUIRE(ret == ETIMEDOUT, "%s: timedlock gives %d", name, ret);
    struct timespec wrong = {1, -1};
    ret = pthread_mutex_timedlock(&m, &wrong);
    REQUIRE(ret == EINVAL, "%s: timedlock of a wrong time gives %d", name, ret);
    ret = pthread_mutex_lock(&m);
    REQUIRE(ret == (robust ? EOWNERDEAD : 0), "%s: waiting for it gives %d", name, ret);
    pthread_mutex_unlock(&m); // robust: without making it consistent
    if (robust) {
        ret = pthread_mutex_lock(&m);
        REQUIRE(ret == ENOTRECOVERABLE, "%s: then locking gives %d", name, ret);
    }
    pthread_join(thread, NULL);
    pthread_mutex_destroy(&m);
}

static int cleaned;

static void clean(void *arg)
{
    // It holds the mutex, as POSIX has it.
    REQUIRE(pthread_mutex_trylock(arg) == EBUSY, "cancelled without the mutex");
    cleaned++;
    pthread_mutex_unlock(arg);
}

static void *wait_for_ever(void *arg)
{
    (void)arg;
    pthread_mutex_lock(&cond_mutex);
    pthread_cleanup_push(clean, &cond_mutex);
    atomic_store(&turn, 1);
    for (;;) {
        pthread_cond_wait(&cond, &cond_mutex);
    }
    pthread_cleanup_pop(0);
    return NULL;
}

static void cancel_check(void)
{
    for (int i = 1; i <= 20; i++) {
        atomic_store(&turn, 0);
        pthread_t thread = start_thread(wait_for_ever, NULL);
        turn_await(1);
        sleep_ms(i % 3);
        pthread_cancel(thread);
        void *result;
        pthread_join(thread, &result);
        REQUIRE(result == PTHREAD_CANCELED && cleaned == i, "not cancelled, or not cleaned up");
    }
}

static pthread_mutex_t handler_mutex = PTHREAD_MUTEX_INITIALIZER;
static atomic_int handled;

// Not allowed by POSIX, but done: nobody else takes this mutex in this thread.
static void handler(int number)
{
    (void)number;
    int error = errno;
    if (pthread_mutex_lock(&handler_mutex) == 0) {
        pthread_mutex_unlock(&handler_mutex);
    }
    atomic_fetch_add(&handled, 1);
    errno = error;
}

static void *contend(void *arg)
{
    (void)arg;
    while (atomic_load(&over) == 0) {
        pthread_mutex_lock(&mutex);
        for (volatile int i = 0; i < 100; i++) {
        }
        pthread_mutex_unlock(&mutex);
    }
    return NULL;
}

static void signal_check(void)
{
    signal(SIGPROF, handler);
    pthread_t threads[2];
    atomic_store(&over, 0);
    for (int i = 0; i < 2; i++) {
        threads[i] = start_thread(contend, NULL);
    }
    for (int i = 0; i < 20000; i++) {
        pthread_kill(threads[i % 2], SIGPROF);
        if (i % 100 == 0) {
            sleep_ms(1);
        }
    }
    atomic_store(&over, 1);
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
    REQUIRE(atomic_load(&handled) > 100, "only %d signals", atomic_load(&handled));
}

static void vfork_check(void)
{
    pid_t child = vfork();
    if (child == 0) {
        pthread_mutex_lock(&mutex);
        pthread_mutex_unlock(&mutex);
        _exit(7);
    }
    int status;
    REQUIRE(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 7, "vfork");
}

static void types(void)
{
    type_check("normal", PTHREAD_MUTEX_NORMAL, PTHREAD_PRIO_NONE, 0, -1, -1);
    type_check("adaptive", PTHREAD_MUTEX_ADAPTIVE_NP, PTHREAD_PRIO_NONE, 0, -1, -1);
    type_check("recursive", PTHREAD_MUTEX_RECURSIVE, PTHREAD_PRIO_NONE, 0, 0, EPERM);
    type_check("errorcheck", PTHREAD_MUTEX_ERRORCHECK, PTHREAD_PRIO_NONE, 0, EDEADLK, EPERM);
    type_check("robust", PTHREAD_MUTEX_NORMAL, PTHREAD_PRIO_NONE, 1, -1, EPERM);
    type_check("robust errorcheck", PTHREAD_MUTEX_ERRORCHECK, PTHREAD_PRIO_NONE, 1, EDEADLK, EPERM);
    type_check("inherit", PTHREAD_MUTEX_NORMAL, PTHREAD_PRIO_INHERIT, 0, -1, -1);
    type_check("inherit errorcheck", PTHREAD_MUTEX_ERRORCHECK, PTHREAD_PRIO_INHERIT, 0, EDEADLK,
               EPERM);
    cancel_check();
    signal_check();
    vfork_check();
}

// --- fork ---

static __attribute__((noinline)) void *parent_waits(void *arg)
{
    atomic_store(&turn, 1);
    pthread_mutex_lock(&mutex);
    pthread_mutex_unlock(&mutex);
    return arg;
}

static __attribute__((noinline)) void *child_waits(void *arg)
{
    atomic_store(&turn, 2);
    pthread_mutex_lock(arg);
    pthread_mutex_unlock(arg);
    return NULL;
}

static void forked(void)
{
    pthread_mutex_lock(&mutex);
    pthread_t thread = start_thread(parent_waits, NULL);
    turn_await(1);
    sleep_ms(HELD_MS);
    pid_t child = fork();
    if (child == 0) {
        // The line of the parent's thread must be gone: this would be charged for it.
        sleep_ms(HELD_MS);
        pthread_mutex_unlock(&mutex);
        pthread_mutex_lock(&cond_mutex);
        pthread_t own = start_thread(child_waits, &cond_mutex);
        turn_await(2);
        sleep_ms(HELD_MS);
        pthread_mutex_unlock(&cond_mutex);
        pthread_join(own, NULL);
        profile("block", "child");
        profile("mutex", "child_mutex");
        _exit(7);
    }
    int status;
    REQUIRE(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 7, "fork");
    pthread_mutex_unlock(&mutex);
    pthread_join(thread, NULL);
    profile("block", "parent");
}

// --- storm ---

static void *storm_waits(void *arg)
{
    (void)arg;
    struct timespec until;
    while (atomic_load(&over) == 0) {
        pthread_mutex_lock(&cond_mutex);
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec = (until.tv_nsec + 100000) % 1000000000;
        pthread_cond_timedwait(&cond, &cond_mutex, &until);
        pthread_cond_broadcast(&cond);
        pthread_mutex_unlock(&cond_mutex);
        pthread_rwlock_rdlock(&rwlock);
        free(malloc(100));
        pthread_rwlock_unlock(&rwlock);
        pthread_rwlock_wrlock(&rwlock);
        pthread_rwlock_unlock(&rwlock);
    }
    return NULL;
}

static void storm(double seconds)
{
    enum { COUNT = 6 };
    pthread_t threads[COUNT];
    for (int i = 0; i < COUNT; i++) {
        threads[i] = start_thread(i % 2 == 0 ? storm_waits : contend, NULL);
    }
    int forks = 0;
    for (double end = now() + seconds; now() < end; forks++) {
        pid_t child = fork();
        if (child == 0) {
            pthread_t own = start_thread(child_waits, &handler_mutex);
            pthread_join(own, NULL);
            _exit(7);
        }
        int status;
        REQUIRE(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 7, "fork");
        profile("block", "block");
        profile("mutex", "mutex");
    }
    atomic_store(&over, 1);
    for (int i = 0; i < COUNT; i++) {
        pthread_join(threads[i], NULL);
    }
    printf("forks %d\n", forks);
}

static void pairs(long count)
{
    for (long i = 0; i < count; i++) {
        pthread_mutex_lock(&mutex);
        pthread_mutex_unlock(&mutex);
    }
}

int main(int argc, char **argv)
{
    REQUIRE(argc > 1, "usage: waits known|types|fork|storm|pairs ...");
    profile_write = (int (*)(const char *, int, int))dlsym(RTLD_DEFAULT, "ebb_profile_write");
    folder = argc > 2 ? argv[2] : "";
    if (strcmp(argv[1], "known") == 0) {
        known();
    } else if (strcmp(argv[1], "types") == 0) {
        types();
    } else if (strcmp(argv[1], "fork") == 0) {
        forked();
    } else if (strcmp(argv[1], "storm") == 0) {
        storm(argc > 3 ? strtod(argv[3], NULL) : 1);
    } else {
        pairs(argc > 2 ? strtol(argv[2], NULL, 10) : 1);
    }
    return 0;
}
