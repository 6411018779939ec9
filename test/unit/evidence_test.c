// SPDX-License-Identifier: MIT
// Tier  quick
//
// The doctor's readers, shown files of /proc that are cut off, absurd or of another kernel: each is
// a clear outcome, never a crash. The files are made below a root of their own.
//
// Go  none
#include "support/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "doctor/parts.h"
#include "os/cgroup.h"

// No process can have it (PID_MAX_LIMIT is 4194304): what is read beside these files finds nothing.
#define PID 5000000
#define PROC "/proc/5000000"
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
#define GOOD_STAT "5000000 (a) b) S 1 1 1 0 -1 4194560 7 0 0 0 11 22 0 0 20 0 3 0 100 1 1 1 1 1\n"

static void root_make(void)
{
    snprintf(root, sizeof(root), "/tmp/ebb-evidence-XXXXXX");
    cr_assert(mkdtemp(root) != NULL);
    file_make(PROC "/status", GOOD_STATUS);
    file_make(PROC "/stat", GOOD_STAT);
    file_make(PROC "/comm", "a) b\n");
    file_make(PROC "/cmdline", "prog");
    file_make(PROC "/environ", "GOGC=50");
    file_make(PROC "/maps", "7f0000000000-7f0000001000 rw-p 00000000 00:00 0 \n");
    file_make("/proc/uptime", "1000.00 900.00\n");
    file_make(PROC "/cgroup", "0::/app\n");
    file_make("/proc/self/mountinfo",
              "30 20 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n");
    file_make("/sys/fs/cgroup/app/memory.current", "1000000\n");
    file_make("/sys/fs/cgroup/app/memory.max", "2000000\n");
    file_make("/sys/fs/cgroup/app/memory.stat", "anon 600000\nfile 300000\nshmem 100000\n"
                                                "inactive_file 150000\nactive_file 50000\n");
    file_make("/sys/fs/cgroup/app/cgroup.procs", "5000000\n");
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
    cr_assert(p->age_ns == 999 * NS_PER_S);
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

// execve takes more than is read: then what was not seen is not said to be unset.
EBB_TEST(evidence, an_environment_that_is_cut)
{
    static char text[300 * KIB];
    root_make();
    memset(text, 'x', sizeof(text) - 1);
    memcpy(text, "GOGC=50", 7);
    file_make(PROC "/environ", text);
    cr_assert(look() == DOCTOR_OK && facts.sources[SOURCE_ENVIRON].state == SOURCE_READ);
    cr_assert_str_eq(facts.sources[SOURCE_ENVIRON].why, "its first 256 KiB");
    file_make(PROC "/environ", "GOGC=50");
    cr_assert(look() == DOCTOR_OK && facts.sources[SOURCE_ENVIRON].why[0] == '\0');
    root_remove();
}

EBB_TEST(evidence, an_agent_of_gops)
{
    root_make();
    cr_assert(look() == DOCTOR_OK && facts.process.gops_port == 0);
    file_make(PROC "/environ", "HOME=/home/x");
    file_make(PROC "/root/home/x/.config/gops/5000000", "40145");
    cr_assert(look() == DOCTOR_OK && facts.process.gops_port == 40145);
    file_make(PROC "/root/home/x/.config/gops/5000000", "99999999");
    cr_assert(look() == DOCTOR_OK && facts.process.gops_port == 0);
    file_make(PROC "/environ", "HOME=relative");
    cr_assert(look() == DOCTOR_OK && facts.process.gops_port == 0);
    root_remove();
}

// Where it leads, the process decides: never to what blocks, or is not there to be read.
EBB_TEST(evidence, a_file_of_gops_that_is_none)
{
    char file[512];
    char port[512];
    root_make();
    file_make(PROC "/environ", "GOPS_CONFIG_DIR=/g");
    file_make(PROC "/root/g/port", "40145");
    snprintf(file, sizeof(file), "%s" PROC "/root/g/5000000", root);
    snprintf(port, sizeof(port), "%s" PROC "/root/g/port", root);
    cr_assert(symlink(port, file) == 0);
    cr_assert(look() == DOCTOR_OK && facts.process.gops_port == 0);
    cr_assert(unlink(file) == 0 && mkfifo(file, 0600) == 0);
    cr_assert(look() == DOCTOR_OK && facts.process.gops_port == 0);
    root_remove();
}

// A container's /home may be a link to its /var/home. Ours, of that name, is another.
EBB_TEST(evidence, a_folder_of_gops_behind_a_link)
{
    char link[512];
    root_make();
    file_make(PROC "/environ", "HOME=/home/x");
    file_make(PROC "/root/var/home/x/.config/gops/5000000", "40145");
    snprintf(link, sizeof(link), "%s" PROC "/root/home", root);
    cr_assert(symlink("/var/home", link) == 0);
    cr_assert(look() == DOCTOR_OK && facts.process.gops_port == 40145);
    file_make("/var/home/x/.config/gops/5000000", "40146");
    cr_assert(unlink(link) == 0 && symlink("../../../var/home", link) == 0);
    cr_assert(look() == DOCTOR_OK && facts.process.gops_port == 40145);
    root_remove();
}

// openat2 is of Linux 5.6, and filters of older containers know nothing of it: the last part may
// not be a link then.
EBB_TEST(evidence, a_file_of_gops_without_openat2)
{
    static const int errors[] = {ENOSYS, EPERM};
    char file[512];
    root_make();
    file_make(PROC "/environ", "GOPS_CONFIG_DIR=/g");
    file_make(PROC "/root/g/5000000", "40145");
    file_make(PROC "/root/port", "40146");
    for (size_t i = 0; i < ARRAY_COUNT(errors); i++) {
        pid_t child = fork();
        if (child == 0) {
            bool held = frame_forbid(SYS_openat2, errors[i]) && look() == DOCTOR_OK &&
                        facts.process.gops_port == 40145;
            snprintf(file, sizeof(file), "%s" PROC "/root/g/5000000", root);
            held = held && unlink(file) == 0 && symlink("../port", file) == 0 &&
                   look() == DOCTOR_OK && facts.process.gops_port == 0;
            _exit(held ? 0 : 1);
        }
        int status;
        cr_assert(waitpid(child, &status, 0) == child && status == 0, "row %zu: %d", i, status);
        snprintf(file, sizeof(file), "%s" PROC "/root/g/5000000", root);
        cr_assert(look() == DOCTOR_OK && facts.process.gops_port == 40146);
        cr_assert(unlink(file) == 0);
        file_make(PROC "/root/g/5000000", "40145");
    }
    root_remove();
}

EBB_TEST(evidence, an_agent_of_gops_in_a_container)
{
    root_make();
    file_make(PROC "/status", GOOD_STATUS "NSpid:\t5000000\t70\t7\nNSpgid:\t1\n");
    file_make(PROC "/environ", "HOME=/root");
    file_make(PROC "/root/root/.config/gops/7", "40145");
    cr_assert(look() == DOCTOR_OK && facts.process.gops_port == 40145);
    root_remove();
}

EBB_TEST(evidence, no_such_process)
{
    const struct doctor_options options = {.root = root};
    root_make();
    cr_assert(doctor_look(PID + 1, &options, &facts) == DOCTOR_NO_PROCESS);
    root_remove();
}

EBB_TEST(evidence, another_with_its_number)
{
    char path[512];
    const struct doctor_options options = {.root = root};
    struct exam exam = {.facts = &facts, .options = &options};
    root_make();
    cr_assert(look() == DOCTOR_OK);
    cr_assert_eq(facts.process.start_ticks, 100);
    evidence_end(&exam);
    cr_assert(exam.error == DOCTOR_OK);
    file_make(PROC "/stat", "5000000 (a) S 1 1 1 0 -1 4194560 7 0 0 0 11 22 0 0 20 0 3 0 101 1\n");
    evidence_end(&exam);
    cr_assert(exam.error == DOCTOR_ENDED, "started later");
    exam.error = DOCTOR_OK;
    file_make(PROC "/stat", "5000000 (a) Z 1 1 1 0 -1 4194560 7 0 0 0 11 22 0 0 20 0 3 0 100 1\n");
    evidence_end(&exam);
    cr_assert(exam.error == DOCTOR_ENDED, "nobody has waited for it yet");
    exam.error = DOCTOR_OK;
    snprintf(path, sizeof(path), "%s" PROC "/stat", root);
    unlink(path);
    evidence_end(&exam);
    cr_assert(exam.error == DOCTOR_ENDED, "gone");
    root_remove();
}

EBB_TEST(evidence, status_cut_off)
{
    static const char *const bad[] = {
        "", "Name:\tx\n", "Threads:\t3\n", "Uid:\t99999999999\n", "Threads:\nUid:\n", "\n\n\n"};
    root_make();
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        file_make(PROC "/status", bad[i]);
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
        {"5000000 (x", DOCTOR_OK, SOURCE_BROKEN},
        {"5000000 (x) S 1 1", DOCTOR_OK, SOURCE_BROKEN},
        {"2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 0 0 0 20 0 1 0 2 0 0 0 0 0",
         DOCTOR_KERNEL_THREAD, SOURCE_READ},
        {"5000000 (x) Z 1 1 1 0 -1 4228100 0 0 0 0 0 0 0 0 20 0 1 0 2 0 0 0 0 0", DOCTOR_ZOMBIE,
         SOURCE_READ},
    };
    root_make();
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        file_make(PROC "/stat", cases[i].text);
        cr_assert(look() == cases[i].error, "case %zu", i);
        cr_assert(facts.sources[SOURCE_STAT].state == cases[i].state, "case %zu", i);
    }
    root_remove();
}

