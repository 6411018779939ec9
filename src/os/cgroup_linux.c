// SPDX-License-Identifier: MIT
//
// Cgroup: finds the memory cgroup of this process and reads it (cgroup.h).
//
// Flow
//   cgroup_find: /proc/self/cgroup names our path in each hierarchy; each line of mountinfo that
//   shows such a hierarchy -> cgroup_place joins the two -> place_climb goes up to where there are
//   files -> the best of several wins (search_mount).
//   cgroup_memory_read: usage and stat of that directory; the limits, for version 2 of each
//   directory up to the mount point.
//
// Go  none; internal/runtime/cgroup reads the CPU limit by the same two files of /proc.
#include "os/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/fmt.h"
#include "os/procfs.h"
#include "os/sys.h"

// A line of mountinfo that names a cgroup is shorter; longer ones are overlays and are passed over.
#define MOUNT_LINE_BYTES 4096
// memory.stat of version 1 with its totals has some 1100 bytes, of version 2 some 1700.
#define STAT_BYTES 4096
// Version 1 says "no limit" by the largest number of pages its counter can hold, in bytes: 2^63
// less a page. No machine has 2^62 bytes.
#define V1_UNLIMITED_BYTES (UINT64_C(1) << 62)

// A piece of a text, not closed by a zero.
struct piece {
    const char *text;
    size_t len;
};

static bool piece_is(struct piece p, const char *text)
{
    return strlen(text) == p.len && memcmp(p.text, text, p.len) == 0;
}

// Cuts the part before the first `by` off *rest. Without one the part is all that is left.
static struct piece piece_cut(struct piece *rest, char by)
{
    const char *end = rest->len == 0 ? NULL : memchr(rest->text, by, rest->len);
    struct piece part = {rest->text, end == NULL ? rest->len : (size_t)(end - rest->text)};
    size_t skip = part.len + (end != NULL);
    rest->text += skip;
    rest->len -= skip;
    return part;
}

// Tells whether a list divided by commas has the word.
static bool list_has(struct piece list, const char *word)
{
    while (list.len > 0) {
        if (piece_is(piece_cut(&list, ','), word)) {
            return true;
        }
    }
    return false;
}

static bool octal_at(struct piece p, size_t at)
{
    if (p.text[at] != '\\' || p.len - at < 4) {
        return false;
    }
    for (size_t i = 1; i <= 3; i++) {
        if (p.text[at + i] < '0' || p.text[at + i] > '7') {
            return false;
        }
    }
    return true;
}

// Copies a path of mountinfo, in which blanks and the like are written \040; false if it is too
// long.
static bool path_unescape(struct piece from, char *to, size_t cap)
{
    size_t len = 0;
    for (size_t at = 0; at < from.len; len++) {
        if (len + 1 >= cap) {
            return false;
        }
        if (octal_at(from, at)) {
            const char *digits = from.text + at + 1;
            to[len] = (char)((digits[0] - '0') * 64 + (digits[1] - '0') * 8 + (digits[2] - '0'));
            at += 4;
        } else {
            to[len] = from.text[at++];
        }
    }
    to[len] = '\0';
    return true;
}

bool cgroup_self_parse(const char *text, size_t len, int version, char *path, size_t cap)
{
    struct piece rest = {text, len};
    while (rest.len > 0) {
        struct piece line = piece_cut(&rest, '\n');
        struct piece number = piece_cut(&line, ':');
        struct piece controllers = piece_cut(&line, ':');
        bool ours = version == 2 ? piece_is(number, "0") && controllers.len == 0
                                 : list_has(controllers, "memory");
        if (ours && line.len > 0 && line.len < cap) {
            memcpy(path, line.text, line.len);
            path[line.len] = '\0';
            return true;
        }
    }
    return false;
}

