// SPDX-License-Identifier: MIT
//
// sleeper: fills memory, frees it, and waits; what it is waiting in decides whether and how a
// signal reaches it.
//
// sleeper read        in read(2); each line it gets makes it answer "alive"
// sleeper blocked     the same with all signals blocked
// sleeper taken       the same, with every real-time signal put back to its default
// sleeper asleep      a second thread waits for all signals, the first blocks them
// sleeper sigwait     a second thread waits for all signals, the first blocks none
// sleeper filter      announces a system call filter first
// sleeper rawfilter   puts a system call filter in force that allows all, unannounced (root only)
// sleeper setuid      becomes nobody first (root only)
// sleeper turncoat    changes its user to and fro some thousand times, then is nobody (root only)
// sleeper chroot DIR  goes to live in DIR first (root only)
// sleeper forked      forks; the child is the one that reads
// sleeper storm       answers once it has forked and reaped some thousand children beside threads
// Go  none
#include <dirent.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "proglib.h"

enum { BLOCKS = 100000, BLOCK_BYTES = 1000, FORKS = 1500, THREADS = 3, TURNS = 4000 };

static atomic_int storm_over;

static void use_heap(void)
{
    static char *blocks[BLOCKS];

    for (int i = 0; i < BLOCKS; i++) {
        blocks[i] = malloc(BLOCK_BYTES);
        REQUIRE(blocks[i], "malloc failed");
        memset(blocks[i], 1, BLOCK_BYTES);
    }
    for (int i = 0; i < BLOCKS; i++) {
        free(blocks[i]);
    }
}

static void all_signals(int how)
{
    sigset_t all;

    sigfillset(&all);
    pthread_sigmask(how, &all, NULL);
}

static void *wait_for_signals(void *arg)
{
    sigset_t all;
    int number;

    (void)arg;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    while (sigwait(&all, &number) == 0) {
        printf("stolen %d\n", number);
        fflush(stdout);
    }
    return NULL;
}

static void *churn(void *arg)
{
    uint64_t seed = (uint64_t)(uintptr_t)arg;

    while (!atomic_load(&storm_over)) {
        free(malloc(16 + rand_next(&seed) % 40000));
    }
    return NULL;
}

