// SPDX-License-Identifier: MIT
// Tier  quick
//
// procfs.h: the parsers on fixed files, of this kernel and of poorer ones; the readers on this
// process, on another and on none. clock.h: the clocks go the way they should.
//
// Go  none
#include "os/procfs.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "os/clock.h"

static const char status_text[] = "Name:\tThreads: 99\n"
                                  "State:\tS (sleeping)\n"
                                  "Pid:\t812\n"
                                  "Groups:\t4 24 27 \n"
                                  "VmPeak:\t  210004 kB\n"
                                  "VmSize:\t  200004 kB\n"
                                  "VmHWM:\t   30720 kB\n"
                                  "VmRSS:\t   20480 kB\n"
                                  "RssAnon:\t   10240 kB\n"
                                  "RssFile:\t    8192 kB\n"
                                  "RssShmem:\t    2048 kB\n"
                                  "VmSwap:\t       4 kB\n"
                                  "Threads:\t7\n"
                                  "Seccomp:\t2\n"
                                  "Seccomp_filters:\t1\n"
                                  "voluntary_ctxt_switches:\t150\n"
                                  "nonvoluntary_ctxt_switches:\t545\n";

Test(procfs, status_parse)
{
    struct procfs_memory m;
    cr_assert(procfs_status_parse(status_text, sizeof status_text - 1, &m));
    cr_expect_eq(m.vm_peak_bytes, 210004 * KIB);
    cr_expect_eq(m.vm_size_bytes, 200004 * KIB);
    cr_expect_eq(m.vm_hwm_bytes, 30 * MIB);
    cr_expect_eq(m.rss_bytes, 20 * MIB);
    cr_expect_eq(m.rss_anon_bytes, 10 * MIB);
    cr_expect_eq(m.rss_file_bytes, 8 * MIB);
    cr_expect_eq(m.rss_shmem_bytes, 2 * MIB);
    cr_expect_eq(m.swap_bytes, 4 * KIB);
    cr_expect_eq(m.threads_count, 7);
    cr_expect_eq(m.seccomp, 2);
    cr_expect_eq(m.voluntary_switches_count, 150);
    cr_expect_eq(m.involuntary_switches_count, 545);
}

// A kernel thread has no memory lines, a kernel before 3.8 no Seccomp line.
Test(procfs, status_with_fields_missing)
{
    static const char text[] = "Name:\tkthreadd\nThreads:\t1\nvoluntary_ctxt_switches:\t5";
    struct procfs_memory m;
    cr_assert(procfs_status_parse(text, sizeof text - 1, &m));
    cr_expect_eq(m.rss_bytes, 0);
    cr_expect_eq(m.threads_count, 1);
    cr_expect_eq(m.seccomp, -1);
    cr_expect_eq(m.voluntary_switches_count, 5, "the last line has no newline");
    memset(&m, 0x77, sizeof m);
    struct procfs_memory before = m;
    cr_expect_not(procfs_status_parse("", 0, &m));
    cr_expect_not(procfs_status_parse("Threads:\n", 9, &m));
    cr_expect_not(procfs_status_parse("Threads:\tmany\n", 14, &m));
    cr_expect_eq(memcmp(&m, &before, sizeof m), 0, "a failed parse leaves the result alone");
}

// Cut anywhere, as a short read would: no byte after the end is looked at (ASan watches).
Test(procfs, stat_parse)
{
    static const char text[] = "7 (a) b) S 1 1 1 0 -1 2129984 0 0 0 0 11 22 0 0 20 0 3 0 100 1 1\n";
    struct procfs_stat s;
    cr_assert(procfs_stat_parse(text, sizeof text - 1, &s));
    cr_assert(s.state == 'S' && s.kernel_thread && !s.exiting);
    cr_assert(s.user_ticks == 11 && s.system_ticks == 22 && s.start_ticks == 100);
    // Before the end of its last number nothing is told apart from a shorter one.
    size_t whole = (size_t)(strstr(text, " 100") - text) + 1;
    for (size_t len = 0; len < whole; len++) {
        char *exact = malloc(len + 1);
        memcpy(exact, text, len);
        cr_expect_not(procfs_stat_parse(exact, len, &s), "%zu bytes", len);
        free(exact);
    }
    cr_assert(procfs_stat_read(0, &s));
    cr_assert(s.state == 'R' && s.start_ticks != 0 && !s.kernel_thread);
}

