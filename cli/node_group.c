// SPDX-License-Identifier: MIT
//
// The memory cgroups of ebb node: which ones there are, what they are called, what is charged.
//
// In a container with a cgroup namespace of its own the kernel writes paths relative to the
// container's cgroup: what is beside it is "/../other". Where the host's tree is mounted too, as in
// the DaemonSet, our own directory is looked for in it by our process ID; from there the paths of
// all others are known as the host calls them.
//
// Go  none.
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "node.h"
#include "os/cgroup.h"

void *node_grow(void *items, size_t count, size_t *cap, size_t bytes)
{
    if (count < *cap) {
        return items;
    }
    *cap = *cap * 2 + 64;
    items = reallocarray(items, *cap, bytes);
    if (items == NULL) {
        cli_fail("node", "out of memory");
        exit(DOCTOR_FAILED);
    }
    return items;
}

#define DEPTH_MAX 16

// ---- where we are -------------------------------------------------------------------------------

static bool has_process(const char *dir, int pid)
{
    char path[PATH_MAX];
    int one;
    bool found = false;
    snprintf(path, sizeof(path), "%s/cgroup.procs", dir);
    FILE *file = fopen(path, "re");
    while (file != NULL && !found && fscanf(file, "%d", &one) == 1) {
        found = one == pid;
    }
    if (file != NULL) {
        fclose(file);
    }
    return found;
}

// Looks for the directory with a process, below dir; leaves its path in dir.
static bool process_search(char *dir, size_t cap, int pid, unsigned depth)
{
    size_t len = strlen(dir);
    if (has_process(dir, pid)) {
        return true;
    }
    DIR *folder = depth < DEPTH_MAX ? opendir(dir) : NULL;
    bool found = false;
    for (const struct dirent *e = folder != NULL ? readdir(folder) : NULL; e != NULL && !found;
         e = readdir(folder)) {
        if (e->d_type == DT_DIR && e->d_name[0] != '.' &&
            snprintf(dir + len, cap - len, "/%s", e->d_name) < (int)(cap - len)) {
            found = process_search(dir, cap, pid, depth + 1);
        }
        if (!found) {
            dir[len] = '\0';
        }
    }
    if (folder != NULL) {
        closedir(folder);
    }
    return found;
}

// The root of our namespace, as the host calls it: where we are, without what /proc says of it.
static void namespace_find(struct node_hierarchy *h, const char *own_name)
{
    char dir[PATH_MAX];
    snprintf(dir, sizeof(dir), "%s", h->mount);
    if (!process_search(dir, sizeof(dir), getpid(), 0)) {
        return;
    }
    const char *path = dir + strlen(h->mount);
    size_t len = strlen(path);
    size_t own_len = strcmp(own_name, "/") == 0 ? 0 : strlen(own_name);
    if (own_len <= len && strncmp(path + len - own_len, own_name, own_len) == 0 &&
        len - own_len < sizeof(h->inside)) {
        snprintf(h->inside, sizeof(h->inside), "%.*s", (int)(len - own_len), path);
        h->translates = true;
    }
}

void node_groups_open(struct node *node)
{
    struct node_hierarchy *h = &node->hierarchy;
    struct cgroup own;
    char text[CGROUP_TEXT_BYTES];
    char name[1024];
    char own_name[1024];
    if (!cgroup_find("", &own)) {
        return;
    }
    h->version = own.version;
    snprintf(h->mount, sizeof(h->mount), "%.*s", (int)own.mount_len, own.path);
    long len = cgroup_text_read("", 0, text, sizeof(text));
    if (len <= 0 ||
        !cgroup_self_parse(text, (size_t)len, own.version, own_name, sizeof(own_name))) {
        return;
    }
    len = cgroup_text_read("", 1, text, sizeof(text));
    if (len > 0 && cgroup_self_parse(text, (size_t)len, own.version, name, sizeof(name)) &&
        strncmp(name, "/..", 3) == 0) {
        namespace_find(h, own_name);
    }
}

// The name of a cgroup from the text of /proc/PID/cgroup, as the host calls it where that is known.
static bool name_read(const struct node_hierarchy *h, const char *text, size_t len, char *name,
                      size_t cap)
{
    char raw[1024];
    if (h->version == 0 || !cgroup_self_parse(text, len, h->version, raw, sizeof(raw))) {
        return false;
    }
    const char *rest = raw;
    size_t keep = strlen(h->inside);
    for (; h->translates && strncmp(rest, "/..", 3) == 0 && (rest[3] == '/' || rest[3] == '\0');
         rest += 3) {
        while (keep > 0 && h->inside[--keep] != '/') {
        }
    }
    rest = keep != 0 && strcmp(rest, "/") == 0 ? "" : rest;
    int written = snprintf(name, cap, "%.*s%s", h->translates ? (int)keep : 0, h->inside, rest);
    if (written == 0) {
        snprintf(name, cap, "/");
    }
    return written < (int)cap; // a longer one is as none
}

static void place_find(const struct node_hierarchy *h, struct node_group *group, int pid)
{
    struct cgroup place;
    if (h->translates) {
        snprintf(group->path, sizeof(group->path), "%s%s", h->mount,
                 strcmp(group->name, "/") == 0 ? "" : group->name);
        group->mount_len = strlen(h->mount);
    } else if (strncmp(group->name, "/..", 3) != 0 && cgroup_find_of("", pid, &place)) {
        group->mount_len = place.mount_len;
        snprintf(group->path, sizeof(group->path), "%s", place.path);
    }
    place = (struct cgroup){.version = h->version, .mount_len = group->mount_len};
    snprintf(place.path, sizeof(place.path), "%s", group->path);
    group->root = group->path[0] != '\0' && cgroup_is_root(&place);
}

