// SPDX-License-Identifier: MIT
//
// Doctor, what an examination is made of: sources and what became of them, the budget, reading the
// memory and the files of the process. Below all evidence.
//
// Go  none.
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <gelf.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "doctor_int.h"
#include "os/clock.h"
#include "os/procfs.h"

// Of a word of pagemap, from Documentation/admin-guide/mm/pagemap.rst.
#define WORD_IS_PRESENT (UINT64_C(1) << 63)

static const struct {
    const char *name, *place;
} sources[SOURCE_COUNT] = {
    [SOURCE_STATUS] = {"status", "/proc/PID/status"},
    [SOURCE_STAT] = {"stat", "/proc/PID/stat"},
    [SOURCE_COMMAND] = {"command", "/proc/PID/{comm,cmdline,exe}"},
    [SOURCE_ENVIRON] = {"environ", "/proc/PID/environ"},
    [SOURCE_EXE] = {"program", "the ELF file of the program"},
    [SOURCE_KERNEL] = {"kernel", "/proc/version, /sys/kernel/mm"},
    [SOURCE_CGROUP] = {"cgroup", "/proc/PID/cgroup and its directory"},
    [SOURCE_MAPS] = {"maps", "/proc/PID/maps"},
    [SOURCE_PAGES] = {"pages", "/proc/PID/pagemap"},
    [SOURCE_ROLLUP] = {"smaps_rollup", "/proc/PID/smaps_rollup"},
    [SOURCE_PAGEFLAGS] = {"page flags", "/proc/kpageflags, a sample of pages"},
    [SOURCE_HUGE] = {"huge pages", "a sample of their contents"},
    [SOURCE_EBB] = {"Ebb", "the counters page of libebb"},
    [SOURCE_GO] = {"Go memory", "runtime.memstats, in memory"},
    [SOURCE_GOROUTINES] = {"goroutines", "runtime.allgs, in memory"},
    [SOURCE_GO_PROFILE] = {"Go profile", "runtime.mbuckets, in memory"},
    [SOURCE_GLIBC] = {"glibc malloc", "its arenas, in memory"},
    [SOURCE_JEMALLOC] = {"jemalloc", "its arenas, in memory"},
    [SOURCE_MIMALLOC] = {"mimalloc", "its segments, in memory"},
    [SOURCE_TCMALLOC] = {"tcmalloc", "its page heap, in memory"},
    [SOURCE_JVM] = {"JVM", "its hsperfdata file"},
    [SOURCE_PYTHON] = {"Python", "its arenas"},
    [SOURCE_REACH] = {"reachability", "its blocks and all memory that may point to them"},
    [SOURCE_SITES] = {"sites", "a heap profile of the process"},
};

const char *source_name(enum source_id id)
{
    return sources[id].name;
}

const char *source_place(enum source_id id)
{
    return sources[id].place;
}

const char *source_state_name(enum source_state state)
{
    static const char *const names[] = {
        [SOURCE_NOT_ASKED] = "not asked", [SOURCE_READ] = "read",     [SOURCE_REFUSED] = "refused",
        [SOURCE_LEFT] = "left out",       [SOURCE_ABSENT] = "absent", [SOURCE_BROKEN] = "broken",
    };
    return names[state];
}

const char *heap_kind_name(enum heap_kind kind)
{
    static const char *const names[HEAP_KINDS] = {
        [HEAP_EBB] = "Ebb",
        [HEAP_GO] = "Go",
        [HEAP_GLIBC] = "glibc",
        [HEAP_JEMALLOC] = "jemalloc",
        [HEAP_MIMALLOC] = "mimalloc",
        [HEAP_TCMALLOC] = "tcmalloc",
        [HEAP_JVM] = "JVM",
        [HEAP_PYTHON] = "Python",
        [HEAP_V8] = "V8",
    };
    return names[kind];
}

// ---- sources ------------------------------------------------------------------------------------

uint64_t source_begin(void)
{
    return clock_now_ns();
}

void source_end(struct exam *exam, enum source_id id, uint64_t begun_ns, enum source_state state,
                const char *format, ...)
{
    struct source *source = &exam->facts->sources[id];
    source->state = state;
    source->cost_ns += clock_now_ns() - begun_ns;
    source->why[0] = '\0';
    if (format != NULL) {
        va_list args;
        va_start(args, format);
        vsnprintf(source->why, sizeof(source->why), format, args);
        va_end(args);
    }
}

void source_error(struct exam *exam, enum source_id id, uint64_t begun_ns, long error)
{
    switch (error) {
    case -EACCES:
    case -EPERM:
        source_end(exam, id, begun_ns, SOURCE_REFUSED, "%s",
                   "only root and the owner of the process may read it");
        return;
    case -ENOENT:
        source_end(exam, id, begun_ns, SOURCE_ABSENT, "%s", "there is no such file");
        return;
    case -ESRCH:
        source_end(exam, id, begun_ns, SOURCE_ABSENT, "%s", "the process has ended");
        exam->error = DOCTOR_ENDED;
        return;
    default:
        source_end(exam, id, begun_ns, SOURCE_BROKEN, "%s", strerror((int)-error));
    }
}

