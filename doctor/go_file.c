// SPDX-License-Identifier: MIT
//
// Doctor, the ELF file of a Go program: its version, its symbols and its sections.
//
// The file may be cut off or made to mislead. libelf bounds what it reads by the file's size, which
// says little: a file may be terabytes of nothing. So what it reads whole is bounded here.
//
// Go  src/debug/buildinfo, src/debug/elf.
#include <gelf.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "go_look.h"

#define INFO_BYTES_MAX (KIB * 64)
#define NAMES_BYTES_MAX MIB // of sections; programs have some hundreds of bytes
#define SYMBOLS_BYTES_MAX (64 * MIB)
static const char info_magic[] = "\xff Go buildinf:";
#define INFO_HEAD_BYTES 32
#define INFO_ALIGN 16
#define INFO_BIG_ENDIAN 1
#define INFO_INLINE 2

// Without names no section is found.
static void names_read(struct go_file *file)
{
    size_t index;
    Elf_Data *data = elf_getshdrstrndx(file->elf, &index) == 0
                         ? elf_names(file->elf, index, NAMES_BYTES_MAX)
                         : NULL;
    if (data != NULL) {
        file->names = (struct go_bytes){data->d_buf, data->d_size};
    }
}

// False if there are more than any linker makes.
static bool loads_read(struct go_file *file)
{
    size_t count;
    if (elf_getphdrnum(file->elf, &count) != 0) {
        return true;
    }
    for (size_t i = 0; i < count; i++) {
        GElf_Phdr part;
        if (gelf_getphdr(file->elf, (int)i, &part) == NULL || part.p_type != PT_LOAD) {
            continue;
        }
        if (file->loads_count == GO_LOADS_MAX) {
            return false;
        }
        file->loads[file->loads_count++] = part;
    }
    file->first_addr = file->loads[0].p_vaddr & ~UINT64_C(0xfff);
    return true;
}

bool go_file_open(struct go_file *file, int fd)
{
    struct stat st;
    GElf_Ehdr head;
    *file = (struct go_file){.fd = fd};
    elf_version(EV_CURRENT);
    file->elf = fd >= 0 && elf_head_good(fd) ? elf_begin(fd, ELF_C_READ, NULL) : NULL;
    if (file->elf == NULL || fstat(fd, &st) != 0 || gelf_getehdr(file->elf, &head) == NULL ||
        !loads_read(file)) {
        go_file_close(file);
        return false;
    }
    file->bytes = (uint64_t)st.st_size;
    file->is_pie = head.e_type == ET_DYN;
    file->machine = head.e_machine;
    names_read(file);
    return true;
}

void go_file_close(struct go_file *file)
{
    elf_end(file->elf);
    if (file->fd >= 0) {
        close(file->fd);
    }
    *file = (struct go_file){.fd = -1};
}

static Elf_Scn *section_named(const struct go_file *file, const char *name, GElf_Shdr *head)
{
    Elf_Scn *section = NULL;
    while ((section = elf_nextscn(file->elf, section)) != NULL) {
        if (gelf_getshdr(section, head) == NULL) {
            return NULL;
        }
        if (head->sh_name < file->names.len && head->sh_type != SHT_NOBITS &&
            strcmp((const char *)file->names.at + head->sh_name, name) == 0) {
            return section;
        }
    }
    return NULL;
}

// ".zdebug_info" for ".debug_info"; "" for other sections.
static void old_name(const char *name, char *old, size_t cap)
{
    old[0] = '\0';
    if (strncmp(name, ".debug_", 7) == 0 && strlen(name) + 2 <= cap) {
        old[0] = '.';
        old[1] = 'z';
        memcpy(old + 2, name + 1, strlen(name));
    }
}

// Size of the inflated section; that of the section itself where it is not compressed.
static uint64_t full_size(Elf_Scn *section, const GElf_Shdr *head, bool old)
{
    GElf_Chdr packed;
    if ((head->sh_flags & SHF_COMPRESSED) != 0) {
        return gelf_getchdr(section, &packed) == NULL ? 0 : packed.ch_size;
    }
    if (!old) {
        return head->sh_size;
    }
    // "ZLIB", then the size, most significant byte first.
    Elf_Data *data = elf_rawdata(section, NULL);
    if (data == NULL || data->d_buf == NULL || data->d_size < 12 ||
        memcmp(data->d_buf, "ZLIB", 4) != 0) {
        return 0;
    }
    uint64_t size = 0;
    for (size_t i = 4; i < 12; i++) {
        size = size << 8 | ((const uint8_t *)data->d_buf)[i];
    }
    return size;
}

