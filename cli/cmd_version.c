// SPDX-License-Identifier: MIT
//
// ebb version: what this Ebb is, where its library lies, and which of the kernel's offers it finds.
//
// Go  cmd/go/internal/version.
#include <gnu/libc-version.h>
#include <jansson.h>
#include <linux/membarrier.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/fmt.h"
#include "cli.h"
#include "os/cgroup.h"
#include "os/procfs.h"
#include "term.h"

// The build passes the project's version; compiled by hand, the command says that it does not know.
#ifndef EBB_VERSION_TEXT
#define EBB_VERSION_TEXT "unknown"
#endif

// Newer than the oldest headers we compile with (Linux 5.14 and 5.3).
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

// NAME_COLUMNS is the width of the left column: the longest name and a gap.
#define NAME_COLUMNS 21

#define THP_PATH "/sys/kernel/mm/transparent_hugepage/enabled"

struct facts {
    char *library; // NULL: not found
    struct utsname machine;
    long page_bytes;
    bool membarrier;      // private expedited: the claim of idle caches costs the owner nothing
    bool madv_free;       // policy madvise=free
    bool madv_populate;   // growth in bulk
    bool process_madvise; // of oneself, with MADV_DONTNEED, many ranges in one call (Linux 6.13)
    char thp[32];         // "always", "madvise", "never", or "" where the kernel has none
    bool cgroup_found;
    struct cgroup cgroup;
    struct cgroup_memory memory;
};

static error_t version_parse(int key, char *arg, struct argp_state *state)
{
    (void)arg;
    bool *json = state->input;
    if (key == 'j') {
        *json = true;
        return 0;
    }
    return ARGP_ERR_UNKNOWN;
}

static const struct argp_option version_options[] = {
    {"json", 'j', NULL, 0, "Print as JSON", 0},
    {0},
};

const struct argp cmd_version_argp = {
    version_options,
    version_parse,
    NULL,
    "Say which Ebb this is, where its library was found, and what of the kernel it can use here."
    "\vExamples:\n"
    "  ebb version\n"
    "  ebb version --json | jq -r .library\n",
    NULL,
    NULL,
    NULL,
};

// madvise_works tries an advice on a touched page of its own.
static bool madvise_works(long page_bytes, int advice)
{
    char *page =
        mmap(NULL, (size_t)page_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) {
        return false;
    }
    page[0] = 1;
    bool works = madvise(page, (size_t)page_bytes, advice) == 0;
    munmap(page, (size_t)page_bytes);
    return works;
}

static bool process_madvise_works(long page_bytes)
{
    char *page =
        mmap(NULL, (size_t)page_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int fd = (int)syscall(SYS_pidfd_open, getpid(), 0);
    bool works = false;
    if (page != MAP_FAILED && fd >= 0) {
        page[0] = 1;
        struct iovec range = {page, (size_t)page_bytes};
        works = syscall(SYS_process_madvise, fd, &range, 1, MADV_DONTNEED, 0) == page_bytes &&
                page[0] == 0;
    }
    if (fd >= 0) {
        close(fd);
    }
    if (page != MAP_FAILED) {
        munmap(page, (size_t)page_bytes);
    }
    return works;
}

// thp_read takes the word in brackets out of "always [madvise] never".
static void thp_read(char *out, size_t cap)
{
    char text[128];
    out[0] = '\0';
    if (procfs_file_read(THP_PATH, text, sizeof(text)) <= 0) {
        return;
    }
    char *open = strchr(text, '[');
    char *close = open != NULL ? strchr(open, ']') : NULL;
    if (close != NULL) {
        snprintf(out, cap, "%.*s", (int)(close - open - 1), open + 1);
    }
}

static void facts_read(struct facts *facts)
{
    facts->library = lib_find(NULL);
    uname(&facts->machine);
    facts->page_bytes = sysconf(_SC_PAGESIZE);
    long commands = syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0);
    facts->membarrier = commands > 0 && (commands & MEMBARRIER_CMD_PRIVATE_EXPEDITED) != 0;
    facts->madv_free = madvise_works(facts->page_bytes, MADV_FREE);
    facts->madv_populate = madvise_works(facts->page_bytes, MADV_POPULATE_WRITE);
    facts->process_madvise = process_madvise_works(facts->page_bytes);
    thp_read(facts->thp, sizeof(facts->thp));
    facts->cgroup_found =
        cgroup_find("", &facts->cgroup) && cgroup_memory_read(&facts->cgroup, &facts->memory);
}