Test(procfs, parsers_stay_inside_the_text)
{
    for (size_t len = 0; len < sizeof status_text; len++) {
        char *exact = malloc(len + 1);
        struct procfs_memory m;
        struct procfs_rollup r;
        memcpy(exact + 1, status_text, len);
        procfs_status_parse(exact + 1, len, &m);
        procfs_rollup_parse(exact + 1, len, &r);
        free(exact);
    }
}

Test(procfs, rollup_parse)
{
    static const char text[] = "562fca444000-7fffd8be6000 ---p 00000000 00:00 0   [rollup]\n"
                               "Rss:                1692 kB\n"
                               "Pss:                 258 kB\n"
                               "Pss_Dirty:           108 kB\n"
                               "Shared_Clean:       1544 kB\n"
                               "Private_Clean:        40 kB\n"
                               "Private_Dirty:       109 kB\n"
                               "Anonymous:           110 kB\n"
                               "LazyFree:             64 kB\n"
                               "AnonHugePages:      2048 kB\n"
                               "Swap:                  3 kB\n"
                               "SwapPss:               9 kB\n";
    struct procfs_rollup r;
    cr_assert(procfs_rollup_parse(text, sizeof text - 1, &r));
    cr_expect_eq(r.rss_bytes, 1692 * KIB);
    cr_expect_eq(r.pss_bytes, 258 * KIB);
    cr_expect_eq(r.private_clean_bytes, 40 * KIB);
    cr_expect_eq(r.private_dirty_bytes, 109 * KIB);
    cr_expect_eq(r.anonymous_bytes, 110 * KIB);
    cr_expect_eq(r.lazyfree_bytes, 64 * KIB);
    cr_expect_eq(r.anon_huge_bytes, 2 * MIB);
    cr_expect_eq(r.swap_bytes, 3 * KIB);
    cr_expect_not(procfs_rollup_parse(status_text, sizeof status_text - 1, &r));
}

Test(procfs, numbers_and_fields)
{
    uint64_t n = 1;
    cr_expect(procfs_number_u64("  \t42 kB", 8, &n));
    cr_expect_eq(n, 42);
    cr_expect(procfs_number_u64("18446744073709551615", 20, &n));
    cr_expect_eq(n, UINT64_MAX);
    cr_expect(procfs_number_u64("18446744073709551616", 20, &n));
    cr_expect_eq(n, UINT64_MAX, "too large is the largest");
    cr_expect(procfs_number_u64("123", 2, &n));
    cr_expect_eq(n, 12, "the length counts, not a closing zero");
    cr_expect_not(procfs_number_u64("", 0, &n));
    cr_expect_not(procfs_number_u64("-1", 2, &n));
    cr_expect_not(procfs_number_u64("max", 3, &n));
    static const char text[] = "cache_x 1\ntotal_cache 2\ncache 3\n";
    cr_expect(procfs_field_u64(text, sizeof text - 1, "cache", &n));
    cr_expect_eq(n, 3, "a field is a whole word at the start of a line");
    cr_expect_not(procfs_field_u64(text, sizeof text - 1, "total", &n));
}

