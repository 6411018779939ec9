// SPDX-License-Identifier: MIT
//
// A Go program's file, put together for tests.
//
// Go  none.
#include "support/gofile.h"

#include <dwarf.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

void gofile_put(struct gofile *out, const void *bytes, size_t len)
{
    if (out->len + len > sizeof(out->at)) {
        abort();
    }
    memcpy(out->at + out->len, bytes, len);
    out->len += len;
}

void gofile_number(struct gofile *out, uint64_t value, size_t bytes)
{
    gofile_put(out, &value, bytes);
}

static void put_text(struct gofile *out, const char *text)
{
    gofile_put(out, text, strlen(text) + 1);
}

void gofile_abbrev(struct gofile *out, unsigned code, unsigned tag, bool children,
                   const uint8_t *pairs)
{
    gofile_number(out, code, 1);
    gofile_number(out, tag, 1);
    gofile_number(out, children, 1);
    for (; pairs[0] != 0; pairs += 2) {
        gofile_put(out, pairs, 2);
    }
    gofile_number(out, 0, 2);
}

static void abbrevs_make(struct gofile *out)
{
    static const uint8_t unit[] = {DW_AT_name, DW_FORM_string, 0, 0};
    static const uint8_t variable[] = {
        DW_AT_name, DW_FORM_string, DW_AT_location, DW_FORM_block1, DW_AT_type, DW_FORM_ref_addr, 0,
        0};
    static const uint8_t structure[] = {
        DW_AT_name, DW_FORM_string, DW_AT_byte_size, DW_FORM_udata, 0, 0};
    static const uint8_t member[] = {DW_AT_name,
                                     DW_FORM_string,
                                     DW_AT_data_member_location,
                                     DW_FORM_udata,
                                     DW_AT_type,
                                     DW_FORM_ref_addr,
                                     0,
                                     0};
    static const uint8_t base[] = {DW_AT_name, DW_FORM_string, DW_AT_byte_size, DW_FORM_data1, 0,
                                   0};
    static const uint8_t alias[] = {DW_AT_name, DW_FORM_string, DW_AT_type, DW_FORM_ref_addr, 0, 0};
    gofile_abbrev(out, CODE_UNIT, DW_TAG_compile_unit, true, unit);
    gofile_abbrev(out, CODE_VARIABLE, DW_TAG_variable, false, variable);
    gofile_abbrev(out, CODE_STRUCT, DW_TAG_structure_type, true, structure);
    gofile_abbrev(out, CODE_MEMBER, DW_TAG_member, false, member);
    gofile_abbrev(out, CODE_BASE, DW_TAG_base_type, false, base);
    gofile_abbrev(out, CODE_TYPEDEF, DW_TAG_typedef, false, alias);
    gofile_number(out, 0, 1);
}

static void put_member(struct gofile *out, const char *name, unsigned offset, size_t type)
{
    gofile_number(out, CODE_MEMBER, 1);
    put_text(out, name);
    gofile_number(out, offset, 1);
    gofile_number(out, type, 4);
}

// A unit "runtime": memstats at 0x5000 - 16, with heap_inuse at 16 (through a typedef),
// heap_released at 24 and heap_sys at 32.
static void info_make(struct gofile *out)
{
    gofile_number(out, 0, 4); // the length, set below
    gofile_number(out, 4, 2);
    gofile_number(out, 0, 4);
    gofile_number(out, 8, 1);
    gofile_number(out, CODE_UNIT, 1);
    put_text(out, "runtime");
    size_t base = out->len;
    gofile_number(out, CODE_BASE, 1);
    put_text(out, "uint64");
    gofile_number(out, 8, 1);
    size_t alias = out->len;
    gofile_number(out, CODE_TYPEDEF, 1);
    put_text(out, "runtime.sysMemStat");
    gofile_number(out, base, 4);
    size_t structure = out->len;
    gofile_number(out, CODE_STRUCT, 1);
    put_text(out, "runtime.mstats");
    gofile_number(out, 40, 1);
    put_member(out, "heap_inuse", 16, alias);
    put_member(out, "heap_released", 24, base);
    put_member(out, "heap_sys", 32, base);
    gofile_number(out, 0, 1);
    gofile_number(out, CODE_VARIABLE, 1);
    put_text(out, "runtime.memstats");
    gofile_number(out, 9, 1);
    gofile_number(out, DW_OP_addr, 1);
    gofile_number(out, HEAP_INUSE_ADDR - 16, 8);
    gofile_number(out, structure, 4);
    gofile_number(out, 0, 1);
    uint32_t len = (uint32_t)out->len - 4;
    memcpy(out->at, &len, sizeof(len));
}

static void buildinfo_make(struct gofile *out)
{
    static const char version[] = "go1.19.8";
    gofile_put(out, "\xff Go buildinf:", 14);
    gofile_number(out, 8, 1);
    gofile_number(out, 2, 1);
    gofile_number(out, 0, 8);
    gofile_number(out, 0, 8);
    gofile_number(out, sizeof(version) - 1, 1);
    gofile_put(out, version, sizeof(version) - 1);
    gofile_number(out, 0, 8);
}

