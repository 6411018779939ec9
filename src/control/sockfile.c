// SPDX-License-Identifier: MIT
//
// The control socket's file: the folder, names, what was left by others. In the door's thread,
// whose current directory is its own: all but the first step is relative to it.
//
// Go  none.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "control/control_int.h"
#include "os/clock.h"
#include "os/sys.h"

#define BACKLOG 1024
#define NAMES_MAX 4 // PID.sock, PID-1.sock, ...

// What processes that were killed have left is removed when it is so old that nobody can be between
// bind(2) and listen(2).
#define STALE_NS (600 * NS_PER_S)
#define SWEEP_BYTES 8192
#define SWEEP_NAMES 64

// What getdents64 writes.
struct kernel_dirent {
    uint64_t inode;
    int64_t offset;
    uint16_t bytes;
    uint8_t type;
    char name[];
};

// --- the directory ---

// Makes the directory if need be and goes there, if it is ours alone.
static long directory_enter(const char *path)
{
    long error = sys_call3(SYS_mkdirat, AT_FDCWD, path, 0700);
    if (error != 0 && error != -EEXIST) {
        return error;
    }
    long fd =
        sys_call4(SYS_openat, AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);
    if (fd < 0) {
        return fd;
    }
    struct stat st;
    error = sys_call4(SYS_newfstatat, fd, "", &st, AT_EMPTY_PATH);
    if (error == 0 && (st.st_uid != (uid_t)sys_call0(SYS_geteuid) || (st.st_mode & 077) != 0)) {
        error = -EPERM; // somebody else's, or open to others
    }
    if (error == 0) {
        error = sys_call1(SYS_fchdir, fd);
    }
    sys_call1(SYS_close, fd);
    return error;
}

// Goes to the first directory that will do; its path is in out.
static long directory_choose(struct fmt *out)
{
    sys_call1(SYS_umask, 077);
    long error = -ENOENT;
    if (control_main.runtime_dir[0] == '/') {
        fmt_str(out, control_main.runtime_dir);
        fmt_str(out, "/ebb");
        error = directory_enter(out->buf);
    }
    if (error != 0) {
        fmt_init(out, out->buf, out->cap);
        fmt_str(out, "/tmp/ebb-");
        fmt_u64(out, (uint64_t)sys_call0(SYS_geteuid));
        error = directory_enter(out->buf);
    }
    sys_call1(SYS_umask, 0177);
    return error;
}

// --- the socket ---

static void name_format(char name[CONTROL_NAME_BYTES], unsigned index)
{
    struct fmt out;
    fmt_init(&out, name, CONTROL_NAME_BYTES);
    fmt_u64(&out, load_relaxed(&control_page.pid));
    if (index != 0) {
        fmt_char(&out, '-');
        fmt_u64(&out, index);
    }
    fmt_str(&out, ".sock");
}

static struct sockaddr_un address_of(const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, name, strlen(name) + 1);
    return address;
}

// Removes a socket that nobody answers: of a process that was killed and had our number. One that
// answers belongs to a process of another PID namespace with the same /tmp.
static bool stale_remove(const char *name)
{
    struct stat st;
    if (sys_call4(SYS_newfstatat, AT_FDCWD, name, &st, AT_SYMLINK_NOFOLLOW) != 0 ||
        !S_ISSOCK(st.st_mode)) {
        return false;
    }
    long fd = sys_call3(SYS_socket, AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return false;
    }
    struct sockaddr_un address = address_of(name);
    long error = sys_call3(SYS_connect, fd, &address, sizeof(address));
    sys_call1(SYS_close, fd);
    return error == -ECONNREFUSED && sys_call3(SYS_unlinkat, AT_FDCWD, name, 0) == 0;
}

// Binds fd to the first name that is free.
static long socket_bind(struct control_file *file, long fd)
{
    long error = -EADDRINUSE;
    for (unsigned i = 0; i < NAMES_MAX && error == -EADDRINUSE; i++) {
        name_format(file->name, i);
        struct sockaddr_un address = address_of(file->name);
        error = sys_call3(SYS_bind, fd, &address, sizeof(address));
        if (error == -EADDRINUSE && stale_remove(file->name)) {
            error = sys_call3(SYS_bind, fd, &address, sizeof(address));
        }
    }
    return error;
}

// --- what others have left ---

// The process number a name starts with; 0 if it is not one of ours.
static uint64_t name_pid(const char *name)
{
    uint64_t pid = 0;
    size_t at = 0;
    for (; name[at] >= '0' && name[at] <= '9' && pid < INT32_MAX; at++) {
        pid = pid * 10 + (uint64_t)(name[at] - '0');
    }
    bool ours = name[at] == '-' || strcmp(name + at, ".sock") == 0;
    return ours && pid <= INT32_MAX ? pid : 0;
}

// No process of that number, old, and nobody answers.
static bool name_is_left(const char *name)
{
    struct stat st;
    uint64_t pid = name_pid(name);
    return pid != 0 && sys_call2(SYS_kill, pid, 0) == -ESRCH &&
           sys_call4(SYS_newfstatat, AT_FDCWD, name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
           (uint64_t)st.st_mtim.tv_sec * NS_PER_S + STALE_NS < clock_wall_ns();
}

// Looks at the first names of the folder; further ones have their turn when these have gone.
static void folder_sweep(void)
{
    char buf[SWEEP_BYTES] __attribute__((aligned(8)));
    long fd = sys_call4(SYS_openat, AT_FDCWD, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (fd < 0) {
        return;
    }
    long len = sys_call3(SYS_getdents64, fd, buf, sizeof(buf));
    sys_call1(SYS_close, fd);
    int count = 0;
    for (long at = 0; at < len && count < SWEEP_NAMES; count++) {
        const struct kernel_dirent *entry = (const void *)(buf + at);
        if (strlen(entry->name) < CONTROL_NAME_BYTES && name_is_left(entry->name)) {
            stale_remove(entry->name);
        }
        at += entry->bytes;
    }
}

// --- the file ---

static ino_t name_inode(const char *name)
{
    struct stat st;
    bool there = sys_call4(SYS_newfstatat, AT_FDCWD, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
    return there ? st.st_ino : 0;
}

long control_file_make(struct control_file *file, char *path, size_t path_bytes)
{
    struct fmt out;
    fmt_init(&out, path, path_bytes);
    long error = directory_choose(&out);
    if (error != 0) {
        return error;
    }
    folder_sweep();
    long fd = sys_call3(SYS_socket, AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return fd;
    }
    error = socket_bind(file, fd);
    if (error == 0) {
        error = sys_call2(SYS_listen, fd, BACKLOG);
    }
    if (error != 0) {
        sys_call1(SYS_close, fd);
        return error;
    }
    fmt_char(&out, '/');
    fmt_str(&out, file->name);
    file->inode = name_inode(file->name);
    return fd;
}

bool control_file_is_there(const struct control_file *file)
{
    return file->inode != 0 && name_inode(file->name) == file->inode;
}

void control_file_remove(const struct control_file *file)
{
    if (control_file_is_there(file)) {
        sys_call3(SYS_unlinkat, AT_FDCWD, file->name, 0);
    }
}