// A line is: id parent device root point options [tag ...] - type source super-options.
bool cgroup_mount_parse(const char *line, size_t len, struct cgroup_mount *out)
{
    struct piece rest = {line, len};
    struct piece fields[6];
    for (size_t i = 0; i < ARRAY_COUNT(fields); i++) {
        fields[i] = piece_cut(&rest, ' ');
    }
    while (rest.len > 0 && !piece_is(piece_cut(&rest, ' '), "-")) {
    }
    struct piece type = piece_cut(&rest, ' ');
    piece_cut(&rest, ' ');
    if (piece_is(type, "cgroup2")) {
        out->version = 2;
    } else if (piece_is(type, "cgroup") && list_has(rest, "memory")) {
        out->version = 1;
    } else {
        return false;
    }
    return path_unescape(fields[3], out->root, sizeof out->root) &&
           path_unescape(fields[4], out->point, sizeof out->point);
}

// What is left of path below root: "" if they are equal; NULL if path is elsewhere.
static const char *path_below(const char *path, const char *root)
{
    size_t len = strcmp(root, "/") == 0 ? 0 : strlen(root);
    if (strncmp(path, root, len) != 0 || (path[len] != '/' && path[len] != '\0')) {
        return NULL;
    }
    // A cgroup namespace writes what lies outside of it as /../..: not to be seen from here.
    if (strncmp(path + len, "/..", 3) == 0) {
        return NULL;
    }
    return strcmp(path + len, "/") == 0 ? "" : path + len;
}

bool cgroup_place(const struct cgroup_mount *mount, const char *path, const char *root,
                  struct cgroup *out, bool *exact)
{
    const char *below = path_below(path, mount->root);
    *exact = below != NULL;
    struct fmt f;
    fmt_init(&f, out->path, sizeof out->path);
    fmt_str(&f, root);
    fmt_str(&f, mount->point);
    out->version = mount->version;
    out->mount_len = f.len;
    fmt_str(&f, below != NULL ? below : "");
    return !f.truncated;
}

// Reads path/name; a length that is not positive means that there is no such file.
static long place_file_read(const char *path, size_t path_len, const char *name, char *buf,
                            size_t cap)
{
    char full[CGROUP_PATH_BYTES + 64];
    struct fmt f;
    fmt_init(&f, full, sizeof full);
    fmt_strn(&f, path, path_len);
    fmt_char(&f, '/');
    fmt_str(&f, name);
    return f.truncated ? -ENAMETOOLONG : procfs_file_read(full, buf, cap);
}

static const char *usage_name(int version)
{
    return version == 2 ? "memory.current" : "memory.usage_in_bytes";
}

// Tells whether memory can be read there: a directory that is hidden from us, or a version 2
// hierarchy without the memory controller, is no use.
static bool place_usable(const struct cgroup *group)
{
    char text[32];
    size_t len = strlen(group->path);
    // The root of version 2 has no memory.current, but it has memory.stat.
    return place_file_read(group->path, len, usage_name(group->version), text, sizeof text) > 0 ||
           (group->version == 2 &&
            place_file_read(group->path, len, "memory.stat", text, sizeof text) > 0);
}

// Cuts the last name off the first len bytes of the path; the new length, mount_len at least.
static size_t path_parent(const struct cgroup *group, size_t len)
{
    do {
        len--;
    } while (len > group->mount_len && group->path[len] != '/');
    return len;
}

// Goes up to the first directory that can be read: below it the memory controller is not enabled,
// and what we use is charged there. false: there is none up to the mount point.
static bool place_climb(struct cgroup *group)
{
    size_t len = strlen(group->path);
    while (!place_usable(group)) {
        if (len <= group->mount_len) {
            return false;
        }
        len = path_parent(group, len);
        group->path[len] = '\0';
    }
    return true;
}

// What cgroup_find knows while it walks through mountinfo.
struct search {
    const char *root;
    char path[2][CGROUP_PATH_BYTES]; // ours in version 1 and 2, "" if there is none
    struct cgroup *out;
    int rank; // of *out: 0 nothing found, 1 guessed, 2 exact
};

