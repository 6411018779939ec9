// SPDX-License-Identifier: MIT
//
// startup: how long a short program takes from fork and exec to its end, as in a shell script or a
// make run. The program started is this one with --child: it allocates one block and ends; the
// last child prints its own peak resident size, which is the figure reported.
//
// Go  none
#include "common/bench.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

static int startup_child(int argc)
{
    unsigned char *block = malloc(100);
    if (block == NULL) {
        return 1;
    }
    bench_fill_all(block, 100, 7);
    bench_check_all(block, 100, 7);
    free(block);
    if (argc > 2) {
        printf("%" PRIu64 "\n", bench_vmhwm_bytes());
    }
    return 0;
}

// startup_run starts one child and waits for it; with a pipe it returns the number the child wrote.
static uint64_t startup_run(const char *program, bool report)
{
    int pipe_fds[2] = {-1, -1};
    int status = 0;
    if (report && pipe(pipe_fds) != 0) {
        bench_fail("pipe failed");
    }
    // fork, not posix_spawn: shells and servers fork, and so run the heap's fork handlers.
    pid_t pid = fork();
    if (pid == 0) {
        if (report) {
            dup2(pipe_fds[1], STDOUT_FILENO);
        }
        execl(program, program, "--child", report ? "report" : (char *)NULL, (char *)NULL);
        _exit(127);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid) {
        bench_fail("the child cannot be started");
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        bench_fail("the child did not end well");
    }
    uint64_t value = 0;
    if (report) {
        char text[32] = {0};
        if (read(pipe_fds[0], text, sizeof text - 1) > 0) {
            value = strtoull(text, NULL, 10);
        }
        close(pipe_fds[0]);
        close(pipe_fds[1]);
    }
    return value;
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "--child") == 0) {
        return startup_child(argc);
    }
    struct bench bench = bench_open("startup", argc, argv, 1);
    uint64_t run_count = bench_pick(&bench, 20, 150, 2500);
    // Not by the link itself: under valgrind that is valgrind.
    char program[4096];
    ssize_t len = readlink("/proc/self/exe", program, sizeof program - 1);
    if (len <= 0) {
        bench_fail("/proc/self/exe cannot be read");
    }
    program[len] = '\0';
    bench_start(&bench);
    for (uint64_t i = 0; i < run_count; i++) {
        startup_run(program, false);
    }
    bench_stop(&bench);
    bench.peak_rss_bytes = startup_run(program, true);
    return bench_close(&bench, run_count, run_count);
}