static Elf_Scn *section_find(const struct go_file *file, const char *name, GElf_Shdr *head,
                             bool *old)
{
    char other[32];
    Elf_Scn *section = section_named(file, name, head);
    *old = false;
    old_name(name, other, sizeof(other));
    if (section == NULL && other[0] != '\0') {
        section = section_named(file, other, head);
        *old = section != NULL;
    }
    return section;
}

uint64_t go_section_size(const struct go_file *file, const char *name, uint64_t cap)
{
    GElf_Shdr head;
    bool old;
    Elf_Scn *section = section_find(file, name, &head, &old);
    if (section == NULL || head.sh_size > cap) {
        return section == NULL ? 0 : head.sh_size;
    }
    return full_size(section, &head, old);
}

bool go_section_place(const struct go_file *file, const char *name, struct go_place *out)
{
    GElf_Shdr head;
    if (section_named(file, name, &head) == NULL || head.sh_offset > file->bytes ||
        head.sh_size > file->bytes - head.sh_offset) {
        return false;
    }
    *out = (struct go_place){head.sh_offset, head.sh_addr, head.sh_size};
    return true;
}

bool go_section(const struct go_file *file, const char *name, size_t cap, struct go_bytes *out)
{
    GElf_Shdr head;
    bool old;
    *out = (struct go_bytes){0};
    Elf_Scn *section = section_find(file, name, &head, &old);
    if (section == NULL || head.sh_size > file->bytes || head.sh_size > cap) {
        return false;
    }
    uint64_t size = full_size(section, &head, old);
    if (size == 0 || size > cap) {
        return false;
    }
    if ((head.sh_flags & SHF_COMPRESSED) != 0 && elf_compress(section, 0, 0) < 0) {
        return false;
    }
    if (old && elf_compress_gnu(section, 0, 0) < 0) {
        return false;
    }
    Elf_Data *data = elf_rawdata(section, NULL);
    if (data == NULL || data->d_buf == NULL || data->d_size == 0 || data->d_size > cap) {
        return false;
    }
    *out = (struct go_bytes){data->d_buf, data->d_size};
    return true;
}

// ---- addresses in the file ----------------------------------------------------------------------

bool go_file_read(const struct go_file *file, uint64_t addr, void *to, size_t bytes)
{
    for (size_t i = 0; i < file->loads_count; i++) {
        const Elf64_Phdr *part = &file->loads[i];
        if (addr >= part->p_vaddr && addr - part->p_vaddr < part->p_filesz &&
            bytes <= part->p_filesz - (addr - part->p_vaddr)) {
            uint64_t at = part->p_offset + (addr - part->p_vaddr);
            return at <= file->bytes && pread(file->fd, to, bytes, (off_t)at) == (ssize_t)bytes;
        }
    }
    return false;
}

bool go_segments_hold(const struct go_file *file, uint64_t addr, enum go_segment kind)
{
    Elf64_Word wanted = kind == GO_SEGMENT_CODE ? PF_X : PF_W;
    for (size_t i = 0; i < file->loads_count; i++) {
        const Elf64_Phdr *part = &file->loads[i];
        if ((part->p_flags & wanted) != 0 && addr >= part->p_vaddr &&
            addr - part->p_vaddr < part->p_memsz) {
            return true;
        }
    }
    return false;
}

// ---- build info ---------------------------------------------------------------------------------

// info_start finds where the build info may begin: its section, or the first segment of variables.
static bool info_start(const struct go_file *file, uint64_t *offset, uint64_t *bytes)
{
    GElf_Shdr head;
    if (section_named(file, ".go.buildinfo", &head) != NULL) {
        *offset = head.sh_offset;
        *bytes = head.sh_size;
        return true;
    }
    for (size_t i = 0; i < file->loads_count; i++) {
        const Elf64_Phdr *part = &file->loads[i];
        if ((part->p_flags & (PF_X | PF_W)) == PF_W) {
            *offset = part->p_offset;
            *bytes = part->p_filesz;
            return true;
        }
    }
    return false;
}

