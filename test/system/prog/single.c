// SPDX-License-Identifier: MIT
//
// single MODE: a program of one thread stays one as long as it matters to it.
//   little   frees little, and rests two seconds
//   busy     frees much, again and again, without rest: libc must go on believing that the process
//            has one thread, or shared_ptr and stdio become slower
//   much     frees much, and sleeps for ever (looked at from outside)
// Go  none
#include <dirent.h>
#include <string.h>
#include <sys/single_threaded.h>
#include <time.h>

#include "proglib.h"

enum { BLOCKS = 200000, BUSY_SECONDS = 3 };

static void *blocks[BLOCKS];

static int thread_count(void)
{
    DIR *folder = opendir("/proc/self/task");
    int count = -2; // "." and ".."

    REQUIRE(folder, "no /proc/self/task");
    while (readdir(folder)) {
        count++;
    }
    closedir(folder);
    return count;
}

static void wave(size_t count, size_t bytes)
{
    for (size_t i = 0; i < count; i++) {
        blocks[i] = malloc(bytes);
        REQUIRE(blocks[i], "malloc failed");
        memset(blocks[i], 1, bytes);
    }
    for (size_t i = 0; i < count; i++) {
        free(blocks[i]);
    }
}

static void require_single(const char *when)
{
    REQUIRE(__libc_single_threaded, "%s: __libc_single_threaded is no longer true", when);
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "little";
    time_t end = 0;

    require_single("at start");
    if (strcmp(mode, "little") == 0) {
        wave(10000, 500);
        sleep(2);
        wave(10000, 300);
        require_single("after little was freed");
        REQUIRE(thread_count() == 1, "after little was freed: %d threads", thread_count());
    } else if (strcmp(mode, "busy") == 0) {
        end = time(NULL) + BUSY_SECONDS;
        while (time(NULL) < end) {
            wave(BLOCKS, 16 + (size_t)(time(NULL) % 7) * 150);
            require_single("while busy");
        }
    } else {
        wave(BLOCKS, 1000);
        printf("freed\n");
        fflush(stdout);
        for (;;) {
            pause();
        }
    }
    return 0;
}
