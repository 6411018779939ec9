// SPDX-License-Identifier: MIT
//
// Finding Ebb in another process (target.h).
//
// Go  none.
#include "target.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#include "cli.h"
#include "look.h"
#include "os/procfs.h"

#define STATUS_BYTES 8192

// ---- its memory --------------------------------------------------------------------------------

static bool memory_read(int pid, uint64_t addr, void *out, size_t len)
{
    struct iovec local = {out, len};
    struct iovec remote = {(void *)(uintptr_t)addr, len}; // NOLINT: an address in the other process
    return process_vm_readv(pid, &local, 1, &remote, 1, 0) == (ssize_t)len;
}

void target_printable(char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if ((text[i] < ' ' && text[i] != '\n' && text[i] != '\0') || text[i] > '~') {
            text[i] = '?';
        }
    }
}

bool target_page_read(struct target *target)
{
    if (!memory_read(target->pid, target->page_addr, &target->page, sizeof(target->page))) {
        return false;
    }
    target_printable(target->page.path, sizeof(target->page.path));
    target->page.path[sizeof(target->page.path) - 1] = '\0';
    return true;
}

// ---- /proc -------------------------------------------------------------------------------------

bool target_status_read(int pid, int tid, const char *field, char *value, size_t cap)
{
    char path[64];
    char text[STATUS_BYTES];
    if (tid != 0) {
        snprintf(path, sizeof(path), "/proc/%d/task/%d/status", pid, tid);
    } else {
        snprintf(path, sizeof(path), "/proc/%d/status", pid);
    }
    if (procfs_file_read(path, text, sizeof(text)) < 0) {
        return false;
    }
    size_t field_len = strlen(field);
    for (char *line = text; *line != '\0';) {
        size_t len = strcspn(line, "\n");
        if (strncmp(line, field, field_len) == 0) {
            char *start = line + field_len;
            start += strspn(start, " \t");
            snprintf(value, cap, "%.*s", (int)(line + len - start), start);
            return true;
        }
        line += len + (line[len] != '\0');
    }
    return false;
}

uint64_t target_rss_bytes(int pid)
{
    struct procfs_rollup rollup;
    return procfs_rollup_read(pid, &rollup) ? rollup.rss_bytes : 0;
}

// ---- opening -----------------------------------------------------------------------------------

// Is the page the process's own, or does it run in another's memory?
static int owner_check(const struct target *target)
{
    char numbers[128];
    uint32_t pid = load_relaxed(&target->page.pid);
    // Under a filter a forked child does not ask for its number.
    if (pid == 0 || load_relaxed(&target->page.state) == CONTROL_RESTRICTED ||
        !target_status_read(target->pid, 0, "NSpid:", numbers, sizeof(numbers))) {
        return 0;
    }
    const char *last = strrchr(numbers, '\t'); // as the innermost namespace counts
    if ((uint32_t)strtoul(last != NULL ? last : numbers, NULL, 10) == pid) {
        return 0;
    }
    return cli_fail(target->command,
                    "process %d (%s) has just been forked and has not come to itself: ask again, "
                    "or its parent",
                    target->pid, target->name);
}

int target_open(struct target *target, const char *command, const char *text)
{
    struct look_args args = {.command = command};
    struct ledger_target found;
    *target = (struct target){.command = command};
    if (!look_pid_parse(&args, text)) {
        return EXIT_EBB;
    }
    target->pid = args.pid;
    int status = look_open(&args, &found);
    if (status != 0) {
        return status;
    }
    look_name(args.pid, target->name, sizeof(target->name));
    target->page_addr = found.page.control;
    if (target->page_addr == 0) {
        return cli_fail(command, "process %d (%s) has Ebb loaded, but is still starting; ask again",
                        target->pid, target->name);
    }
    if (!target_page_read(target) || target->page.magic != CONTROL_PAGE_MAGIC) {
        return cli_fail(command, "process %d (%s) has ended", target->pid, target->name);
    }
    if (target->page.version != CONTROL_PAGE_VERSION) {
        return cli_fail(command,
                        "process %d (%s) runs on an Ebb whose page has version %u; this command "
                        "knows version %u",
                        target->pid, target->name, target->page.version, CONTROL_PAGE_VERSION);
    }
    return owner_check(target);
}
