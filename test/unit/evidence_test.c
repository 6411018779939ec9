// SPDX-License-Identifier: MIT
// Tier  quick
//
// The doctor's readers, shown files of /proc that are cut off, absurd or of another kernel: each is
// a clear outcome, never a crash. The files are made below a root of their own.
//
// Go  none
#include "support/unit.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "doctor/doctor.h"

#define PID 4242
static char root[64];
static struct facts facts;

static void file_make(const char *path, const char *text)
{
    char full[512];
    snprintf(full, sizeof(full), "%s%s", root, path);
    for (char *slash = full + strlen(root) + 1; (slash = strchr(slash, '/')) != NULL; slash++) {
        *slash = '\0';
        mkdir(full, 0755);
        *slash = '/';
    }
    int fd = open(full, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    cr_assert(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text), "%s", full);
    close(fd);
}

#define GOOD_STATUS                                                                                \
    "Name:\tx\nUid:\t1000\t1000\t1000\t1000\nVmHWM:\t  2000 kB\nVmRSS:\t  1000 kB\n"               \
    "RssAnon:\t   900 kB\nRssFile:\t   100 kB\nRssShmem:\t     0 kB\nVmSize:\t9000 kB\n"           \
    "Threads:\t3\n"
#define GOOD_STAT "4242 (a) b) S 1 1 1 0 -1 4194560 7 0 0 0 11 22 0 0 20 0 3 0 100 1 1 1 1 1\n"

static void root_make(void)
{
    snprintf(root, sizeof(root), "/tmp/ebb-evidence-XXXXXX");
    cr_assert(mkdtemp(root) != NULL);
    file_make("/proc/4242/status", GOOD_STATUS);
    file_make("/proc/4242/stat", GOOD_STAT);
    file_make("/proc/4242/comm", "a) b\n");
    file_make("/proc/4242/cmdline", "prog");
    file_make("/proc/4242/environ", "GOGC=50");
    file_make("/proc/4242/maps", "7f0000000000-7f0000001000 rw-p 00000000 00:00 0 \n");
    file_make("/proc/meminfo", "MemTotal:       1000 kB\nMemAvailable:    500 kB\n");
    file_make("/proc/uptime", "1000.00 900.00\n");
    file_make("/proc/4242/cgroup", "0::/app\n");
    file_make("/proc/self/mountinfo",
              "30 20 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n");
    file_make("/sys/fs/cgroup/app/memory.current", "1000000\n");
    file_make("/sys/fs/cgroup/app/memory.max", "2000000\n");
    file_make("/sys/fs/cgroup/app/memory.stat", "anon 600000\nfile 300000\nshmem 100000\n"
                                                "inactive_file 150000\nactive_file 50000\n");
    file_make("/sys/fs/cgroup/app/cgroup.procs", "4242\n");
}

static void root_remove(void)
{
    pid_t child = fork();
    if (child == 0) {
        execl("/bin/rm", "rm", "-r", root, (char *)NULL);
        _exit(127);
    }
    waitpid(child, NULL, 0);
}

static enum doctor_error look(void)
{
    const struct doctor_options options = {.root = root};
    struct diagnosis diagnosis;
    enum doctor_error error = doctor_look(PID, &options, &facts);
    verdicts_of(&facts, NULL, &diagnosis);
    cr_assert(diagnosis.count >= 1);
    return error;
}

EBB_TEST(evidence, good_files)
{
    root_make();
    cr_assert(look() == DOCTOR_OK);
    const struct facts_process *p = &facts.process;
    cr_assert(p->uid == 1000 && p->rss_bytes == 1000 * KIB && p->threads_count == 3);
    cr_assert(strcmp(p->name, "a) b") == 0 && p->state == 'S');
    cr_assert(p->minor_faults_count == 7 && p->age_ns == 999 * NS_PER_S);
    cr_assert(strcmp(facts_setting(&facts, "GOGC"), "50") == 0);
    const struct facts_cgroup *g = &facts.cgroup;
    cr_assert(g->version == 2 && g->alone && g->limit_bytes == 2000000);
    cr_assert(g->file_bytes == 300000 && g->lazyfree_bytes == 0);
    cr_assert_str_eq(g->name, "/app");
    cr_assert(facts.pages.mappings_count == 1);
    root_remove();
}

// Lazily freed pages stand in the lists of files and not in the cache.
EBB_TEST(evidence, lazily_freed_hides_in_inactive_file)
{
    root_make();
    file_make("/sys/fs/cgroup/app/memory.stat", "anon 600000\nfile 300000\nshmem 100000\n"
                                                "inactive_file 550000\nactive_file 50000\n");
    cr_assert(look() == DOCTOR_OK);
    cr_assert(facts.cgroup.lazyfree_bytes == 400000);
    root_remove();
}

