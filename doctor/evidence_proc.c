// SPDX-License-Identifier: MIT
//
// Doctor, evidence of the process as a whole: its status, its names, the settings that allocators
// and runtimes take from its environment; and of the kernel it runs on.
//
// Go  none.
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "doctor_int.h"
#include "os/procfs.h"

#define STATUS_BYTES 8192
// Environments are some KiB; execve allows a quarter of the stack's limit, 2 MiB as a rule.
#define ENVIRON_BYTES (256 * KIB)

static bool uid_parse(const char *text, size_t len, uint32_t *uid)
{
    uint64_t value;
    if (!procfs_field_u64(text, len, "Uid:", &value) || value > UINT32_MAX) {
        return false;
    }
    *uid = (uint32_t)value;
    return true;
}

void evidence_status(struct exam *exam)
{
    uint64_t begun = source_begin();
    struct facts_process *process = &exam->facts->process;
    char text[STATUS_BYTES];
    struct procfs_memory memory;
    long len = exam_file_read(exam, "status", text, sizeof(text));
    if (len < 0) {
        source_error(exam, SOURCE_STATUS, begun, len);
        exam->error = len == -ENOENT ? DOCTOR_NO_PROCESS : exam->error;
        return;
    }
    if (!procfs_status_parse(text, (size_t)len, &memory) ||
        !uid_parse(text, (size_t)len, &process->uid)) {
        source_end(exam, SOURCE_STATUS, begun, SOURCE_BROKEN, "it has no Threads or no Uid line");
        exam->error = DOCTOR_BROKEN;
        return;
    }
    process->rss_bytes = memory.rss_bytes;
    process->anon_bytes = memory.rss_anon_bytes;
    process->file_bytes = memory.rss_file_bytes;
    process->shmem_bytes = memory.rss_shmem_bytes;
    process->swap_bytes = memory.swap_bytes;
    process->peak_rss_bytes = memory.vm_hwm_bytes;
    process->vm_size_bytes = memory.vm_size_bytes;
    process->threads_count = memory.threads_count;
    source_end(exam, SOURCE_STATUS, begun, SOURCE_READ, NULL);
}

void evidence_rss_again(struct exam *exam)
{
    char text[STATUS_BYTES];
    struct procfs_memory memory;
    long len = exam_file_read(exam, "status", text, sizeof(text));
    if (len > 0 && procfs_status_parse(text, (size_t)len, &memory)) {
        exam->facts->process.rss_after_bytes = memory.rss_bytes;
    }
}

// Nanoseconds since the machine started, as the kernel counts the start of processes.
static uint64_t uptime_ns(const struct exam *exam)
{
    char path[256];
    char text[64];
    snprintf(path, sizeof(path), "%s/proc/uptime", exam->options->root);
    long len = procfs_file_read(path, text, sizeof(text));
    double seconds = len > 0 ? strtod(text, NULL) : 0;
    return seconds > 0 && seconds < 1e10 ? (uint64_t)(seconds * 1e9) : 0;
}

static void stat_read(struct exam *exam)
{
    uint64_t begun = source_begin();
    struct facts_process *process = &exam->facts->process;
    char text[1024];
    struct procfs_stat stat;
    long len = exam_file_read(exam, "stat", text, sizeof(text));
    if (len < 0) {
        source_error(exam, SOURCE_STAT, begun, len);
        return;
    }
    if (!procfs_stat_parse(text, (size_t)len, &stat)) {
        source_end(exam, SOURCE_STAT, begun, SOURCE_BROKEN, "it is cut off, or of another kind");
        return;
    }
    const uint64_t tick_ns = NS_PER_S / PROCFS_TICKS_PER_S;
    uint64_t uptime = uptime_ns(exam);
    uint64_t started = stat.start_ticks * tick_ns;
    process->state = stat.state;
    process->start_ticks = stat.start_ticks;
    process->cpu_ns = (stat.user_ticks + stat.system_ticks) * tick_ns;
    process->age_ns = uptime > started ? uptime - started : 0;
    if (stat.kernel_thread) {
        exam->error = DOCTOR_KERNEL_THREAD;
    } else if (stat.state == 'Z' || stat.state == 'X' || stat.exiting) {
        exam->error = DOCTOR_ZOMBIE;
    }
    source_end(exam, SOURCE_STAT, begun, SOURCE_READ, NULL);
}

