// SPDX-License-Identifier: MIT
// Tier  quick
//
// doctor.h, finding processes: IDs in the paths of every engine; names from trees made for the test
// as docker, containerd, CRI-O and podman leave them; cgroups by directory, by name, by last part;
// files that are cut, empty or hostile.
//
// Go  none
#include <criterion/criterion.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/rand.h"
#include "doctor/doctor.h"

#define ID "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define ID2 "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210"
#define ID3 "00000000000000001111111111111111222222222222222233333333333333ff"
#define POD_UID "12345678-90ab-cdef-1234-567890abcdef"
#define POD_UID_ "12345678_90ab_cdef_1234_567890abcdef"

// ---- the ID -------------------------------------------------------------------------------------

Test(find, ids)
{
    static const struct {
        const char *text, *id, *pod;
    } rows[] = {
        {"0::/system.slice/docker-" ID ".scope\n", ID, ""},
        {"12:pids:/docker/" ID "\n4:memory:/docker/" ID "\n", ID, ""},
        {"0::/machine.slice/libpod-" ID ".scope\n", ID, ""},
        {"0::/machine.slice/libpod-" ID ".scope/container\n", ID, ""},
        {"0::/kubepods/burstable/pod" POD_UID "/" ID "\n", ID, POD_UID},
        {"0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" POD_UID_
         ".slice/cri-containerd-" ID ".scope\n",
         ID, POD_UID},
        {"0::/kubepods.slice/kubepods-pod" POD_UID_ ".slice/crio-" ID ".scope\n", ID, POD_UID},
        {"0::/../../kubepods-pod" POD_UID_ ".slice/cri-containerd-" ID2 ".scope\n", ID2, POD_UID},
        {"0::/docker/" ID "/docker/" ID2 "\n", ID2, ""},
        {"0::/lxc/web\n", "web", ""},
        {"0::/lxc.payload.web/init.scope\n", "web", ""},
        {"0::/machine.slice/machine-web.scope\n", "web", ""},
        {"0::/user.slice/user-1000.slice/session-2.scope\n", NULL, NULL},
        {"0::/system.slice/nginx.service\n", NULL, NULL},
        {"4:memory:/jobs/5fa9c0da5b2799a1347203ebf4eb2fb3\n", NULL, NULL}, // half an ID
        {"0::/user.slice/user-1000.slice/app.slice/vte-spawn-" POD_UID ".scope\n", NULL, NULL},
        {"0::/user.slice/app.slice/snap.firefox.firefox-" POD_UID ".scope\n", NULL, NULL},
        {"0::/machine.slice/libpod-conmon-" ID ".scope\n", NULL, NULL},
        {"0::/kubepods.slice/kubepods-pod" POD_UID_ ".slice/crio-conmon-" ID ".scope\n", "",
         POD_UID},
        {"0::/\n", NULL, NULL},
        {"", NULL, NULL},
        {":", NULL, NULL},
        {"0::/docker/" ID, ID, ""}, // cut, without its newline
    };
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        struct container c;
        bool found = container_parse(rows[i].text, strlen(rows[i].text), &c);
        cr_expect_eq(found, rows[i].id != NULL, "%s", rows[i].text);
        if (rows[i].id != NULL) {
            cr_expect_str_eq(c.id, rows[i].id, "%s", rows[i].text);
            cr_expect_str_eq(c.pod_uid, rows[i].pod, "%s", rows[i].text);
        }
    }
}

// Whatever is in the file, what comes out is closed by a zero and leads out of no folder.
Test(find, nonsense)
{
    static const char pieces[] = "/:-._pod0123456789abcdef\nkubepods.scopeslice\xff\x01";
    struct rand rand;
    rand_seed(&rand, 5);
    for (int round = 0; round < 20000; round++) {
        char text[300];
        struct container c;
        size_t len = rand_below(&rand, sizeof(text));
        for (size_t i = 0; i < len; i++) {
            text[i] = pieces[rand_below(&rand, sizeof(pieces) - 1)];
        }
        (void)container_parse(text, len, &c);
        cr_assert(memchr(c.id, '\0', sizeof(c.id)) != NULL);
        cr_assert(memchr(c.pod_uid, '\0', sizeof(c.pod_uid)) != NULL);
        cr_assert(strchr(c.id, '/') == NULL);
    }
}

// ---- trees --------------------------------------------------------------------------------------

static char root[64];

