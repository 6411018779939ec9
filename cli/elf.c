// SPDX-License-Identifier: MIT
//
// Reads programs before they run: who would load them, and would a preload reach their malloc?
//
// Model
//   program_inspect follows scripts by name; elf_judge asks one ELF file a list of questions. The
//   first question whose answer is "the preload does nothing" ends it; the last "only partly" is
//   kept. Reading is by libelf on a descriptor; nothing of the program is executed.
//
// Flow
//   program_inspect -> script_next (while it is a script) -> elf_judge -> judge_x.
//
// Go       debug/elf, debug/buildinfo.
// Tests    test/cli/inspect_test.py
#include "elf_read.h"

#include <errno.h>
#include <fcntl.h>
#include <gelf.h>
#include <libelf.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/base.h"

// BINPRM_BYTES is how much of a file the kernel reads to see what it is (BINPRM_BUF_SIZE).
#define BINPRM_BYTES 256

static bool starts_with(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

// ---- finding -----------------------------------------------------------------------------------

// executable_check returns 0 if a file may be executed by us, else why not.
static int executable_check(const char *path)
{
    struct stat st;
    if (stat(path, &st) != 0) {
        return errno == ENOTDIR ? ENOENT : errno;
    }
    if (!S_ISREG(st.st_mode) || faccessat(AT_FDCWD, path, X_OK, AT_EACCESS) != 0) {
        return EACCES;
    }
    return 0;
}

int program_find(const char *name, char path[PATH_MAX])
{
    if (name[0] == '\0' || strlen(name) >= PATH_MAX) {
        return ENOENT;
    }
    if (strchr(name, '/') != NULL) {
        strcpy(path, name);
        int error = executable_check(name);
        return error == ENOENT ? ENOENT : error == 0 ? 0 : EACCES;
    }
    // Without PATH execvp looks in the system's folders (confstr _CS_PATH).
    const char *dirs = getenv("PATH");
    if (dirs == NULL) {
        dirs = "/bin:/usr/bin";
    }
    int error = ENOENT;
    for (;;) {
        size_t len = strcspn(dirs, ":");
        // An empty entry means the current folder; "./" makes that plain to exec.
        int n = len == 0 ? snprintf(path, PATH_MAX, "./%s", name)
                         : snprintf(path, PATH_MAX, "%.*s/%s", (int)len, dirs, name);
        int found = n < PATH_MAX ? executable_check(path) : ENOENT;
        if (found == 0) {
            return 0;
        }
        // Unlike execvp: a folder that we may not search does not make a missing name "not
        // executable"; shells see it so too.
        if (found == EACCES && access(path, F_OK) == 0) {
            error = EACCES;
        }
        if (dirs[len] == '\0') {
            return error;
        }
        dirs += len + 1;
    }
}

// ---- scripts -----------------------------------------------------------------------------------

enum file_kind { FILE_ELF, FILE_SCRIPT, FILE_TEXT, FILE_OTHER };

// head_read fills head with the start of a file, closed by a zero, and says what it is.
static enum file_kind head_read(const char *path, char head[BINPRM_BYTES + 1])
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return FILE_OTHER;
    }
    ssize_t len = pread(fd, head, BINPRM_BYTES, 0);
    close(fd);
    if (len < 0) {
        return FILE_OTHER;
    }
    head[len] = '\0';
    if (len >= SELFMAG && memcmp(head, ELFMAG, SELFMAG) == 0) {
        return FILE_ELF;
    }
    if (starts_with(head, "#!")) {
        return FILE_SCRIPT;
    }
    // Like a shell: a zero byte in the first line means that it is no text.
    return strlen(head) == (size_t)len ? FILE_TEXT : FILE_OTHER;
}

// env_target returns the program that env(1) would run, or NULL. words is a list of arguments after
// env's own name. Options with a value in the next word end the search: a guess may be wrong.
static const char *env_target(char *const words[])
{
    for (size_t i = 0; words[i] != NULL; i++) {
        const char *word = words[i];
        if (strcmp(word, "-S") == 0 || strcmp(word, "--split-string") == 0 ||
            strcmp(word, "-i") == 0 || strcmp(word, "-") == 0 || strcmp(word, "--") == 0) {
            continue;
        }
        if (word[0] == '-') {
            return NULL;
        }
        if (strchr(word, '=') == NULL) {
            return word;
        }
    }
    return NULL;
}

