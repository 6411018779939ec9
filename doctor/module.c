// SPDX-License-Identifier: MIT
//
// Doctor, modules: the variables of a library or of the program, its symbols, and single words of
// the process's memory.
//
// Go  none.
#include <errno.h>
#include <gelf.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "parts.h"

// Names are in no cache: some 120 ns each.
#define SYMBOLS_MAX 400000
#define SYMBOL_COST_NS 120
// Names of so many are some 60 MiB in C++. A file may be much larger without any contents.
#define STRINGS_BYTES_MAX (128 * MIB)
#define TABLES_MAX 2 // one of each kind

void module_find(const struct exam *exam, const char *path, struct module *module)
{
    uint64_t end = 0;
    *module = (struct module){.path = path};
    for (size_t i = 0; i < exam->vmas_count; i++) {
        const struct vma *vma = &exam->vmas[i];
        bool same = strcmp(vma->path, path) == 0;
        bool bss = vma->path[0] == '\0' && vma->place == PLACE_DATA && vma->start == end;
        if (!same && !bss) {
            continue;
        }
        end = vma->end;
        if (same && vma->offset == 0 && module->base == 0) {
            module->base = vma->start;
        }
        if (vma->perms[1] == 'w' && vma->perms[3] == 'p' &&
            module->ranges_count < MODULE_RANGES_MAX) {
            module->ranges[module->ranges_count++] = (struct range){vma->start, vma->end};
        }
    }
}

struct piece {
    const struct exam *exam;
    unsigned char *to;
    uint64_t addr, end;
    long error;
};

static void piece_visit(void *arg, uint64_t start, uint64_t end, unsigned flags)
{
    struct piece *piece = arg;
    (void)flags;
    start = max_u64(start, piece->addr);
    end = min_u64(end, piece->end);
    if (piece->error == 0 && start < end) {
        piece->error =
            exam_read(piece->exam, piece->to + (start - piece->addr), start, end - start);
    }
}

long read_resident(const struct exam *exam, void *to, uint64_t addr, size_t bytes)
{
    uint64_t page = max_u64(exam->facts->kernel.page_bytes, 1);
    struct residency residency = exam->residency;
    struct piece piece = {exam, to, addr, addr + bytes, 0};
    if (!exam->scans || piece.end < addr || piece.end > UINT64_MAX - page) {
        return -EBADF;
    }
    memset(to, 0, bytes);
    residency.files = false;
    long error = residency_scan(&residency, addr / page * page,
                                (piece.end + page - 1) / page * page, piece_visit, &piece);
    return error != 0 ? error : piece.error;
}

uint64_t *module_copy(const struct exam *exam, const struct range *range, size_t *words_count)
{
    uint64_t bytes = range->end - range->start;
    uint64_t *words = bytes > MODULE_BYTES_MAX ? NULL : malloc(bytes);
    if (words != NULL && read_resident(exam, words, range->start, bytes) != 0) {
        free(words);
        words = NULL;
    }
    *words_count = words == NULL ? 0 : bytes / sizeof(*words);
    return words;
}

bool module_holds(const struct module *module, uint64_t addr)
{
    for (size_t i = 0; i < module->ranges_count; i++) {
        if (addr >= module->ranges[i].start && addr < module->ranges[i].end) {
            return true;
        }
    }
    return false;
}

bool is_unclaimed(const struct vma *vma)
{
    return vma_is_anonymous(vma) && vma->place != PLACE_HEAP;
}

bool in_anonymous(const struct exam *exam, uint64_t addr, uint64_t bytes)
{
    const struct vma *vma = vma_at(exam, addr);
    return vma != NULL && vma_is_anonymous(vma) && vma->end - addr >= bytes;
}

// ---- symbols ------------------------------------------------------------------------------------

static void section_symbols(Elf *elf, Elf_Scn *section, const GElf_Shdr *header,
                            symbol_visit *visit, void *arg)
{
    const Elf_Data *strings = elf_names(elf, header->sh_link, STRINGS_BYTES_MAX);
    Elf_Data *data = strings == NULL ? NULL : elf_getdata(section, NULL);
    size_t count = header->sh_size / header->sh_entsize;
    for (size_t i = 0; i < count && data != NULL; i++) {
        GElf_Sym symbol;
        // What is only asked for is of a library.
        if (gelf_getsym(data, (int)i, &symbol) != NULL && symbol.st_name < strings->d_size &&
            symbol.st_shndx != SHN_UNDEF) {
            visit(arg, (const char *)strings->d_buf + symbol.st_name, symbol.st_value);
        }
    }
}

bool file_symbols(const struct exam *exam, const char *file, symbol_visit *visit, void *arg)
{
    bool whole = true;
    int fd = elf_open(exam, file);
    elf_version(EV_CURRENT);
    Elf *elf = fd >= 0 && elf_head_good(fd) ? elf_begin(fd, ELF_C_READ, NULL) : NULL;
    Elf_Scn *section = NULL;
    size_t tables = 0;
    while (elf != NULL && tables < TABLES_MAX && (section = elf_nextscn(elf, section)) != NULL) {
        GElf_Shdr header;
        if (gelf_getshdr(section, &header) == NULL ||
            header.sh_entsize != gelf_fsize(elf, ELF_T_SYM, 1, EV_CURRENT) ||
            (header.sh_type != SHT_SYMTAB && header.sh_type != SHT_DYNSYM)) {
            continue;
        }
        uint64_t count = header.sh_size / header.sh_entsize;
        tables++;
        if (count <= SYMBOLS_MAX && exam_affords(exam, count * SYMBOL_COST_NS)) {
            section_symbols(elf, section, &header, visit, arg);
        } else {
            whole = false;
        }
    }
    whole = whole && elf != NULL;
    elf_end(elf);
    if (fd >= 0) {
        close(fd);
    }
    return whole;
}

struct wanted {
    const char *name;
    uint64_t value;
};

static void wanted_visit(void *arg, const char *name, uint64_t value)
{
    struct wanted *wanted = arg;
    if (wanted->value == 0 && strcmp(name, wanted->name) == 0) {
        wanted->value = value;
    }
}

// Libraries are linked to begin at 0, as are programs that can be placed anywhere; the others tell
// where everything is. The first mapping is of the file's start, its header.
uint64_t module_symbol(const struct exam *exam, const struct module *module, const char *name)
{
    char file[16 + PATH_MAX] = "exe";
    struct wanted wanted = {.name = name};
    uint16_t type = ET_DYN;
    const struct vma *vma = vma_at(exam, module->base);
    if (strcmp(module->path, exam->facts->process.exe) != 0) {
        if (vma == NULL || vma->removed) {
            return 0;
        }
        snprintf(file, sizeof(file), "%s", module->path);
    }
    (void)exam_peek(exam, &type, module->base + offsetof(Elf64_Ehdr, e_type), sizeof(type));
    (void)file_symbols(exam, file, wanted_visit, &wanted);
    return wanted.value == 0 ? 0 : wanted.value + (type == ET_EXEC ? 0 : module->base);
}
