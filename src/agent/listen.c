// SPDX-License-Identifier: MIT
//
// Listeners: the sockets, and the files that belong to them. In the door's thread, whose
// descriptors, directory and umask are its own.
//
// Go  gops agent.go Listen; internal/internal.go ConfigDir.
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "agent/agent_int.h"
#include "os/procfs.h"
#include "os/sys.h"

#define BACKLOG 1024
#define PASSWD_BYTES (64 * KIB)

// --- files that go with the listener ---

static void file_note(struct listener *listener)
{
    struct stat st;
    listener->inode = 0;
    if (sys_call4(SYS_newfstatat, AT_FDCWD, listener->file, &st, AT_SYMLINK_NOFOLLOW) == 0) {
        listener->device = st.st_dev;
        listener->inode = st.st_ino;
    }
}

// Removes the file if it is still the one that was made.
static void file_remove(struct listener *listener)
{
    struct stat st;
    if (listener->inode != 0 &&
        sys_call4(SYS_newfstatat, AT_FDCWD, listener->file, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
        st.st_dev == listener->device && st.st_ino == listener->inode) {
        sys_call3(SYS_unlinkat, AT_FDCWD, listener->file, 0);
    }
    listener->inode = 0;
}

void listener_close(struct listener *listener)
{
    file_remove(listener);
    if (listener->fd >= 0) {
        sys_call1(SYS_close, listener->fd);
    }
    listener->fd = -1;
    listener->where[0] = '\0';
}

// --- sockets ---

static long socket_make(int family)
{
    return sys_call3(SYS_socket, family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
}

static bool text_copy(char *to, size_t cap, const struct fmt *from)
{
    if (from->truncated || from->len >= cap) {
        return false;
    }
    memcpy(to, from->buf, from->len + 1);
    return true;
}

// The path with the process number for %p.
static bool path_expand(const char *path, struct fmt *out)
{
    for (; *path != '\0'; path++) {
        if (path[0] == '%' && path[1] == 'p') {
            fmt_u64(out, load_relaxed(&agent_main.pid));
            path++;
        } else {
            fmt_char(out, *path);
        }
    }
    return !out->truncated;
}

// Removes a socket that nobody answers.
static bool stale_remove(const struct sockaddr_un *address)
{
    struct stat st;
    if (sys_call4(SYS_newfstatat, AT_FDCWD, address->sun_path, &st, AT_SYMLINK_NOFOLLOW) != 0 ||
        !S_ISSOCK(st.st_mode)) {
        return false;
    }
    long fd = socket_make(AF_UNIX);
    if (fd < 0) {
        return false;
    }
    long error = sys_call3(SYS_connect, fd, address, sizeof(*address));
    sys_call1(SYS_close, fd);
    return error == -ECONNREFUSED && sys_call3(SYS_unlinkat, AT_FDCWD, address->sun_path, 0) == 0;
}

// shared: others may connect too; who they are is asked then.
static long unix_open(struct listener *listener, const struct address *address, bool shared)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    struct fmt path;
    fmt_init(&path, name.sun_path, sizeof(name.sun_path));
    if (!path_expand(address->path, &path)) {
        return -ENAMETOOLONG;
    }
    long fd = socket_make(AF_UNIX);
    if (fd < 0) {
        return fd;
    }
    // Through the umask, so that at no moment the socket is open to others.
    sys_call1(SYS_umask, shared ? 0111 : 0177);
    long error = sys_call3(SYS_bind, fd, &name, sizeof(name));
    if (error == -EADDRINUSE && stale_remove(&name)) {
        error = sys_call3(SYS_bind, fd, &name, sizeof(name));
    }
    sys_call1(SYS_umask, 0177);
    if (error == 0) {
        error = sys_call2(SYS_listen, fd, BACKLOG);
    }
    if (error != 0) {
        sys_call1(SYS_close, fd);
        return error;
    }
    struct fmt where;
    fmt_init(&where, listener->where, sizeof(listener->where));
    fmt_str(&where, "unix:");
    fmt_str(&where, path.buf);
    text_copy(listener->file, sizeof(listener->file), &path);
    file_note(listener);
    listener->local = true;
    listener->fd = (int)fd;
    return 0;
}

// Binds and listens; the port the kernel chose goes into address.
static long tcp_bind(long fd, struct address *address)
{
    const int one = 1;
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6,
                               .sin6_port = __builtin_bswap16(address->port)};
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = __builtin_bswap16(address->port)};
    void *name = &in;
    socklen_t len = sizeof(in);
    memcpy(&in.sin_addr, address->bytes, 4);
    memcpy(&in6.sin6_addr, address->bytes, 16);
    if (address->kind == ADDRESS_IPV6) {
        name = &in6;
        len = sizeof(in6);
        sys_call6(SYS_setsockopt, fd, IPPROTO_IPV6, IPV6_V6ONLY, (long)&one, sizeof(one), 0);
    }
    // Connections of the last process that had the port may still be closing.
    sys_call6(SYS_setsockopt, fd, SOL_SOCKET, SO_REUSEADDR, (long)&one, sizeof(one), 0);
    long error = sys_call3(SYS_bind, fd, name, len);
    if (error == 0) {
        error = sys_call2(SYS_listen, fd, BACKLOG);
    }
    if (error == 0) {
        error = sys_call3(SYS_getsockname, fd, name, &len);
    }
    uint16_t port = address->kind == ADDRESS_IPV6 ? in6.sin6_port : in.sin_port;
    address->port = __builtin_bswap16(port);
    return error;
}