// SCRIPT_WORDS_MAX bounds the words of a #! line that are looked at.
#define SCRIPT_WORDS_MAX 16

// script_next writes the path of the program that runs a script into path. head is the script's
// start. Returns false if there is none; *missing is then the name that was not found, or "".
static bool script_next(char *head, char path[PATH_MAX], char missing[PATH_MAX])
{
    head[strcspn(head, "\n")] = '\0';
    char *words[SCRIPT_WORDS_MAX + 1];
    size_t count = 0;
    char *rest = head + strlen("#!");
    for (char *word; count < SCRIPT_WORDS_MAX && (word = strsep(&rest, " \t\r")) != NULL;) {
        if (word[0] != '\0') {
            words[count++] = word;
        }
    }
    words[count] = NULL;
    if (count == 0) {
        return false;
    }
    const char *target = words[0];
    if (executable_check(target) == 0 && strcmp(base_name(target), "env") == 0) {
        const char *behind = env_target(words + 1);
        target = behind != NULL ? behind : target;
    }
    char name[BINPRM_BYTES + 1];
    strcpy(name, target);
    if (program_find(name, path) != 0) {
        strcpy(missing, name);
        return false;
    }
    return true;
}

// ---- one ELF file ------------------------------------------------------------------------------

struct elf_file {
    const char *path;
    int fd;
    Elf *elf;
    GElf_Ehdr header;
    char interp[PATH_MAX]; // the program's loader, or ""
    bool has_dynamic;
    Elf_Scn *dynamic, *dynsym, *symtab; // NULL: none
    bool is_go;                         // has the notes of a Go program
};

static const struct {
    int machine;
    const char *name;
} machine_names[] = {
    {EM_386, "i386"},    {EM_X86_64, "x86-64"}, {EM_ARM, "arm"},   {EM_AARCH64, "arm64"},
    {EM_PPC64, "ppc64"}, {EM_RISCV, "riscv"},   {EM_S390, "s390"}, {EM_MIPS, "mips"},
};

const char *elf_machine_name(int machine)
{
    for (size_t i = 0; i < ARRAY_COUNT(machine_names); i++) {
        if (machine_names[i].machine == machine) {
            return machine_names[i].name;
        }
    }
    return NULL;
}

static void sections_scan(struct elf_file *file)
{
    size_t names_index;
    if (elf_getshdrstrndx(file->elf, &names_index) != 0) {
        return;
    }
    for (Elf_Scn *scn = NULL; (scn = elf_nextscn(file->elf, scn)) != NULL;) {
        GElf_Shdr shdr;
        if (gelf_getshdr(scn, &shdr) == NULL) {
            continue;
        }
        if (shdr.sh_type == SHT_DYNAMIC) {
            file->dynamic = scn;
        } else if (shdr.sh_type == SHT_DYNSYM) {
            file->dynsym = scn;
        } else if (shdr.sh_type == SHT_SYMTAB) {
            file->symtab = scn;
        }
        const char *name = elf_strptr(file->elf, names_index, shdr.sh_name);
        file->is_go |= name != NULL && (strcmp(name, ".go.buildinfo") == 0 ||
                                        strcmp(name, ".note.go.buildid") == 0);
    }
}

static void segments_scan(struct elf_file *file)
{
    size_t count = 0;
    if (elf_getphdrnum(file->elf, &count) != 0) {
        return;
    }
    for (size_t i = 0; i < count; i++) {
        GElf_Phdr phdr;
        if (gelf_getphdr(file->elf, (int)i, &phdr) == NULL) {
            continue;
        }
        file->has_dynamic |= phdr.p_type == PT_DYNAMIC;
        if (phdr.p_type == PT_INTERP && phdr.p_filesz < sizeof(file->interp)) {
            ssize_t len = pread(file->fd, file->interp, phdr.p_filesz, (off_t)phdr.p_offset);
            file->interp[len > 0 ? len : 0] = '\0';
        }
    }
}