static void line_print(const struct term *term, const char *name, const char *text)
{
    term_text(term, TERM_FAINT, name, NAME_COLUMNS);
    term_wrap(term, text, NAME_COLUMNS);
}

static void bytes_text(uint64_t bytes, char *buf, size_t cap)
{
    struct fmt text;
    fmt_init(&text, buf, cap);
    fmt_bytes(&text, bytes);
}

static void cgroup_print(const struct term *term, const struct facts *facts)
{
    if (!facts->cgroup_found) {
        line_print(term, "cgroup", "none with a memory controller");
        return;
    }
    char usage[32];
    char limit[32] = "none";
    char line[256];
    bytes_text(facts->memory.usage_bytes, usage, sizeof(usage));
    uint64_t limit_bytes = cgroup_memory_limit(&facts->memory);
    if (limit_bytes != CGROUP_UNLIMITED) {
        bytes_text(limit_bytes, limit, sizeof(limit));
    }
    snprintf(line, sizeof(line), "version %d, memory limit %s, charged now %s",
             facts->cgroup.version, limit, usage);
    line_print(term, "cgroup", line);
}

static void text_print(const struct facts *facts)
{
    struct term term = term_open(stdout);
    char line[512];
    term_text(&term, TERM_BOLD, "ebb " EBB_VERSION_TEXT, 0);
    fputc('\n', stdout);
    line_print(&term, "library", facts->library != NULL ? facts->library : "not found");
    snprintf(line, sizeof(line), "%s, pages of %ld KiB", facts->machine.machine,
             facts->page_bytes / 1024);
    line_print(&term, "machine", line);
    snprintf(line, sizeof(line), "%s %s, glibc %s", facts->machine.sysname, facts->machine.release,
             gnu_get_libc_version());
    line_print(&term, "system", line);
    line_print(&term, "membarrier", facts->membarrier ? "yes" : "no: idle threads are waited for");
    line_print(&term, "MADV_FREE", facts->madv_free ? "yes" : "no: madvise=free acts as dontneed");
    line_print(&term, "MADV_POPULATE_WRITE",
               facts->madv_populate ? "yes" : "no: pages come one by one");
    line_print(&term, "process_madvise",
               facts->process_madvise ? "yes, on oneself" : "no: one call per range given back");
    line_print(&term, "huge pages", facts->thp[0] != '\0' ? facts->thp : "not in this kernel");
    cgroup_print(&term, facts);
}

static int json_print(const struct facts *facts)
{
    json_t *cgroup = json_null();
    if (facts->cgroup_found) {
        uint64_t limit_bytes = cgroup_memory_limit(&facts->memory);
        json_t *limit =
            limit_bytes != CGROUP_UNLIMITED ? json_integer((json_int_t)limit_bytes) : json_null();
        cgroup = json_pack("{s:i, s:o, s:I}", "version", facts->cgroup.version, "limit_bytes",
                           limit, "usage_bytes", (json_int_t)facts->memory.usage_bytes);
    }
    json_t *kernel = json_pack("{s:s, s:b, s:b, s:b, s:b, s:s?}", "release", facts->machine.release,
                               "membarrier", facts->membarrier, "madv_free", facts->madv_free,
                               "madv_populate_write", facts->madv_populate, "process_madvise",
                               facts->process_madvise, "transparent_hugepage",
                               facts->thp[0] != '\0' ? facts->thp : NULL);
    json_t *root = json_pack("{s:s, s:s?, s:s, s:I, s:s, s:o, s:o}", "version", EBB_VERSION_TEXT,
                             "library", facts->library, "machine", facts->machine.machine,
                             "page_bytes", (json_int_t)facts->page_bytes, "glibc",
                             gnu_get_libc_version(), "kernel", kernel, "cgroup", cgroup);
    if (root == NULL) {
        return cli_fail("version", "out of memory");
    }
    json_dumpf(root, stdout, JSON_INDENT(2));
    fputc('\n', stdout);
    json_decref(root);
    return 0;
}

int cmd_version(const struct command *self, int argc, char **argv)
{
    bool json = false;
    int status = cli_parse(self, argc, argv, &json);
    if (status != CLI_GO_ON) {
        return status;
    }
    static struct facts facts;
    facts_read(&facts);
    status = 0;
    if (json) {
        status = json_print(&facts);
    } else {
        text_print(&facts);
    }
    free(facts.library);
    return status;
}
