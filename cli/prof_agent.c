// SPDX-License-Identifier: MIT
//
// Where the agent of a process listens: found among the sockets it has open, by asking them.
//
// Go  gops internal: a file with a port. Unlike Go: no file is needed, and Go programs that serve
//     net/http/pprof are found too.
#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "look.h"
#include "prof.h"

#define LINE_BYTES 512
#define TCP_LISTENS 0x0a
#define UNIX_LISTENS 0x10000u
// The name of the thread of Ebb that has the agent's sockets.
#define AGENT_THREAD "ebb-http"

struct sockets {
    uint64_t *inodes;
    size_t count, cap;
    bool agent; // of the agent's thread: nothing else of the program listens there
};

// The sockets in a folder of descriptors; a negative errno if that may not be seen.
static long sockets_read(const char *folder, struct sockets *out)
{
    char target[64];
    DIR *fds = opendir(folder);
    if (fds == NULL) {
        return -errno;
    }
    for (const struct dirent *entry = readdir(fds); entry != NULL; entry = readdir(fds)) {
        ssize_t len = readlinkat(dirfd(fds), entry->d_name, target, sizeof(target) - 1);
        uint64_t inode;
        if (len <= 0) {
            continue;
        }
        target[len] = '\0';
        if (sscanf(target, "socket:[%" SCNu64, &inode) == 1) {
            out->inodes = prof_grow(out->inodes, out->count, &out->cap, sizeof(*out->inodes));
            out->inodes[out->count++] = inode;
        }
    }
    closedir(fds);
    return 0;
}

// The sockets of the agent's thread, which has descriptors of its own.
static void agent_sockets_read(int pid, struct sockets *out)
{
    char path[64];
    char name[32];
    snprintf(path, sizeof(path), "/proc/%d/task", pid);
    DIR *tasks = opendir(path);
    if (tasks == NULL) {
        return;
    }
    for (const struct dirent *entry = readdir(tasks); entry != NULL; entry = readdir(tasks)) {
        int tid = atoi(entry->d_name); // 0 for "." and ".."
        if (tid > 0) {
            look_name(tid, name, sizeof(name));
            if (strcmp(name, AGENT_THREAD) == 0) {
                snprintf(path, sizeof(path), "/proc/%d/task/%d/fd", pid, tid);
                sockets_read(path, out);
            }
        }
    }
    closedir(tasks);
}

static bool is_among(const struct sockets *sockets, uint64_t inode)
{
    for (size_t i = 0; i < sockets->count; i++) {
        if (sockets->inodes[i] == inode) {
            return true;
        }
    }
    return false;
}

// Is its namespace ours? Of another network ("net") a port is not to be reached, with other mounts
// ("mnt") a path is another file.
static bool is_shared(int pid, const char *kind)
{
    char path[64];
    struct stat theirs;
    struct stat ours;
    snprintf(path, sizeof(path), "/proc/%d/ns/%s", pid, kind);
    bool known = stat(path, &theirs) == 0;
    snprintf(path, sizeof(path), "/proc/self/ns/%s", kind);
    return !known || stat(path, &ours) != 0 || theirs.st_ino == ours.st_ino;
}

// The control socket of Ebb, PID.sock or PID-1.sock, is not for profiles.
static bool is_control(int pid, const char *path)
{
    char name[32];
    const char *slash = strrchr(path, '/');
    int len = snprintf(name, sizeof(name), "/%d", pid);
    if (slash == NULL || strncmp(slash, name, (size_t)len) != 0) {
        return false;
    }
    const char *rest = slash + len;
    return strcmp(rest, ".sock") == 0 ||
           (rest[0] == '-' && strcmp(rest + strspn(rest, "-0123456789"), ".sock") == 0);
}

static bool unix_try(int pid, const char *path, bool agent, struct prof_source *out)
{
    struct stat st;
    char *text = is_shared(pid, "mnt") && stat(path, &st) == 0
                     ? prof_format("unix:%s", path)
                     : prof_format("unix:/proc/%d/root%s", pid, path);
    *out = prof_source_parse(text);
    free(text);
    return prof_http_probe(out, agent);
}