static bool elf_open(struct elf_file *file, const char *path)
{
    *file = (struct elf_file){.path = path, .fd = open(path, O_RDONLY | O_CLOEXEC)};
    if (file->fd < 0) {
        return false;
    }
    elf_version(EV_CURRENT);
    file->elf = elf_begin(file->fd, ELF_C_READ_MMAP, NULL);
    if (file->elf == NULL || elf_kind(file->elf) != ELF_K_ELF ||
        gelf_getehdr(file->elf, &file->header) == NULL) {
        elf_end(file->elf);
        close(file->fd);
        return false;
    }
    segments_scan(file);
    sections_scan(file);
    return true;
}

static void elf_close(struct elf_file *file)
{
    elf_end(file->elf);
    close(file->fd);
}

bool elf_kind_read(const char *path, struct elf_kind *kind)
{
    struct elf_file file;
    if (!elf_open(&file, path)) {
        return false;
    }
    *kind = (struct elf_kind){file.header.e_ident[EI_CLASS], file.header.e_machine};
    // A position-independent executable is ET_DYN too, but names a loader.
    bool shared = file.header.e_type == ET_DYN && file.has_dynamic && file.interp[0] == '\0';
    elf_close(&file);
    return shared;
}

// dynamic_string returns the first string of a tag (DT_NEEDED, DT_SONAME) that starts with prefix,
// or NULL.
static const char *dynamic_string(struct elf_file *file, GElf_Sxword tag, const char *prefix)
{
    GElf_Shdr shdr;
    if (file->dynamic == NULL || gelf_getshdr(file->dynamic, &shdr) == NULL) {
        return NULL;
    }
    Elf_Data *data = elf_getdata(file->dynamic, NULL);
    GElf_Dyn entry;
    for (int i = 0; data != NULL && gelf_getdyn(data, i, &entry) != NULL; i++) {
        if (entry.d_tag == DT_NULL) {
            break;
        }
        if (entry.d_tag == tag) {
            const char *text = elf_strptr(file->elf, shdr.sh_link, entry.d_un.d_val);
            if (text != NULL && starts_with(text, prefix)) {
                return text;
            }
        }
    }
    return NULL;
}

// Functions by which an allocator that was linked in gives itself away. The first is the one that
// matters to everybody; the others are allocators with names of their own.
static const struct {
    const char *symbol;
    const char *what;
} allocators[] = {
    {"malloc", "a malloc"},    {"_rjem_malloc", "jemalloc"}, {"je_malloc", "jemalloc"},
    {"mi_malloc", "mimalloc"}, {"tc_malloc", "tcmalloc"},    {"rpmalloc", "rpmalloc"},
    {"sn_malloc", "snmalloc"}, {"scudo_malloc", "scudo"},
};

// allocator_defined returns the index of the first allocator that a symbol table defines, or -1.
static int allocator_defined(struct elf_file *file, Elf_Scn *table)
{
    GElf_Shdr shdr;
    if (table == NULL || gelf_getshdr(table, &shdr) == NULL || shdr.sh_entsize == 0) {
        return -1;
    }
    Elf_Data *data = elf_getdata(table, NULL);
    int best = -1;
    int count = (int)(shdr.sh_size / shdr.sh_entsize);
    for (int i = 1; data != NULL && i < count; i++) {
        GElf_Sym sym;
        if (gelf_getsym(data, i, &sym) == NULL || sym.st_shndx == SHN_UNDEF ||
            (GELF_ST_TYPE(sym.st_info) != STT_FUNC && GELF_ST_TYPE(sym.st_info) != STT_GNU_IFUNC)) {
            continue;
        }
        const char *name = elf_strptr(file->elf, shdr.sh_link, sym.st_name);
        for (int a = 0; name != NULL && a < (int)ARRAY_COUNT(allocators); a++) {
            if ((best < 0 || a < best) && strcmp(name, allocators[a].symbol) == 0) {
                best = a;
            }
        }
    }
    return best;
}

// ---- the questions -----------------------------------------------------------------------------

