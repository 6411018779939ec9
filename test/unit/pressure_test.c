// SPDX-License-Identifier: MIT
// Tier  quick
//
// What an allocating thread and the releaser read of the machine: pressure.h on the texts a kernel
// writes, and on what it never does; cgroup_peek_usage and cgroup_peek_limits of cgroup.h, the
// readings that are cheap enough for malloc, in trees made for the test.
//
// Go  none.
#include "os/pressure.h"

#include <criterion/criterion.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

// ---- the parser

static uint32_t parsed(const char *text)
{
    // In a block of its own length: a read behind the end is seen by the sanitizer.
    size_t len = strlen(text);
    char *copy = malloc(len + 1);
    memcpy(copy, text, len);
    copy = realloc(copy, len != 0 ? len : 1);
    uint32_t share = pressure_parse(copy, len);
    free(copy);
    return share;
}

#define FULL_LINE "full avg10=1.00 avg60=0.50 avg300=0.10 total=1234\n"

Test(pressure, parse_what_a_kernel_writes)
{
    cr_expect_eq(parsed("some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n" FULL_LINE), 0);
    cr_expect_eq(parsed("some avg10=12.34 avg60=5.00 avg300=1.00 total=99\n" FULL_LINE), 1234);
    cr_expect_eq(parsed("some avg10=9.99 avg60=0.00 avg300=0.00 total=1\n"), 999, "no full line");
    cr_expect_eq(parsed("some avg10=10.00 avg60=0.00 avg300=0.00 total=1\n"), 1000);
    cr_expect_eq(parsed("some avg10=0.01 avg60=0.00 avg300=0.00 total=1\n"), 1);
    cr_expect_eq(parsed("some avg10=0.10 avg60=0.00 avg300=0.00 total=1\n"), 10);
    cr_expect_eq(parsed("some avg10=99.99 avg60=0.00 avg300=0.00 total=1\n"), 9999);
    cr_expect_eq(parsed("some avg10=100.00 avg60=0.00 avg300=0.00 total=1\n"), 10000);
}

// Every cut of a line, as a short buffer makes it: a share or none, never another number's digits.
Test(pressure, parse_truncated)
{
    const char line[] = "some avg10=12.34 avg60=56.78";
    for (size_t len = 0; len < sizeof line; len++) {
        char text[sizeof line];
        memcpy(text, line, len);
        text[len] = '\0';
        uint32_t want = len < 12   ? PRESSURE_UNKNOWN
                        : len < 13 ? 100
                        : len < 15 ? 1200
                        : len < 16 ? 1230
                                   : 1234;
        cr_expect_eq(parsed(text), want, "the first %zu bytes: %u", len, parsed(text));
    }
}

Test(pressure, parse_absurd)
{
    cr_expect_eq(parsed("some avg10=100.01 "), 10000, "not more than all of the time");
    cr_expect_eq(parsed("some avg10=4294967296.00 "), 10000);
    cr_expect_eq(parsed("some avg10=42949673.00 "), 10000, "times 100 it is small in 32 bits");
    cr_expect_eq(parsed("some avg10=99999999999999999999999999.5 "), 10000);
    cr_expect_eq(parsed("some avg10=18446744073709551615 "), 10000);
    cr_expect_eq(parsed("some avg10=1.999999999999999999 "), 199);
    cr_expect_eq(parsed("some avg10=7 "), 700);
    cr_expect_eq(parsed("some avg10=7. "), 700);
    cr_expect_eq(parsed("some avg10=7.x"), 700);
    cr_expect_eq(parsed("some avg10=007.05"), 705);
    const char *others[] = {"",
                            "\n",
                            "some",
                            "some avg10=",
                            "some avg10=\n",
                            "some avg10= 5.00 ",
                            "some avg10=-1.00 ",
                            "some avg10=.50 ",
                            "some avg10=max ",
                            "some avg10=nan ",
                            "some avg60=5.00 avg10=5.00 ",
                            "Some avg10=5.00 ",
                            " some avg10=5.00 ",
                            FULL_LINE,
                            "some  avg10=5.00 "};
    for (size_t i = 0; i < ARRAY_COUNT(others); i++) {
        cr_expect_eq(parsed(others[i]), PRESSURE_UNKNOWN, "text %zu: %s", i, others[i]);
    }
}

