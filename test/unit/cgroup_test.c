// SPDX-License-Identifier: MIT
// Tier  quick
//
// cgroup.h: the parsers on lines of real machines; finding and reading in trees made for the test,
// as a container, a plain machine and an old one show them; and the real one of this machine.
//
// Go  internal/runtime/cgroup/cgroup_test.go has lines of the same kind.
#include "os/cgroup.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "os/procfs.h"

// ---- parsers

static const char hybrid_text[] = "12:cpu,cpuacct:/a\n"
                                  "9:name=memory:/wrong\n"
                                  "4:cpuset,memory:/jobs/7\n"
                                  "1:name=systemd:/user.slice\n"
                                  "0::/user.slice/session-2.scope\n";

Test(cgroup, self_parse)
{
    char path[64];
    size_t len = sizeof hybrid_text - 1;
    cr_assert(cgroup_self_parse(hybrid_text, len, 1, path, sizeof path));
    cr_expect_str_eq(path, "/jobs/7");
    cr_assert(cgroup_self_parse(hybrid_text, len, 2, path, sizeof path));
    cr_expect_str_eq(path, "/user.slice/session-2.scope");
    cr_expect_not(cgroup_self_parse("0::/x\n", 6, 1, path, sizeof path));
    cr_expect_not(cgroup_self_parse("4:memory:/x\n", 12, 2, path, sizeof path));
    cr_expect_not(cgroup_self_parse("", 0, 2, path, sizeof path));
    cr_assert(cgroup_self_parse("0::/a:b\n", 8, 2, path, sizeof path));
    cr_expect_str_eq(path, "/a:b", "a colon belongs to the path");
    cr_expect_not(cgroup_self_parse("0::/abc\n", 8, 2, path, 4), "too long for the buffer");
    cr_assert(cgroup_self_parse("0::/abc\n", 8, 2, path, 5));
    cr_expect_str_eq(path, "/abc");
}

static bool mount_parse(const char *line, struct cgroup_mount *out)
{
    return cgroup_mount_parse(line, strlen(line), out);
}

Test(cgroup, mount_parse)
{
    struct cgroup_mount m;
    cr_assert(
        mount_parse("31 23 0:28 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw", &m));
    cr_expect_eq(m.version, 2);
    cr_expect_str_eq(m.root, "/");
    cr_expect_str_eq(m.point, "/sys/fs/cgroup");
    cr_assert(mount_parse(
        "35 31 0:32 /docker/ab /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory", &m));
    cr_expect_eq(m.version, 1);
    cr_expect_str_eq(m.root, "/docker/ab");
    cr_expect_str_eq(m.point, "/sys/fs/cgroup/memory");
    cr_assert(
        mount_parse("1 2 3:4 / /a\\040b\\134c\\09 rw shared:1 master:2 - cgroup2 none rw", &m));
    cr_expect_str_eq(m.point, "/a b\\c\\09");
    cr_expect_not(mount_parse("35 31 0:32 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu", &m));
    cr_expect_not(mount_parse("35 31 0:32 / /x rw - cgroup cgroup rw,name=memory", &m));
    cr_expect_not(mount_parse("30 23 0:28 / / rw - ext4 /dev/vda rw,memory", &m));
    cr_expect_not(mount_parse("30 23 0:28 / /cgroup2 rw cgroup2", &m), "no separator");
    cr_expect_not(mount_parse("", &m));
    cr_expect_not(mount_parse("-", &m));
    cr_expect_not(mount_parse("1 2 3:4", &m));
}

// PLACES joins and compares the directory, and whether it is known to be ours.
#define PLACES(mount_root, self, expected, expected_exact)                                         \
    do {                                                                                           \
        struct cgroup_mount mount_ = {2, mount_root, "/mnt"};                                      \
        struct cgroup group_;                                                                      \
        bool exact_;                                                                               \
        cr_assert(cgroup_place(&mount_, self, "/fake", &group_, &exact_));                         \
        cr_expect_str_eq(group_.path, "/fake/mnt" expected);                                       \
        cr_expect_eq(group_.mount_len, strlen("/fake/mnt"));                                       \
        cr_expect_eq(exact_, expected_exact);                                                      \
    } while (0)