// ---- the list -----------------------------------------------------------------------------------

// Limits of those above it count what all below them use: one may be nearer than its own.
static void limits_above(const struct cgroup *place, struct node_group *group)
{
    struct cgroup above = *place;
    struct cgroup_memory memory;
    size_t len = strlen(above.path);
    while (len > place->mount_len) {
        do {
            len--;
        } while (len > place->mount_len && above.path[len] != '/');
        above.path[len] = '\0';
        above.mount_len = len; // its own limits alone
        cgroup_peek_limits(&above, &memory);
        uint64_t limit = cgroup_memory_limit(&memory);
        if (limit != UINT64_MAX && limit != 0 && cgroup_peek_usage(&above, &memory) &&
            (double)memory.usage_bytes / (double)limit > node_group_share(group)) {
            group->limit_bytes = limit;
            group->used_bytes = memory.usage_bytes;
        }
    }
}

void node_group_read(const struct node *node, struct node_group *group)
{
    struct cgroup place = {.version = node->hierarchy.version, .mount_len = group->mount_len};
    struct cgroup_memory memory;
    snprintf(place.path, sizeof(place.path), "%s", group->path);
    group->usage_bytes = 0;
    group->limit_bytes = group->used_bytes = UINT64_MAX;
    if (group->path[0] == '\0' || !cgroup_memory_read(&place, &memory)) {
        return;
    }
    group->usage_bytes = memory.usage_bytes;
    group->limit_bytes = cgroup_memory_limit(&memory);
    if (group->limit_bytes != UINT64_MAX) {
        group->used_bytes = memory.usage_bytes;
        limits_above(&place, group);
    }
    group->anon_bytes = memory.anon_bytes;
    group->shmem_bytes = memory.shmem_bytes;
    group->cache_bytes = memory.cache_bytes - min_u64(memory.cache_bytes, memory.shmem_bytes);
}

static void group_name(struct node_group *group, const char *text, size_t len, int pid)
{
    struct container container;
    struct container_names names;
    if (container_parse(text, len, &container)) {
        container_names(NULL, &container, pid, &names);
        const char *name =
            names.source != NULL && names.name[0] != '\0' ? names.name : container.id;
        snprintf(group->container, sizeof(group->container), "%.64s",
                 name == container.id && strlen(name) == 64 ? "" : name);
        if (name == container.id && group->container[0] == '\0') {
            snprintf(group->container, sizeof(group->container), "%.12s", container.id);
        }
        snprintf(group->pod, sizeof(group->pod), "%s",
                 names.pod[0] != '\0' && strcmp(names.source, "environment") != 0
                     ? names.pod
                     : container.pod_uid);
    }
}

// The index of the cgroup of a process, added where it is new.
size_t node_group_of(struct node *node, int pid)
{
    char text[CGROUP_TEXT_BYTES];
    char name[NODE_GROUP_BYTES] = "";
    long len = cgroup_text_read("", pid, text, sizeof(text));
    if (len <= 0 || !name_read(&node->hierarchy, text, (size_t)len, name, sizeof(name))) {
        name[0] = '\0';
    }
    for (size_t i = 0; i < node->groups_count; i++) {
        if (strcmp(node->groups[i].name, name) == 0) {
            return i;
        }
    }
    node->groups =
        node_grow(node->groups, node->groups_count, &node->groups_cap, sizeof(*node->groups));
    struct node_group *group = &node->groups[node->groups_count];
    *group = (struct node_group){.limit_bytes = UINT64_MAX, .used_bytes = UINT64_MAX};
    snprintf(group->name, sizeof(group->name), "%s", name);
    if (name[0] != '\0') {
        place_find(&node->hierarchy, group, pid);
        group_name(group, text, (size_t)len, pid);
    }
    return node->groups_count++;
}

// Groups whose last process has gone are forgotten; the indices of the others change.
void node_groups_forget(struct node *node)
{
    size_t kept = 0;
    for (size_t i = 0; i < node->groups_count; i++) {
        if (node->groups[i].seen_round != node->round) {
            continue;
        }
        for (size_t k = 0; k < node->count && kept != i; k++) {
            node->processes[k].group =
                node->processes[k].group == i ? kept : node->processes[k].group;
        }
        node->groups[kept++] = node->groups[i];
    }
    node->groups_count = kept;
}

// ---- questions ----------------------------------------------------------------------------------

const struct node_process *node_group_worst(const struct node *node, const struct node_group *group)
{
    const struct node_process *worst = NULL;
    for (size_t i = 0; i < node->count; i++) {
        const struct node_process *p = &node->processes[i];
        if (p->group != (size_t)(group - node->groups) || p->verdicts_count == 0 ||
            p->state == NODE_ENDED) {
            continue;
        }
        bool better = worst == NULL || (p->finding && !worst->finding) ||
                      (p->finding && p->verdicts[0].bytes > worst->verdicts[0].bytes);
        worst = better ? p : worst;
    }
    return worst;
}

static double share_of(uint64_t used, uint64_t limit)
{
    return limit == UINT64_MAX || limit == 0 ? 0 : (double)used / (double)limit;
}

double node_group_share(const struct node_group *group)
{
    return share_of(group->used_bytes, group->limit_bytes);
}

uint64_t node_limit_of(const struct node *node, const struct node_process *process,
                       uint64_t *used_bytes)
{
    const struct node_group *group = &node->groups[process->group];
    if (share_of(process->rss_bytes, process->limit_bytes) > node_group_share(group)) {
        *used_bytes = process->rss_bytes;
        return process->limit_bytes;
    }
    *used_bytes = group->used_bytes;
    return group->limit_bytes;
}