// One function at 0x1000 to 0x1100: main.leak, of leak.go, whose line is 30 from 0x1010 on and 29
// before; sync.f is inlined at 0x1020 to 0x1040, called at 0x1008. Its frame has 24 bytes. As from
// 1.20.
void gofile_pclntab(struct gofile *out)
{
    enum { HEAD = 72, TEXTS = HEAD, UNITS = 96, FILES = 104, VALUES = 120, FUNCTIONS = 144 };
    gofile_number(out, 0xfffffff1u, 4);
    gofile_number(out, 0, 2);
    gofile_number(out, 1, 1);
    gofile_number(out, 8, 1);
    gofile_number(out, 1, 8);
    gofile_number(out, 1, 8);
    gofile_number(out, 0x1000, 8);
    gofile_number(out, TEXTS, 8);
    gofile_number(out, UNITS, 8);
    gofile_number(out, FILES, 8);
    gofile_number(out, VALUES, 8);
    gofile_number(out, FUNCTIONS, 8);
    put_text(out, "main.leak");
    put_text(out, "sync.f");
    out->len = UNITS;
    gofile_number(out, 0, 4);
    out->len = FILES;
    put_text(out, "src/leak.go");
    out->len = VALUES + 1;
    static const uint8_t lines[] = {60, 0x10, 2, 0xf0, 0x01, 0}; // +30 from -1, then +1
    gofile_put(out, lines, sizeof(lines));
    static const uint8_t files[] = {2, 0x80, 0x02, 0};
    gofile_put(out, files, sizeof(files));
    static const uint8_t frames[] = {50, 0x80, 0x02, 0};
    gofile_put(out, frames, sizeof(frames));
    static const uint8_t inlines[] = {0, 0x20, 2, 0x20, 1, 0xc0, 0x01, 0}; // -1, 0, -1
    gofile_put(out, inlines, sizeof(inlines));
    out->len = FUNCTIONS;
    gofile_number(out, 0, 4);
    gofile_number(out, 16, 4);
    gofile_number(out, 0x100, 4);
    gofile_number(out, 0, 4);
    static const uint32_t record[] = {0, 0, 0, 0, 11, 7, 1, 3, 0, 0, 4u << 24};
    gofile_put(out, record, sizeof(record));
    static const uint32_t tables[] = {0, 0, 15, UINT32_MAX, UINT32_MAX, UINT32_MAX, 0};
    gofile_put(out, tables, sizeof(tables));
}

// The tree of inlined calls: one node, with its name and place.
static void nodes_make(struct gofile *out)
{
    static const uint32_t node[] = {0, 10, 8, 0};
    gofile_put(out, node, sizeof(node));
}

static void symbols_make(struct gofile *out)
{
    const Elf64_Sym symbols[] = {{0},
                                 {.st_name = 1, .st_info = STT_OBJECT, .st_value = 0x6000},
                                 {.st_name = 22, .st_info = STT_OBJECT, .st_value = 0x7000}};
    gofile_put(out, symbols, sizeof(symbols));
}

static void strings_make(struct gofile *out)
{
    put_text(out, "");
    put_text(out, "runtime.gcController");
    put_text(out, "runtime.mheap_");
}

Elf64_Shdr *gofile_section(struct gofile *file, size_t index)
{
    const Elf64_Ehdr *head = (const Elf64_Ehdr *)(void *)file->at;
    return (Elf64_Shdr *)(void *)(file->at + head->e_shoff) + index + 1; // the first is empty
}

void gofile_make(struct gofile *out)
{
    static const char *const names[SECTIONS] = {".go.buildinfo", ".debug_info", ".debug_abbrev",
                                                ".gopclntab",    ".text",       ".symtab",
                                                ".strtab",       ".shstrtab"};
    static void (*const makers[SECTIONS])(struct gofile *) = {
        buildinfo_make, info_make,    abbrevs_make, gofile_pclntab,
        nodes_make,     symbols_make, strings_make};
    Elf64_Ehdr head = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
                       .e_type = ET_EXEC,
                       .e_machine = EM_X86_64,
                       .e_version = EV_CURRENT,
                       .e_ehsize = sizeof(head),
                       .e_phoff = sizeof(head),
                       .e_phentsize = sizeof(Elf64_Phdr),
                       .e_phnum = 1,
                       .e_shentsize = sizeof(Elf64_Shdr),
                       .e_shnum = SECTIONS + 1,
                       .e_shstrndx = SECTIONS};
    const Elf64_Phdr load = {.p_type = PT_LOAD,
                             .p_flags = PF_R | PF_X,
                             .p_vaddr = LOAD_ADDR,
                             .p_filesz = sizeof(out->at),
                             .p_memsz = sizeof(out->at)};
    Elf64_Shdr sections[SECTIONS + 1] = {{0}};
    struct gofile strings = {.len = 1};
    memset(out, 0, sizeof(*out));
    gofile_put(out, &head, sizeof(head));
    gofile_put(out, &load, sizeof(load));
    for (size_t i = 0; i < SECTIONS; i++) {
        struct gofile one = {.len = 0};
        Elf64_Shdr *section = &sections[i + 1];
        section->sh_name = (Elf64_Word)strings.len;
        put_text(&strings, names[i]);
        section->sh_type = i == NAMES ? SHT_STRTAB : SHT_PROGBITS;
        section->sh_addralign = 1;
        if (makers[i] != NULL) {
            makers[i](&one);
        }
        out->len = (out->len + 7) / 8 * 8;
        section->sh_offset = out->len;
        section->sh_size = i == NAMES ? strings.len : one.len;
        gofile_put(out, i == NAMES ? strings.at : one.at, section->sh_size);
    }
    out->len = (out->len + 7) / 8 * 8;
    head.e_shoff = out->len;
    memcpy(out->at, &head, sizeof(head));
    gofile_put(out, sections, sizeof(sections));
}

int gofile_fd(const uint8_t *bytes, size_t len)
{
    int fd = memfd_create("go_look", MFD_CLOEXEC);
    if (fd < 0 || write(fd, bytes, len) != (ssize_t)len) {
        abort();
    }
    return fd;
}
