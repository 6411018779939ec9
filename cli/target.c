// SPDX-License-Identifier: MIT
//
// Finding Ebb in another process (target.h).
//
// Go  none.
#include "target.h"

#include <elf.h>
#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "cli.h"
#include "os/procfs.h"

#define STATUS_BYTES 8192
#define PHDRS_MAX 64
#define NOTES_BYTES_MAX ((size_t)64 << 10)

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

static bool page_is_ours(int pid, uint64_t addr)
{
    struct control_page page;
    return memory_read(pid, addr, &page, sizeof(page)) && page.magic == CONTROL_PAGE_MAGIC;
}

// ---- the note ----------------------------------------------------------------------------------

// Looks for our note in notes[len], which lie at addr in the process; 0 if it is not there.
static uint64_t notes_search(const char *notes, size_t len, uint64_t addr)
{
    size_t at = 0;
    while (len - at >= sizeof(Elf64_Nhdr)) {
        Elf64_Nhdr head;
        memcpy(&head, notes + at, sizeof(head));
        size_t name = at + sizeof(head);
        size_t desc = name + align_up(head.n_namesz, 4);
        size_t next = desc + align_up(head.n_descsz, 4);
        if (next > len || next <= at) {
            return 0;
        }
        if (head.n_type == CONTROL_NOTE_TYPE && head.n_namesz == 4 && head.n_descsz == 8 &&
            memcmp(notes + name, "Ebb", 4) == 0) {
            uint64_t offset;
            memcpy(&offset, notes + desc, sizeof(offset));
            return addr + desc + offset;
        }
        at = next;
    }
    return 0;
}

static uint64_t segment_search(int pid, uint64_t addr, size_t len)
{
    if (len > NOTES_BYTES_MAX) {
        return 0;
    }
    char *notes = malloc(len + 1);
    uint64_t page = 0;
    if (notes != NULL && memory_read(pid, addr, notes, len)) {
        page = notes_search(notes, len, addr);
    }
    free(notes);
    return page;
}

// Looks in the ELF file whose start is mapped at start.
static uint64_t image_search(int pid, uint64_t start)
{
    Elf64_Ehdr head;
    Elf64_Phdr phdrs[PHDRS_MAX];
    if (!memory_read(pid, start, &head, sizeof(head)) ||
        memcmp(head.e_ident, ELFMAG, SELFMAG) != 0 || head.e_ident[EI_CLASS] != ELFCLASS64 ||
        head.e_phentsize != sizeof(phdrs[0]) || head.e_phnum == 0 || head.e_phnum > PHDRS_MAX ||
        !memory_read(pid, start + head.e_phoff, phdrs, head.e_phnum * sizeof(phdrs[0]))) {
        return 0;
    }
    uint64_t bias = start;
    for (size_t i = 0; i < head.e_phnum; i++) {
        if (phdrs[i].p_type == PT_LOAD) {
            bias = start - (phdrs[i].p_vaddr - phdrs[i].p_offset);
            break;
        }
    }
    for (size_t i = 0; i < head.e_phnum; i++) {
        if (phdrs[i].p_type != PT_NOTE) {
            continue;
        }
        uint64_t page = segment_search(pid, bias + phdrs[i].p_vaddr, phdrs[i].p_filesz);
        if (page != 0 && page_is_ours(pid, page)) {
            return page;
        }
    }
    return 0;
}

// Returns the address of the page; 0 with errno 0 if there is none, else with what the kernel said.
static uint64_t page_find(int pid)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/maps", pid);
    FILE *maps = fopen(path, "r");
    if (maps == NULL) {
        return 0;
    }
    uint64_t page = 0;
    char *line = NULL;
    size_t line_bytes = 0;
    errno = 0;
    while (page == 0 && getline(&line, &line_bytes, maps) > 0) {
        unsigned long long start;
        unsigned long long offset;
        unsigned long inode;
        char perms[8];
        if (sscanf(line, "%llx-%*x %7s %llx %*s %lu", &start, perms, &offset, &inode) == 4 &&
            offset == 0 && inode != 0 && perms[0] == 'r') {
            page = image_search(pid, start);
        }
    }
    int error = errno == EFAULT || errno == EIO ? 0 : errno; // a mapping may end early
    free(line);
    fclose(maps);
    errno = error;
    return page;
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

static int refuse_unreadable(const struct target *target, int error)
{
    char path[64];
    struct stat st;
    snprintf(path, sizeof(path), "/proc/%d", target->pid);
    if (error != EPERM && error != EACCES) {
        return cli_fail(target->command, "process %d (%s) cannot be read: %s", target->pid,
                        target->name, strerror(error));
    }
    if (stat(path, &st) == 0 && st.st_uid != geteuid()) {
        const struct passwd *user = getpwuid(st.st_uid);
        return cli_fail(target->command,
                        "process %d (%s) belongs to another user (%s); ask as that user or as root",
                        target->pid, target->name, user != NULL ? user->pw_name : "unknown");
    }
    return cli_fail(target->command,
                    "the kernel does not let you look into process %d (%s): ask as root (a process "
                    "may forbid it, and kernel.yama.ptrace_scope may)",
                    target->pid, target->name);
}

static int pid_parse(const char *command, const char *text)
{
    char *end;
    errno = 0;
    long pid = strtol(text, &end, 10);
    if (errno != 0 || *end != '\0' || end == text || pid <= 0 || pid > INT32_MAX) {
        cli_fail(command, "\"%s\" is not the number of a process", text);
        return 0;
    }
    return (int)pid;
}

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
    char state[32];
    *target = (struct target){.command = command, .pid = pid_parse(command, text)};
    if (target->pid == 0) {
        return EXIT_EBB;
    }
    if (!target_status_read(target->pid, 0, "Name:", target->name, sizeof(target->name)) ||
        !target_status_read(target->pid, 0, "State:", state, sizeof(state))) {
        return cli_fail(command, "there is no process %d", target->pid);
    }
    target_printable(target->name, strlen(target->name));
    if (state[0] == 'Z' || state[0] == 'X') {
        return cli_fail(command, "process %d (%s) has ended", target->pid, target->name);
    }
    errno = 0;
    target->page_addr = page_find(target->pid);
    if (target->page_addr == 0 && errno != 0) {
        return refuse_unreadable(target, errno);
    }
    if (target->page_addr == 0) {
        return cli_fail(command,
                        "process %d (%s) does not run on Ebb; `ebb run` starts one that does",
                        target->pid, target->name);
    }
    if (!target_page_read(target)) {
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