void evidence_end(struct exam *exam)
{
    char text[1024];
    struct procfs_stat now;
    uint64_t started = exam->facts->process.start_ticks;
    long len = exam_file_read(exam, "stat", text, sizeof(text));
    bool other = len > 0 && procfs_stat_parse(text, (size_t)len, &now) &&
                 (now.start_ticks != started || now.state == 'Z' || now.state == 'X');
    // What was read meanwhile may be of nobody, or of two.
    if (started != 0 && (len == -ENOENT || len == -ESRCH || other)) {
        exam->error = DOCTOR_ENDED;
    }
}

void text_printable(char *text)
{
    for (; *text != '\0'; text++) {
        unsigned char c = (unsigned char)*text;
        if (c < ' ' || c >= 0x7f) {
            *text = '?';
        }
    }
}

static void cmdline_read(struct exam *exam)
{
    struct facts_process *process = &exam->facts->process;
    char *text = process->command;
    long len = exam_file_read(exam, "cmdline", text, sizeof(process->command));
    for (long i = 0; i + 1 < len; i++) {
        text[i] = text[i] == '\0' ? ' ' : text[i];
    }
    // Servers that write their own title pad it.
    size_t end = len > 0 ? strlen(text) : 0;
    while (end > 0 && text[end - 1] == ' ') {
        end--;
    }
    text[end] = '\0';
    text_printable(text);
}

void evidence_command(struct exam *exam)
{
    stat_read(exam);
    uint64_t begun = source_begin();
    struct facts_process *process = &exam->facts->process;
    long len = exam_file_read(exam, "comm", process->name, sizeof(process->name));
    if (len <= 0) {
        source_error(exam, SOURCE_COMMAND, begun, len == 0 ? -ESRCH : len);
        return;
    }
    process->name[strcspn(process->name, "\n")] = '\0';
    text_printable(process->name);
    cmdline_read(exam);
    char path[256];
    snprintf(path, sizeof(path), "%s/proc/%d/exe", exam->options->root, exam->facts->pid);
    ssize_t n = readlink(path, process->exe, sizeof(process->exe) - 1);
    process->exe[n > 0 ? n : 0] = '\0';
    static const char deleted[] = " (deleted)";
    size_t cut = sizeof(deleted) - 1;
    if (n > (ssize_t)cut && strcmp(process->exe + (size_t)n - cut, deleted) == 0) {
        process->exe[(size_t)n - cut] = '\0';
    }
    source_end(exam, SOURCE_COMMAND, begun, SOURCE_READ, n > 0 ? NULL : "but for exe: %s",
               strerror(errno));
}

// Variables that say how memory is managed; a name that ends in _ stands for all that begin so.
static const char *const wanted[] = {
    "GODEBUG",
    "GOGC",
    "GOMEMLIMIT",
    "GOMAXPROCS",
    "MALLOC_",
    "GLIBC_TUNABLES",
    "JE_MALLOC_CONF",
    "MIMALLOC_",
    "TCMALLOC_",
    "LD_PRELOAD",
    "EBB",
    "JAVA_TOOL_OPTIONS",
    "_JAVA_OPTIONS",
    "JDK_JAVA_OPTIONS",
    "PYTHONMALLOC",
    "NODE_OPTIONS",
};

static bool is_wanted(const char *name, size_t len)
{
    for (size_t i = 0; i < ARRAY_COUNT(wanted); i++) {
        size_t wanted_len = strlen(wanted[i]);
        bool prefix = wanted[i][wanted_len - 1] == '_';
        if (len >= wanted_len && (prefix || len == wanted_len) &&
            memcmp(name, wanted[i], wanted_len) == 0) {
            return true;
        }
    }
    return false;
}

static void setting_add(struct facts_process *process, const char *entry)
{
    const char *value = strchr(entry, '=');
    if (value == NULL || process->settings_count == SETTINGS_MAX ||
        !is_wanted(entry, (size_t)(value - entry)) ||
        (size_t)(value - entry) >= SETTING_NAME_BYTES) {
        return;
    }
    struct setting *setting = &process->settings[process->settings_count++];
    snprintf(setting->name, sizeof(setting->name), "%.*s", (int)(value - entry), entry);
    snprintf(setting->value, sizeof(setting->value), "%s", value + 1);
    text_printable(setting->name);
    text_printable(setting->value);
}

static const char *entry_value(const char *text, long len, const char *name)
{
    size_t name_len = strlen(name);
    for (long at = 0; at < len; at += (long)strlen(text + at) + 1) {
        if (strncmp(text + at, name, name_len) == 0 && text[at + (long)name_len] == '=') {
            return text + at + name_len + 1;
        }
    }
    return NULL;
}