ATTR_PRINTF(3, 4)
static void verdict_set(struct preload_report *report, enum preload_verdict verdict,
                        const char *format, ...)
{
    va_list args;
    va_start(args, format);
    report->verdict = verdict;
    vsnprintf(report->reason, sizeof(report->reason), format, args);
    va_end(args);
    report->advice[0] = '\0';
}

static void advice_set(struct preload_report *report, const char *advice)
{
    snprintf(report->advice, sizeof(report->advice), "%s", advice);
}

// judge_kind: the loader maps only libraries of the program's own class and machine.
static bool judge_kind(const struct elf_file *file, const struct elf_kind *lib,
                       struct preload_report *report)
{
    int elf_class = file->header.e_ident[EI_CLASS];
    int machine = file->header.e_machine;
    if (elf_class == lib->elf_class && machine == lib->machine) {
        return true;
    }
    const char *name = elf_machine_name(machine);
    const char *own = elf_machine_name(lib->machine);
    char number[32];
    snprintf(number, sizeof(number), "machine %d", machine);
    verdict_set(report, PRELOAD_NOTHING,
                "is a %s-bit program for %s, and the library is %s-bit for %s",
                elf_class == ELFCLASS32 ? "32" : "64", name != NULL ? name : number,
                lib->elf_class == ELFCLASS32 ? "32" : "64", own != NULL ? own : "another machine");
    advice_set(report, "Name a library built for that machine with --lib.");
    return false;
}

// judge_loader: only a dynamic program has a loader, and only glibc's is what Ebb is built for.
static bool judge_loader(const struct elf_file *file, struct preload_report *report)
{
    const char *loader = base_name(file->interp);
    if (file->interp[0] == '\0') {
        verdict_set(report, PRELOAD_NOTHING,
                    file->is_go ? "is a static Go program: it has no loader, and its memory is Go's"
                                : "is a static executable: it has no loader that could load Ebb");
        advice_set(report, file->is_go ? "Go gives memory back itself; see GODEBUG and GOMEMLIMIT."
                                       : "Link it with libebb.a instead, or link it dynamically.");
        return false;
    }
    if (starts_with(loader, "ld-musl-")) {
        verdict_set(report, PRELOAD_NOTHING, "is linked with musl (%s), and Ebb is built for glibc",
                    loader);
        advice_set(report, "Build the program against glibc.");
        return false;
    }
    if (!starts_with(loader, "ld-linux") && !starts_with(loader, "ld64.so") &&
        !starts_with(loader, "ld.so")) {
        verdict_set(report, PRELOAD_PARTLY, "is loaded by %.200s, which may not know LD_PRELOAD",
                    file->interp);
    }
    if (access(file->interp, F_OK) != 0) {
        strcpy(report->missing, file->interp);
    }
    return true;
}

// judge_secure: in secure mode (AT_SECURE) the loader takes a preload only by a name without slash,
// from system folders, and only if the library is set-user-ID too. The kernel sets it where exec
// changes the identity: set-ID bits of another owner, or capabilities for somebody but root.
static bool judge_secure(const struct elf_file *file, struct preload_report *report)
{
    struct stat st;
    struct statvfs fs;
    bool ignored = prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 ||
                   (fstatvfs(file->fd, &fs) == 0 && (fs.f_flag & ST_NOSUID) != 0);
    if (ignored || fstat(file->fd, &st) != 0) {
        return true;
    }
    const char *what = NULL;
    if ((st.st_mode & S_ISUID) != 0 && st.st_uid != getuid()) {
        what = "set-user-ID";
    } else if ((st.st_mode & S_ISGID) != 0 && (st.st_mode & S_IXGRP) != 0 &&
               st.st_gid != getgid()) {
        what = "set-group-ID";
    } else if (getuid() != 0 && fgetxattr(file->fd, "security.capability", NULL, 0) > 0) {
        what = "privileged by file capabilities";
    }
    if (what == NULL) {
        return true;
    }
    verdict_set(report, PRELOAD_NOTHING,
                "is %s: the loader ignores LD_PRELOAD in programs that gain privileges", what);
    advice_set(report, "Run it as its owner, or put ebb behind it, as in `sudo ebb run PROGRAM`.");
    return false;
}