// What the kernel says follows what we do: 64 MiB more, then lazily freed, then gone.
Test(procfs, own_memory_follows)
{
    size_t len = 64 * MIB;
    struct procfs_memory before;
    struct procfs_memory after;
    struct procfs_rollup rollup_before;
    struct procfs_rollup rollup;
    cr_assert(procfs_memory_read(0, &before));
    cr_assert(procfs_rollup_read(0, &rollup_before));
    char *mem = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(mem, MAP_FAILED);
    madvise(mem, len, MADV_NOHUGEPAGE);
    memset(mem, 1, len);
    errno = 1234;
    cr_assert(procfs_memory_read(0, &after));
    cr_assert(procfs_rollup_read(0, &rollup));
    cr_expect_eq(errno, 1234);
    cr_expect_geq(after.rss_bytes, before.rss_bytes + len - 4 * MIB);
    cr_expect_geq(after.rss_anon_bytes, before.rss_anon_bytes + len - 4 * MIB);
    cr_expect_geq(after.vm_size_bytes, before.vm_size_bytes + len);
    cr_expect_geq(after.vm_hwm_bytes, after.rss_bytes - 4 * MIB);
    cr_expect_geq(rollup.rss_bytes, rollup_before.rss_bytes + len);
    cr_expect_geq(rollup.private_dirty_bytes, len);
    cr_expect_geq(rollup.anonymous_bytes, len);
    cr_assert_eq(madvise(mem, len, MADV_FREE), 0);
    cr_assert(procfs_rollup_read(0, &rollup));
    cr_expect_geq(rollup.lazyfree_bytes, len - MIB);
    cr_assert_eq(madvise(mem, len, MADV_DONTNEED), 0);
    cr_assert(procfs_rollup_read(0, &rollup));
    cr_expect_leq(rollup.rss_bytes, rollup_before.rss_bytes + 4 * MIB);
    cr_expect_leq(rollup.lazyfree_bytes, MIB);
    munmap(mem, len);
}

Test(procfs, another_process)
{
    struct procfs_memory m;
    struct procfs_rollup r;
    struct procfs_switches s;
    pid_t pid = fork();
    if (pid == 0) {
        pause();
        _exit(0);
    }
    cr_expect(procfs_memory_read(pid, &m));
    cr_expect_gt(m.rss_bytes, 0);
    cr_expect_eq(m.threads_count, 1);
    cr_expect(procfs_rollup_read(pid, &r));
    cr_expect(procfs_switches_read(pid, &s));
    cr_expect_eq(s.threads_count, 1);
    cr_expect_gt(procfs_maps_count(pid), 3);
    cr_expect_eq(procfs_seccomp(pid), procfs_seccomp(0));
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    cr_expect_not(procfs_memory_read(pid, &m));
    cr_expect_not(procfs_rollup_read(pid, &r));
    cr_expect_not(procfs_switches_read(pid, &s));
    cr_expect_eq(procfs_maps_count(pid), -1);
    cr_expect_eq(procfs_seccomp(pid), -1);
}

Test(procfs, maps_count_counts_mappings)
{
    enum { PAGES = 400 };
    int64_t before = procfs_maps_count(0);
    size_t page = (size_t)getpagesize();
    char *mem = mmap(NULL, PAGES * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(mem, MAP_FAILED);
    cr_assert_gt(before, 10);
    for (size_t i = 1; i < PAGES; i += 2) {
        cr_assert_eq(mprotect(mem + i * page, page, PROT_READ), 0);
    }
    // The outer pages may join a neighbour.
    int64_t grown = procfs_maps_count(0) - before;
    cr_expect_geq(grown, PAGES - 2);
    cr_expect_leq(grown, PAGES);
    munmap(mem, PAGES * page);
}

static void *naps(void *arg)
{
    pthread_barrier_t *done = arg;
    for (int i = 0; i < 200; i++) {
        usleep(100);
    }
    // Stays alive until it has been counted.
    pthread_barrier_wait(done);
    pthread_barrier_wait(done);
    return NULL;
}

// The sum has the naps of all threads; the status file has those of the first thread alone.
Test(procfs, switches_of_all_threads)
{
    enum { THREADS = 3 };
    pthread_t threads[THREADS];
    pthread_barrier_t done;
    struct procfs_switches before;
    struct procfs_switches after;
    pthread_barrier_init(&done, NULL, THREADS + 1);
    cr_assert(procfs_switches_read(0, &before));
    for (size_t i = 0; i < THREADS; i++) {
        cr_assert_eq(pthread_create(&threads[i], NULL, naps, &done), 0);
    }
    pthread_barrier_wait(&done);
    cr_expect(procfs_switches_read(0, &after));
    pthread_barrier_wait(&done);
    for (size_t i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    cr_expect_eq(after.threads_count, before.threads_count + THREADS);
    // On a busy machine a nap may be over before its thread has left the processor, and is no
    // switch. Half of them is still more than one thread alone could make.
    cr_expect_geq(after.voluntary_count, before.voluntary_count + THREADS * 200 / 2);
}

Test(procfs, seccomp_is_seen)
{
    struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog program = {.len = 1, .filter = &allow};
    int before = procfs_seccomp(0);
    cr_expect_geq(before, 0);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) != 0) {
        cr_skip_test("this kernel has no seccomp filters");
    }
    cr_expect_eq(procfs_seccomp(0), 2);
}

