// SPDX-License-Identifier: MIT
//
// Maps: what an ELF image says of itself: its build id, how far it was moved, and where the
// function that holds an address begins.
//
// The sorted table of .eh_frame_hdr is there in stripped files too, because unwinding needs it. It
// has the start of each function; where one ends, its entry in .eh_frame says.
//
// Go  1.19 runtime/pprof/elf.go elfBuildID. Go's own tables of functions cannot be stripped.
#include <elf.h>
#include <string.h>

#include "profile/maps.h"

#define HEAD_BYTES (4 * KIB)
#define BUILD_ID_MAX 64
// Encodings of DWARF: signed 4 bytes relative to the table, unsigned 4 bytes, relative to itself.
#define ENCODING_TABLE 0x3b
#define ENCODING_COUNT 0x03
#define ENCODING_START 0x1b

struct table_head {
    uint8_t version;
    uint8_t start_encoding;
    uint8_t count_encoding;
    uint8_t table_encoding;
    int32_t start;
    uint32_t count;
};

struct table_row {
    int32_t function;
    int32_t entry;
};

// The front of an entry of .eh_frame.
struct entry_head {
    uint32_t bytes;
    uint32_t common;
    int32_t function; // relative to this field
    uint32_t function_bytes;
};

static const char *note_build_id(const char *notes, size_t bytes, struct region *region)
{
    while (bytes >= sizeof(Elf64_Nhdr)) {
        Elf64_Nhdr note;
        memcpy(&note, notes, sizeof(note));
        size_t name = align_up(note.n_namesz, 4);
        size_t whole = sizeof(note) + name + align_up(note.n_descsz, 4);
        if (note.n_namesz > bytes || note.n_descsz > bytes || whole > bytes) {
            break;
        }
        const char *desc = notes + sizeof(note) + name;
        if (note.n_type == NT_GNU_BUILD_ID && note.n_namesz == 4 &&
            memcmp(notes + sizeof(note), "GNU", 4) == 0 && note.n_descsz <= BUILD_ID_MAX) {
            char hex[2 * BUILD_ID_MAX];
            for (size_t i = 0; i < note.n_descsz; i++) {
                hex[2 * i] = "0123456789abcdef"[(desc[i] >> 4) & 15];
                hex[2 * i + 1] = "0123456789abcdef"[desc[i] & 15];
            }
            return region_text(region, hex, 2 * (size_t)note.n_descsz);
        }
        notes += whole;
        bytes -= whole;
    }
    return NULL;
}

const char *maps_build_id(const char *head, size_t bytes, struct region *region)
{
    Elf64_Ehdr elf;
    if (bytes < sizeof(elf)) {
        return "";
    }
    memcpy(&elf, head, sizeof(elf));
    if (memcmp(elf.e_ident, ELFMAG, SELFMAG) != 0 || elf.e_ident[EI_CLASS] != ELFCLASS64) {
        return "";
    }
    for (size_t i = 0; i < elf.e_phnum; i++) {
        Elf64_Phdr part;
        uint64_t at = elf.e_phoff + i * sizeof(part);
        if (elf.e_phoff > bytes || at + sizeof(part) > bytes) {
            break;
        }
        memcpy(&part, head + at, sizeof(part));
        if (part.p_type == PT_NOTE && part.p_offset < bytes) {
            size_t count = (size_t)min_u64(part.p_filesz, bytes - part.p_offset);
            const char *id = note_build_id(head + part.p_offset, count, region);
            if (id != NULL) {
                return id;
            }
        }
    }
    return "";
}

// By the segment with its text.
bool maps_bias(struct maps_module *module, const char *head, size_t bytes)
{
    Elf64_Ehdr elf;
    if (bytes < sizeof(elf)) {
        return false;
    }
    memcpy(&elf, head, sizeof(elf));
    if (memcmp(elf.e_ident, ELFMAG, SELFMAG) != 0 || elf.e_ident[EI_CLASS] != ELFCLASS64 ||
        elf.e_phoff > bytes || elf.e_shentsize != sizeof(Elf64_Shdr)) {
        return false;
    }
    uint64_t length = module->text_end - module->text;
    for (size_t i = 0; i < elf.e_phnum; i++) {
        Elf64_Phdr part;
        uint64_t at = elf.e_phoff + i * sizeof(part);
        if (at + sizeof(part) > bytes) {
            break;
        }
        memcpy(&part, head + at, sizeof(part));
        if (part.p_type == PT_LOAD && (part.p_flags & PF_X) != 0 &&
            module->text_offset < part.p_offset + part.p_filesz &&
            module->text_offset + length > part.p_offset) {
            module->bias = module->text - (part.p_vaddr + module->text_offset - part.p_offset);
            return true;
        }
    }
    return false;
}

static bool memory_read(struct maps *maps, uintptr_t from, void *to, size_t bytes)
{
    return maps_memory(maps, from, to, bytes) == bytes;
}

static uintptr_t moved(uintptr_t base, int32_t by)
{
    return base + (uintptr_t)(intptr_t)by;
}

// The address of .eh_frame_hdr, 0 if there is none.
static uintptr_t table_of(struct maps *maps, struct maps_module *module, struct region *region)
{
    if (module->unwind_known) {
        return module->unwind;
    }
    module->unwind_known = true;
    char *head = region_alloc(region, HEAD_BYTES);
    if (head == NULL || module->image == 0 || !memory_read(maps, module->image, head, HEAD_BYTES) ||
        !maps_bias(module, head, HEAD_BYTES)) {
        return 0;
    }
    Elf64_Ehdr elf;
    memcpy(&elf, head, sizeof(elf));
    for (size_t i = 0; i < elf.e_phnum; i++) {
        Elf64_Phdr part;
        uint64_t at = elf.e_phoff + i * sizeof(part);
        if (at + sizeof(part) > HEAD_BYTES) {
            break;
        }
        memcpy(&part, head + at, sizeof(part));
        if (part.p_type == PT_GNU_EH_FRAME) {
            module->unwind = module->bias + part.p_vaddr;
        }
    }
    return module->unwind;
}

// The last row whose function begins at or before pc.
static bool row_find(struct maps *maps, uintptr_t table, uint32_t count, uintptr_t pc,
                     struct table_row *found)
{
    uint32_t low = 0;
    uint32_t high = count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        struct table_row row;
        uintptr_t at = table + sizeof(struct table_head) + middle * sizeof(row);
        if (!memory_read(maps, at, &row, sizeof(row))) {
            return false;
        }
        if (moved(table, row.function) <= pc) {
            *found = row;
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low != 0;
}

uintptr_t maps_function(struct maps *maps, struct maps_module *module, uintptr_t pc,
                        struct region *region)
{
    struct table_head head;
    struct table_row row;
    struct entry_head entry;
    uintptr_t table = table_of(maps, module, region);
    if (table == 0 || !memory_read(maps, table, &head, sizeof(head)) || head.version != 1 ||
        head.start_encoding != ENCODING_START || head.count_encoding != ENCODING_COUNT ||
        head.table_encoding != ENCODING_TABLE || !row_find(maps, table, head.count, pc, &row)) {
        return 0;
    }
    uintptr_t start = moved(table, row.function);
    uintptr_t at = moved(table, row.entry);
    if (!memory_read(maps, at, &entry, sizeof(entry)) ||
        moved(at + offsetof(struct entry_head, function), entry.function) != start) {
        return 0;
    }
    return pc - start < entry.function_bytes ? start : 0;
}