// Takes the mount if it is better than what was found before. A controller belongs to one hierarchy
// at a time: where both versions are mounted, only one of them has memory files.
static void search_mount(struct search *search, const struct cgroup_mount *mount)
{
    const char *path = search->path[mount->version - 1];
    struct cgroup group;
    bool exact;
    if (path[0] == '\0' || !cgroup_place(mount, path, search->root, &group, &exact)) {
        return;
    }
    int rank = exact ? 2 : 1;
    if (rank > search->rank && place_climb(&group)) {
        *search->out = group;
        search->rank = rank;
    }
}

// Calls search_mount for each line of the open mountinfo that mounts a memory cgroup.
static void search_mounts(struct search *search, long fd)
{
    char text[MOUNT_LINE_BYTES];
    struct cgroup_mount mount;
    size_t len = 0;
    bool skipping = false; // inside a line that is longer than text
    for (;;) {
        long n = sys_call3(SYS_read, fd, (uintptr_t)(text + len), sizeof text - len);
        if (n == -EINTR) {
            continue;
        }
        if (n <= 0) {
            return;
        }
        struct piece rest = {text, len + (size_t)n};
        const char *newline;
        while (rest.len > 0 && (newline = memchr(rest.text, '\n', rest.len)) != NULL) {
            struct piece line = piece_cut(&rest, '\n');
            if (!skipping && cgroup_mount_parse(line.text, line.len, &mount)) {
                search_mount(search, &mount);
            }
            skipping = false;
        }
        if (rest.len == sizeof text) {
            skipping = true;
            rest.len = 0;
        }
        len = skipping ? 0 : rest.len;
        memmove(text, rest.text, len);
    }
}

bool cgroup_find(const char *root, struct cgroup *out)
{
    return cgroup_find_of(root, 0, out);
}

long cgroup_text_read(const char *root, int pid, char *text, size_t cap)
{
    char path[CGROUP_PATH_BYTES];
    struct fmt f;
    fmt_init(&f, path, sizeof path);
    fmt_str(&f, root);
    fmt_str(&f, "/proc/");
    if (pid == 0) {
        fmt_str(&f, "self");
    } else {
        fmt_i64(&f, pid);
    }
    fmt_str(&f, "/cgroup");
    long len = f.truncated ? -ENAMETOOLONG : procfs_file_read(path, text, cap);
    if (len + 1 == (long)cap) { // half a path would be that of another
        while (len > 0 && text[len - 1] != '\n') {
            len--;
        }
        text[len] = '\0';
    }
    return len;
}

// Fills search->path. On its own, so that its text is not on the stack with those of the mounts.
static ATTR_NOINLINE bool search_paths(struct search *search, int pid)
{
    char text[CGROUP_TEXT_BYTES];
    long len = cgroup_text_read(search->root, pid, text, sizeof text);
    for (int version = 1; len > 0 && version <= 2; version++) {
        char *ours = search->path[version - 1];
        if (!cgroup_self_parse(text, (size_t)len, version, ours, CGROUP_PATH_BYTES)) {
            ours[0] = '\0';
        }
    }
    return len > 0;
}

