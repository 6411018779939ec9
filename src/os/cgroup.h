// SPDX-License-Identifier: MIT
//
// Cgroup: the memory cgroup a process lives in, its limit and its charge; version 1 and version 2.
//
// Model
//   struct cgroup is a place: a directory and the mount point above it. struct cgroup_memory is a
//   reading. Bytes everywhere; CGROUP_UNLIMITED means that no limit is set.
//   The limit that counts is the tightest on the way from our directory to the root: version 2 is
//   walked up as far as the mount shows it, version 1 says it as hierarchical_memory_limit.
//   Stat fields count the directory and all below it, as usage does.
//
// Locking
//   None; as in procfs.h: raw calls, nothing allocated, not after a seccomp filter came.
//   cgroup_find takes up to 14 KiB of stack.
//
// Flow
//   cgroup_find (once: a process rarely moves) -> cgroup_memory_read (each look), cgroup_peek_*
//   (from within malloc).
//
// Why this way
//   The mount point comes from mountinfo and not from a constant: containers show a subtree of the
//   hierarchy (its root is the fourth field), old systems mount version 1 controllers anywhere.
//   `root` is a prefix of every path, so that a test brings its own /proc and /sys.
//
// Go       none: Go 1.25 reads the CPU limit in internal/runtime/cgroup, memory not at all.
// Tests    test/unit/cgroup_test.c
#ifndef EBB_OS_CGROUP_H
#define EBB_OS_CGROUP_H

#include "base/base.h"

#define CGROUP_UNLIMITED UINT64_MAX
#define CGROUP_PATH_BYTES 1024

struct cgroup {
    int version;                  // 1 or 2
    size_t mount_len;             // path[0 .. mount_len) is the mount point
    char path[CGROUP_PATH_BYTES]; // our directory
};

struct cgroup_memory {
    uint64_t limit_bytes; // the kernel kills above it: v2 max, v1 limit
    uint64_t high_bytes;  // v2: reclaims hard above it; v1 has none
    uint64_t usage_bytes;
    uint64_t anon_bytes;  // v1 calls it rss
    uint64_t cache_bytes; // v2 calls it file; includes shmem
    uint64_t shmem_bytes;
    uint64_t inactive_file_bytes, active_file_bytes; // lazily freed memory is here too
};

// cgroup_find looks up the memory cgroup of the calling process. root is "" outside tests. false:
// there is none, or it is not mounted where we can see it.
bool cgroup_find(const char *root, struct cgroup *out);
// cgroup_find_of looks up that of process pid; 0 is the calling one. The mounts are ours: what a
// container mounts for itself is not seen.
bool cgroup_find_of(const char *root, int pid, struct cgroup *out);

// cgroup_is_root tells the root of the hierarchy: everything on the machine. A container that sees
// itself at "/" is none.
bool cgroup_is_root(const struct cgroup *group);

// cgroup_memory_read reads the numbers of a place. false: neither usage nor stat can be read. A
// file that is missing alone (the root of version 2 has no usage and no limits) leaves
// CGROUP_UNLIMITED or 0.
bool cgroup_memory_read(const struct cgroup *group, struct cgroup_memory *out);

// cgroup_peek_usage and cgroup_peek_limits read without memory.stat and with less than 2 KiB of
// stack: what an allocating thread may do. For version 1 limits further up are not seen. Each fills
// its own fields of *out; cgroup_peek_usage returns false if there is nothing to read.
bool cgroup_peek_usage(const struct cgroup *group, struct cgroup_memory *out);
void cgroup_peek_limits(const struct cgroup *group, struct cgroup_memory *out);

// cgroup_memory_limit is the tighter of the two limits.
ATTR_INLINE uint64_t cgroup_memory_limit(const struct cgroup_memory *memory)
{
    return min_u64(memory->limit_bytes, memory->high_bytes);
}

// The memberships of a process of a Kubernetes node, in up to 14 hierarchies of 200 bytes or so.
#define CGROUP_TEXT_BYTES 8192
// cgroup_text_read fills text with the whole lines of /proc/PID/cgroup that it has room for; pid 0
// is the calling process. Bytes, or a negative errno.
long cgroup_text_read(const char *root, int pid, char *text, size_t cap);

// Parsers, pure.

struct cgroup_mount {
    int version;
    char root[CGROUP_PATH_BYTES];  // what of the hierarchy is mounted
    char point[CGROUP_PATH_BYTES]; // where
};

// cgroup_self_parse finds our path in the text of /proc/self/cgroup: of the memory controller if
// version is 1, of the unified hierarchy if it is 2. false: no such line.
bool cgroup_self_parse(const char *text, size_t len, int version, char *path, size_t cap);
// cgroup_mount_parse reads one line of mountinfo; false unless it mounts version 2, or version 1
// with the memory controller.
bool cgroup_mount_parse(const char *line, size_t len, struct cgroup_mount *out);
// cgroup_place joins a mount and our path in the hierarchy to a directory. exact tells whether the
// path lies below the mounted root; if not, the mount point itself is the best guess.
bool cgroup_place(const struct cgroup_mount *mount, const char *path, const char *root,
                  struct cgroup *out, bool *exact);
// cgroup_limit_parse reads "max" or a number; version 1 writes the largest page count for none.
uint64_t cgroup_limit_parse(const char *text, size_t len);
// cgroup_stat_parse fills the stat fields of *out from memory.stat, and for version 1 lowers
// limit_bytes to the tightest limit above.
void cgroup_stat_parse(const char *text, size_t len, int version, struct cgroup_memory *out);

#endif
