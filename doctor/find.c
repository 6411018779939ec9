// SPDX-License-Identifier: MIT
//
// Doctor, whom to look at: processes by cgroup, by container, by pod. No daemon is asked.
//
// A container's ID stands in its processes' cgroup path, in one of these forms:
//   /docker/ID   /system.slice/docker-ID.scope   /libpod-ID   /libpod-ID.scope   /crio-ID.scope
//   /kubepods/burstable/podUID/ID   /kubepods.slice/...-podUID.slice/cri-containerd-ID.scope
//   /lxc/NAME   /lxc.payload.NAME   /machine.slice/machine-NAME.scope
// Its name stands only in the files of the engine, which root may read; each engine has its own
// (names_docker and the following). Where none says, a process whose host name is not the machine's
// counts by its HOSTNAME: Kubernetes sets it to the pod's name, docker to the ID or what -h says.
//
// Go  none.
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "doctor_int.h"
#include "os/cgroup.h"
#include "os/procfs.h"

#define STATUS_BYTES 4096
#define ID_DIGITS 64
#define PREFIX_DIGITS_MIN 6
#define ENVIRON_BYTES (64 * KIB)
#define DEPTH_MAX 16
// An engine's file is some KiB; podman's list of all containers some MiB.
#define FILE_BYTES_MAX (16 * MIB)

// ---- the ID in the path -------------------------------------------------------------------------

static size_t hex_len(const char *text, size_t len)
{
    size_t n = 0;
    while (n < len && isxdigit((unsigned char)text[n])) {
        n++;
    }
    return n;
}

static void text_copy(char *to, size_t cap, const char *from, size_t len)
{
    len = min_size(len, cap - 1);
    memcpy(to, from, len);
    to[len] = '\0';
}

static bool cut_prefix(const char **part, size_t *len, const char *prefix)
{
    size_t n = strlen(prefix);
    if (*len <= n || strncmp(*part, prefix, n) != 0) {
        return false;
    }
    *part += n;
    *len -= n;
    return true;
}

static void cut_suffix(const char *part, size_t *len, const char *suffix)
{
    size_t n = strlen(suffix);
    if (*len > n && strncmp(part + *len - n, suffix, n) == 0) {
        *len -= n;
    }
}

// "podUID", "kubepods-burstable-podUID.slice": systemd writes the dashes of the UID as underscores.
static bool pod_take(const char *part, size_t len, struct container *out)
{
    cut_suffix(part, &len, ".slice");
    const char *end = part + len;
    const char *at = part;
    if (cut_prefix(&part, &len, "kubepods")) {
        at = memmem(part, len, "-pod", 4);
        at = at != NULL ? at + 1 : end;
    }
    size_t rest = (size_t)(end - at);
    if (!cut_prefix(&at, &rest, "pod") || rest < 32 || rest >= sizeof(out->pod_uid)) {
        return false;
    }
    for (size_t i = 0; i < rest; i++) {
        if (!isxdigit((unsigned char)at[i]) && at[i] != '-' && at[i] != '_') {
            return false;
        }
    }
    text_copy(out->pod_uid, sizeof(out->pod_uid), at, rest);
    for (char *c = out->pod_uid; *c != '\0'; c++) {
        *c = *c == '_' ? '-' : *c;
    }
    return true;
}

// A part with an ID: digits alone, or behind the last dash of a scope. An engine's IDs have 64; 12
// are also the end of a UUID, 32 what many a service manager calls its own groups. conmon watches a
// container from outside.
static bool id_take(const char *part, size_t len, struct container *out)
{
    cut_suffix(part, &len, ".scope");
    const char *dash = memrchr(part, '-', len);
    const char *id = dash != NULL ? dash + 1 : part;
    size_t id_len = len - (size_t)(id - part);
    if (id_len != ID_DIGITS || hex_len(id, id_len) != id_len ||
        memmem(part, len, "-conmon-", 8) != NULL) {
        return false;
    }
    text_copy(out->id, sizeof(out->id), id, id_len);
    return true;
}

