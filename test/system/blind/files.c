// SPDX-License-Identifier: MIT
//
// files FILE: 256 MiB that a process holds by a file descriptor, or by a mapping of a file.
//   memfd    a memfd, filled with write() and never mapped: in no process's resident size
//   private  a file mapped privately, every page of which was changed: anonymous memory, though the
//            mapping has the name of a file. FILE is made and unlinked.
//   pipes    256 pipes of 1 MiB that nobody reads: the kernel's memory
// Go  none
#include <fcntl.h>

#include "blind.h"

static const size_t bytes = 256 * MIB;

static char *chunk(uint64_t seed)
{
    static char data[MIB];

    fill(data, sizeof data, seed);
    return data;
}

static void write_all(int fd)
{
    for (size_t at = 0; at < bytes; at += MIB) {
        REQUIRE(write(fd, chunk(at + 1), MIB) == (ssize_t)MIB, "short write");
    }
}

static int made(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);

    REQUIRE(fd >= 0, "cannot make %s", path);
    unlink(path);
    write_all(fd);
    return fd;
}

static void changed_privately(const char *path)
{
    int fd = made(path);
    char *data = (char *)mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);

    REQUIRE(data != MAP_FAILED, "mmap");
    fill(data, bytes, 7);
    close(fd);
}

static void fill_pipes(void)
{
    for (size_t at = 0; at < bytes; at += MIB) {
        int ends[2];
        REQUIRE(pipe2(ends, O_NONBLOCK) == 0, "no pipe");
        REQUIRE(fcntl(ends[1], F_SETPIPE_SZ, (int)MIB) == (int)MIB, "no pipe of 1 MiB");
        REQUIRE(write(ends[1], chunk(at + 1), MIB) == (ssize_t)MIB, "short pipe");
    }
}

int main(int argc, char **argv)
{
    const char *kind = argc > 1 ? argv[1] : "";

    begin();
    if (strcmp(kind, "memfd") == 0) {
        write_all(memfd_create("frames", 0));
    } else if (strcmp(kind, "pipes") == 0) {
        fill_pipes();
    } else {
        REQUIRE(argc > 2, "files KIND FILE");
        changed_privately(argv[2]);
    }
    ready(bytes);
    hold();
    return 0;
}