static bool text_take(char *version, size_t cap, const void *text, uint64_t len)
{
    if (len == 0 || len >= cap) {
        return false;
    }
    memcpy(version, text, (size_t)len);
    version[len] = '\0';
    for (size_t i = 0; i < len; i++) {
        if (version[i] < ' ' || version[i] >= 0x7f) {
            return false;
        }
    }
    return true;
}

// Up to 1.17 the build info points to a string's header, which points to the text.
static bool version_pointed(const struct go_file *file, uint64_t addr, char *version, size_t cap)
{
    uint64_t header[2];
    char text[64];
    return go_file_read(file, addr, header, sizeof(header)) && header[1] < sizeof(text) &&
           go_file_read(file, header[0], text, (size_t)header[1]) &&
           text_take(version, cap, text, header[1]);
}

static bool version_at(const struct go_file *file, const uint8_t *info, size_t len, char *version,
                       size_t cap)
{
    if ((info[15] & INFO_INLINE) != 0) {
        // A version is shorter than 128 bytes, so its length is one byte.
        return len > INFO_HEAD_BYTES && info[32] < 0x80 && info[32] < len - INFO_HEAD_BYTES &&
               text_take(version, cap, info + INFO_HEAD_BYTES + 1, info[32]);
    }
    uint64_t addr;
    memcpy(&addr, info + 16, sizeof(addr));
    return info[14] == sizeof(addr) && (info[15] & INFO_BIG_ENDIAN) == 0 &&
           version_pointed(file, addr, version, cap);
}

bool go_version_read(const struct go_file *file, char *version, size_t cap)
{
    uint64_t offset;
    uint64_t bytes;
    version[0] = '\0';
    if (!info_start(file, &offset, &bytes) || offset > file->bytes) {
        return false;
    }
    uint8_t *data = malloc(INFO_BYTES_MAX);
    if (data == NULL) {
        return false;
    }
    ssize_t len = pread(file->fd, data, min_u64(bytes, INFO_BYTES_MAX), (off_t)offset);
    bool found = false;
    for (size_t at = 0; len > 0 && at + INFO_HEAD_BYTES <= (size_t)len && !found;
         at += INFO_ALIGN) {
        found = memcmp(data + at, info_magic, sizeof(info_magic) - 1) == 0 &&
                version_at(file, data + at, (size_t)len - at, version, cap);
    }
    free(data);
    return found;
}

int go_version_minor(const char *version)
{
    const char *at = strstr(version, "go1.");
    long minor = at == NULL ? 0 : strtol(at + 4, NULL, 10);
    return minor > 0 && minor < 1000 ? (int)minor : 0;
}

// ---- symbols ------------------------------------------------------------------------------------

static size_t symbol_match(const char *name, const char *const *names, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(names[i], name) == 0) {
            return i;
        }
    }
    return count;
}

size_t go_symbols(const struct go_file *file, const char *const *names, uint64_t *addrs,
                  size_t count)
{
    struct go_bytes table;
    struct go_bytes strings;
    size_t found = 0;
    memset(addrs, 0, count * sizeof(*addrs));
    if (!go_section(file, ".symtab", SYMBOLS_BYTES_MAX, &table)) {
        return 0;
    }
    if (!go_section(file, ".strtab", SYMBOLS_BYTES_MAX, &strings) ||
        strings.at[strings.len - 1] != '\0') {
        return 0;
    }
    for (size_t i = 0; i < table.len / sizeof(Elf64_Sym) && found < count; i++) {
        Elf64_Sym symbol;
        memcpy(&symbol, table.at + i * sizeof(symbol), sizeof(symbol));
        if (symbol.st_name >= strings.len || ELF64_ST_TYPE(symbol.st_info) > STT_FUNC) {
            continue;
        }
        const char *name = (const char *)strings.at + symbol.st_name;
        bool likely = strncmp(name, "runtime.", 8) == 0;
        size_t index = likely ? symbol_match(name, names, count) : count;
        if (index < count && addrs[index] == 0) {
            addrs[index] = symbol.st_value;
            found += symbol.st_value != 0;
        }
    }
    return found;
}
