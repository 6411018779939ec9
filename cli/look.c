// SPDX-License-Identifier: MIT
//
// Opening a process to look at, and saying why not; names, sizes, JSON of MemStats.
//
// Go  gops main.go, internal/obj.
#include "look.h"

#include <ctype.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "os/procfs.h"

const struct argp_option look_options[] = {
    {"json", 'j', NULL, 0, "Print as JSON", 0},
    {0},
};

bool look_pid_parse(struct look_args *args, const char *text)
{
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (errno != 0 || !isdigit((unsigned char)text[0]) || *end != '\0' || value <= 0 ||
        value > INT_MAX) {
        cli_fail(args->command, "\"%.40s\" is not a process ID, which is a number above 0", text);
        return false;
    }
    args->pid = (int)value;
    return true;
}

error_t look_parse(int key, char *arg, struct argp_state *state)
{
    struct look_args *args = state->input;
    if (key == 'j') {
        args->json = true;
        return 0;
    }
    if (key != ARGP_KEY_ARG || args->pid != 0) {
        return ARGP_ERR_UNKNOWN;
    }
    return look_pid_parse(args, arg) ? 0 : CLI_SAID;
}

int look_args_read(const struct command *self, int argc, char **argv, struct look_args *args)
{
    *args = (struct look_args){.command = self->name};
    int status = cli_parse(self, argc, argv, args);
    if (status == CLI_GO_ON && args->pid == 0) {
        return cli_fail(self->name, "which process? `ebb %s PID`; `ebb ps` lists those on Ebb",
                        self->name);
    }
    return status;
}

static bool proc_file_read(int pid, const char *name, char *buf, size_t cap, size_t *len)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
    long n = procfs_file_read(path, buf, cap);
    *len = n > 0 ? (size_t)n : 0;
    return n > 0;
}

void look_name(int pid, char *buf, size_t cap)
{
    size_t len;
    if (!proc_file_read(pid, "comm", buf, cap, &len)) {
        snprintf(buf, cap, "?");
        return;
    }
    buf[strcspn(buf, "\n")] = '\0';
    term_clean(buf);
}

void look_command(int pid, char *buf, size_t cap)
{
    size_t len;
    if (!proc_file_read(pid, "cmdline", buf, cap, &len)) {
        char name[64];
        look_name(pid, name, sizeof(name));
        snprintf(buf, cap, "[%s]", name);
        return;
    }
    for (size_t i = 0; i + 1 < len; i++) {
        if (buf[i] == '\0') {
            buf[i] = ' ';
        }
    }
    // Servers that write their own title pad it, as redis does.
    for (size_t end = strlen(buf); end > 1 && buf[end - 1] == ' '; end--) {
        buf[end - 1] = '\0';
    }
    term_clean(buf);
}

static int fail_forbidden(const struct look_args *args, const char *name)
{
    char path[64];
    struct stat st;
    uint64_t scope = 0;
    char text[16];
    snprintf(path, sizeof(path), "/proc/%d", args->pid);
    if (stat(path, &st) == 0 && st.st_uid != geteuid()) {
        const struct passwd *owner = getpwuid(st.st_uid);
        return cli_fail(args->command,
                        "process %d (%s) belongs to %s: look as that user or as root", args->pid,
                        name, owner != NULL ? owner->pw_name : "another user");
    }
    long len = procfs_file_read("/proc/sys/kernel/yama/ptrace_scope", text, sizeof(text));
    if (len > 0 && procfs_number_u64(text, (size_t)len, &scope) && scope != 0) {
        return cli_fail(args->command,
                        "process %d (%s) may not be read: kernel.yama.ptrace_scope is %d; look as "
                        "root",
                        args->pid, name, (int)scope);
    }
    return cli_fail(args->command,
                    "process %d (%s) may not be read: it has gained privileges or protects itself, "
                    "or CAP_SYS_PTRACE is missing",
                    args->pid, name);
}

static int fail_not_on_ebb(const struct look_args *args, const char *name)
{
    struct procfs_stat stat;
    if (!procfs_stat_read(args->pid, &stat)) {
        return cli_fail(args->command, "there is no process %d", args->pid);
    }
    if (stat.state == 'Z' || stat.exiting) {
        return cli_fail(args->command, "process %d (%s) has ended; its parent has not asked yet",
                        args->pid, name);
    }
    if (stat.kernel_thread) {
        return cli_fail(args->command, "process %d (%s) is a thread of the kernel", args->pid,
                        name);
    }
    return cli_fail(args->command,
                    "process %d (%s) does not run on Ebb; `ebb run` would start it so", args->pid,
                    name);
}

static int fail_version(const struct look_args *args, const struct ledger_target *target,
                        const char *name)
{
    const struct ledger_page *page = &target->page;
    if (page->version == LEDGER_PAGE_VERSION && strcmp(page->library, EBB_VERSION_TEXT) == 0) {
        return cli_fail(args->command,
                        "process %d (%s) runs on another build of Ebb %s: use the ebb that came "
                        "with %s",
                        args->pid, name, page->library, target->object);
    }
    return cli_fail(args->command,
                    "process %d (%s) runs on Ebb %s with counters of version %u, this ebb is %s "
                    "and reads version %u: use the ebb that came with %s",
                    args->pid, name, page->library[0] != '\0' ? page->library : "(unknown)",
                    page->version, EBB_VERSION_TEXT, LEDGER_PAGE_VERSION, target->object);
}

