// SPDX-License-Identifier: MIT
//
// Procfs: readers and parsers of procfs.h.
//
// Flow
//   A reader makes the path (pid_path), reads the file into its own stack (procfs_file_read) and
//   hands the text to its parser: by fields of a name (fields_parse), or by their number (stat).
//
// Go  none
#include "os/procfs.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/fmt.h"
#include "os/sys.h"

// Room for /proc/4194304/task/4194304/status.
#define PROCFS_PATH_BYTES 64
// A status file has some 1500 bytes; the list of groups and the masks of a large machine make it
// longer, to which the double of what was ever seen leaves room.
#define PROCFS_FILE_BYTES 8192

// One line "Name:  123" of a file: where its number goes, and what it is multiplied by.
struct field {
    const char *name;
    size_t offset;
    uint64_t scale;
};

#define STATUS_FIELD(name, member, scale)                                                          \
    {                                                                                              \
        name, offsetof(struct procfs_memory, member), scale                                        \
    }
#define ROLLUP_FIELD(name, member)                                                                 \
    {                                                                                              \
        name, offsetof(struct procfs_rollup, member), 1024                                         \
    }

static const struct field status_fields[] = {
    STATUS_FIELD("VmPeak:", vm_peak_bytes, 1024),
    STATUS_FIELD("VmSize:", vm_size_bytes, 1024),
    STATUS_FIELD("VmHWM:", vm_hwm_bytes, 1024),
    STATUS_FIELD("VmRSS:", rss_bytes, 1024),
    STATUS_FIELD("RssAnon:", rss_anon_bytes, 1024),
    STATUS_FIELD("RssFile:", rss_file_bytes, 1024),
    STATUS_FIELD("RssShmem:", rss_shmem_bytes, 1024),
    STATUS_FIELD("VmSwap:", swap_bytes, 1024),
    STATUS_FIELD("Threads:", threads_count, 1),
    STATUS_FIELD("voluntary_ctxt_switches:", voluntary_switches_count, 1),
    STATUS_FIELD("nonvoluntary_ctxt_switches:", involuntary_switches_count, 1),
};

static const struct field rollup_fields[] = {
    ROLLUP_FIELD("Rss:", rss_bytes),
    ROLLUP_FIELD("Pss:", pss_bytes),
    ROLLUP_FIELD("Private_Clean:", private_clean_bytes),
    ROLLUP_FIELD("Private_Dirty:", private_dirty_bytes),
    ROLLUP_FIELD("Anonymous:", anonymous_bytes),
    ROLLUP_FIELD("LazyFree:", lazyfree_bytes),
    ROLLUP_FIELD("AnonHugePages:", anon_huge_bytes),
    ROLLUP_FIELD("Swap:", swap_bytes),
};

bool procfs_number_u64(const char *text, size_t len, uint64_t *value)
{
    size_t at = 0;
    while (at < len && (text[at] == ' ' || text[at] == '\t')) {
        at++;
    }
    size_t first = at;
    uint64_t sum = 0;
    for (; at < len && text[at] >= '0' && text[at] <= '9'; at++) {
        uint64_t digit = (uint64_t)(text[at] - '0');
        sum = sum > (UINT64_MAX - digit) / 10 ? UINT64_MAX : sum * 10 + digit;
    }
    if (at == first) {
        return false;
    }
    *value = sum;
    return true;
}

bool procfs_field_u64(const char *text, size_t len, const char *name, uint64_t *value)
{
    size_t name_len = strlen(name);
    while (len > 0) {
        const char *newline = memchr(text, '\n', len);
        size_t line_len = newline == NULL ? len : (size_t)(newline - text);
        // "cache" must not find "cache_bytes 1": a blank follows the name.
        if (line_len > name_len && memcmp(text, name, name_len) == 0 &&
            (text[name_len] == ' ' || text[name_len] == '\t')) {
            return procfs_number_u64(text + name_len, line_len - name_len, value);
        }
        if (newline == NULL) {
            return false;
        }
        text += line_len + 1;
        len -= line_len + 1;
    }
    return false;
}