EBB_TEST(evidence, an_agent_of_gops)
{
    root_make();
    cr_assert(look() == DOCTOR_OK && facts.process.gops_port == 0);
    file_make("/proc/4242/environ", "HOME=/home/x");
    file_make("/proc/4242/root/home/x/.config/gops/4242", "40145");
    cr_assert(look() == DOCTOR_OK && facts.process.gops_port == 40145);
    file_make("/proc/4242/root/home/x/.config/gops/4242", "99999999");
    cr_assert(look() == DOCTOR_OK && facts.process.gops_port == 0);
    file_make("/proc/4242/environ", "HOME=relative");
    cr_assert(look() == DOCTOR_OK && facts.process.gops_port == 0);
    root_remove();
}

EBB_TEST(evidence, no_such_process)
{
    const struct doctor_options options = {.root = root};
    root_make();
    cr_assert(doctor_look(4243, &options, &facts) == DOCTOR_NO_PROCESS);
    root_remove();
}

EBB_TEST(evidence, status_cut_off)
{
    static const char *const bad[] = {
        "", "Name:\tx\n", "Threads:\t3\n", "Uid:\t99999999999\n", "Threads:\nUid:\n", "\n\n\n"};
    root_make();
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        file_make("/proc/4242/status", bad[i]);
        cr_assert(look() == DOCTOR_BROKEN, "\"%s\"", bad[i]);
    }
    root_remove();
}

EBB_TEST(evidence, stat_of_other_kinds)
{
    static const struct {
        const char *text;
        enum doctor_error error;
        enum source_state state;
    } cases[] = {
        {"", DOCTOR_OK, SOURCE_BROKEN},
        {"4242 (x", DOCTOR_OK, SOURCE_BROKEN},
        {"4242 (x) S 1 1", DOCTOR_OK, SOURCE_BROKEN},
        {"2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 0 0 0 20 0 1 0 2 0 0 0 0 0",
         DOCTOR_KERNEL_THREAD, SOURCE_READ},
        {"4242 (x) Z 1 1 1 0 -1 4228100 0 0 0 0 0 0 0 0 20 0 1 0 2 0 0 0 0 0", DOCTOR_ZOMBIE,
         SOURCE_READ},
    };
    root_make();
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        file_make("/proc/4242/stat", cases[i].text);
        cr_assert(look() == cases[i].error, "case %zu", i);
        cr_assert(facts.sources[SOURCE_STAT].state == cases[i].state, "case %zu", i);
    }
    root_remove();
}

EBB_TEST(evidence, maps_of_nonsense)
{
    root_make();
    file_make("/proc/4242/maps", "zz-yy rw-p\n\n7f0000000000-7f0000001000 rw-p 00000000 00:00 0 \n"
                                 "7f0000001000-7f00000");
    cr_assert(look() == DOCTOR_OK);
    cr_assert(facts.sources[SOURCE_MAPS].state == SOURCE_BROKEN);
    cr_assert(facts.pages.mappings_count == 1);
    file_make("/proc/4242/maps", "");
    cr_assert(look() == DOCTOR_OK && facts.pages.mappings_count == 0);
    root_remove();
}

EBB_TEST(evidence, absurd_numbers_of_a_cgroup)
{
    static const char *const texts[] = {"99999999999999999999999999", "-5",     "abc", "",
                                        "18446744073709551615",       "1e9 kB", "\n\n"};
    root_make();
    for (size_t i = 0; i < ARRAY_COUNT(texts); i++) {
        file_make("/sys/fs/cgroup/app/memory.max", texts[i]);
        cr_assert(look() == DOCTOR_OK, "%s", texts[i]);
        const struct source *source = &facts.sources[SOURCE_CGROUP];
        cr_assert(source->state == SOURCE_BROKEN, "%s", texts[i]);
        cr_assert(strstr(source->why, "memory.max says") != NULL, "%s", source->why);
        cr_assert(facts.cgroup.version == 0 && facts.cgroup.limit_bytes == UINT64_MAX);
    }
    file_make("/sys/fs/cgroup/app/memory.max", "max\n");
    cr_assert(look() == DOCTOR_OK && facts.sources[SOURCE_CGROUP].state == SOURCE_READ);
    cr_assert(facts.cgroup.limit_bytes == UINT64_MAX);
    for (size_t i = 0; i < ARRAY_COUNT(texts); i++) {
        char stat[256];
        snprintf(stat, sizeof(stat), "anon %s\nfile %s\nshmem %s\ninactive_file %s\n", texts[i],
                 texts[i], texts[i], texts[i]);
        file_make("/sys/fs/cgroup/app/memory.stat", stat);
        cr_assert(look() == DOCTOR_OK, "%s", texts[i]);
    }
    root_remove();
}

EBB_TEST(evidence, what_another_process_says_commands_nothing)
{
    root_make();
    file_make("/proc/4242/comm", "\033[2Jx\n");
    file_make("/proc/4242/cmdline", "prog\n\t\x1b]0;title\a");
    file_make("/proc/4242/environ", "GODEBUG=\033[31mred");
    cr_assert(look() == DOCTOR_OK);
    cr_assert(strchr(facts.process.name, '\033') == NULL);
    cr_assert(strchr(facts.process.command, '\033') == NULL &&
              strchr(facts.process.command, '\n') == NULL);
    cr_assert(strchr(facts_setting(&facts, "GODEBUG"), '\033') == NULL);
    root_remove();
}