// judge_allocator: a malloc that the program exports comes before every preloaded one, also for its
// libraries; one that it keeps to itself serves the program alone.
static bool judge_allocator(struct elf_file *file, struct preload_report *report)
{
    const char *sanitizer = dynamic_string(file, DT_NEEDED, "libasan.so");
    sanitizer = sanitizer != NULL ? sanitizer : dynamic_string(file, DT_NEEDED, "libtsan.so");
    sanitizer = sanitizer != NULL ? sanitizer : dynamic_string(file, DT_NEEDED, "libhwasan.so");
    sanitizer = sanitizer != NULL ? sanitizer : dynamic_string(file, DT_NEEDED, "liblsan.so");
    if (sanitizer != NULL) {
        verdict_set(report, PRELOAD_NOTHING,
                    "is built with a sanitizer (%s), which needs its own malloc", sanitizer);
        advice_set(report, "Build it without the sanitizer.");
        return false;
    }
    if (allocator_defined(file, file->dynsym) == 0) {
        verdict_set(report, PRELOAD_NOTHING,
                    "exports a malloc of its own, which comes before any preloaded one");
        advice_set(report, "Link it without that allocator.");
        return false;
    }
    int own = allocator_defined(file, file->symtab);
    if (own < 0) {
        own = allocator_defined(file, file->dynsym);
    }
    if (own == 0) {
        verdict_set(report, PRELOAD_PARTLY,
                    "has a malloc of its own inside: its own calls go there, only its libraries' "
                    "to Ebb");
    } else if (own > 0) {
        verdict_set(report, PRELOAD_PARTLY,
                    "has %s linked in (%s): its own calls go there, only its libraries' to Ebb",
                    allocators[own].what, allocators[own].symbol);
    } else if (file->is_go) {
        verdict_set(report, PRELOAD_PARTLY,
                    "is a Go program: the Go heap stays Go's, only C code in it uses Ebb");
    }
    return true;
}

static void elf_judge(struct elf_file *file, const struct elf_kind *lib,
                      struct preload_report *report)
{
    if (file->header.e_type != ET_EXEC && file->header.e_type != ET_DYN) {
        return;
    }
    if (judge_kind(file, lib, report) && judge_loader(file, report) && judge_secure(file, report)) {
        judge_allocator(file, report);
    }
}

// ---- the walk ----------------------------------------------------------------------------------

// command_next writes the program behind a command that only runs another one (env NAME, or the
// loader ld-linux run by name), and returns false for all others.
static bool command_next(const char *path, char *const args[], char next[PATH_MAX])
{
    const char *name = base_name(path);
    const char *target = NULL;
    if (args != NULL && strcmp(name, "env") == 0) {
        target = env_target(args + 1);
    } else if (args != NULL && starts_with(name, "ld-linux") && args[1] != NULL &&
               args[1][0] != '-') {
        target = args[1];
    }
    return target != NULL && program_find(target, next) == 0 && strcmp(next, path) != 0;
}

void program_inspect(const char *path, char *const args[], const struct elf_kind *lib,
                     struct preload_report *report)
{
    *report = (struct preload_report){.verdict = PRELOAD_WORKS};
    strcpy(report->path, path);
    char next[PATH_MAX];
    if (command_next(path, args, next)) {
        strcpy(report->path, next);
    } else if (starts_with(base_name(path), "ld-linux")) {
        return; // the loader itself honours LD_PRELOAD for what it loads
    }
    for (int depth = 0; depth <= ELF_SCRIPTS_MAX; depth++) {
        char head[BINPRM_BYTES + 1];
        enum file_kind kind = head_read(report->path, head);
        if (kind == FILE_ELF) {
            struct elf_file file;
            if (elf_open(&file, report->path)) {
                elf_judge(&file, lib, report);
                elf_close(&file);
            }
            return;
        }
        if (kind == FILE_TEXT) {
            report->plain_text |= depth == 0;
            strcpy(head, "#!/bin/sh");
        } else if (kind == FILE_OTHER) {
            return;
        }
        if (!script_next(head, next, report->missing)) {
            return;
        }
        strcpy(report->path, next);
    }
}
