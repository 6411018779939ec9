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

// Inaccessible mappings larger than this are no guards: glibc's has one page unless asked for more.
#define GUARD_BYTES_MAX (64 * KIB)
#define STACK_BYTES_MIN (8 * KIB)

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
            if (lines->cut) {
                lines->cut = false;
                continue;
            }
            return line;
        }
        if (lines->cut) {
            lines->pos = lines->len;
        }
        if (!lines_fill(lines)) {
            if (lines->len == 0) {
                return NULL;
            }
            lines->cut = lines->len + 1 >= lines->cap; // else it is the last, without its end
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

static bool starts_with(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

static bool is_shmem(const char *path)
{
    return starts_with(path, "/memfd:") || starts_with(path, "/dev/shm/") ||
           starts_with(path, "/SYSV") || starts_with(path, "/dev/zero (deleted)") ||
           starts_with(path, "[anon_shmem");
}

static enum mapping_kind kind_of(const struct mapping *m, const struct mapping_before *before)
{
    bool behind = before->end == m->start && m->path[0] == '\0' && m->perms[1] == 'w';
    if (starts_with(m->path, "[stack")) {
        return MAPPING_STACK;
    }
    if (is_shmem(m->path)) {
        return MAPPING_SHMEM;
    }
    if (m->path[0] == '[' && !starts_with(m->path, "[heap") && !starts_with(m->path, "[anon")) {
        return MAPPING_SPECIAL;
    }
    if (m->path[0] == '/' || starts_with(m->path, "anon_inode") || (behind && before->of_file)) {
        return MAPPING_DATA;
    }
    return behind && before->guard && m->end - m->start >= STACK_BYTES_MIN ? MAPPING_STACK
                                                                           : MAPPING_ANONYMOUS;
}

enum mapping_kind mapping_kind(const struct mapping *m, struct mapping_before *before)
{
    enum mapping_kind kind = kind_of(m, before);
    bool closed = starts_with(m->perms, "---") && m->path[0] == '\0';
    *before = (struct mapping_before){
        .end = m->end,
        .of_file = kind == MAPPING_DATA && m->path[0] != '\0',
        .guard = closed && m->end - m->start <= GUARD_BYTES_MAX,
    };
    return kind;
}
