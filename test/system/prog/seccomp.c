// SPDX-License-Identifier: MIT
//
// seccomp: works under a filter that allows what glibc's malloc needs, and kills on anything else.
//
// seccomp early    the filter comes before the heap has done anything worth the name
// seccomp late     the heap has grown, shrunk and rested (its releaser may run) before the filter
//
// openat is fatal like the rest; with a further word `lenient` it only fails: glibc opens a file of
// /proc when it shrinks a thread's heap, and takes an error well.
// Go  none
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "proglib.h"

#if defined(__x86_64__)
#define OUR_ARCH AUDIT_ARCH_X86_64
#else
#define OUR_ARCH AUDIT_ARCH_AARCH64
#endif

enum { THREADS = 4, BLOCKS = 60000 };

// What glibc 2.36's malloc, its threads that already live, stdio and exit call.
static const int allowed[] = {
    __NR_brk,
    __NR_mmap,
    __NR_munmap,
    __NR_mremap,
    __NR_madvise,
    __NR_mprotect,
    __NR_futex,
    __NR_read,
    __NR_write,
    __NR_exit,
    __NR_exit_group,
    __NR_rt_sigaction,
    __NR_rt_sigprocmask,
    __NR_rt_sigreturn,
    __NR_clock_gettime,
    __NR_clock_nanosleep,
    __NR_nanosleep,
    __NR_getrandom,
    __NR_sched_getaffinity,
    __NR_sched_yield,
    __NR_restart_syscall,
};

enum { ALLOWED = sizeof allowed / sizeof allowed[0] };

static pthread_barrier_t started;
static pthread_barrier_t go;
static pthread_barrier_t done;

static void install_filter(unsigned on_openat)
{
    struct sock_filter code[3 + ALLOWED * 2 + 4];
    struct sock_fprog program = {.filter = code};
    size_t n = 0;

    code[n++] =
        (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
    code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, OUR_ARCH, 1, 0);
    code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
    code[n++] =
        (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (size_t i = 0; i < ALLOWED; i++) {
        code[n++] =
            (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)allowed[i], 0, 1);
        code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    }
    code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_openat, 0, 1);
    code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, on_openat);
    code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
    program.len = (unsigned short)n;
    REQUIRE(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0, "no_new_privs: errno %d", errno);
    if (syscall(__NR_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) != 0) {
        printf("seccomp filters are not to be had here: errno %d\n", errno);
        exit(EXIT_SKIP);
    }
}

static void use_heap(uint64_t seed)
{
    static _Thread_local void *blocks[BLOCKS];

    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < BLOCKS; i++) {
            size_t bytes = 16 + rand_next(&seed) % 1500;

            bytes = i % 1000 == 0 ? bytes * 700 : bytes;
            blocks[i] = malloc(bytes);
            REQUIRE(blocks[i], "malloc(%zu) failed", bytes);
            memset(blocks[i], 1, bytes);
        }
        for (size_t i = 0; i < BLOCKS; i += 3) {
            blocks[i] = realloc(blocks[i], 16 + rand_next(&seed) % 3000);
            REQUIRE(blocks[i], "realloc failed");
        }
        for (size_t i = 0; i < BLOCKS; i++) {
            free(blocks[i]);
        }
    }
}

static void *work(void *arg)
{
    pthread_barrier_wait(&started);
    pthread_barrier_wait(&go);
    use_heap((uint64_t)(uintptr_t)arg);
    pthread_barrier_wait(&done);
    return NULL;
}

static void rest(time_t seconds)
{
    struct timespec time = {.tv_sec = seconds};

    nanosleep(&time, NULL);
}

int main(int argc, char **argv)
{
    pthread_t threads[THREADS];

    if (argc > 1 && strcmp(argv[1], "late") == 0) {
        use_heap(99);
        rest(3);
    }
    pthread_barrier_init(&started, NULL, THREADS + 1);
    pthread_barrier_init(&go, NULL, THREADS + 1);
    pthread_barrier_init(&done, NULL, THREADS + 1);
    for (size_t i = 0; i < THREADS; i++) {
        REQUIRE(pthread_create(&threads[i], NULL, work, (void *)(i + 1)) == 0, "no thread");
    }
    pthread_barrier_wait(&started); // what a thread calls when it begins lies before the filter
    install_filter(argc > 2 ? SECCOMP_RET_ERRNO | EPERM : SECCOMP_RET_KILL_PROCESS);
    pthread_barrier_wait(&go);
    use_heap(7);
    pthread_barrier_wait(&done);
    rest(3); // time for whatever gives memory back
    use_heap(8);
    for (size_t i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    return 0;
}