// ---- trees made for the test

static char tree[] = "/tmp/ebb_pressure_test.XXXXXX";

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

// The place `path` of the tree, of the hierarchy that is mounted at its /mnt.
static struct cgroup place(int version, const char *path)
{
    struct cgroup group = {.version = version, .mount_len = strlen(tree) + strlen("/mnt")};
    int len = snprintf(group.path, sizeof group.path, "%s/mnt%s", tree, path);
    cr_assert_lt(len, (int)sizeof group.path);
    return group;
}

#define MACHINE "some avg10=50.00 avg60=0.00 avg300=0.00 total=1\n" FULL_LINE
#define OURS "some avg10=3.00 avg60=0.00 avg300=0.00 total=1\n" FULL_LINE

Test(pressure_tree, the_cgroup_first, .init = tree_init, .fini = tree_fini)
{
    struct cgroup group = place(2, "/job");
    cr_expect_eq(pressure_read(&group, tree), PRESSURE_UNKNOWN, "no file at all");
    cr_expect_eq(pressure_read(NULL, tree), PRESSURE_UNKNOWN);
    tree_file("/proc/pressure/memory", MACHINE);
    cr_expect_eq(pressure_read(NULL, tree), 5000);
    cr_expect_eq(pressure_read(&group, tree), 5000, "the cgroup's is missing");
    tree_file("/mnt/job/memory.pressure", OURS);
    cr_expect_eq(pressure_read(&group, tree), 300);
    cr_expect_eq(pressure_read(NULL, tree), 5000);
    tree_file("/mnt/job/memory.pressure", "");
    cr_expect_eq(pressure_read(&group, tree), 5000, "the cgroup's is empty");
    tree_file("/mnt/job/memory.pressure", "no such thing\n");
    cr_expect_eq(pressure_read(&group, tree), 5000);
    // Version 1 has no such file: one of that name would be something else.
    tree_file("/mnt/job/memory.pressure", OURS);
    group.version = 1;
    cr_expect_eq(pressure_read(&group, tree), 5000);
    tree_file("/proc/pressure/memory", "");
    cr_expect_eq(pressure_read(NULL, tree), PRESSURE_UNKNOWN);
}

Test(pressure_tree, a_path_too_long, .init = tree_init, .fini = tree_fini)
{
    struct cgroup group = {.version = 2};
    char root[CGROUP_PATH_BYTES + 64];
    memset(group.path, 'a', sizeof group.path - 1);
    group.path[0] = '/';
    memset(root, 'a', sizeof root - 1);
    root[sizeof root - 1] = '\0';
    cr_expect_eq(pressure_read(&group, root), PRESSURE_UNKNOWN);
}

#define UNTOUCHED 77u

static struct cgroup_memory untouched(void)
{
    return (struct cgroup_memory){
        .limit_bytes = UNTOUCHED,
        .high_bytes = UNTOUCHED,
        .usage_bytes = UNTOUCHED,
        .anon_bytes = UNTOUCHED,
        .cache_bytes = UNTOUCHED,
    };
}