static int entry_remove(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

static void tree_remove(void)
{
    nftw(root, entry_remove, 16, FTW_DEPTH | FTW_PHYS);
}

static void tree_make(void)
{
    snprintf(root, sizeof(root), "/tmp/ebb-find-XXXXXX");
    cr_assert_not_null(mkdtemp(root));
}

static void put(const char *path, const char *text)
{
    char full[512];
    snprintf(full, sizeof(full), "%s%s", root, path);
    for (char *slash = strchr(full + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(full, 0755);
        *slash = '/';
    }
    FILE *file = fopen(full, "we");
    cr_assert_not_null(file);
    fputs(text, file);
    fclose(file);
}

// A process in a cgroup; its host name is the machine's, or one of its own.
static void process_put(int pid, const char *cgroup, bool own_uts)
{
    char path[128];
    char to[256];
    snprintf(path, sizeof(path), "/proc/%d/cgroup", pid);
    put(path, cgroup);
    snprintf(path, sizeof(path), "/proc/%d/ns/x", pid);
    put(path, "");
    snprintf(to, sizeof(to), "%s/proc/%d/ns/uts", root, pid);
    cr_assert_eq(symlink(own_uts ? "uts:[7]" : "uts:[1]", to), 0);
}

static void machine_make(void)
{
    char to[256];
    tree_make();
    put("/proc/self/ns/x", "");
    snprintf(to, sizeof(to), "%s/proc/self/ns/uts", root);
    cr_assert_eq(symlink("uts:[1]", to), 0);
    process_put(1, "0::/init.scope\n", false);
    process_put(10, "0::/system.slice/docker-" ID ".scope\n", true);
    process_put(11, "0::/system.slice/docker-" ID ".scope\n", true);
    process_put(20, "0::/kubepods/pod" POD_UID "/" ID2 "\n", true);
    process_put(30, "0::/system.slice/nginx.service\n", false);
    process_put(31, "0::/system.slice/nginx.service/worker\n", false);
    process_put(32, "0::/system.slice/nginx.service2\n", false);
}

static void expect(bool found, const struct found *out, size_t count, const int *pids)
{
    cr_expect_eq(found, count != 0, "%s", out->how);
    cr_expect_neq(out->how[0], '\0');
    cr_assert_eq(out->count, count, "%zu found: %s", out->count, out->how);
    for (size_t i = 0; i < count; i++) {
        cr_expect_eq(out->pids[i], pids[i]);
    }
}
#define EXPECT(found, out, ...)                                                                    \
    expect(found, out, sizeof((int[]){__VA_ARGS__}) / sizeof(int), (int[]){__VA_ARGS__})

Test(find, containers, .init = machine_make, .fini = tree_remove)
{
    struct found found = {0};
    put("/var/lib/docker/containers/" ID "/config.v2.json", "{\"Name\":\"/web\",\"Config\":{}}");
    put("/run/containerd/io.containerd.runtime.v2.task/k8s.io/" ID2 "/config.json",
        "{\"annotations\":{\"io.kubernetes.cri.container-name\":\"app\","
        "\"io.kubernetes.cri.sandbox-name\":\"shop-7d9\"}}");
    EXPECT(find_container(root, "web", &found), &found, 10, 11);
    cr_expect_not_null(strstr(found.how, "docker"));
    EXPECT(find_container(root, "012345", &found), &found, 10, 11);
    EXPECT(find_container(root, "app", &found), &found, 20);
    EXPECT(find_container(root, "shop-7d9/app", &found), &found, 20);
    expect(find_container(root, "shop-7d/app", &found), &found, 0, NULL);
    expect(find_container(root, "shop-7d9/web", &found), &found, 0, NULL);
    expect(find_container(root, "/web", &found), &found, 0, NULL);
    EXPECT(find_pod(root, "shop-7d9", &found), &found, 20);
    EXPECT(find_pod(root, POD_UID, &found), &found, 20);
    expect(find_container(root, "we", &found), &found, 0, NULL);
    expect(find_container(root, "01234", &found), &found, 0, NULL); // too few digits
    expect(find_container(root, "shop-7d9", &found), &found, 0, NULL);
    expect(find_container(root, "../../etc", &found), &found, 0, NULL);
    // Nobody knows what this one is called, nor its pod: it is not what has no name.
    process_put(40, "0::/system.slice/docker-" ID3 ".scope\n", false);
    expect(find_container(root, "", &found), &found, 0, NULL);
    cr_expect_not_null(strstr(found.how, "names no container"));
    expect(find_pod(root, "", &found), &found, 0, NULL);
    cr_expect_not_null(strstr(found.how, "names no pod"));
    found_free(&found);
}

Test(find, other_engines, .init = machine_make, .fini = tree_remove)
{
    struct found found = {0};
    put("/var/lib/containers/storage/overlay-containers/containers.json",
        "[{\"id\":\"" ID2 "\",\"names\":[\"other\"]},{\"id\":\"" ID "\",\"names\":[\"db\"]}]");
    EXPECT(find_container(root, "db", &found), &found, 10, 11);
    cr_expect_not_null(strstr(found.how, "podman"));
    put("/run/containers/storage/overlay-containers/" ID2 "/userdata/config.json",
        "{\"annotations\":{\"io.kubernetes.container.name\":\"crio-app\","
        "\"io.kubernetes.pod.name\":\"pod-1\"}}");
    EXPECT(find_container(root, "crio-app", &found), &found, 20);
    EXPECT(find_pod(root, "pod-1", &found), &found, 20);
    found_free(&found);
}

// Nobody says the name: HOSTNAME does, but only of who has a host name of its own.
Test(find, by_host_name, .init = machine_make, .fini = tree_remove)
{
    struct found found = {0};
    char path[128];
    put("/proc/20/environ", "HOSTNAME=shop-0");
    put("/proc/30/environ", "HOSTNAME=shop-0");
    // In a container, but with the machine's host name: what it says is not of the container.
    process_put(40, "0::/system.slice/docker-" ID3 ".scope\n", false);
    put("/proc/40/environ", "HOSTNAME=machine");
    EXPECT(find_pod(root, "shop-0", &found), &found, 20);
    cr_expect_not_null(strstr(found.how, "HOSTNAME"));
    expect(find_pod(root, "machine", &found), &found, 0, NULL);
    snprintf(path, sizeof(path), "%s/proc/30/ns/uts", root);
    unlink(path);
    cr_assert_eq(symlink("uts:[8]", path), 0);
    EXPECT(find_pod(root, "shop-0", &found), &found, 20, 30);
    found_free(&found);
}

Test(find, broken_files, .init = machine_make, .fini = tree_remove)
{
    struct found found = {0};
    put("/var/lib/docker/containers/" ID "/config.v2.json", "{\"Name\":\"/we");
    put("/var/lib/containers/storage/overlay-containers/containers.json", "[{},[],1,{\"id\":7}]");
    put("/run/containers/storage/overlay-containers/" ID "/userdata/config.json",
        "{\"annotations\":[1]}");
    expect(find_container(root, "web", &found), &found, 0, NULL);
    EXPECT(find_container(root, ID, &found), &found, 10, 11);
    put("/var/lib/docker/containers/" ID "/config.v2.json", "[]");
    expect(find_container(root, "web", &found), &found, 0, NULL);
    found_free(&found);
}

Test(find, cgroups, .init = machine_make, .fini = tree_remove)
{
    struct found found = {0};
    EXPECT(find_cgroup(root, "/system.slice/nginx.service", &found), &found, 30, 31);
    EXPECT(find_cgroup(root, "/system.slice/nginx.service/", &found), &found, 30, 31);
    EXPECT(find_cgroup(root, "nginx.service", &found), &found, 30, 31);
    EXPECT(find_cgroup(root, "worker", &found), &found, 31);
    expect(find_cgroup(root, "nginx", &found), &found, 0, NULL);
    expect(find_cgroup(root, "", &found), &found, 0, NULL);
    expect(find_cgroup(root, "/../proc", &found), &found, 0, NULL);
    // By its directory, with what is below it, in order and each once.
    put("/sys/fs/cgroup/a/cgroup.procs", "77\n5\n");
    put("/sys/fs/cgroup/a/b/cgroup.procs", "6\n5\n0\n");
    EXPECT(find_cgroup(root, "/a", &found), &found, 5, 6, 77);
    EXPECT(find_cgroup(root, "/sys/fs/cgroup/a/b", &found), &found, 5, 6);
    put("/sys/fs/cgroup/empty/cgroup.procs", "");
    expect(find_cgroup(root, "/empty", &found), &found, 0, NULL);
    cr_expect_not_null(strstr(found.how, "is empty"));
    put("/sys/fs/cgroup/odd/cgroup.procs", "12\nx\n13\n");
    EXPECT(find_cgroup(root, "/odd", &found), &found, 12);
    found_free(&found);
}

Test(find, all)
{
    struct found found = {0};
    bool self = false;
    cr_assert(find_all(NULL, &found), "%s", found.how);
    for (size_t i = 0; i < found.count; i++) {
        self |= found.pids[i] == getpid();
        cr_expect(i == 0 || found.pids[i] > found.pids[i - 1]);
    }
    cr_expect(self);
    found_free(&found);
    cr_expect_not(find_all("/nowhere", &found));
    cr_expect_not_null(strstr(found.how, "/nowhere/proc"));
    found_free(&found);
}