bool exam_affords(const struct exam *exam, uint64_t cost_ns)
{
    return exam->options->exact ||
           clock_thread_cpu_ns() + cost_ns + exam->reserve_ns <= exam->deadline_ns;
}

bool reach_affords(const struct exam *exam, uint64_t cost_ns)
{
    return exam->options->scan || exam_affords(exam, cost_ns);
}

long exam_read(const struct exam *exam, void *to, uint64_t addr, size_t bytes)
{
    return ledger_read_memory(&exam->reader, to, addr, bytes);
}

static bool is_resident(const struct exam *exam, uint64_t addr)
{
    uint64_t word = 0;
    off_t at = (off_t)(addr / exam->facts->kernel.page_bytes * sizeof(word));
    return exam->scans && pread(exam->residency.fd, &word, sizeof(word), at) == sizeof(word) &&
           (word & WORD_IS_PRESENT) != 0;
}

long exam_peek(const struct exam *exam, void *to, uint64_t addr, size_t bytes)
{
    uint64_t page = exam->facts->kernel.page_bytes;
    uint64_t last = addr + bytes - 1;
    if (!is_resident(exam, addr) || (addr / page != last / page && !is_resident(exam, last))) {
        return -ENODATA;
    }
    return exam_read(exam, to, addr, bytes);
}

// process_vm_readv takes at most IOV_MAX pieces, and stops at the first that is not there.
size_t exam_read_many(const struct exam *exam, void *to, const uint64_t *addrs, size_t count,
                      size_t bytes)
{
    struct iovec remote[512];
    size_t got = 0;
    for (size_t at = 0; at < count;) {
        size_t n = min_size(count - at, ARRAY_COUNT(remote));
        for (size_t i = 0; i < n; i++) {
            remote[i] = (struct iovec){(void *)(uintptr_t)addrs[at + i], bytes};
        }
        char *into = (char *)to + at * bytes;
        struct iovec local = {into, n * bytes};
        ssize_t done = process_vm_readv(exam->reader.pid, &local, 1, remote, n, 0);
        size_t whole = done < 0 ? 0 : (size_t)done / bytes;
        got += whole;
        at += whole;
        if (whole < n) {
            memset(into + whole * bytes, 0, bytes);
            at++;
        }
    }
    return got;
}

long exam_file_read(const struct exam *exam, const char *name, char *buf, size_t cap)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/proc/%d/%s", exam->options->root, exam->facts->pid, name);
    return procfs_file_read(path, buf, cap);
}

// A descriptor of a file, to be read, from one that only names it; closes that. Opening a device or
// a FIFO may do something by itself.
static int file_reopen(int named)
{
    char path[32];
    struct stat st;
    int fd = -ENOEXEC;
    snprintf(path, sizeof(path), "/proc/self/fd/%d", named);
    if (fstat(named, &st) == 0 && S_ISREG(st.st_mode)) {
        fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
        fd = fd < 0 ? -errno : fd;
    }
    close(named);
    return fd;
}

int root_open(const struct exam *exam, const char *path)
{
    char place[256];
    const struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT};
    snprintf(place, sizeof(place), "%s/proc/%d/root", exam->options->root, exam->facts->pid);
    int root = open(place, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root < 0) {
        return -errno;
    }
    int fd = (int)syscall(SYS_openat2, root, path, &how, sizeof(how));
    if (fd < 0 && (errno == ENOSYS || errno == EPERM)) { // a filter for system calls says EPERM
        fd = openat(root, path + strspn(path, "/"), O_PATH | O_CLOEXEC | O_NOFOLLOW);
    }
    int error = errno;
    close(root);
    return fd < 0 ? -error : file_reopen(fd);
}

int elf_open(const struct exam *exam, const char *name)
{
    char path[256 + PATH_MAX];
    if (name[0] == '/') {
        return root_open(exam, name);
    }
    snprintf(path, sizeof(path), "%s/proc/%d/%s", exam->options->root, exam->facts->pid, name);
    int fd = open(path, O_PATH | O_CLOEXEC);
    return fd < 0 ? -errno : file_reopen(fd);
}

bool elf_head_good(int fd)
{
    Elf64_Ehdr head;
    return pread(fd, &head, sizeof(head), 0) == (ssize_t)sizeof(head) &&
           memcmp(head.e_ident, ELFMAG, SELFMAG) == 0 && head.e_ident[EI_CLASS] == ELFCLASS64 &&
           head.e_ident[EI_DATA] == ELFDATA2LSB && head.e_phnum != PN_XNUM &&
           (head.e_shnum != 0 || head.e_shoff == 0);
}

Elf_Data *elf_names(Elf *elf, size_t index, uint64_t cap)
{
    GElf_Shdr head;
    Elf_Scn *section = elf_getscn(elf, index);
    Elf_Data *data = gelf_getshdr(section, &head) != NULL && head.sh_size <= cap
                         ? elf_rawdata(section, NULL)
                         : NULL;
    // A section without bytes in the file (SHT_NOBITS) has a size, and data without a buffer.
    bool ended = data != NULL && data->d_buf != NULL && data->d_size != 0 &&
                 ((const char *)data->d_buf)[data->d_size - 1] == '\0';
    return ended ? data : NULL;
}
