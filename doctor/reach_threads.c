// SPDX-License-Identifier: MIT
//
// Doctor, reachability: stack pointers and visible registers of threads, and words kept by epoll.
//
// Go  none.
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "glibc.h"
#include "os/procfs.h"
#include "reach_threads.h"

#define THREADS_MAX ((size_t)1 << 16)
// A process may have a million files, of which few are epoll's, and these have low numbers.
#define FILES_MAX 16384
// 80 bytes for each file that is waited for, and in a look without --scan for 3000 of them: the
// kernel takes up to 1 us for each, and no clock is looked at meanwhile.
#define EPOLL_TEXT_BYTES (256 * KIB)
#define EPOLL_TEXT_BYTES_SCAN (8 * MIB)
// Of a thread that waits: those that a function must keep for its caller (rbx, rbp, r12 to r15; x19
// to x29 on arm64). Of one that runs: all.
#if defined(__aarch64__)
#define KEPT_REGISTERS 11
#define REGISTERS 31
#else
#define KEPT_REGISTERS 6
#define REGISTERS 15
#endif
// The psABI lets a function use so much below its stack pointer.
#define RED_ZONE_BYTES 128

// ---- threads ------------------------------------------------------------------------------------

static uint64_t switches_of(const struct exam *exam, int tid)
{
    char name[64];
    char text[8 * KIB]; // as procfs_linux.c has it, and for its reason
    uint64_t count = UINT64_MAX;
    snprintf(name, sizeof(name), "task/%d/status", tid);
    long len = exam_file_read(exam, name, text, sizeof(text));
    if (len > 0) {
        (void)procfs_field_u64(text, (size_t)len, "voluntary_ctxt_switches:", &count);
    }
    return count;
}

// "202 0x7f.. six arguments, sp pc"; "-1 sp pc" outside of a system call; or "running".
static void thread_read(const struct exam *exam, struct reach_thread *thread)
{
    char name[64];
    char text[512];
    uint64_t v[8];
    long nr;
    snprintf(name, sizeof(name), "task/%d/syscall", thread->tid);
    if (exam_file_read(exam, name, text, sizeof(text)) <= 0) {
        return;
    }
    int got = sscanf(text, "%ld %lx %lx %lx %lx %lx %lx %lx %lx", &nr, &v[0], &v[1], &v[2], &v[3],
                     &v[4], &v[5], &v[6], &v[7]);
    if (got == 9) {
        memcpy(thread->words, v, sizeof(thread->words));
        thread->sp = v[6];
        thread->pc = v[7];
    } else if (got == 3 && nr == -1) {
        thread->sp = v[0];
        thread->pc = v[1];
    } else {
        return;
    }
    thread->waits = true;
    thread->switches_count = switches_of(exam, thread->tid);
}

static int by_sp(const void *a, const void *b)
{
    const struct reach_thread *left = a;
    const struct reach_thread *right = b;
    return left->sp < right->sp ? -1 : left->sp > right->sp;
}

static DIR *folder_open(const struct exam *exam, const char *name)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/proc/%d/%s", exam->options->root, exam->facts->pid, name);
    return opendir(path);
}

void threads_read(const struct exam *exam, struct reach_threads *threads)
{
    DIR *folder = folder_open(exam, "task");
    const struct dirent *entry;
    *threads = (struct reach_threads){.whole = folder != NULL};
    while (folder != NULL && (entry = readdir(folder)) != NULL) {
        struct reach_thread thread = {.tid = atoi(entry->d_name)};
        if (thread.tid <= 0) {
            continue;
        }
        if (threads->count == threads->cap) {
            size_t cap = threads->cap == 0 ? 64 : 2 * threads->cap;
            void *room = cap > THREADS_MAX
                             ? NULL
                             : realloc(threads->threads, cap * sizeof(*threads->threads));
            if (room == NULL) {
                threads->whole = false;
                break;
            }
            threads->threads = room;
            threads->cap = cap;
        }
        thread_read(exam, &thread);
        threads->threads[threads->count++] = thread;
    }
    if (folder != NULL) {
        closedir(folder);
    }
    if (threads->count != 0) {
        qsort(threads->threads, threads->count, sizeof(*threads->threads), by_sp);
    }
}

uint64_t threads_sp(const struct reach_threads *threads, uint64_t start, uint64_t end)
{
    for (size_t i = 0; i < threads->count; i++) {
        const struct reach_thread *thread = &threads->threads[i];
        if (!thread->waits) {
            // Its stack may be this one.
            return start;
        }
        if (thread->sp >= start && thread->sp < end) {
            return max_u64(start, align_down(thread->sp - RED_ZONE_BYTES, 8));
        }
    }
    return start;
}

bool threads_still(const struct reach_threads *before, const struct reach_threads *after)
{
    if (!before->whole || !after->whole || before->count != after->count || before->count == 0) {
        return false;
    }
    for (size_t i = 0; i < before->count; i++) {
        const struct reach_thread *was = &before->threads[i];
        const struct reach_thread *is = &after->threads[i];
        if (was->tid != is->tid || !was->waits || !is->waits || was->sp != is->sp ||
            was->pc != is->pc || was->switches_count != is->switches_count ||
            was->switches_count == UINT64_MAX) {
            return false;
        }
    }
    return true;
}

size_t threads_hidden_count(const struct reach_threads *threads)
{
    size_t hidden = 0;
    for (size_t i = 0; i < threads->count; i++) {
        hidden += threads->threads[i].waits ? KEPT_REGISTERS : REGISTERS;
    }
    return hidden;
}

void threads_free(struct reach_threads *threads)
{
    free(threads->threads);
    *threads = (struct reach_threads){0};
}

// ---- epoll --------------------------------------------------------------------------------------

// Lines "tfd: 5 events: 19 data: 7f0012345678 ...". False if there are more.
static bool epoll_file(const struct exam *exam, const char *fd, char *text, size_t cap,
                       epoll_visit *visit, void *arg)
{
    static const char mark[] = " data: ";
    char name[64];
    snprintf(name, sizeof(name), "fdinfo/%.20s", fd);
    long len = exam_file_read(exam, name, text, cap);
    for (const char *at = len > 0 ? strstr(text, mark) : NULL; at != NULL; at = strstr(at, mark)) {
        at += sizeof(mark) - 1;
        visit(arg, strtoull(at, NULL, 16));
    }
    return len < (long)cap - 1;
}

bool epoll_words(const struct exam *exam, epoll_visit *visit, void *arg)
{
    DIR *folder = folder_open(exam, "fd");
    size_t cap = exam->options->scan ? EPOLL_TEXT_BYTES_SCAN : EPOLL_TEXT_BYTES;
    char *text = malloc(cap);
    const struct dirent *entry;
    bool whole = text != NULL;
    for (size_t i = 0; folder != NULL && whole && i < FILES_MAX; i++) {
        char target[32];
        entry = readdir(folder);
        if (entry == NULL) {
            break;
        }
        ssize_t len = readlinkat(dirfd(folder), entry->d_name, target, sizeof(target) - 1);
        if (len > 0) {
            target[len] = '\0';
            if (strcmp(target, "anon_inode:[eventpoll]") == 0) {
                whole = epoll_file(exam, entry->d_name, text, cap, visit, arg);
            }
        }
        whole = whole && reach_affords(exam, 0);
    }
    free(text);
    if (folder != NULL) {
        closedir(folder);
    }
    return whole;
}