Test(procfs, overcommit)
{
    char text[16];
    int mode = procfs_overcommit();
    cr_expect_geq(mode, 0);
    cr_expect_leq(mode, 2);
    cr_assert_gt(procfs_file_read("/proc/sys/vm/overcommit_memory", text, sizeof text), 0);
    cr_expect_eq(text[0], '0' + mode);
}

Test(procfs, file_read_bounds)
{
    char text[8];
    memset(text, '#', sizeof text);
    cr_expect_eq(procfs_file_read("/proc/self/status", text, 6), 5);
    cr_expect_str_eq(text, "Name:");
    cr_expect_eq(text[6], '#');
    cr_expect_eq(procfs_file_read("/proc/self/status", text, 1), 0);
    cr_expect_str_eq(text, "");
    cr_expect_eq(procfs_file_read("/proc/self/no_such_file", text, 8), -ENOENT);
    cr_expect_eq(procfs_file_read("/proc/self", text, 8), -EISDIR);
}

static int open_descriptors_count(void)
{
    int count = 0;
    for (int fd = 0; fd < 1024; fd++) {
        count += fcntl(fd, F_GETFD) >= 0;
    }
    return count;
}

Test(procfs, nothing_stays_open)
{
    struct procfs_memory m;
    struct procfs_rollup r;
    struct procfs_switches s;
    int before = open_descriptors_count();
    cr_expect(procfs_memory_read(0, &m));
    cr_expect(procfs_rollup_read(0, &r));
    cr_expect(procfs_switches_read(0, &s));
    cr_expect_gt(procfs_maps_count(0), 0);
    cr_expect_geq(procfs_overcommit(), 0);
    cr_expect_eq(open_descriptors_count(), before);
}

Test(clock, monotonic_and_wall)
{
    uint64_t start = clock_now_ns();
    uint64_t last = start;
    for (int i = 0; i < 10000; i++) {
        uint64_t now = clock_now_ns();
        cr_assert_geq(now, last);
        last = now;
    }
    usleep(20000);
    cr_expect_geq(clock_now_ns() - start, 20 * NS_PER_MS);
    uint64_t wall_s = clock_wall_ns() / NS_PER_S;
    uint64_t libc_s = (uint64_t)time(NULL);
    cr_expect_leq(wall_s > libc_s ? wall_s - libc_s : libc_s - wall_s, 1);
}

Test(clock, thread_cpu_stands_still_in_sleep)
{
    uint64_t start = clock_thread_cpu_ns();
    usleep(50000);
    uint64_t slept = clock_thread_cpu_ns() - start;
    cr_expect_lt(slept, 20 * NS_PER_MS);
    uint64_t from = clock_now_ns();
    while (clock_thread_cpu_ns() - start < slept + 10 * NS_PER_MS) {
        cr_assert_lt(clock_now_ns() - from, 5 * NS_PER_S, "thread time does not advance");
    }
}
