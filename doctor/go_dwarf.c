// SPDX-License-Identifier: MIT
//
// Doctor, DWARF of package runtime: addresses of its variables, types, offsets of members; by
// libdw.
//
// All types of the runtime lie in units named "runtime"; other units are stepped over. What libdw
// reads is another program's file: it bounds its own steps, and here each chain of references is
// bounded by a count.
//
// Go  src/cmd/link/internal/ld/dwarf.go writes it, src/debug/dwarf reads it.
#include <dwarf.h>
#include <elfutils/libdw.h>
#include <string.h>

#include "go_look.h"

#define CHAIN_MAX 16           // typedefs of typedefs
#define MEMBERS_MAX 4096       // of one structure
#define ENTRIES_MAX (1u << 20) // of one unit

bool go_dwarf_open(struct go_dwarf *dwarf, const struct go_file *file)
{
    dwarf->dbg = dwarf_begin_elf(file->elf, DWARF_C_READ, NULL);
    return dwarf->dbg != NULL;
}

void go_dwarf_close(struct go_dwarf *dwarf)
{
    if (dwarf->dbg != NULL) {
        dwarf_end(dwarf->dbg);
        dwarf->dbg = NULL;
    }
}

static bool is_named(Dwarf_Die *die, const char *name, size_t len)
{
    const char *own = dwarf_diename(die);
    return own != NULL && strncmp(own, name, len) == 0 && own[len] == '\0';
}

// type_of follows an entry to its type, through typedefs, to what has members or a size.
static bool type_of(Dwarf_Die *die, Dwarf_Die *type)
{
    Dwarf_Attribute attr;
    if (dwarf_attr(die, DW_AT_type, &attr) == NULL || dwarf_formref_die(&attr, type) == NULL) {
        return false;
    }
    for (int i = 0; i < CHAIN_MAX; i++) {
        Dwarf_Die next;
        if (dwarf_tag(type) != DW_TAG_typedef) {
            return true;
        }
        if (dwarf_attr(type, DW_AT_type, &attr) == NULL ||
            dwarf_formref_die(&attr, &next) == NULL) {
            return false;
        }
        *type = next;
    }
    return false;
}

// A plain address, in an expression of its own: a block of any form, which dwarf_getlocation would
// refuse in version 4. Since 1.25 it is an index into another section, and the symbols have it.
static uint64_t addr_of(Dwarf_Die *die)
{
    Dwarf_Attribute attr;
    Dwarf_Block block;
    uint64_t addr = 0;
    if (dwarf_attr(die, DW_AT_location, &attr) != NULL && dwarf_formblock(&attr, &block) == 0 &&
        block.length == 1 + sizeof(addr) && block.data[0] == DW_OP_addr) {
        memcpy(&addr, block.data + 1, sizeof(addr));
    }
    return addr;
}

static bool root_take(Dwarf_Die *die, struct go_root *root)
{
    int tag = dwarf_tag(die);
    Dwarf_Die type;
    bool wanted = root->is_type ? tag == DW_TAG_structure_type : tag == DW_TAG_variable;
    if (root->type != 0 || !wanted || !is_named(die, root->name, strlen(root->name))) {
        return false;
    }
    if (root->is_type) {
        root->type = dwarf_dieoffset(die);
        return true;
    }
    if (!type_of(die, &type)) {
        return false;
    }
    root->addr = addr_of(die);
    root->type = dwarf_dieoffset(&type);
    return true;
}

static size_t unit_roots(Dwarf_Die *unit, struct go_root *roots, size_t count)
{
    Dwarf_Die die;
    size_t found = 0;
    size_t seen = 0;
    if (dwarf_child(unit, &die) != 0) {
        return 0;
    }
    do {
        for (size_t i = 0; i < count; i++) {
            found += root_take(&die, &roots[i]);
        }
    } while (++seen < ENTRIES_MAX && dwarf_siblingof(&die, &die) == 0);
    return found;
}

size_t go_dwarf_roots(struct go_dwarf *dwarf, struct go_root *roots, size_t count)
{
    Dwarf_CU *unit = NULL;
    Dwarf_Die die;
    size_t found = 0;
    while (dwarf_get_units(dwarf->dbg, unit, &unit, NULL, NULL, &die, NULL) == 0) {
        if (is_named(&die, "runtime", sizeof("runtime") - 1)) {
            found += unit_roots(&die, roots, count);
        }
    }
    return found;
}

// member_offset reads a number; versions with an expression there are older than 1.12.
static bool member_offset(Dwarf_Die *member, uint64_t *offset)
{
    Dwarf_Attribute attr;
    Dwarf_Word number;
    if (dwarf_attr(member, DW_AT_data_member_location, &attr) == NULL ||
        dwarf_formudata(&attr, &number) != 0) {
        return false;
    }
    *offset = number;
    return true;
}

static bool member_find(Dwarf_Die *structure, const char *name, size_t len, Dwarf_Die *member)
{
    size_t seen = 0;
    if (dwarf_child(structure, member) != 0) {
        return false;
    }
    do {
        if (dwarf_tag(member) == DW_TAG_member && is_named(member, name, len)) {
            return true;
        }
    } while (++seen < MEMBERS_MAX && dwarf_siblingof(member, member) == 0);
    return false;
}

bool go_dwarf_path(struct go_dwarf *dwarf, uint64_t type, const char *path, uint64_t *offset,
                   uint64_t *size)
{
    Dwarf_Die die;
    Dwarf_Attribute attr;
    Dwarf_Word bytes;
    *offset = 0;
    if (dwarf_offdie(dwarf->dbg, type, &die) == NULL) {
        return false;
    }
    while (*path != '\0') {
        Dwarf_Die inner = die;
        if (*path == '[') {
            path++;
            if (dwarf_tag(&die) != DW_TAG_array_type) {
                return false;
            }
        } else {
            size_t len = strcspn(path + 1, ".[");
            uint64_t at;
            if (dwarf_tag(&die) != DW_TAG_structure_type ||
                !member_find(&die, path + 1, len, &inner) || !member_offset(&inner, &at)) {
                return false;
            }
            *offset += at;
            path += 1 + len;
        }
        if (!type_of(&inner, &die)) {
            return false;
        }
    }
    // Pointers, and all that is one, have no size of their own.
    bool has_bytes =
        dwarf_attr(&die, DW_AT_byte_size, &attr) != NULL && dwarf_formudata(&attr, &bytes) == 0;
    *size = has_bytes ? bytes : 8;
    return true;
}