EBB_TEST(evidence, maps_of_nonsense)
{
    root_make();
    file_make(PROC "/maps", "zz-yy rw-p\n\n7f0000000000-7f0000001000 rw-p 00000000 00:00 0 \n"
                            "7f0000001000-7f00000");
    cr_assert(look() == DOCTOR_OK);
    cr_assert(facts.sources[SOURCE_MAPS].state == SOURCE_BROKEN);
    cr_assert(facts.pages.mappings_count == 1);
    file_make(PROC "/maps", "");
    cr_assert(look() == DOCTOR_OK && facts.pages.mappings_count == 0);
    root_remove();
}

// The vmas of a text; vmas_free is the caller's.
static struct exam maps_exam(const char *text)
{
    static const struct doctor_options options = {.root = root, .exact = true};
    file_make(PROC "/maps", text);
    memset(&facts, 0, sizeof(facts));
    facts.pid = PID;
    struct exam exam = {.facts = &facts, .options = &options};
    evidence_maps(&exam);
    return exam;
}

// What a program was started from can be replaced while it runs; shared memory never had a file.
EBB_TEST(evidence, maps_of_removed_files)
{
    root_make();
    struct exam exam = maps_exam("10000-20000 r-xp 0 fe:01 7  /usr/bin/x (deleted)\n"
                                 "20000-30000 rw-p 10000 fe:01 7  /usr/bin/x (deleted)\n"
                                 "30000-40000 rw-p 0 00:00 0 \n"
                                 "50000-60000 rw-s 0 00:01 9  /memfd:pool (deleted)\n"
                                 "60000-70000 r-xp 0 fe:01 8  /usr/lib/y.so\n");
    cr_assert(exam.vmas_count == 5);
    cr_assert_str_eq(exam.vmas[0].path, "/usr/bin/x");
    cr_assert(exam.vmas[0].removed && exam.vmas[1].removed && !exam.vmas[4].removed);
    cr_assert(exam.vmas[1].path == exam.vmas[0].path && exam.vmas[2].path[0] == '\0');
    cr_assert(exam.vmas[2].place == PLACE_DATA);
    cr_assert_str_eq(exam.vmas[3].path, "/memfd:pool (deleted)");
    vmas_free(&exam);
    root_remove();
}