static long tcp_open(struct listener *listener, struct address *address)
{
    struct fmt where;
    long fd = socket_make(address->kind == ADDRESS_IPV6 ? AF_INET6 : AF_INET);
    if (fd < 0) {
        return fd;
    }
    long error = tcp_bind(fd, address);
    if (error != 0) {
        sys_call1(SYS_close, fd);
        return error;
    }
    fmt_init(&where, listener->where, sizeof(listener->where));
    address_format(&where, address);
    listener->local = false;
    listener->fd = (int)fd;
    return 0;
}

long listener_open_http(struct listener *listener, const char *text, const struct allow *allow)
{
    struct address address;
    listener->inode = 0;
    if (!address_parse(text, strlen(text), &address)) {
        return -EINVAL;
    }
    if (!address_is_local(&address) && !allow->any) {
        return -EPERM;
    }
    if (address.kind == ADDRESS_UNIX) {
        return unix_open(listener, &address, allow->count != 0);
    }
    return tcp_open(listener, &address);
}

// --- gops ---

void gops_folder_from(const struct agent_environment *environment, char *out, size_t cap)
{
    struct fmt text;
    fmt_init(&text, out, cap);
    if (environment->gops_config_dir != NULL && environment->gops_config_dir[0] != '\0') {
        fmt_str(&text, environment->gops_config_dir);
    } else if (environment->xdg_config_home != NULL && environment->xdg_config_home[0] != '\0') {
        fmt_str(&text, environment->xdg_config_home);
        fmt_str(&text, "/gops");
    } else if (environment->home != NULL && environment->home[0] != '\0') {
        fmt_str(&text, environment->home);
        fmt_str(&text, "/.config/gops");
    }
    if (text.truncated) {
        fmt_init(&text, out, cap);
    }
}

// The folder in the user's home, as /etc/passwd has it.
static bool folder_of_user(struct fmt *out)
{
    struct region region;
    struct passwd_entry entry;
    region_init(&region, PASSWD_BYTES + 64 * KIB);
    char *passwd = region_alloc(&region, PASSWD_BYTES);
    bool found = passwd != NULL && procfs_file_read("/etc/passwd", passwd, PASSWD_BYTES) > 0 &&
                 passwd_find(passwd, NULL, 0, (uint32_t)sys_call0(SYS_geteuid), &entry);
    if (found) {
        fmt_strn(out, entry.home, entry.home_len);
        fmt_str(out, "/.config/gops");
    }
    region_end(&region);
    return found && !out->truncated;
}

// mkdir -p.
static void folder_make(char *path)
{
    for (char *at = path + 1; *at != '\0'; at++) {
        if (*at == '/') {
            *at = '\0';
            sys_call3(SYS_mkdirat, AT_FDCWD, path, 0777);
            *at = '/';
        }
    }
    sys_call3(SYS_mkdirat, AT_FDCWD, path, 0777);
}

// A folder that cannot be written is no error: who knows the port may ask all the same.
static void port_file_make(struct listener *listener, const char *folder, uint16_t port)
{
    char digits[8];
    struct fmt path;
    struct fmt text;
    fmt_init(&path, listener->file, sizeof(listener->file));
    fmt_str(&path, folder);
    if (folder[0] == '\0' && !folder_of_user(&path)) {
        return;
    }
    folder_make(listener->file);
    fmt_char(&path, '/');
    fmt_u64(&path, load_relaxed(&agent_main.pid));
    fmt_init(&text, digits, sizeof(digits));
    fmt_u64(&text, port);
    long fd = path.truncated
                  ? -ENAMETOOLONG
                  : sys_call4(SYS_openat, AT_FDCWD, listener->file,
                              O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0777);
    if (fd < 0) {
        return;
    }
    sys_call3(SYS_write, fd, text.buf, text.len);
    sys_call1(SYS_close, fd);
    file_note(listener);
}

long listener_open_gops(struct listener *listener, const char *folder, mode_t mask)
{
    struct address address = {.kind = ADDRESS_IPV4, .bytes = {127, 0, 0, 1}};
    listener->inode = 0;
    long error = tcp_open(listener, &address);
    if (error == 0) {
        sys_call1(SYS_umask, mask);
        port_file_make(listener, folder, address.port);
        sys_call1(SYS_umask, 0177);
    }
    return error;
}