bool cgroup_find_of(const char *root, int pid, struct cgroup *out)
{
    char path[CGROUP_PATH_BYTES];
    struct search search = {.root = root, .out = out};
    struct fmt f;
    if (!search_paths(&search, pid)) {
        return false;
    }
    fmt_init(&f, path, sizeof path);
    fmt_str(&f, root);
    fmt_str(&f, "/proc/self/mountinfo");
    long fd = sys_call3(SYS_openat, AT_FDCWD, (uintptr_t)path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    search_mounts(&search, fd);
    sys_call1(SYS_close, fd);
    return search.rank > 0;
}

bool cgroup_is_root(const struct cgroup *group)
{
    char text[32];
    size_t len = strlen(group->path);
    // The root alone has no usage in version 2, and the agent of the whole hierarchy in version 1.
    const char *name = group->version == 2 ? usage_name(2) : "release_agent";
    bool there = place_file_read(group->path, len, name, text, sizeof text) >= 0;
    return len <= group->mount_len && there == (group->version == 1);
}

uint64_t cgroup_limit_parse(const char *text, size_t len)
{
    uint64_t value;
    bool limited = procfs_number_u64(text, len, &value) && value < V1_UNLIMITED_BYTES;
    return limited ? value : CGROUP_UNLIMITED;
}

// The field name_v2 of version 2; of version 1 total_name if it is there, which counts the
// directories below as usage does (without use_hierarchy there are none), else name.
static uint64_t stat_field(struct piece text, int version, const char *name_v1, const char *name_v2)
{
    char total[40];
    struct fmt f;
    uint64_t value = 0;
    if (version == 2) {
        return procfs_field_u64(text.text, text.len, name_v2, &value) ? value : 0;
    }
    fmt_init(&f, total, sizeof total);
    fmt_str(&f, "total_");
    fmt_str(&f, name_v1);
    if (procfs_field_u64(text.text, text.len, total, &value) ||
        procfs_field_u64(text.text, text.len, name_v1, &value)) {
        return value;
    }
    return 0;
}

void cgroup_stat_parse(const char *text, size_t len, int version, struct cgroup_memory *out)
{
    struct piece all = {text, len};
    out->anon_bytes = stat_field(all, version, "rss", "anon");
    out->cache_bytes = stat_field(all, version, "cache", "file");
    out->shmem_bytes = stat_field(all, version, "shmem", "shmem");
    out->inactive_file_bytes = stat_field(all, version, "inactive_file", "inactive_file");
    out->active_file_bytes = stat_field(all, version, "active_file", "active_file");
    uint64_t above;
    if (version == 1 && procfs_field_u64(text, len, "hierarchical_memory_limit", &above) &&
        above < V1_UNLIMITED_BYTES) {
        out->limit_bytes = min_u64(out->limit_bytes, above);
    }
}

// The limit a file of path[0 .. path_len) states; a missing file states none.
static uint64_t limit_read(const char *path, size_t path_len, const char *name)
{
    char text[32];
    long len = place_file_read(path, path_len, name, text, sizeof text);
    return len > 0 ? cgroup_limit_parse(text, (size_t)len) : CGROUP_UNLIMITED;
}

// Version 2: the tightest limit of our directory and of those above it, up to the mount point.
static uint64_t limit_walk(const struct cgroup *group, const char *name)
{
    uint64_t tightest = CGROUP_UNLIMITED;
    size_t len = strlen(group->path);
    for (;;) {
        tightest = min_u64(tightest, limit_read(group->path, len, name));
        if (len <= group->mount_len) {
            return tightest;
        }
        len = path_parent(group, len);
    }
}

bool cgroup_peek_usage(const struct cgroup *group, struct cgroup_memory *out)
{
    uint64_t usage = limit_read(group->path, strlen(group->path), usage_name(group->version));
    if (usage == CGROUP_UNLIMITED) {
        return false;
    }
    out->usage_bytes = usage;
    return true;
}

void cgroup_peek_limits(const struct cgroup *group, struct cgroup_memory *out)
{
    out->high_bytes = CGROUP_UNLIMITED;
    if (group->version == 2) {
        out->limit_bytes = limit_walk(group, "memory.max");
        out->high_bytes = limit_walk(group, "memory.high");
    } else {
        out->limit_bytes = limit_read(group->path, strlen(group->path), "memory.limit_in_bytes");
    }
}

bool cgroup_memory_read(const struct cgroup *group, struct cgroup_memory *out)
{
    char text[STAT_BYTES];
    size_t path_len = strlen(group->path);
    struct cgroup_memory memory = {.limit_bytes = CGROUP_UNLIMITED, .high_bytes = CGROUP_UNLIMITED};
    long len = place_file_read(group->path, path_len, usage_name(group->version), text, 32);
    bool has_usage = len > 0;
    if (has_usage) {
        memory.usage_bytes = cgroup_limit_parse(text, (size_t)len);
    }
    cgroup_peek_limits(group, &memory);
    len = place_file_read(group->path, path_len, "memory.stat", text, sizeof text);
    if (len > 0) {
        cgroup_stat_parse(text, (size_t)len, group->version, &memory);
    }
    if (!has_usage && len <= 0) {
        return false;
    }
    *out = memory;
    return true;
}
