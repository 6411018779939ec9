// SPDX-License-Identifier: MIT
//
// closefrom: a daemon that closes all descriptors, and whose own files then get their numbers.
// Go  none
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>

#include "proglib.h"

enum { FILES = 200, BLOCKS = 80000 };

static void use_heap(uint64_t seed)
{
    static void *blocks[BLOCKS];

    for (size_t i = 0; i < BLOCKS; i++) {
        size_t bytes = 16 + rand_next(&seed) % 2000;

        blocks[i] = malloc(bytes);
        REQUIRE(blocks[i], "malloc failed");
        memset(blocks[i], 1, bytes);
    }
    for (size_t i = 0; i < BLOCKS; i++) {
        free(blocks[i]);
    }
}

static int open_count(void)
{
    int count = 0;

    for (int fd = 0; fd < 4096; fd++) {
        count += fcntl(fd, F_GETFD) >= 0;
    }
    return count;
}

int main(void)
{
    struct timespec time = {.tv_sec = 2};
    int files[FILES];
    struct stat before[FILES];
    char path[] = "/tmp/ebb-closefrom-XXXXXX";
    int folder = -1;

    use_heap(1);
    REQUIRE(fcntl(3, F_GETFD) < 0 || open_count() <= 4, "descriptor 3 is taken by somebody");
    REQUIRE(syscall(SYS_close_range, 3u, ~0u, 0u) == 0, "close_range: errno %d", errno);
    REQUIRE(mkdtemp(path), "mkdtemp: errno %d", errno);
    folder = open(path, O_RDONLY | O_DIRECTORY);
    REQUIRE(folder == 3, "the first descriptor after closefrom is %d", folder);
    for (int i = 0; i < FILES; i++) {
        char name[16];

        snprintf(name, sizeof name, "f%d", i);
        files[i] = openat(folder, name, O_RDWR | O_CREAT, 0600);
        REQUIRE(files[i] == i + 4, "file %d has descriptor %d", i, files[i]);
        REQUIRE(write(files[i], name, sizeof name) == sizeof name, "write");
        REQUIRE(fstat(files[i], &before[i]) == 0, "fstat");
        unlinkat(folder, name, 0);
    }
    rmdir(path);
    for (int round = 0; round < 2; round++) {
        use_heap(2);
        nanosleep(&time, NULL); // the heap rests, and gives back
    }
    for (int i = 0; i < FILES; i++) {
        struct stat after;

        REQUIRE(fstat(files[i], &after) == 0, "descriptor %d was closed behind our back", files[i]);
        REQUIRE(after.st_ino == before[i].st_ino && after.st_size == before[i].st_size &&
                    lseek(files[i], 0, SEEK_CUR) == 16,
                "descriptor %d was used by somebody", files[i]);
    }
    REQUIRE(fcntl(FILES + 4, F_GETFD) < 0, "descriptor %d appeared", FILES + 4);
    return 0;
}