Test(cgroup, place)
{
    PLACES("/", "/a/b", "/a/b", true);
    PLACES("/", "/", "", true);
    PLACES("/docker/ab", "/docker/ab", "", true);
    PLACES("/docker/ab", "/docker/ab/c", "/c", true);
    PLACES("/docker/ab", "/docker/abc", "", false);
    PLACES("/docker/ab", "/", "", false);
    PLACES("/", "/../other", "", false);
    struct cgroup_mount mount = {2, "/", "/mnt"};
    struct cgroup group;
    bool exact;
    char path[CGROUP_PATH_BYTES];
    memset(path, 'a', sizeof path - 1);
    path[0] = '/';
    path[sizeof path - 1] = '\0';
    cr_expect_not(cgroup_place(&mount, path, "", &group, &exact), "too long");
}

Test(cgroup, limit_parse)
{
    cr_expect_eq(cgroup_limit_parse("max\n", 4), CGROUP_UNLIMITED);
    cr_expect_eq(cgroup_limit_parse("", 0), CGROUP_UNLIMITED);
    cr_expect_eq(cgroup_limit_parse("0\n", 2), 0);
    cr_expect_eq(cgroup_limit_parse("268435456\n", 10), 256 * MIB);
    cr_expect_eq(cgroup_limit_parse("9223372036854771712\n", 20), CGROUP_UNLIMITED);
    cr_expect_eq(cgroup_limit_parse("99999999999999999999\n", 21), CGROUP_UNLIMITED);
}

static const char stat_v1[] = "cache 1000\nrss 2000\nshmem 30\ninactive_file 400\nactive_file 50\n"
                              "hierarchical_memory_limit 134217728\n"
                              "hierarchical_memsw_limit 9223372036854771712\n"
                              "total_cache 1001\ntotal_rss 2002\ntotal_shmem 33\n"
                              "total_inactive_file 404\ntotal_active_file 55\n";

static const char stat_v2[] = "anon 11\nfile 22\nkernel 33\nshmem 44\ninactive_anon 1\n"
                              "inactive_file 55\nactive_file 66\nanon_thp 0\nfile_thp 0\n";

Test(cgroup, stat_parse)
{
    struct cgroup_memory m = {.limit_bytes = GIB, .high_bytes = CGROUP_UNLIMITED};
    cgroup_stat_parse(stat_v1, sizeof stat_v1 - 1, 1, &m);
    cr_expect_eq(m.cache_bytes, 1001);
    cr_expect_eq(m.anon_bytes, 2002);
    cr_expect_eq(m.shmem_bytes, 33);
    cr_expect_eq(m.inactive_file_bytes, 404);
    cr_expect_eq(m.active_file_bytes, 55);
    cr_expect_eq(m.limit_bytes, 128 * MIB, "the limit above is tighter");
    m.limit_bytes = MIB;
    size_t without_totals = (size_t)(strstr(stat_v1, "total_") - stat_v1);
    cgroup_stat_parse(stat_v1, without_totals, 1, &m);
    cr_expect_eq(m.cache_bytes, 1000, "without totals, what there is");
    cr_expect_eq(m.limit_bytes, MIB, "our own limit is tighter");
    cgroup_stat_parse(stat_v2, sizeof stat_v2 - 1, 2, &m);
    cr_expect_eq(m.anon_bytes, 11);
    cr_expect_eq(m.cache_bytes, 22);
    cr_expect_eq(m.shmem_bytes, 44);
    cr_expect_eq(m.inactive_file_bytes, 55);
    cr_expect_eq(m.active_file_bytes, 66);
    cgroup_stat_parse("", 0, 2, &m);
    cr_expect_eq(m.anon_bytes, 0);
}

