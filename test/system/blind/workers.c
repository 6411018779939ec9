// SPDX-License-Identifier: MIT
//
// workers: four processes share 256 MiB. "shared": anonymous shared memory, mapped before the fork,
// each worker writes its quarter and reads all of it. "forked": the master loaded private data and
// forked, so each worker's resident size is the master's and hardly a page is its own. The process
// to look at is the master with "shared", the first worker with "forked" (pid= on the ready line).
// Go  none
#include <signal.h>
#include <sys/prctl.h>

#include "blind.h"

enum { WORKERS = 4 };

static volatile uint64_t sink;

static void read_all(const char *data, size_t bytes)
{
    for (size_t at = 0; at < bytes; at += PAGE_BYTES) {
        sink += (uint64_t)data[at];
    }
}

static pid_t start_worker(char *data, size_t bytes, int index, int shared, int told)
{
    pid_t pid = fork();
    size_t part = bytes / WORKERS;

    REQUIRE(pid >= 0, "no fork");
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        alarm(LIFE_S);
        if (shared) {
            fill(data + part * (size_t)index, part, (uint64_t)index + 1);
        }
        read_all(data, bytes);
        REQUIRE(write(told, "", 1) == 1, "pipe");
        for (;;) {
            pause();
        }
    }
    return pid;
}

int main(int argc, char **argv)
{
    size_t bytes = 256 * MIB;
    int shared = argc > 1 && strcmp(argv[1], "shared") == 0;
    char *data = (char *)map_bytes(bytes, shared ? MAP_SHARED : MAP_PRIVATE);
    pid_t first = 0;
    char byte;
    int ends[2];

    begin();
    REQUIRE(pipe(ends) == 0, "no pipe");
    if (!shared) {
        fill(data, bytes, 1);
    }
    for (int i = 0; i < WORKERS; i++) {
        pid_t pid = start_worker(data, bytes, i, shared, ends[1]);
        first = i == 0 ? pid : first;
    }
    for (int i = 0; i < WORKERS; i++) {
        REQUIRE(read(ends[0], &byte, 1) == 1, "a worker is gone");
    }
    if (shared) {
        read_all(data, bytes);
        ready(bytes);
    } else {
        printf("ready bytes=%zu pid=%d\n", bytes, (int)first);
    }
    hold();
    return 0;
}