static void fields_parse(const char *text, size_t len, const struct field *fields, size_t count,
                         void *out)
{
    for (size_t i = 0; i < count; i++) {
        uint64_t value = 0;
        if (procfs_field_u64(text, len, fields[i].name, &value)) {
            value = value > UINT64_MAX / fields[i].scale ? UINT64_MAX : value * fields[i].scale;
        }
        memcpy((char *)out + fields[i].offset, &value, sizeof value);
    }
}

bool procfs_status_parse(const char *text, size_t len, struct procfs_memory *out)
{
    uint64_t value;
    // Kernel threads and zombies have no Vm lines: zero is the truth for them.
    if (!procfs_field_u64(text, len, "Threads:", &value)) {
        return false;
    }
    memset(out, 0, sizeof *out);
    fields_parse(text, len, status_fields, ARRAY_COUNT(status_fields), out);
    out->seccomp = procfs_field_u64(text, len, "Seccomp:", &value) ? (int)value : -1;
    return true;
}

bool procfs_rollup_parse(const char *text, size_t len, struct procfs_rollup *out)
{
    uint64_t value;
    if (!procfs_field_u64(text, len, "Rss:", &value)) {
        return false;
    }
    memset(out, 0, sizeof *out);
    fields_parse(text, len, rollup_fields, ARRAY_COUNT(rollup_fields), out);
    return true;
}

static long file_open(const char *path, int flags)
{
    return sys_call3(SYS_openat, AT_FDCWD, (uintptr_t)path, flags | O_RDONLY | O_CLOEXEC);
}

// One read; a signal in between is passed over.
static long file_read(long fd, void *buf, size_t cap)
{
    long n;
    do {
        n = sys_call3(SYS_read, fd, (uintptr_t)buf, cap);
    } while (n == -EINTR);
    return n;
}

long procfs_file_read(const char *path, char *buf, size_t cap)
{
    long fd = file_open(path, 0);
    if (fd < 0) {
        return fd;
    }
    size_t len = 0;
    long n = 0;
    while (len + 1 < cap && (n = file_read(fd, buf + len, cap - 1 - len)) > 0) {
        len += (size_t)n;
    }
    sys_call1(SYS_close, fd);
    buf[len] = '\0';
    return n < 0 ? n : (long)len;
}

// Writes /proc/PID/name or /proc/self/name.
static void pid_path(char path[static PROCFS_PATH_BYTES], int pid, const char *name)
{
    struct fmt f;
    fmt_init(&f, path, PROCFS_PATH_BYTES);
    fmt_str(&f, "/proc/");
    if (pid == 0) {
        fmt_str(&f, "self");
    } else {
        fmt_i64(&f, pid);
    }
    fmt_char(&f, '/');
    fmt_str(&f, name);
}

// Fields of /proc/PID/stat, as proc_pid_stat(5) numbers them, and flags of include/linux/sched.h.
enum { STAT_FLAGS = 9, STAT_USER = 14, STAT_SYSTEM = 15, STAT_START = 22, STAT_FIELDS };
#define FLAG_EXITING UINT64_C(0x00000004)
#define FLAG_KERNEL_THREAD UINT64_C(0x00200000)

bool procfs_stat_parse(const char *text, size_t len, struct procfs_stat *out)
{
    uint64_t fields[STAT_FIELDS] = {0};
    const char *end = text + len;
    // The name, in parentheses, may hold anything: the last one closes it.
    const char *at = memrchr(text, ')', len);
    if (at == NULL || end - at < 3) {
        return false;
    }
    at += 2;
    char state = *at;
    for (size_t i = 4; i < STAT_FIELDS; i++) {
        at = memchr(at, ' ', (size_t)(end - at));
        if (at == NULL) {
            return false;
        }
        at++;
        (void)procfs_number_u64(at, (size_t)(end - at), &fields[i]); // some are negative
    }
    *out = (struct procfs_stat){
        .state = state,
        .kernel_thread = (fields[STAT_FLAGS] & FLAG_KERNEL_THREAD) != 0,
        .exiting = (fields[STAT_FLAGS] & FLAG_EXITING) != 0,
        .user_ticks = fields[STAT_USER],
        .system_ticks = fields[STAT_SYSTEM],
        .start_ticks = fields[STAT_START],
    };
    return true;
}