Test(peek_tree, usage, .init = tree_init, .fini = tree_fini)
{
    static const char *const files[] = {"/mnt/job/memory.usage_in_bytes",
                                        "/mnt/job/memory.current"};
    for (int version = 1; version <= 2; version++) {
        struct cgroup group = place(version, "/job");
        struct cgroup_memory m = untouched();
        const char *file = files[version - 1];
        cr_expect_not(cgroup_peek_usage(&group, &m), "no file");
        const char *nothing[] = {"", "\n", "max\n", "-5\n", "99999999999999999999999\n"};
        for (size_t i = 0; i < ARRAY_COUNT(nothing); i++) {
            tree_file(file, nothing[i]);
            cr_expect_not(cgroup_peek_usage(&group, &m), "version %d: %s", version, nothing[i]);
        }
        cr_expect_eq(m.usage_bytes, UNTOUCHED);
        tree_file(file, "0\n");
        cr_expect(cgroup_peek_usage(&group, &m));
        cr_expect_eq(m.usage_bytes, 0);
        tree_file(file, "268435456\n");
        cr_expect(cgroup_peek_usage(&group, &m));
        cr_expect_eq(m.usage_bytes, 256 * MIB);
        tree_file(file, "5000");
        cr_expect(cgroup_peek_usage(&group, &m));
        cr_expect_eq(m.usage_bytes, 5000, "without a newline");
        // Only its own field.
        cr_expect(m.limit_bytes == UNTOUCHED && m.high_bytes == UNTOUCHED &&
                  m.anon_bytes == UNTOUCHED && m.cache_bytes == UNTOUCHED);
    }
}

Test(peek_tree, limits_of_version_2, .init = tree_init, .fini = tree_fini)
{
    struct cgroup group = place(2, "/pod/job");
    struct cgroup_memory m = untouched();
    cgroup_peek_limits(&group, &m);
    cr_expect(m.limit_bytes == CGROUP_UNLIMITED && m.high_bytes == CGROUP_UNLIMITED, "no file");
    tree_file("/memory.max", "1\n"); // above the mount point
    tree_file("/mnt/memory.max", "900000000\n");
    tree_file("/mnt/pod/job/memory.max", "max\n");
    tree_file("/mnt/pod/job/memory.high", "700000\n");
    cgroup_peek_limits(&group, &m);
    cr_expect(m.limit_bytes == 900000000 && m.high_bytes == 700000);
    tree_file("/mnt/pod/memory.max", "800000\n");
    tree_file("/mnt/pod/memory.high", "900000\n");
    cgroup_peek_limits(&group, &m);
    cr_expect(m.limit_bytes == 800000 && m.high_bytes == 700000, "the tightest on the way up");
    cr_expect_eq(cgroup_memory_limit(&m), 700000);
    tree_file("/mnt/pod/job/memory.max", "0\n");
    tree_file("/mnt/pod/job/memory.high", "");
    cgroup_peek_limits(&group, &m);
    cr_expect(m.limit_bytes == 0 && m.high_bytes == 900000);
    tree_file("/mnt/pod/job/memory.max", "99999999999999999999999\n");
    cgroup_peek_limits(&group, &m);
    cr_expect(m.limit_bytes == 800000, "no number at all is no limit");
    cr_expect(m.usage_bytes == UNTOUCHED && m.anon_bytes == UNTOUCHED);
}

Test(peek_tree, limits_of_version_1, .init = tree_init, .fini = tree_fini)
{
    struct cgroup group = place(1, "/pod/job");
    struct cgroup_memory m = untouched();
    cgroup_peek_limits(&group, &m);
    cr_expect(m.limit_bytes == CGROUP_UNLIMITED && m.high_bytes == CGROUP_UNLIMITED, "no file");
    tree_file("/mnt/pod/memory.limit_in_bytes", "5000\n");
    tree_file("/mnt/pod/job/memory.limit_in_bytes", "9223372036854771712\n");
    tree_file("/mnt/pod/job/memory.high", "3000\n"); // of version 2
    cgroup_peek_limits(&group, &m);
    cr_expect(m.limit_bytes == CGROUP_UNLIMITED && m.high_bytes == CGROUP_UNLIMITED,
              "the largest page count is none, and limits further up are not seen");
    tree_file("/mnt/pod/job/memory.limit_in_bytes", "8000\n");
    cgroup_peek_limits(&group, &m);
    cr_expect(m.limit_bytes == 8000 && m.high_bytes == CGROUP_UNLIMITED);
    cr_expect(m.usage_bytes == UNTOUCHED && m.cache_bytes == UNTOUCHED);
}