// A path that is longer than the buffer, and ends in what looks like a mapping.
EBB_TEST(evidence, maps_with_forged_lines)
{
    static char text[3 * PATH_MAX];
    root_make();
    int head = snprintf(text, sizeof(text), "30000-40000 r--p 0 fe:01 7  /");
    memset(text + head, 'x', 2 * PATH_MAX - 1 - (size_t)head);
    strcpy(text + 2 * PATH_MAX - 1, "50000-60000 rw-p 0 00:00 0 \n70000-80000 rw-p 0 00:00 0 \n");
    struct exam exam = maps_exam(text);
    cr_assert(exam.vmas_count == 2 && exam.vmas[1].start == 0x70000);
    vmas_free(&exam);
    // What was joined while it was read; what lies below what has been read; what is there twice.
    exam = maps_exam("30000-40000 rw-p 0 00:00 0 \n20000-50000 rw-p 0 00:00 0 \n"
                     "10000-20000 rw-p 0 00:00 0 \n40000-50000 rw-p 0 00:00 0 \n");
    cr_assert(exam.vmas_count == 2 && exam.vmas[1].start == 0x40000 && exam.vmas[1].end == 0x50000);
    cr_assert(facts.sources[SOURCE_MAPS].state == SOURCE_BROKEN);
    vmas_free(&exam);
    root_remove();
}