// ---- trees made for the test

static char tree[] = "/tmp/ebb_cgroup_test.XXXXXX";

static void tree_init(void)
{
    cr_assert_not_null(mkdtemp(tree));
}

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *ftw)
{
    (void)info;
    (void)type;
    (void)ftw;
    return remove(path);
}

static void tree_fini(void)
{
    nftw(tree, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

// Writes a file of the tree, with the directories it needs.
static void tree_file(const char *path, const char *text)
{
    char full[2048];
    int len = snprintf(full, sizeof full, "%s%s", tree, path);
    cr_assert_lt(len, (int)sizeof full);
    for (char *at = strchr(full + strlen(tree) + 1, '/'); at != NULL; at = strchr(at + 1, '/')) {
        *at = '\0';
        mkdir(full, 0700);
        *at = '/';
    }
    FILE *file = fopen(full, "w");
    cr_assert_not_null(file, "%s", full);
    fputs(text, file);
    fclose(file);
}

static void expect_path(const struct cgroup *group, int version, const char *path)
{
    cr_expect_eq(group->version, version);
    cr_expect_eq(strncmp(group->path, tree, strlen(tree)), 0);
    cr_expect_str_eq(group->path + strlen(tree), path);
}

#define MOUNT_V2 "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
#define MOUNT_V1 "35 31 0:32 / /cg/memory rw - cgroup cgroup rw,memory\n"

Test(cgroup_tree, v2_limits_of_parents, .init = tree_init, .fini = tree_fini)
{
    struct cgroup group;
    struct cgroup_memory m;
    tree_file("/proc/self/cgroup", "0::/kube/pod/ctr\n");
    tree_file("/proc/self/mountinfo", "23 1 8:1 / / rw - ext4 /dev/vda rw\n" MOUNT_V2);
    tree_file("/sys/fs/cgroup/kube/pod/ctr/memory.current", "5000\n");
    tree_file("/sys/fs/cgroup/kube/pod/ctr/memory.max", "max\n");
    tree_file("/sys/fs/cgroup/kube/pod/ctr/memory.high", "900000\n");
    tree_file("/sys/fs/cgroup/kube/pod/ctr/memory.stat", stat_v2);
    tree_file("/sys/fs/cgroup/kube/pod/memory.max", "800000\n");
    tree_file("/sys/fs/cgroup/kube/pod/memory.high", "max\n");
    tree_file("/sys/fs/cgroup/kube/memory.max", "700000000\n");
    tree_file("/sys/fs/cgroup/kube/memory.high", "600000\n");
    // Above the mount point nothing counts.
    tree_file("/sys/fs/memory.max", "1\n");
    cr_assert(cgroup_find(tree, &group));
    expect_path(&group, 2, "/sys/fs/cgroup/kube/pod/ctr");
    cr_assert(cgroup_memory_read(&group, &m));
    cr_expect_eq(m.usage_bytes, 5000);
    cr_expect_eq(m.limit_bytes, 800000);
    cr_expect_eq(m.high_bytes, 600000);
    cr_expect_eq(cgroup_memory_limit(&m), 600000);
    cr_expect_eq(m.anon_bytes, 11);
    cr_expect_eq(m.active_file_bytes, 66);
}

// What the buffer has no room for is no path: /kube/pod of /kube/pod-2 is another's.
Test(cgroup_tree, text_without_half_lines, .init = tree_init, .fini = tree_fini)
{
    char text[32];
    tree_file("/proc/self/cgroup", "1:cpu:/\n0::/kube/pod-2\n");
    cr_expect_eq(cgroup_text_read(tree, 0, text, sizeof text), 23);
    for (size_t cap = 10; cap < 24; cap++) {
        cr_expect_eq(cgroup_text_read(tree, 0, text, cap), 8, "%zu", cap);
        cr_expect_str_eq(text, "1:cpu:/\n");
    }
    cr_expect_eq(cgroup_text_read(tree, 0, text, 8), 0);
    cr_expect_lt(cgroup_text_read(tree, 7, text, sizeof text), 0);
}

// A container with its own cgroup namespace: we are at "/", the files are in the mount point.
Test(cgroup_tree, v2_container, .init = tree_init, .fini = tree_fini)
{
    struct cgroup group;
    struct cgroup_memory m;
    tree_file("/proc/self/cgroup", "0::/\n");
    tree_file("/proc/self/mountinfo", MOUNT_V2);
    tree_file("/sys/fs/cgroup/memory.current", "77\n");
    tree_file("/sys/fs/cgroup/memory.max", "4194304\n");
    cr_assert(cgroup_find(tree, &group));
    expect_path(&group, 2, "/sys/fs/cgroup");
    cr_assert(cgroup_memory_read(&group, &m));
    cr_expect_eq(m.usage_bytes, 77);
    cr_expect_eq(m.limit_bytes, 4 * MIB);
    cr_expect_eq(m.high_bytes, CGROUP_UNLIMITED);
    cr_expect_eq(m.cache_bytes, 0);
}

// The root of version 2 has a memory.stat alone; a directory without the controller has nothing.
Test(cgroup_tree, v2_root_and_climb, .init = tree_init, .fini = tree_fini)
{
    struct cgroup group;
    struct cgroup_memory m;
    tree_file("/proc/self/cgroup", "0::/user/session\n");
    tree_file("/proc/self/mountinfo", MOUNT_V2);
    tree_file("/sys/fs/cgroup/user/session/cgroup.procs", "");
    tree_file("/sys/fs/memory.current", "1\n");
    cr_expect_not(cgroup_find(tree, &group), "the controller is enabled nowhere below the mount");
    tree_file("/sys/fs/cgroup/memory.stat", stat_v2);
    cr_assert(cgroup_find(tree, &group));
    expect_path(&group, 2, "/sys/fs/cgroup");
    cr_assert(cgroup_memory_read(&group, &m));
    cr_expect_eq(m.usage_bytes, 0);
    cr_expect_eq(m.limit_bytes, CGROUP_UNLIMITED);
    cr_expect_eq(m.anon_bytes, 11);
    tree_file("/sys/fs/cgroup/user/memory.current", "12\n");
    cr_assert(cgroup_find(tree, &group));
    expect_path(&group, 2, "/sys/fs/cgroup/user");
}

// Docker on version 1: the path is the host's, and the mount shows only the container's part.
Test(cgroup_tree, v1_bind_mounted_container, .init = tree_init, .fini = tree_fini)
{
    struct cgroup group;
    struct cgroup_memory m;
    tree_file("/proc/self/cgroup", "4:memory:/docker/abc/inner\n1:name=systemd:/docker/abc\n");
    tree_file("/proc/self/mountinfo",
              "34 31 0:31 /docker/abc /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu\n"
              "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n");
    tree_file("/sys/fs/cgroup/memory/inner/memory.usage_in_bytes", "3000\n");
    tree_file("/sys/fs/cgroup/memory/inner/memory.limit_in_bytes", "9223372036854771712\n");
    tree_file("/sys/fs/cgroup/memory/inner/memory.stat", stat_v1);
    cr_assert(cgroup_find(tree, &group));
    expect_path(&group, 1, "/sys/fs/cgroup/memory/inner");
    cr_assert(cgroup_memory_read(&group, &m));
    cr_expect_eq(m.usage_bytes, 3000);
    cr_expect_eq(m.limit_bytes, 128 * MIB);
    cr_expect_eq(m.high_bytes, CGROUP_UNLIMITED);
    cr_expect_eq(m.anon_bytes, 2002);
}

// Docker without a cgroup namespace may mount the part of another parent: the mount point is taken.
Test(cgroup_tree, v1_path_not_below_the_mount, .init = tree_init, .fini = tree_fini)
{
    struct cgroup group;
    tree_file("/proc/self/cgroup", "4:memory:/\n");
    tree_file("/proc/self/mountinfo", "35 31 0:32 /docker/abc /mem rw - cgroup cgroup rw,memory\n");
    tree_file("/mem/memory.usage_in_bytes", "3000\n");
    cr_assert(cgroup_find(tree, &group));
    expect_path(&group, 1, "/mem");
    // A mount that shows our path is better, wherever its line stands.
    tree_file("/cg/memory/memory.usage_in_bytes", "3000\n");
    tree_file("/proc/self/mountinfo",
              "35 31 0:32 /docker/abc /mem rw - cgroup cgroup rw,memory\n" MOUNT_V1
              "35 31 0:32 /docker/abc /mem rw - cgroup cgroup rw,memory\n");
    cr_assert(cgroup_find(tree, &group));
    expect_path(&group, 1, "/cg/memory");
}

// Both versions mounted, memory in version 1; the version 2 line comes first and last.
Test(cgroup_tree, hybrid, .init = tree_init, .fini = tree_fini)
{
    struct cgroup group;
    tree_file("/proc/self/cgroup", hybrid_text);
    tree_file("/proc/self/mountinfo", MOUNT_V2 MOUNT_V1 MOUNT_V2);
    tree_file("/sys/fs/cgroup/user.slice/session-2.scope/cgroup.procs", "");
    tree_file("/cg/memory/jobs/7/memory.usage_in_bytes", "1\n");
    cr_assert(cgroup_find(tree, &group));
    expect_path(&group, 1, "/cg/memory/jobs/7");
    // The other way round: version 1 is mounted, but memory is of version 2.
    tree_file("/proc/self/cgroup", "3:cpu:/\n0::/svc\n");
    tree_file("/sys/fs/cgroup/svc/memory.current", "1\n");
    cr_assert(cgroup_find(tree, &group));
    expect_path(&group, 2, "/sys/fs/cgroup/svc");
}

// Lines longer than the buffer, in front of ours and split by reads anywhere.
Test(cgroup_tree, long_mountinfo, .init = tree_init, .fini = tree_fini)
{
    static char text[40000];
    struct cgroup group;
    tree_file("/proc/self/cgroup", "0::/svc\n");
    tree_file("/sys/fs/cgroup/svc/memory.current", "1\n");
    tree_file("/wrong/svc/memory.current", "1\n");
    for (size_t overlay = 4060; overlay < 12400; overlay += 97) {
        size_t len = (size_t)snprintf(text, sizeof text, "40 1 0:50 / /o rw - overlay o lower=");
        memset(text + len, 'x', overlay);
        len += overlay;
        // The end of the long line looks like a line of its own.
        snprintf(text + len, sizeof text - len, " 2 3:4 / /wrong rw - cgroup2 x rw\n%s", MOUNT_V2);
        tree_file("/proc/self/mountinfo", text);
        cr_assert(cgroup_find(tree, &group), "overlay line of %zu", overlay);
        expect_path(&group, 2, "/sys/fs/cgroup/svc");
    }
}

Test(cgroup_tree, nothing_there, .init = tree_init, .fini = tree_fini)
{
    struct cgroup group = {.version = 2};
    struct cgroup_memory m = {.usage_bytes = 5};
    cr_expect_not(cgroup_find(tree, &group), "no /proc");
    tree_file("/proc/self/cgroup", "0::/svc\n");
    cr_expect_not(cgroup_find(tree, &group), "no mountinfo");
    tree_file("/proc/self/mountinfo", "23 1 8:1 / / rw - ext4 /dev/vda rw\n");
    cr_expect_not(cgroup_find(tree, &group), "no mount");
    tree_file("/proc/self/mountinfo", MOUNT_V2);
    cr_expect_not(cgroup_find(tree, &group), "no files");
    snprintf(group.path, sizeof group.path, "%s/gone", tree);
    cr_expect_not(cgroup_memory_read(&group, &m));
    cr_expect_eq(m.usage_bytes, 5, "a failed read leaves the result alone");
}

// ---- the real one

// What the child sees of a cgroup made for it, in shared memory, as Criterion's asserts do not work
// there.
struct seen {
    struct cgroup group;
    struct cgroup_memory before, during, after;
    bool found, read;
};

#define CHILD_BYTES (48 * MIB)

static void write_file(const char *dir, const char *name, const char *text)
{
    char path[CGROUP_PATH_BYTES + 64];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text)) {
        _exit(9);
    }
    close(fd);
}