bool procfs_stat_read(int pid, struct procfs_stat *out)
{
    char path[PROCFS_PATH_BYTES];
    char text[1024];
    pid_path(path, pid, "stat");
    long len = procfs_file_read(path, text, sizeof text);
    return len > 0 && procfs_stat_parse(text, (size_t)len, out);
}

bool procfs_memory_read(int pid, struct procfs_memory *out)
{
    char path[PROCFS_PATH_BYTES];
    char text[PROCFS_FILE_BYTES];
    pid_path(path, pid, "status");
    long len = procfs_file_read(path, text, sizeof text);
    return len > 0 && procfs_status_parse(text, (size_t)len, out);
}

bool procfs_rollup_read(int pid, struct procfs_rollup *out)
{
    char path[PROCFS_PATH_BYTES];
    char text[PROCFS_FILE_BYTES];
    pid_path(path, pid, "smaps_rollup");
    long len = procfs_file_read(path, text, sizeof text);
    return len > 0 && procfs_rollup_parse(text, (size_t)len, out);
}

// The kernel's directory entry, as getdents64 writes it.
struct dirent_head {
    uint64_t inode;
    int64_t next;
    uint16_t bytes;
    uint8_t type;
};

#define DIRENT_NAME_OFFSET 19 // behind type, without padding

// Adds the switches of one thread; one that has ended meanwhile counts nothing.
static void switches_add(int pid, const char *tid, struct procfs_switches *sum)
{
    char path[PROCFS_PATH_BYTES];
    char text[PROCFS_FILE_BYTES];
    struct procfs_memory thread;
    pid_path(path, pid, "task/");
    struct fmt f = {.buf = path, .cap = sizeof path, .len = strlen(path), .truncated = false};
    fmt_str(&f, tid);
    fmt_str(&f, "/status");
    long len = procfs_file_read(path, text, sizeof text);
    if (len > 0 && procfs_status_parse(text, (size_t)len, &thread)) {
        sum->voluntary_count += thread.voluntary_switches_count;
        sum->involuntary_count += thread.involuntary_switches_count;
        sum->threads_count++;
    }
}

bool procfs_switches_read(int pid, struct procfs_switches *out)
{
    char path[PROCFS_PATH_BYTES];
    char entries[1024];
    pid_path(path, pid, "task");
    long fd = file_open(path, O_DIRECTORY);
    if (fd < 0) {
        return false;
    }
    struct procfs_switches sum = {0};
    long len;
    while ((len = sys_call3(SYS_getdents64, fd, (uintptr_t)entries, sizeof entries)) > 0) {
        for (long at = 0; at < len;) {
            struct dirent_head head;
            memcpy(&head, entries + at, sizeof head);
            const char *name = entries + at + DIRENT_NAME_OFFSET;
            if (name[0] != '.') {
                switches_add(pid, name, &sum);
            }
            at += head.bytes;
        }
    }
    sys_call1(SYS_close, fd);
    if (len < 0 || sum.threads_count == 0) {
        return false;
    }
    *out = sum;
    return true;
}

int64_t procfs_maps_count(int pid)
{
    char path[PROCFS_PATH_BYTES];
    char text[PROCFS_FILE_BYTES];
    pid_path(path, pid, "maps");
    long fd = file_open(path, 0);
    if (fd < 0) {
        return -1;
    }
    int64_t lines = 0;
    long n;
    while ((n = file_read(fd, text, sizeof text)) > 0) {
        for (long i = 0; i < n; i++) {
            lines += text[i] == '\n';
        }
    }
    sys_call1(SYS_close, fd);
    return n < 0 ? -1 : lines;
}

int procfs_overcommit(void)
{
    char text[16];
    uint64_t value;
    long len = procfs_file_read("/proc/sys/vm/overcommit_memory", text, sizeof text);
    return len > 0 && procfs_number_u64(text, (size_t)len, &value) ? (int)value : -1;
}

int procfs_seccomp(int pid)
{
    struct procfs_memory memory;
    return procfs_memory_read(pid, &memory) ? memory.seccomp : -1;
}