EBB_TEST(evidence, pieces_that_there_is_no_time_for)
{
    static const struct doctor_options options = {.root = root};
    frame_allow_mappings(64); // large blocks, which a sanitizer keeps for a while
    root_make();
    struct exam exam = maps_exam("10000-90000000 rw-p 0 00:00 0 \n");
    struct parts *parts = parts_new(&exam, HEAP_JEMALLOC);
    for (uint64_t i = 1; i <= 2000; i++) {
        parts_add(parts, i * 0x20000, i * 0x20000 + 0x10000, PART_SLAB);
    }
    size_t index = heap_add(&exam, HEAP_JEMALLOC);
    exam.options = &options; // the deadline was long ago
    parts_claim(&exam, parts, index);
    cr_assert(parts->cut && exam.vmas_count == 1 + 2 * 1024);
    exam.deadline_ns = UINT64_MAX;
    parts->cut = false;
    parts_claim(&exam, parts, index);
    cr_assert(!parts->cut && exam.vmas_count == 1 + 2 * 2000);
    parts_free(&exam);
    vmas_free(&exam);
    root_remove();
}

// "/" is the machine, or a container in a namespace of its own: there its limit and usage are.
EBB_TEST(evidence, root_of_the_cgroups)
{
    root_make();
    file_make(PROC "/cgroup", "0::/\n");
    file_make("/sys/fs/cgroup/memory.stat", "anon 1\nfile 2\nshmem 0\n");
    cr_assert(look() == DOCTOR_OK && facts.cgroup.version == 2 && facts.cgroup.root);
    cr_assert(!facts.cgroup.alone && facts.cgroup.processes_count == 0);
    file_make("/sys/fs/cgroup/memory.current", "1000000\n");
    file_make("/sys/fs/cgroup/memory.max", "2000000\n");
    file_make("/sys/fs/cgroup/cgroup.procs", "5000000\n");
    cr_assert(look() == DOCTOR_OK && !facts.cgroup.root);
    cr_assert(facts.cgroup.limit_bytes == 2000000 && facts.cgroup.usage_bytes == 1000000);
    cr_assert_str_eq(facts.cgroup.name, "/");

    file_make(PROC "/cgroup", "4:memory:/\n0::/\n");
    file_make("/proc/self/mountinfo",
              "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n");
    file_make("/sys/fs/cgroup/memory/memory.usage_in_bytes", "1000000\n");
    file_make("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    cr_assert(look() == DOCTOR_OK && facts.cgroup.version == 1 && !facts.cgroup.root);
    file_make("/sys/fs/cgroup/memory/release_agent", "");
    cr_assert(look() == DOCTOR_OK && facts.cgroup.version == 1 && facts.cgroup.root);
    root_remove();
}

// Where the memory controller is not enabled in its own cgroup, the numbers are of one above: so
// are the name and the processes.
EBB_TEST(evidence, cgroup_further_up)
{
    root_make();
    file_make(PROC "/cgroup", "0::/app/inner/most\n");
    file_make("/sys/fs/cgroup/app/cgroup.procs", "");
    file_make("/sys/fs/cgroup/app/inner/most/cgroup.procs", "5000000\n");
    cr_assert(look() == DOCTOR_OK && facts.cgroup.alone);
    cr_assert(facts.cgroup.usage_bytes == 1000000 && facts.cgroup.processes_count == 1);
    cr_assert_str_eq(facts.cgroup.name, "/app");
    file_make("/sys/fs/cgroup/app/other/cgroup.procs", "0\n"); // of another PID namespace
    cr_assert(look() == DOCTOR_OK && !facts.cgroup.alone && facts.cgroup.processes_count == 2);
    root_remove();
}

// As on a node of Kubernetes with version 1, where the memory controller may come last.
EBB_TEST(evidence, many_hierarchies)
{
    static char text[CGROUP_TEXT_BYTES];
    root_make();
    size_t len = 0;
    for (int i = 14; i > 0; i--) {
        len +=
            (size_t)snprintf(text + len, sizeof(text) - len, "%d:x%d:/kubepods/%0200d\n", i, i, i);
    }
    snprintf(text + len, sizeof(text) - len, "0::/app\n");
    file_make(PROC "/cgroup", text);
    cr_assert(look() == DOCTOR_OK && facts.cgroup.version == 2);
    cr_assert_str_eq(facts.cgroup.name, "/app");
    root_remove();
}

// kpageflags of Linux 6.1: a huge page of 512 at frame 512, one of 16 at 1040, small ones.
EBB_TEST(evidence, flags_of_frames)
{
    enum { SMALL = 1 << 12 | 1 << 14, HEAD = SMALL | 1 << 15, TAIL = 1 << 12 | 1 << 16 };
    static uint64_t words[1100];
    FILE *file = tmpfile();
    for (size_t i = 0; i < ARRAY_COUNT(words); i++) {
        bool huge = (i >= 512 && i < 1024) || (i >= 1040 && i < 1056);
        words[i] = i == 512 || i == 1040 ? HEAD : huge ? TAIL : SMALL;
    }
    words[0] = TAIL; // torn: there is nothing before it
    cr_assert(file != NULL && fwrite(words, sizeof(words), 1, file) == 1 && fflush(file) == 0);
    uint64_t flags;
    for (size_t i = 1; i < ARRAY_COUNT(words); i++) {
        cr_assert(frame_flags(fileno(file), i, &flags), "frame %zu", i);
        cr_assert(flags == (words[i] == TAIL ? HEAD : words[i]), "frame %zu", i);
    }
    cr_assert(frame_flags(fileno(file), 0, &flags) && flags == TAIL);
    cr_assert(!frame_flags(fileno(file), ARRAY_COUNT(words), &flags));
    fclose(file);
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
    file_make(PROC "/comm", "\033[2Jx\n");
    file_make(PROC "/cmdline", "prog\n\t\x1b]0;title\a");
    file_make(PROC "/environ", "GODEBUG=\033[31mred");
    cr_assert(look() == DOCTOR_OK);
    cr_assert(strchr(facts.process.name, '\033') == NULL);
    cr_assert(strchr(facts.process.command, '\033') == NULL &&
              strchr(facts.process.command, '\n') == NULL);
    cr_assert(strchr(facts_setting(&facts, "GODEBUG"), '\033') == NULL);
    root_remove();
}
