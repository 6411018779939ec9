// SPDX-License-Identifier: MIT
//
// Fuzzing what the doctor reads: the files of /proc and of a cgroup, and memory that says it is a
// heap of glibc's. The input is cut at bytes 0xff into the files, in the order of the table; what
// is left is the memory.
//
// Go  none
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "doctor/glibc.h"
#include "fuzz.h"

#define MEMORY_BYTES ((size_t)1 << 20)
// Where it lies, if it can: so that an input may hold addresses.
#define MEMORY_START 0x500000000000

static char root[64];
static char *memory; // what maps calls [heap], and behind it libc's variables

static const char *const files[] = {
    "status", "stat", "comm", "cmdline", "environ", "cgroup", "maps",
};
static const char *const group_files[] = {"memory.stat", "memory.current", "memory.max",
                                          "memory.events"};

static void file_write(const char *path, const void *text, size_t len)
{
    char full[256];
    snprintf(full, sizeof(full), "%s/%s", root, path);
    int fd = open(full, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    FUZZ_REQUIRE(fd >= 0 && write(fd, text, len) == (ssize_t)len);
    close(fd);
}

static void root_make(void)
{
    static const char *const folders[] = {"proc",   "proc/self",     "sys",
                                          "sys/fs", "sys/fs/cgroup", "sys/fs/cgroup/app"};
    char path[256];
    // A file system in memory, where there is one: thousands of files a second.
    snprintf(root, sizeof(root), "%s/ebb-fuzz-%d",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp", (int)getpid());
    mkdir(root, 0700);
    for (size_t i = 0; i < ARRAY_COUNT(folders); i++) {
        snprintf(path, sizeof(path), "%s/%s", root, folders[i]);
        mkdir(path, 0700);
    }
    // A thread that waits in a system call, so that one pass over the blocks is enough.
    static const char *const own[] = {"", "/task", "/task/1"};
    static const char syscall_text[] = "202 0x500000000300 0 0 0 0 0 0x7ffd00000000 0x7f0000000000";
    static const char status_text[] = "voluntary_ctxt_switches:\t7\n";
    for (size_t i = 0; i < ARRAY_COUNT(own); i++) {
        snprintf(path, sizeof(path), "%s/proc/%d%s", root, (int)getpid(), own[i]);
        mkdir(path, 0700);
    }
    snprintf(path, sizeof(path), "proc/%d/task/1/syscall", (int)getpid());
    file_write(path, syscall_text, sizeof(syscall_text) - 1);
    snprintf(path, sizeof(path), "proc/%d/task/1/status", (int)getpid());
    file_write(path, status_text, sizeof(status_text) - 1);
    static const char mounts[] = "30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
    file_write("proc/self/mountinfo", mounts, sizeof(mounts) - 1);
    memory = mmap((void *)MEMORY_START, 2 * MEMORY_BYTES, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    FUZZ_REQUIRE(memory != MAP_FAILED);
}

static void root_remove(void)
{
    char command[128];
    snprintf(command, sizeof(command), "rm -r '%s'", root);
    FUZZ_REQUIRE(system(command) == 0);
}

// The next part of the input, up to 0xff or its end.
static size_t part_len(const uint8_t *data, size_t size)
{
    const uint8_t *end = size == 0 ? NULL : memchr(data, 0xff, size);
    return end == NULL ? size : (size_t)(end - data);
}

// A maps file that is right: the fuzzed memory as [heap] and as the variables of libc.
static void maps_write(const char *path)
{
    char text[512];
    uintptr_t start = (uintptr_t)memory;
    int len = snprintf(text, sizeof(text),
                       "%lx-%lx rw-p 00000000 00:00 0 [heap]\n"
                       "%lx-%lx rw-p 00000000 00:01 7 /lib/libc.so.6\n",
                       start, start + MEMORY_BYTES, start + MEMORY_BYTES, start + 2 * MEMORY_BYTES);
    file_write(path, text, (size_t)len);
}

// Windows are for heaps larger than the fuzzed one: asked directly, at each quarter, with the start
// of the memory as the state of an arena.
static void windows_look(struct facts *facts)
{
    static char buf[4096];
    static struct glibc_heap heap;
    const struct doctor_options options = {.root = "", .exact = true};
    uint64_t start = (uintptr_t)memory;
    struct exam exam = {.facts = facts, .options = &options, .reader = {.pid = getpid()}};
    facts->kernel.page_bytes = (uint64_t)sysconf(_SC_PAGESIZE);
    FUZZ_REQUIRE(
        residency_open(&exam.residency, getpid(), facts->kernel.page_bytes, buf, sizeof(buf)) == 0);
    exam.scans = true;
    heap.mangled = true;
    heap.states[0] = start;
    heap.states_count = 1;
    heap.large_count = 0;
    glibc_states_read(&exam, &heap);
    for (uint64_t at = 0; at < MEMORY_BYTES; at += MEMORY_BYTES / 4) {
        for (int first = 0; first < 2; first++) {
            struct glibc_sums sums = {0};
            struct glibc_range range = {start, start + MEMORY_BYTES, first != 0};
            FUZZ_REQUIRE(glibc_window(&exam, &heap, &range, start + at, &sums));
            FUZZ_REQUIRE(sums.seen_bytes + sums.lost_bytes <= GLIBC_WINDOW_BYTES + 4096);
        }
    }
    residency_close(&exam.residency);
}

// Once as a look by hand, and once with all blocks and the pointers between them.
static void looks_take(struct facts *facts)
{
    static struct diagnosis diagnosis;
    for (int scan = 0; scan < 2; scan++) {
        const struct doctor_options options = {.root = root, .exact = true, .scan = scan != 0};
        if (doctor_look(getpid(), &options, facts) == DOCTOR_OK) {
            verdicts_of(facts, NULL, &diagnosis);
            FUZZ_REQUIRE(diagnosis.count >= 1);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct facts facts;
    char path[128];
    if (root[0] == '\0') {
        root_make();
        atexit(root_remove);
    }
    for (size_t i = 0; i < ARRAY_COUNT(files) + ARRAY_COUNT(group_files); i++) {
        size_t len = part_len(data, size);
        if (i < ARRAY_COUNT(files)) {
            snprintf(path, sizeof(path), "proc/%d/%s", (int)getpid(), files[i]);
        } else {
            snprintf(path, sizeof(path), "sys/fs/cgroup/app/%s",
                     group_files[i - ARRAY_COUNT(files)]);
        }
        file_write(path, data, len);
        if (len == 0 && i + 1 == ARRAY_COUNT(files)) {
            maps_write(path);
        }
        data += len;
        size -= len;
        if (size != 0) {
            data++;
            size--;
        }
    }
    memset(memory, 0, 64 * KIB);
    memcpy(memory, data, min_size(size, MEMORY_BYTES));
    memset(memory + MEMORY_BYTES, 0, 64 * KIB);
    memcpy(memory + MEMORY_BYTES, data, min_size(size, MEMORY_BYTES));
    looks_take(&facts);
    windows_look(&facts);
    return 0;
}
