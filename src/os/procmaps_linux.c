// SPDX-License-Identifier: MIT
//
// Procmaps: the files of a process read line by line, and one line of its maps.
//
// Go  runtime/pprof parseProcSelfMaps.
#include "os/procmaps.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/fmt.h"
#include "os/sys.h"

long proc_open(int pid, const char *name)
{
    char path[64];
    struct fmt f;
    fmt_init(&f, path, sizeof(path));
    fmt_str(&f, "/proc/");
    if (pid == 0) {
        fmt_str(&f, "self");
    } else {
        fmt_i64(&f, pid);
    }
    fmt_char(&f, '/');
    fmt_str(&f, name);
    return sys_call3(SYS_openat, AT_FDCWD, (uintptr_t)path, O_RDONLY | O_CLOEXEC);
}

void lines_init(struct lines *lines, long fd, char *buf, size_t cap)
{
    *lines = (struct lines){.fd = fd, .buf = buf, .cap = cap};
}

// Moves what is left to the front and reads on; false at the end of the file.
static bool lines_fill(struct lines *lines)
{
    memmove(lines->buf, lines->buf + lines->pos, lines->len - lines->pos);
    lines->len -= lines->pos;
    lines->pos = 0;
    if (lines->len + 1 >= lines->cap) {
        return false;
    }
    long n;
    do {
        n = sys_call3(SYS_read, lines->fd, (uintptr_t)(lines->buf + lines->len),
                      lines->cap - 1 - lines->len);
    } while (n == -EINTR);
    if (n <= 0) {
        lines->error = n;
        return false;
    }
    lines->len += (size_t)n;
    return true;
}

char *lines_next(struct lines *lines)
{
    for (;;) {
        char *line = lines->buf + lines->pos;
        char *newline = memchr(line, '\n', lines->len - lines->pos);
        if (newline != NULL) {
            *newline = '\0';
            lines->pos = (size_t)(newline - lines->buf) + 1;
            return line;
        }
        if (!lines_fill(lines)) {
            if (lines->len == 0) {
                return NULL;
            }
            // Without an end of line: cut. What follows is no mapping and passed over.
            lines->buf[lines->len] = '\0';
            lines->pos = lines->len;
            return lines->buf;
        }
    }
}

static bool hex_read(char **pos, uint64_t *value)
{
    const char *first = *pos;
    uint64_t sum = 0;
    for (;; (*pos)++) {
        char c = **pos;
        unsigned digit = 0;
        if (c >= '0' && c <= '9') {
            digit = (unsigned)(c - '0');
        } else if (c >= 'a' && c <= 'f') {
            digit = (unsigned)(c - 'a' + 10);
        } else {
            break;
        }
        sum = sum << 4 | digit;
    }
    *value = sum;
    return *pos != first && *pos - first <= 16;
}

static bool char_pass(char **pos, char c)
{
    if (**pos != c) {
        return false;
    }
    (*pos)++;
    return true;
}

// "7f0c8a000000-7f0c8a021000 rw-p 00000000 00:00 0    path"; device and inode are numbers.
bool mapping_parse(char *line, struct mapping *out)
{
    char *pos = line;
    uint64_t major;
    uint64_t minor;
    if (!hex_read(&pos, &out->start) || !char_pass(&pos, '-') || !hex_read(&pos, &out->end) ||
        !char_pass(&pos, ' ')) {
        return false;
    }
    for (size_t i = 0; i < 4; i++) {
        if (*pos == '\0') {
            return false;
        }
        out->perms[i] = *pos++;
    }
    out->perms[4] = '\0';
    if (!char_pass(&pos, ' ') || !hex_read(&pos, &out->offset) || !char_pass(&pos, ' ') ||
        !hex_read(&pos, &major) || !char_pass(&pos, ':') || !hex_read(&pos, &minor) ||
        !char_pass(&pos, ' ')) {
        return false;
    }
    out->inode = 0;
    while (*pos >= '0' && *pos <= '9') {
        out->inode = out->inode * 10 + (uint64_t)(*pos++ - '0');
    }
    while (*pos == ' ') {
        pos++;
    }
    out->path = pos;
    return out->start < out->end;
}
