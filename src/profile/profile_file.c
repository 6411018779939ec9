// SPDX-License-Identifier: MIT
//
// The sink that is a file.
//
// Go  io.Writer of an os.File.
#include <errno.h>

#include "os/sys.h"
#include "profile/profile.h"

static bool file_write(struct profile_sink *sink, const void *bytes, size_t count)
{
    struct profile_file *file = container_of(sink, struct profile_file, sink);
    const char *pos = bytes;
    while (count != 0 && file->error == 0) {
        long written = sys_call3(SYS_write, file->fd, pos, count);
        if (written > 0) {
            pos += written;
            count -= (size_t)written;
        } else if (written != -EINTR) {
            file->error = written == 0 ? -EIO : written;
        }
    }
    return file->error == 0;
}

struct profile_file profile_file(int fd)
{
    return (struct profile_file){.sink = {file_write}, .fd = fd};
}