// The number by which a process knows itself, in the innermost PID namespace it is in.
static uint64_t own_pid(const struct exam *exam)
{
    char text[STATUS_BYTES];
    uint64_t pid = (uint64_t)exam->facts->pid;
    long len = exam_file_read(exam, "status", text, sizeof(text));
    const char *line = len > 0 ? strstr(text, "\nNSpid:") : NULL;
    if (line != NULL) {
        size_t end = strcspn(line + 1, "\n") + 1;
        size_t at = end;
        while (isdigit((unsigned char)line[at - 1])) {
            at--;
        }
        (void)procfs_number_u64(line + at, end - at, &pid);
    }
    return pid;
}

// The file in which an agent of gops leaves its port, where the environment leads to; see gops'
// internal.ConfigDir.
static void gops_read(struct exam *exam, const char *text, long len)
{
    static const struct {
        const char *name, *below;
    } places[] = {{"GOPS_CONFIG_DIR", ""}, {"XDG_CONFIG_HOME", "/gops"}, {"HOME", "/.config/gops"}};
    char path[PATH_MAX + 128];
    char port[16];
    uint64_t value;
    for (size_t i = 0; i < ARRAY_COUNT(places); i++) {
        const char *folder = entry_value(text, len, places[i].name);
        if (folder == NULL || folder[0] != '/') {
            continue;
        }
        snprintf(path, sizeof(path), "%.4000s%s/%llu", folder, places[i].below,
                 (unsigned long long)own_pid(exam));
        int fd = root_open(exam, path);
        ssize_t got = fd < 0 ? -1 : read(fd, port, sizeof(port));
        if (got > 0 && procfs_number_u64(port, (size_t)got, &value) && value <= UINT16_MAX) {
            exam->facts->process.gops_port = (uint32_t)value;
        }
        if (fd >= 0) {
            close(fd);
        }
        return;
    }
}

// The environment as the program was started with: what it has set itself since is not there.
void evidence_environ(struct exam *exam)
{
    uint64_t begun = source_begin();
    char *text = malloc(ENVIRON_BYTES);
    if (text == NULL) {
        source_error(exam, SOURCE_ENVIRON, begun, -ENOMEM);
        return;
    }
    long len = exam_file_read(exam, "environ", text, ENVIRON_BYTES);
    for (long at = 0; at < len; at += (long)strlen(text + at) + 1) {
        setting_add(&exam->facts->process, text + at);
    }
    gops_read(exam, text, len);
    free(text);
    if (len < 0) {
        source_error(exam, SOURCE_ENVIRON, begun, len);
    } else {
        bool cut = (size_t)len == ENVIRON_BYTES - 1;
        source_end(exam, SOURCE_ENVIRON, begun, SOURCE_READ, cut ? "its first 256 KiB" : NULL);
    }
}

// ---- the kernel ---------------------------------------------------------------------------------

static long root_file_read(const struct exam *exam, const char *path, char *buf, size_t cap)
{
    char full[512];
    snprintf(full, sizeof(full), "%s%s", exam->options->root, path);
    return procfs_file_read(full, buf, cap);
}

// The chosen word of "always [madvise] never".
static void chosen_word(const char *text, char *word, size_t cap)
{
    const char *open = strchr(text, '[');
    const char *close = open != NULL ? strchr(open, ']') : NULL;
    snprintf(word, cap, "%.*s", close != NULL ? (int)(close - open - 1) : 0,
             open != NULL ? open + 1 : "");
}

void evidence_kernel(struct exam *exam)
{
    uint64_t begun = source_begin();
    struct facts_kernel *kernel = &exam->facts->kernel;
    char text[STATUS_BYTES];
    struct utsname name;
    if (uname(&name) == 0) {
        snprintf(kernel->release, sizeof(kernel->release), "%.63s", name.release);
    }
    kernel->page_bytes = (uint64_t)sysconf(_SC_PAGESIZE);
    if (root_file_read(exam, "/sys/kernel/mm/transparent_hugepage/enabled", text, sizeof(text)) >
        0) {
        chosen_word(text, kernel->thp, sizeof(kernel->thp));
    }
    long len = root_file_read(exam, "/sys/kernel/mm/transparent_hugepage/khugepaged/max_ptes_none",
                              text, sizeof(text));
    if (len > 0) {
        (void)procfs_number_u64(text, (size_t)len, &kernel->max_ptes_none);
    }
    source_end(exam, SOURCE_KERNEL, begun, SOURCE_READ, NULL);
}