// Containers that are called in their cgroup by the name itself.
static bool name_take(const char *before, size_t before_len, const char *part, size_t len,
                      struct container *out)
{
    bool lxc = before_len == 3 && strncmp(before, "lxc", 3) == 0;
    if (cut_prefix(&part, &len, "lxc.payload.")) {
        lxc = true;
    } else if (cut_prefix(&part, &len, "machine-")) {
        cut_suffix(part, &len, ".scope");
        lxc = len != 0;
    }
    if (lxc) {
        text_copy(out->id, sizeof(out->id), part, len);
    }
    return lxc;
}

static bool path_take(const char *path, size_t len, struct container *out)
{
    const char *before = "";
    size_t before_len = 0;
    bool any = false;
    for (size_t at = 0; at < len;) {
        const char *part = path + at;
        const char *slash = memchr(part, '/', len - at);
        size_t n = slash != NULL ? (size_t)(slash - part) : len - at;
        // The innermost wins: a container may hold containers.
        any |= pod_take(part, n, out) || id_take(part, n, out) ||
               name_take(before, before_len, part, n, out);
        before = part;
        before_len = n;
        at += n + 1;
    }
    return any;
}

bool container_parse(const char *text, size_t len, struct container *out)
{
    *out = (struct container){0};
    for (size_t at = 0; at < len;) {
        const char *line = text + at;
        const char *end = memchr(line, '\n', len - at);
        size_t n = end != NULL ? (size_t)(end - line) : len - at;
        const char *path = memmem(line, n, ":/", 2);
        if (path != NULL && path_take(path + 1, n - (size_t)(path + 1 - line), out) &&
            out->id[0] != '\0') {
            return true;
        }
        at += n + 1;
    }
    return out->pod_uid[0] != '\0';
}

// ---- what it is called --------------------------------------------------------------------------