static void child_in_cgroup(const char *dir, bool v2, struct seen *seen)
{
    char pid[24];
    snprintf(pid, sizeof pid, "%d", (int)getpid());
    write_file(dir, v2 ? "memory.max" : "memory.limit_in_bytes", "134217728");
    write_file(dir, "cgroup.procs", pid);
    seen->found = cgroup_find("", &seen->group);
    seen->read = seen->found && cgroup_memory_read(&seen->group, &seen->before);
    char *mem = mmap(NULL, CHILD_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(mem, 1, CHILD_BYTES);
    seen->read = seen->read && cgroup_memory_read(&seen->group, &seen->during);
    munmap(mem, CHILD_BYTES);
    seen->read = seen->read && cgroup_memory_read(&seen->group, &seen->after);
    _exit(0);
}

Test(cgroup, real_own)
{
    struct cgroup group;
    struct cgroup_memory m;
    if (!cgroup_find("", &group)) {
        cr_skip_test("no memory cgroup is to be seen here");
    }
    cr_expect(group.version == 1 || group.version == 2);
    cr_assert(cgroup_memory_read(&group, &m));
    cr_expect_geq(m.cache_bytes, m.shmem_bytes);
    if (group.version == 1) {
        cr_expect_gt(m.usage_bytes, 0);
    }
}

Test(cgroup, real_child_with_a_limit)
{
    struct cgroup own;
    char dir[CGROUP_PATH_BYTES + 32];
    int status = 0;
    if (!cgroup_find("", &own)) {
        cr_skip_test("no memory cgroup is to be seen here");
    }
    snprintf(dir, sizeof dir, "%s/ebb_test_%d", own.path, (int)getpid());
    if (mkdir(dir, 0755) != 0) {
        cr_skip_test("not allowed to make a cgroup");
    }
    struct seen *seen =
        mmap(NULL, sizeof *seen, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t pid = fork();
    if (pid == 0) {
        child_in_cgroup(dir, own.version == 2, seen);
    }
    waitpid(pid, &status, 0);
    // The kernel frees the place a moment after its last process is gone.
    for (int i = 0; i < 100 && rmdir(dir) != 0; i++) {
        usleep(10000);
    }
    cr_expect_neq(access(dir, F_OK), 0, "the cgroup is removed");
    if (WIFEXITED(status) && WEXITSTATUS(status) == 9) {
        cr_skip_test("not allowed to move a process into a cgroup");
    }
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    cr_assert(seen->found && seen->read);
    cr_expect_str_eq(seen->group.path, dir);
    cr_expect_eq(seen->during.limit_bytes, 128 * MIB);
    cr_expect_geq(seen->during.anon_bytes, seen->before.anon_bytes + CHILD_BYTES - 4 * MIB);
    cr_expect_geq(seen->during.usage_bytes, CHILD_BYTES - 4 * MIB);
    cr_expect_leq(seen->during.usage_bytes, 128 * MIB);
    cr_expect_leq(seen->after.usage_bytes, seen->during.usage_bytes - CHILD_BYTES / 2);
}