static void storm(void)
{
    pthread_t threads[THREADS];

    for (size_t i = 0; i < THREADS; i++) {
        REQUIRE(pthread_create(&threads[i], NULL, churn, (void *)(i + 1)) == 0, "no thread");
    }
    for (int i = 0; i < FORKS; i++) {
        pid_t child = fork();
        int status = 0;

        REQUIRE(child >= 0, "fork: errno %d", errno);
        if (child == 0) {
            free(malloc(5000));
            _exit(0);
        }
        while (waitpid(child, &status, 0) < 0) {
            REQUIRE(errno == EINTR, "waitpid: errno %d", errno);
        }
        REQUIRE(status == 0, "a child ended with status %x", (unsigned)status);
    }
    atomic_store(&storm_over, 1);
    for (size_t i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
}

static void filter_all_allowed(void)
{
    struct sock_filter code[] = {BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    struct sock_fprog program = {.len = 1, .filter = code};

    REQUIRE(syscall(__NR_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) ==
                0,
            "seccomp: errno %d", errno);
}

// Has the thread begun to end? Then it runs in the kernel alone, with what it had, until it leaves
// the list. The flag is set before the kernel clears the word by which others see it go.
static bool is_ending(const char *thread)
{
    enum { PF_EXITING = 4 }; // linux/sched.h
    char path[300];
    char text[512] = "";
    unsigned flags = 0;
    FILE *stat;

    snprintf(path, sizeof path, "/proc/self/task/%s/stat", thread);
    stat = fopen(path, "r");
    if (!stat) {
        return true;
    }
    if (fgets(text, sizeof text, stat)) {
        char *rest = strrchr(text, ')'); // proc(5): the name may have blanks; flags is field 9
        REQUIRE(rest && sscanf(rest, ") %*c %*d %*d %*d %*d %*d %u", &flags) == 1, "stat: %s",
                text);
    }
    fclose(stat);
    return (flags & PF_EXITING) != 0;
}

// Every thread of this process has the effective user id that this one has.
static void same_user(void)
{
    char path[300];
    char line[256];
    DIR *tasks = opendir("/proc/self/task");
    struct dirent *entry;

    REQUIRE(tasks, "no /proc");
    while ((entry = readdir(tasks)) != NULL) {
        FILE *status;
        char name[32] = "";
        unsigned uid;

        // First this: one that ends between the two looks had its chance to run with what it has.
        if (entry->d_name[0] == '.' || is_ending(entry->d_name)) {
            continue;
        }
        snprintf(path, sizeof path, "/proc/self/task/%s/status", entry->d_name);
        status = fopen(path, "r");
        while (status && fgets(line, sizeof line, status)) {
            sscanf(line, "Name: %31s", name);
            if (sscanf(line, "Uid: %*u %u", &uid) == 1) {
                REQUIRE(uid == geteuid(), "thread %s (%s) has user %u", entry->d_name, name, uid);
            }
        }
        if (status) {
            fclose(status);
        }
    }
    closedir(tasks);
}

static void turn_coat(void)
{
    printf("turning\n");
    fflush(stdout);
    for (int i = 0; i < TURNS; i++) {
        REQUIRE(setresuid(65534, 65534, 0) == 0, "setresuid: errno %d", errno);
        same_user();
        REQUIRE(setresuid(0, 0, 0) == 0, "setresuid: errno %d", errno);
        same_user();
    }
    REQUIRE(setuid(65534) == 0, "setuid: errno %d", errno);
}

static void prepare(const char *how, const char *folder)
{
    pthread_t thread;

    if (strcmp(how, "blocked") == 0) {
        all_signals(SIG_SETMASK);
    } else if (strcmp(how, "taken") == 0) {
        for (int number = SIGRTMIN; number <= SIGRTMAX; number++) {
            signal(number, SIG_DFL);
        }
    } else if (strcmp(how, "sigwait") == 0 || strcmp(how, "asleep") == 0) {
        REQUIRE(pthread_create(&thread, NULL, wait_for_signals, NULL) == 0, "no thread");
        if (strcmp(how, "asleep") == 0) {
            all_signals(SIG_SETMASK);
        }
        usleep(100000); // until the thread is in its sigwait
    } else if (strcmp(how, "filter") == 0) {
        REQUIRE(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0, "prctl: errno %d", errno);
    } else if (strcmp(how, "rawfilter") == 0) {
        filter_all_allowed();
    } else if (strcmp(how, "setuid") == 0) {
        REQUIRE(setgid(65534) == 0 && setuid(65534) == 0, "setuid: errno %d", errno);
    } else if (strcmp(how, "turncoat") == 0) {
        turn_coat();
    } else if (strcmp(how, "chroot") == 0) {
        REQUIRE(chroot(folder) == 0 && chdir("/") == 0, "chroot: errno %d", errno);
    } else if (strcmp(how, "storm") == 0) {
        printf("storm\n");
        fflush(stdout);
        storm();
    }
}

int main(int argc, char **argv)
{
    const char *how = argc > 1 ? argv[1] : "read";
    char line[64];

    use_heap();
    prepare(how, argc > 2 ? argv[2] : "/");
    if (strcmp(how, "forked") == 0) {
        pid_t child = fork();

        if (child != 0) {
            int status;

            waitpid(child, &status, 0);
            return status != 0;
        }
    }
    printf("ready %d\n", getpid());
    fflush(stdout);
    errno = 0;
    // read(2), which the signal must not end: stdio would not tell.
    while (read(STDIN_FILENO, line, sizeof line) > 0) {
        printf("alive\n");
        fflush(stdout);
    }
    REQUIRE(errno == 0 || errno == ENOENT || errno == EAGAIN, "read: errno %d", errno);
    return 0;
}