static json_t *file_json(const char *path)
{
    struct stat st;
    if (stat(path, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size > (off_t)FILE_BYTES_MAX) {
        return NULL;
    }
    return json_load_file(path, 0, NULL);
}

// The first of these keys of an object that has a text.
static bool key_take(const json_t *object, const char *const keys[], size_t count, char *to,
                     size_t cap)
{
    for (size_t i = 0; i < count; i++) {
        const char *text = json_string_value(json_object_get(object, keys[i]));
        if (text != NULL && text[0] != '\0') {
            snprintf(to, cap, "%s", text);
            return true;
        }
    }
    return false;
}

static bool names_take(const json_t *labels, struct container_names *out)
{
    static const char *const names[] = {"io.kubernetes.cri.container-name",
                                        "io.kubernetes.container.name", "nerdctl/name"};
    static const char *const pods[] = {"io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name"};
    bool named = key_take(labels, names, ARRAY_COUNT(names), out->name, sizeof(out->name));
    bool podded = key_take(labels, pods, ARRAY_COUNT(pods), out->pod, sizeof(out->pod));
    return named || podded;
}

static bool names_docker(const char *root, const char *id, struct container_names *out)
{
    char path[512];
    snprintf(path, sizeof(path), "%s/var/lib/docker/containers/%s/config.v2.json", root, id);
    json_t *json = file_json(path);
    const char *name = json_string_value(json_object_get(json, "Name"));
    const json_t *labels = json_object_get(json_object_get(json, "Config"), "Labels");
    bool known = name != NULL;
    if (known) {
        snprintf(out->name, sizeof(out->name), "%s", name[0] == '/' ? name + 1 : name);
    }
    known |= names_take(labels, out);
    json_decref(json);
    return known;
}

// The OCI bundle of a task, below a namespace.
static bool names_containerd(const char *root, const char *id, struct container_names *out)
{
    static const char *const spaces[] = {"k8s.io", "default", "moby"};
    char path[512];
    bool known = false;
    for (size_t i = 0; i < ARRAY_COUNT(spaces) && !known; i++) {
        snprintf(path, sizeof(path),
                 "%s/run/containerd/io.containerd.runtime.v2.task/%s/%s/config.json", root,
                 spaces[i], id);
        json_t *json = file_json(path);
        known = names_take(json_object_get(json, "annotations"), out);
        json_decref(json);
    }
    return known;
}

static bool names_crio(const char *root, const char *id, struct container_names *out)
{
    static const char *const places[] = {"/run/containers/storage", "/var/lib/containers/storage"};
    char path[512];
    bool known = false;
    for (size_t i = 0; i < ARRAY_COUNT(places) && !known; i++) {
        snprintf(path, sizeof(path), "%s%s/overlay-containers/%s/userdata/config.json", root,
                 places[i], id);
        json_t *json = file_json(path);
        known = names_take(json_object_get(json, "annotations"), out);
        json_decref(json);
    }
    return known;
}

static bool names_podman(const char *root, const char *id, struct container_names *out)
{
    char path[512];
    size_t index;
    const json_t *one;
    bool known = false;
    snprintf(path, sizeof(path), "%s/var/lib/containers/storage/overlay-containers/containers.json",
             root);
    json_t *json = file_json(path);
    json_array_foreach(json, index, one)
    {
        const char *its = json_string_value(json_object_get(one, "id"));
        const char *name = json_string_value(json_array_get(json_object_get(one, "names"), 0));
        if (its != NULL && name != NULL && strcmp(its, id) == 0) {
            snprintf(out->name, sizeof(out->name), "%s", name);
            known = true;
        }
    }
    json_decref(json);
    return known;
}

static bool same_namespace(const char *root, int pid, const char *kind)
{
    char path[128];
    char theirs[64];
    char ours[64];
    snprintf(path, sizeof(path), "%s/proc/%d/ns/%s", root, pid, kind);
    ssize_t len = readlink(path, theirs, sizeof(theirs) - 1);
    snprintf(path, sizeof(path), "%s/proc/self/ns/%s", root, kind);
    ssize_t our_len = readlink(path, ours, sizeof(ours) - 1);
    return len <= 0 || (len == our_len && memcmp(theirs, ours, (size_t)len) == 0);
}

// HOSTNAME, where the host name is not that of the machine.
static bool names_environ(const char *root, int pid, struct container_names *out)
{
    char path[128];
    bool known = false;
    if (same_namespace(root, pid, "uts")) {
        return false;
    }
    char *text = malloc(ENVIRON_BYTES);
    snprintf(path, sizeof(path), "%s/proc/%d/environ", root, pid);
    long len = text != NULL ? procfs_file_read(path, text, ENVIRON_BYTES) : -ENOMEM;
    for (long at = 0; at < len && !known; at += (long)strlen(text + at) + 1) {
        known = strncmp(text + at, "HOSTNAME=", 9) == 0 && text[at + 9] != '\0';
        if (known) {
            snprintf(out->pod, sizeof(out->pod), "%s", text + at + 9);
            snprintf(out->name, sizeof(out->name), "%s", text + at + 9);
        }
    }
    free(text);
    return known;
}

void container_names(const char *root, const struct container *container, int pid,
                     struct container_names *out)
{
    static const struct {
        const char *name;
        bool (*look)(const char *root, const char *id, struct container_names *out);
    } engines[] = {
        {"docker", names_docker},
        {"containerd", names_containerd},
        {"CRI-O", names_crio},
        {"podman", names_podman},
    };
    root = root != NULL ? root : "";
    *out = (struct container_names){0};
    // An ID that is none could lead out of the engine's folder.
    bool digits = container->id[0] != '\0' &&
                  hex_len(container->id, sizeof(container->id)) == strlen(container->id);
    for (size_t i = 0; digits && i < ARRAY_COUNT(engines) && out->source == NULL; i++) {
        if (engines[i].look(root, container->id, out)) {
            out->source = engines[i].name;
        }
    }
    if (container->id[0] != '\0' && !digits) {
        snprintf(out->name, sizeof(out->name), "%s", container->id);
        out->source = "cgroup";
    }
    if (out->source == NULL && names_environ(root, pid, out)) {
        out->source = "environment";
    }
}

// ---- lists --------------------------------------------------------------------------------------

void found_free(struct found *out)
{
    free(out->pids);
    *out = (struct found){0};
}

static bool found_add(struct found *out, int pid)
{
    if (out->count == out->cap) {
        size_t cap = out->cap * 2 + 64;
        int *pids = realloc(out->pids, cap * sizeof(*pids));
        if (pids == NULL) {
            return false;
        }
        out->pids = pids;
        out->cap = cap;
    }
    out->pids[out->count++] = pid;
    return true;
}

static int pid_compare(const void *a, const void *b)
{
    return (*(const int *)a > *(const int *)b) - (*(const int *)a < *(const int *)b);
}

// In order and each once: a process may move between two groups while they are read.
static bool found_end(struct found *out, bool complete)
{
    size_t kept = 0;
    if (!complete) {
        snprintf(out->how, sizeof(out->how), "out of memory");
        return false;
    }
    if (out->count != 0) {
        qsort(out->pids, out->count, sizeof(*out->pids), pid_compare);
    }
    for (size_t i = 0; i < out->count; i++) {
        if (out->pids[i] > 0 && (i == 0 || out->pids[i] != out->pids[i - 1])) {
            out->pids[kept++] = out->pids[i];
        }
    }
    out->count = kept;
    return kept != 0;
}

// Threads of the kernel have no line of memory in their status.
static bool is_kernel_thread(const char *root, int pid)
{
    char path[128];
    char text[STATUS_BYTES];
    struct procfs_memory memory;
    snprintf(path, sizeof(path), "%s/proc/%d/status", root, pid);
    long len = procfs_file_read(path, text, sizeof(text));
    return len > 0 && procfs_status_parse(text, (size_t)len, &memory) && memory.vm_size_bytes == 0;
}

typedef bool wanted_fn(const char *root, int pid, void *arg);

static bool find_by(const char *root, wanted_fn *wanted, void *arg, struct found *out)
{
    char path[128];
    bool complete = true;
    out->count = 0;
    snprintf(path, sizeof(path), "%s/proc", root);
    DIR *proc = opendir(path);
    if (proc == NULL) {
        snprintf(out->how, sizeof(out->how), "%s cannot be read: %s", path, strerror(errno));
        return false;
    }
    for (const struct dirent *e = readdir(proc); e != NULL && complete; e = readdir(proc)) {
        int pid = isdigit((unsigned char)e->d_name[0]) ? atoi(e->d_name) : 0;
        if (pid > 0 && wanted(root, pid, arg)) {
            complete = found_add(out, pid);
        }
    }
    closedir(proc);
    return found_end(out, complete);
}

static bool wanted_all(const char *root, int pid, void *arg)
{
    (void)arg;
    return !is_kernel_thread(root, pid);
}

bool find_all(const char *root, struct found *out)
{
    snprintf(out->how, sizeof(out->how), "all that /proc shows");
    return find_by(root != NULL ? root : "", wanted_all, NULL, out);
}

// ---- by cgroup ----------------------------------------------------------------------------------

// Adds the processes of a directory and of all below it; false without memory.
static bool group_add(const char *dir, unsigned depth, struct found *out)
{
    char path[PATH_MAX];
    int pid;
    bool complete = true;
    snprintf(path, sizeof(path), "%s/cgroup.procs", dir);
    FILE *file = fopen(path, "re");
    while (file != NULL && complete && fscanf(file, "%d", &pid) == 1) {
        complete = found_add(out, pid); // 0: not visible from here
    }
    if (file != NULL) {
        fclose(file);
    }
    DIR *folder = depth < DEPTH_MAX ? opendir(dir) : NULL;
    for (const struct dirent *e = folder != NULL ? readdir(folder) : NULL; e != NULL && complete;
         e = readdir(folder)) {
        if (e->d_type == DT_DIR && e->d_name[0] != '.' &&
            snprintf(path, sizeof(path), "%s/%s", dir, e->d_name) < (int)sizeof(path)) {
            complete = group_add(path, depth + 1, out);
        }
    }
    if (folder != NULL) {
        closedir(folder);
    }
    return complete;
}

uint64_t group_processes(const char *dir)
{
    struct found found = {0};
    (void)group_add(dir, 0, &found);
    uint64_t count = found.count;
    found_free(&found);
    return count;
}

static bool is_group(const char *dir)
{
    char path[PATH_MAX];
    return snprintf(path, sizeof(path), "%s/cgroup.procs", dir) < (int)sizeof(path) &&
           access(path, F_OK) == 0;
}

// Finds the directory that a path means: itself, or below the mount of the memory controller, or
// where the hierarchies usually are.
static bool group_find(const char *root, const char *path, char *dir, size_t cap)
{
    static const char *const mounts[] = {"/sys/fs/cgroup/memory", "/sys/fs/cgroup",
                                         "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"};
    struct cgroup own;
    const char *slash = path[0] == '/' ? "" : "/";
    if (path[0] == '/' && snprintf(dir, cap, "%s%s", root, path) < (int)cap && is_group(dir)) {
        return true;
    }
    if (cgroup_find(root, &own) &&
        snprintf(dir, cap, "%.*s%s%s", (int)own.mount_len, own.path, slash, path) < (int)cap &&
        is_group(dir)) {
        return true;
    }
    for (size_t i = 0; i < ARRAY_COUNT(mounts); i++) {
        if (snprintf(dir, cap, "%s%s%s%s", root, mounts[i], slash, path) < (int)cap &&
            is_group(dir)) {
            return true;
        }
    }
    return false;
}

// Does a line of /proc/PID/cgroup have this part, or begin with this path?
static bool wanted_group(const char *root, int pid, void *arg)
{
    const char *wanted = arg;
    char text[CGROUP_TEXT_BYTES];
    size_t n = strlen(wanted);
    long len = cgroup_text_read(root, pid, text, sizeof(text));
    if (len <= 0) {
        return false;
    }
    for (const char *at = strstr(text, wanted); at != NULL; at = strstr(at + 1, wanted)) {
        bool begins = wanted[0] == '/' ? at != text && at[-1] == ':' : at != text && at[-1] == '/';
        if (begins && (at[n] == '/' || at[n] == '\n' || at[n] == '\0')) {
            return true;
        }
    }
    return false;
}

bool find_cgroup(const char *root, const char *path, struct found *out)
{
    char name[PATH_MAX];
    char dir[PATH_MAX];
    root = root != NULL ? root : "";
    size_t len = strlen(path);
    while (len > 1 && path[len - 1] == '/') {
        len--;
    }
    out->count = 0;
    if (len == 0 || len >= sizeof(name) || strstr(path, "..") != NULL) {
        snprintf(out->how, sizeof(out->how), "\"%.80s\" is no path of a cgroup", path);
        return false;
    }
    text_copy(name, sizeof(name), path, len);
    if (group_find(root, name, dir, sizeof(dir))) {
        snprintf(out->how, sizeof(out->how), "%.400s", dir);
        if (found_end(out, group_add(dir, 0, out))) {
            return true;
        }
        snprintf(out->how, sizeof(out->how), "the cgroup %.400s is empty", dir);
        return false;
    }
    snprintf(out->how, sizeof(out->how), "by /proc/PID/cgroup");
    if (find_by(root, wanted_group, name, out)) {
        return true;
    }
    snprintf(
        out->how, sizeof(out->how),
        "no directory below /sys/fs/cgroup and no line of /proc/PID/cgroup is called \"%.200s\"",
        name);
    return false;
}

// ---- by container -------------------------------------------------------------------------------

// One search: what a container is called is read once for each.
struct search {
    const char *name;
    bool pod;
    char by[FOUND_HOW_BYTES]; // by what the first was found
    struct known {
        struct container container;
        bool wanted;
    } * known;
    size_t known_count, known_cap;
    size_t containers_count; // seen at all
    bool unnamed;            // a container whose name nobody says
};

static bool id_matches(const char *id, const char *name)
{
    size_t len = strlen(name);
    return len >= PREFIX_DIGITS_MIN && hex_len(name, len) == len && strncmp(id, name, len) == 0;
}

// "app" is a container of any pod, "shop-7d9/app" that of one.
static bool name_matches(const struct container_names *names, const char *name, bool pod)
{
    size_t len = strlen(names->pod);
    if (pod) {
        return strcmp(names->pod, name) == 0;
    }
    return strcmp(names->name, name) == 0 ||
           (len != 0 && strncmp(names->pod, name, len) == 0 && name[len] == '/' &&
            strcmp(names->name, name + len + 1) == 0);
}

static bool container_matches(const char *root, int pid, const struct container *container,
                              struct search *search)
{
    struct container_names names;
    const char *name = search->name;
    if (search->pod ? strcasecmp(container->pod_uid, name) == 0 : id_matches(container->id, name)) {
        snprintf(search->by, sizeof(search->by), "by the %s in its cgroup's path",
                 search->pod ? "pod's UID" : "ID");
        return true;
    }
    container_names(root, container, pid, &names);
    search->unnamed |= names.source == NULL;
    if (names.source == NULL || !name_matches(&names, name, search->pod)) {
        return false;
    }
    snprintf(search->by, sizeof(search->by), "by its name, from %s%s",
             strcmp(names.source, "environment") == 0 ? "HOSTNAME in its " : "the files of ",
             names.source);
    return true;
}

static bool wanted_container(const char *root, int pid, void *arg)
{
    struct search *search = arg;
    struct container container = {0};
    char text[CGROUP_TEXT_BYTES];
    long len = cgroup_text_read(root, pid, text, sizeof(text));
    bool in_one = len > 0 && container_parse(text, (size_t)len, &container);
    if (!in_one && same_namespace(root, pid, "uts")) {
        return false;
    }
    for (size_t i = 0; in_one && i < search->known_count; i++) {
        const struct known *known = &search->known[i];
        if (memcmp(&known->container, &container, sizeof(container)) == 0) {
            return known->wanted;
        }
    }
    search->containers_count++;
    bool wanted = container_matches(root, pid, &container, search);
    if (!in_one) {
        return wanted; // the next one is as unknown
    }
    if (search->known_count == search->known_cap) {
        size_t cap = search->known_cap * 2 + 16;
        struct known *grown = realloc(search->known, cap * sizeof(*grown));
        if (grown == NULL) {
            return wanted; // it is only asked again
        }
        search->known = grown;
        search->known_cap = cap;
    }
    search->known[search->known_count++] = (struct known){container, wanted};
    return wanted;
}

static bool find_searched(const char *root, struct search *search, struct found *out)
{
    root = root != NULL ? root : "";
    if (search->name[0] == '\0') { // what has no name would be it
        out->count = 0;
        snprintf(out->how, sizeof(out->how), "\"\" names no %s", search->pod ? "pod" : "container");
        return false;
    }
    bool found = find_by(root, wanted_container, search, out);
    free(search->known);
    if (found) {
        snprintf(out->how, sizeof(out->how), "%s", search->by);
    } else if (search->containers_count == 0) {
        snprintf(out->how, sizeof(out->how),
                 "no process here is in a container, as far as /proc/PID/cgroup and the host names "
                 "tell");
    } else {
        snprintf(out->how, sizeof(out->how),
                 "none of %zu containers is called so, by their cgroups, the files of docker, "
                 "containerd, CRI-O and podman%s, and HOSTNAME",
                 search->containers_count,
                 geteuid() != 0 && search->unnamed ? " (only root may read these)" : "");
    }
    return found;
}

bool find_container(const char *root, const char *name, struct found *out)
{
    struct search search = {.name = name};
    return find_searched(root, &search, out);
}

bool find_pod(const char *root, const char *name, struct found *out)
{
    struct search search = {.name = name, .pod = true};
    return find_searched(root, &search, out);
}