int look_fail(const struct look_args *args, long error)
{
    char name[64];
    look_name(args->pid, name, sizeof(name));
    switch (error) {
    case -ESRCH:
    case -ENOENT:
        return cli_fail(args->command, "process %d ended while it was looked at", args->pid);
    case -EACCES:
    case -EPERM:
        return fail_forbidden(args, name);
    default:
        return cli_fail(args->command, "process %d (%s) cannot be read: %s", args->pid, name,
                        strerror((int)-error));
    }
}

int look_open(const struct look_args *args, struct ledger_target *target)
{
    char name[64];
    long error = ledger_find(target, args->pid);
    if (error == 0) {
        return 0;
    }
    look_name(args->pid, name, sizeof(name));
    term_clean(target->page.library);
    term_clean(target->object);
    switch (error) {
    case -ESRCH:
    case -ENOENT:
        return fail_not_on_ebb(args, name);
    case -EAGAIN:
        return cli_fail(args->command,
                        "process %d (%s) has Ebb loaded, but is still starting; look again",
                        args->pid, name);
    case -EPROTO:
        return fail_version(args, target, name);
    default:
        return look_fail(args, error);
    }
}

bool look_in_use(const struct ledger_target *target)
{
    struct pageheap_stats stats;
    uint64_t addr = target->page.pages + offsetof(struct pageheap, stats);
    return ledger_read_memory(&target->reader, &stats, addr, sizeof(stats)) != 0 ||
           stats.sys_pages != 0;
}

void look_options_text(const struct ledger_target *target, char *buf, size_t cap)
{
    struct options options;
    struct fmt text;
    fmt_init(&text, buf, cap);
    if (target->page.options_bytes != sizeof(options) ||
        ledger_read_memory(&target->reader, &options, target->page.options, sizeof(options)) != 0) {
        return;
    }
    option_changed_text(&options, &text);
}

const char *look_bytes(uint64_t bytes, char *buf, size_t cap)
{
    if (bytes >= GIB && bytes < 1024 * GIB) {
        snprintf(buf, cap, "%.2f GiB", (double)bytes / (double)GIB);
        return buf;
    }
    struct fmt text;
    fmt_init(&text, buf, cap);
    fmt_bytes(&text, bytes);
    return buf;
}

// ---- JSON --------------------------------------------------------------------------------------

int look_json_print(const char *command, json_t *root)
{
    if (root == NULL) {
        return cli_fail(command, "out of memory");
    }
    // On a terminal no character commands it; programs get the text as it is.
    size_t ascii = isatty(STDOUT_FILENO) == 1 ? JSON_ENSURE_ASCII : 0;
    json_dumpf(root, stdout, JSON_INDENT(2) | ascii);
    fputc('\n', stdout);
    json_decref(root);
    return 0;
}

static void set_u64(json_t *object, const char *name, uint64_t value)
{
    json_object_set_new(object, name, json_integer((json_int_t)value));
}

json_t *look_json_memstats(const struct ebb_memstats *s)
{
    const struct {
        const char *name;
        uint64_t value;
    } fields[] = {
        {"Alloc", s->alloc},
        {"TotalAlloc", s->total_alloc},
        {"Sys", s->sys},
        {"Lookups", 0},
        {"Mallocs", s->mallocs},
        {"Frees", s->frees},
        {"HeapAlloc", s->heap_alloc},
        {"HeapSys", s->heap_sys},
        {"HeapIdle", s->heap_idle},
        {"HeapInuse", s->heap_inuse},
        {"HeapReleased", s->heap_released},
        {"HeapObjects", s->heap_objects},
        {"StackInuse", s->stack_inuse},
        {"StackSys", s->stack_sys},
        {"MSpanInuse", s->mspan_inuse},
        {"MSpanSys", s->mspan_sys},
        {"MCacheInuse", s->mcache_inuse},
        {"MCacheSys", s->mcache_sys},
        {"BuckHashSys", s->buck_hash_sys},
        {"GCSys", s->gc_sys},
        {"OtherSys", s->other_sys},
    };
    json_t *object = json_object();
    for (size_t i = 0; i < ARRAY_COUNT(fields); i++) {
        set_u64(object, fields[i].name, fields[i].value);
    }
    json_t *classes = json_array();
    for (size_t i = 0; i < EBB_MEMSTATS_CLASSES; i++) {
        const struct ebb_memstats_class *c = &s->by_size[i];
        json_array_append_new(classes,
                              json_pack("{s:I, s:I, s:I}", "Size", (json_int_t)c->bytes, "Mallocs",
                                        (json_int_t)c->mallocs, "Frees", (json_int_t)c->frees));
    }
    json_object_set_new(object, "BySize", classes);
    return object;
}

json_t *look_json_extra(const struct ebb_memstats *s, const struct ledger_extra *extra)
{
    json_t *object = json_object();
    set_u64(object, "heap_lazy_bytes", s->heap_lazy);
    set_u64(object, "heap_holes_bytes", extra->hole_bytes);
    set_u64(object, "heap_cached_bytes", s->heap_cached);
    set_u64(object, "heap_retained_bytes", extra->retained_bytes);
    set_u64(object, "remote_bytes", extra->remote_bytes);
    set_u64(object, "withdrawn_bytes", extra->withdrawn_bytes);
    set_u64(object, "large_count", s->large_count);
    set_u64(object, "large_bytes", s->large_bytes);
    set_u64(object, "span_count", s->span_count);
    set_u64(object, "thread_count", s->thread_count);
    set_u64(object, "moved_count", extra->moved_count);
    set_u64(object, "refused_count", extra->refused_count);
    json_object_set_new(object, "exact",
                        json_boolean(extra->moved_count == 0 && extra->refused_count == 0));
    return object;
}
