// SPDX-License-Identifier: MIT
//
// gops: what each command byte is answered.
//
// Go  gops agent.go handle.
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/agent_int.h"
#include "os/procfs.h"
#include "os/sys.h"
#include "release/release.h"
#include "stats/stats.h"

// Threads are shown up to here; the rest is counted.
#define THREADS_MAX 10000

// --- threads ---

static const char *state_text(char state)
{
    switch (state) {
    case 'R':
        return "running";
    case 'S':
        return "sleeping";
    case 'D':
        return "waiting for the disk";
    case 'T':
        return "stopped";
    case 't':
        return "stopped by a debugger";
    case 'Z':
    case 'X':
        return "ended";
    default:
        return "idle";
    }
}

static void path_make(char *buf, size_t cap, const char *task, const char *file)
{
    struct fmt path;
    fmt_init(&path, buf, cap);
    fmt_str(&path, "/proc/self/task/");
    fmt_str(&path, task);
    fmt_str(&path, file);
}

// Name, state and where in the kernel, of the thread whose number is task.
static void thread_answer(struct answer *answer, const char *task)
{
    char path[64];
    char stat[512];
    char where[64] = "";
    path_make(path, sizeof(path), task, "/stat");
    if (procfs_file_read(path, stat, sizeof(stat)) <= 0) {
        return; // it has ended
    }
    char *open = strchr(stat, '(');
    char *close = strrchr(stat, ')');
    if (open == NULL || close == NULL || close[1] == '\0') {
        return;
    }
    *close = '\0';
    answer_str(answer, "thread ");
    answer_str(answer, task);
    answer_str(answer, " [");
    answer_str(answer, state_text(close[2]));
    answer_str(answer, "]:\n");
    answer_str(answer, open + 1);
    answer_str(answer, "\n");
    path_make(path, sizeof(path), task, "/wchan");
    if (procfs_file_read(path, where, sizeof(where)) > 0 && strcmp(where, "0") != 0) {
        answer_str(answer, "\tin the kernel: ");
        answer_str(answer, where);
        answer_str(answer, "\n");
    }
    answer_str(answer, "\n");
}

struct task_entry {
    uint64_t inode;
    int64_t offset;
    uint16_t bytes;
    uint8_t type;
    char name[];
};

static void threads_visit(struct answer *answer, size_t *count, size_t show)
{
    char buf[4096] __attribute__((aligned(8)));
    long fd =
        sys_call4(SYS_openat, AT_FDCWD, "/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    *count = 0;
    while (fd >= 0) {
        long len = sys_call3(SYS_getdents64, fd, buf, sizeof(buf));
        if (len <= 0) {
            break;
        }
        for (long at = 0; at < len;) {
            const struct task_entry *entry = (const void *)(buf + at);
            at += entry->bytes;
            if (entry->name[0] == '.') {
                continue;
            }
            (*count)++;
            if (*count <= show) {
                thread_answer(answer, entry->name);
            }
        }
    }
    if (fd >= 0) {
        sys_call1(SYS_close, fd);
    }
}

static void stack_answer(struct job *job)
{
    size_t count;
    threads_visit(&job->answer, &count, THREADS_MAX);
    if (count > THREADS_MAX) {
        answer_str(&job->answer, "...additional threads elided...\n");
    }
}

// --- numbers ---

static void memstats_answer(struct job *job)
{
    struct ebb_memstats stats;
    char buf[2048];
    struct fmt text;
    memstats_read(&stats);
    fmt_init(&text, buf, sizeof(buf));
    memstats_print_gops(&text, &stats);
    answer_bytes(&job->answer, text.buf, text.len);
}

static void stats_answer(struct job *job)
{
    uint8_t mask[1024];
    size_t threads;
    uint64_t cpus = 0;
    threads_visit(&job->answer, &threads, 0);
    long bytes = sys_call3(SYS_sched_getaffinity, 0, sizeof(mask), mask);
    for (long i = 0; i < bytes; i++) {
        cpus += (uint64_t)__builtin_popcount(mask[i]);
    }
    answer_str(&job->answer, "goroutines: 0\nOS threads: ");
    answer_u64(&job->answer, threads);
    answer_str(&job->answer, "\nGOMAXPROCS: ");
    answer_u64(&job->answer, cpus);
    answer_str(&job->answer, "\nnum CPU: ");
    answer_u64(&job->answer, cpus);
    answer_str(&job->answer, "\n");
}

static void setgc_answer(struct job *job)
{
    char buf[FMT_LINE_BYTES];
    struct fmt text;
    int64_t percent;
    if (!gops_varint((const uint8_t *)job->body, job->body_len, &percent)) {
        return; // closed without an answer, as gops' client takes it best
    }
    fmt_init(&text, buf, sizeof(buf));
    fmt_str(&text, "New GC percent set to ");
    fmt_i64(&text, percent);
    // There is no collector: off before, and off now, whatever was asked.
    fmt_str(&text, ". Previous value was -1.\n");
    answer_bytes(&job->answer, text.buf, text.len);
}

static void binary_answer(struct job *job)
{
    struct stat st;
    long fd = sys_call4(SYS_openat, AT_FDCWD, "/proc/self/exe", O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0) {
        return;
    }
    if (sys_call4(SYS_newfstatat, fd, "", &st, AT_EMPTY_PATH) != 0) {
        sys_call1(SYS_close, fd);
        return;
    }
    job->file = (int)fd;
    job->file_bytes = (uint64_t)st.st_size;
}

// A profile that cannot be had is an empty reply: the client says that there was none.
static void profile_answer(struct job *job, const char *name)
{
    if (name != NULL) {
        named_binary(job, name);
    } else {
        named_cpu(job);
    }
    if (job->answer.status != 200) {
        answer_init(&job->answer, &job->region);
    }
}

void gops_answer(struct job *job)
{
    switch ((enum gops_command)job->command) {
    case GOPS_STACK:
        stack_answer(job);
        break;
    case GOPS_GC:
        agent_release();
        answer_str(&job->answer, "ok");
        break;
    case GOPS_MEMSTATS:
        memstats_answer(job);
        break;
    case GOPS_VERSION:
        answer_str(&job->answer, "ebb" EBB_VERSION_TEXT "\n");
        break;
    case GOPS_HEAP:
        profile_answer(job, "heap");
        break;
    case GOPS_CPU:
        profile_answer(job, NULL);
        break;
    case GOPS_STATS:
        stats_answer(job);
        break;
    case GOPS_TRACE:
        break; // Go's own format: an empty reply is "nothing has traced"
    case GOPS_BINARY:
        binary_answer(job);
        break;
    case GOPS_SETGC:
        setgc_answer(job);
        break;
    }
}
