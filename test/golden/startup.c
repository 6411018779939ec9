// SPDX-License-Identifier: MIT
//
// startup BYTES [rollup]: allocates so many bytes in blocks of 100 and ends; startup.py counts what
// that costs. With rollup it writes what the kernel says of its memory first, without stdio.
//
// Go  none
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    long bytes = argc > 1 ? strtol(argv[1], NULL, 10) : 0;
    for (long done = 0; done < bytes; done += 100) {
        char *volatile block = malloc(100);
        if (block == NULL) {
            return 1;
        }
        block[0] = 1;
    }
    if (argc > 2) {
        char text[4096];
        int fd = open("/proc/self/smaps_rollup", O_RDONLY);
        ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof(text));
        if (length <= 0 || write(STDOUT_FILENO, text, (size_t)length) != length) {
            return 1;
        }
    }
    return 0;
}