static bool unix_find(int pid, const struct sockets *sockets, struct prof_source *out)
{
    char name[64];
    char line[LINE_BYTES];
    snprintf(name, sizeof(name), "/proc/%d/net/unix", pid);
    FILE *list = fopen(name, "re");
    bool found = false;
    while (list != NULL && !found && fgets(line, sizeof(line), list) != NULL) {
        unsigned flags;
        uint64_t inode;
        char path[256];
        // Num RefCount Protocol Flags Type St Inode Path
        if (sscanf(line, "%*s %*s %*s %x %*s %*s %" SCNu64 " %255s", &flags, &inode, path) == 3 &&
            (flags & UNIX_LISTENS) != 0 && path[0] == '/' && is_among(sockets, inode) &&
            !is_control(pid, path)) {
            found = unix_try(pid, path, sockets->agent, out);
        }
    }
    if (list != NULL) {
        fclose(list);
    }
    return found;
}

// The address as in /proc/net/tcp, words of 8 hex digits: can it be reached by loopback?
static const char *tcp_host(const char *hex)
{
    if (strcmp(hex, "0100007F") == 0 || strcmp(hex, "00000000") == 0 ||
        strcmp(hex, "00000000000000000000000000000000") == 0) {
        return "127.0.0.1";
    }
    return strcmp(hex, "00000000000000000000000001000000") == 0 ? "[::1]" : NULL;
}

static bool tcp_find(int pid, const char *protocol, const struct sockets *sockets,
                     struct prof_source *out)
{
    char name[64];
    char line[LINE_BYTES];
    snprintf(name, sizeof(name), "/proc/%d/net/%s", pid, protocol);
    FILE *list = fopen(name, "re");
    bool found = false;
    while (list != NULL && !found && fgets(line, sizeof(line), list) != NULL) {
        char address[40];
        unsigned port;
        unsigned state;
        uint64_t inode;
        // sl local rem st tx:rx tr:when retrnsmt uid timeout inode
        if (sscanf(line, "%*s %39[0-9A-F]:%x %*s %x %*s %*s %*s %*s %*s %" SCNu64, address, &port,
                   &state, &inode) != 4 ||
            state != TCP_LISTENS || tcp_host(address) == NULL || !is_among(sockets, inode)) {
            continue;
        }
        char *text = prof_format("http://%s:%u", tcp_host(address), port);
        *out = prof_source_parse(text);
        free(text);
        found = prof_http_probe(out, sockets->agent);
    }
    if (list != NULL) {
        fclose(list);
    }
    return found;
}

static bool sockets_ask(int pid, const struct sockets *sockets, struct prof_source *out)
{
    return sockets->count != 0 &&
           (unix_find(pid, sockets, out) ||
            (is_shared(pid, "net") &&
             (tcp_find(pid, "tcp", sockets, out) || tcp_find(pid, "tcp6", sockets, out))));
}

int prof_find_agent(int pid, struct prof_source *out)
{
    struct look_args args = {.command = "profile", .pid = pid};
    struct sockets agent = {.agent = true};
    struct sockets others = {0};
    char path[64];
    char name[64];
    snprintf(path, sizeof(path), "/proc/%d", pid);
    if (access(path, F_OK) != 0) {
        return cli_fail("profile", "there is no process %d", pid);
    }
    snprintf(path, sizeof(path), "/proc/%d/fd", pid);
    long error = sockets_read(path, &others);
    if (error != 0) {
        return look_fail(&args, error);
    }
    agent_sockets_read(pid, &agent);
    bool found = sockets_ask(pid, &agent, out) || sockets_ask(pid, &others, out);
    out->pid = pid;
    free(agent.inodes);
    free(others.inodes);
    if (found) {
        return 0;
    }
    look_name(pid, name, sizeof(name));
    return cli_fail("profile",
                    "process %d (%s) has no agent to ask: start it with EBB=http=127.0.0.1:8090, "
                    "or run `ebb attach %d`",
                    pid, name, pid);
}
