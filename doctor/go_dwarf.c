// SPDX-License-Identifier: MIT
//
// Doctor, DWARF of package runtime: addresses of its variables, types, offsets of members.
//
// Only what Go's linker writes for types and variables is read (versions 2 to 5, 64-bit). All
// types lie in a unit named "runtime"; other units are stepped over by their lengths. Offsets and
// lengths in the sections are taken for hostile: each step is bounded by the section, each chain
// by a count, and all steps together by the work that a program of that size can need.
//
// Go  src/cmd/link/internal/ld/dwarf.go writes it, src/debug/dwarf reads it.
#include <dwarf.h>
#include <stdlib.h>
#include <string.h>

#include "go_look.h"

#define UNITS_MAX ((size_t)1 << 20)
#define CODES_MAX 256 // Go uses less than 64
#define ATTRS_MAX 24
#define CHAIN_MAX 16 // typedefs of typedefs
// Work is bytes that are read, and attributes. Going once over all entries is less than twice their
// bytes; beyond that is following paths. All of it is 1 MiB in programs of 1.15 to 1.24, of 1 to
// 6 MiB of entries.
#define WORK_PATHS (4 * MIB)

struct dwarf_abbrev {
    uint16_t tag; // 0: no such code
    bool has_children;
    uint8_t attrs_count;
    uint16_t attrs[ATTRS_MAX], forms[ATTRS_MAX];
    int64_t constants[ATTRS_MAX]; // of DW_FORM_implicit_const
};

struct cursor {
    const uint8_t *base;
    uint64_t at, end;
    bool bad;
};

// An entry, as far as it is asked about.
struct entry {
    uint64_t next; // where the entry behind it begins
    uint64_t tag;  // 0: the end of a list of children
    bool has_children;
    const char *name; // "" none
    uint64_t type;    // 0: none
    uint64_t bytes, member, addr;
    bool has_bytes;
};

// ---- primitives ---------------------------------------------------------------------------------

static uint64_t take(struct cursor *c, size_t bytes)
{
    uint64_t value = 0;
    if (bytes > sizeof(value) || c->at > c->end || c->end - c->at < bytes) {
        c->bad = true;
        return 0;
    }
    memcpy(&value, c->base + c->at, bytes);
    c->at += bytes;
    return value;
}

static void skip(struct cursor *c, uint64_t bytes)
{
    if (c->at > c->end || c->end - c->at < bytes) {
        c->bad = true;
        return;
    }
    c->at += bytes;
}

static uint64_t take_leb(struct cursor *c)
{
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 70; shift += 7) {
        uint8_t byte = (uint8_t)take(c, 1);
        if (shift < 64) {
            value |= (uint64_t)(byte & 0x7f) << shift;
        }
        if ((byte & 0x80) == 0) {
            return value;
        }
    }
    c->bad = true;
    return 0;
}

static const char *take_string(struct cursor *c)
{
    if (c->at >= c->end) {
        c->bad = true;
        return "";
    }
    const char *text = (const char *)c->base + c->at;
    const char *end = memchr(text, '\0', (size_t)(c->end - c->at));
    if (end == NULL) {
        c->bad = true;
        c->at = c->end;
        return "";
    }
    c->at += (uint64_t)(end - text) + 1;
    return text;
}

static const char *string_at(const struct go_dwarf *dwarf, uint64_t offset)
{
    return offset < dwarf->strings.len ? (const char *)dwarf->strings.at + offset : "";
}

// spend takes work from what may still be done; false when that is used up.
static bool spend(struct go_dwarf *dwarf, uint64_t work)
{
    dwarf->work_left -= min_u64(work, dwarf->work_left);
    return dwarf->work_left != 0;
}

// ---- abbreviations ------------------------------------------------------------------------------

static void abbrev_attrs(struct cursor *c, struct dwarf_abbrev *out)
{
    while (!c->bad) {
        uint64_t attr = take_leb(c);
        uint64_t form = take_leb(c);
        int64_t constant = form == DW_FORM_implicit_const ? (int64_t)take_leb(c) : 0;
        if (attr == 0 && form == 0) {
            return;
        }
        if (out->attrs_count == ATTRS_MAX || attr > UINT16_MAX || form > UINT16_MAX) {
            c->bad = true;
            return;
        }
        out->attrs[out->attrs_count] = (uint16_t)attr;
        out->forms[out->attrs_count] = (uint16_t)form;
        out->constants[out->attrs_count++] = constant;
    }
}

static bool abbrev_read(struct cursor *c, struct dwarf_abbrev *table, uint64_t code)
{
    struct dwarf_abbrev one = {0};
    uint64_t tag = take_leb(c);
    one.has_children = take(c, 1) != 0;
    abbrev_attrs(c, &one);
    if (c->bad || code >= CODES_MAX || tag > UINT16_MAX) {
        return false;
    }
    one.tag = (uint16_t)tag;
    table[code] = one;
    return true;
}

// abbrevs_load reads the table at offset, unless it is the last one used.
static bool abbrevs_load(struct go_dwarf *dwarf, uint64_t offset)
{
    if (dwarf->table_offset == offset) {
        return true;
    }
    struct cursor c = {dwarf->abbrevs.at, offset, dwarf->abbrevs.len, false};
    for (size_t i = 0; i < CODES_MAX; i++) {
        dwarf->table[i].tag = 0;
    }
    dwarf->table_offset = UINT64_MAX;
    uint64_t code = take_leb(&c);
    while (code != 0 && abbrev_read(&c, dwarf->table, code)) {
        code = take_leb(&c);
    }
    // Clearing the table costs about as much as reading a byte for each code.
    if (!spend(dwarf, c.at - offset + CODES_MAX) || c.bad || code != 0) {
        return false;
    }
    dwarf->table_offset = offset;
    return true;
}

// ---- entries ------------------------------------------------------------------------------------

// A value in one form. Blocks give their first eight bytes behind DW_OP_addr.
struct form_value {
    uint64_t number;
    const char *text; // NULL: not a string
};

static uint64_t take_block(struct cursor *c, uint64_t bytes)
{
    struct cursor inside = *c;
    skip(c, bytes);
    return bytes == 9 && take(&inside, 1) == DW_OP_addr ? take(&inside, 8) : 0;
}

static uint64_t take_number(struct cursor *c, const struct dwarf_unit *unit, unsigned form)
{
    switch (form) {
    case DW_FORM_addr:
        return take(c, unit->address_bytes);
    case DW_FORM_data1:
    case DW_FORM_flag:
    case DW_FORM_addrx1:
    case DW_FORM_strx1:
        return take(c, 1);
    case DW_FORM_data2:
    case DW_FORM_addrx2:
    case DW_FORM_strx2:
        return take(c, 2);
    case DW_FORM_addrx3:
    case DW_FORM_strx3:
        return take(c, 3);
    case DW_FORM_data4:
    case DW_FORM_addrx4:
    case DW_FORM_strx4:
        return take(c, 4);
    case DW_FORM_data8:
    case DW_FORM_ref_sig8:
        return take(c, 8);
    case DW_FORM_udata:
    case DW_FORM_sdata:
    case DW_FORM_addrx:
    case DW_FORM_strx:
    case DW_FORM_loclistx:
    case DW_FORM_rnglistx:
        return take_leb(c);
    case DW_FORM_sec_offset:
        return take(c, unit->offset_bytes);
    case DW_FORM_flag_present:
        return 1;
    case DW_FORM_data16:
        skip(c, 16);
        return 0;
    case DW_FORM_block1:
        return take_block(c, take(c, 1));
    case DW_FORM_block2:
        return take_block(c, take(c, 2));
    case DW_FORM_block4:
        return take_block(c, take(c, 4));
    case DW_FORM_block:
    case DW_FORM_exprloc:
        return take_block(c, take_leb(c));
    default:
        c->bad = true;
        return 0;
    }
}

// References count from their unit, but for ref_addr.
static bool take_reference(struct cursor *c, const struct dwarf_unit *unit, unsigned form,
                           uint64_t *target)
{
    switch (form) {
    case DW_FORM_ref1:
        *target = unit->start + take(c, 1);
        return true;
    case DW_FORM_ref2:
        *target = unit->start + take(c, 2);
        return true;
    case DW_FORM_ref4:
        *target = unit->start + take(c, 4);
        return true;
    case DW_FORM_ref8:
        *target = unit->start + take(c, 8);
        return true;
    case DW_FORM_ref_udata:
        *target = unit->start + take_leb(c);
        return true;
    case DW_FORM_ref_addr:
        *target = take(c, unit->version == 2 ? unit->address_bytes : unit->offset_bytes);
        return true;
    default:
        return false;
    }
}

static struct form_value take_form(struct go_dwarf *dwarf, struct cursor *c,
                                   const struct dwarf_unit *unit, unsigned form)
{
    struct form_value value = {0};
    if (form == DW_FORM_string) {
        value.text = take_string(c);
    } else if (form == DW_FORM_strp || form == DW_FORM_line_strp) {
        uint64_t offset = take(c, unit->offset_bytes);
        value.text = form == DW_FORM_strp ? string_at(dwarf, offset) : "";
    } else if (!take_reference(c, unit, form, &value.number)) {
        value.number = take_number(c, unit, form);
    }
    return value;
}

static void entry_note(struct entry *entry, unsigned attr, struct form_value value)
{
    switch (attr) {
    case DW_AT_name:
        entry->name = value.text != NULL ? value.text : "";
        break;
    case DW_AT_type:
        entry->type = value.number;
        break;
    case DW_AT_byte_size:
        entry->bytes = value.number;
        entry->has_bytes = true;
        break;
    case DW_AT_data_member_location:
        entry->member = value.number;
        break;
    case DW_AT_location:
        entry->addr = value.number;
        break;
    default:
        break;
    }
}

// entry_read reads the entry at offset, which lies in unit. False at its end and for nonsense.
static bool entry_read(struct go_dwarf *dwarf, const struct dwarf_unit *unit, uint64_t offset,
                       struct entry *out)
{
    struct cursor c = {dwarf->info.at, offset, unit->end, false};
    *out = (struct entry){.name = ""};
    if (dwarf->work_left == 0 || offset < unit->first || offset >= unit->end ||
        !abbrevs_load(dwarf, unit->abbrev)) {
        return false;
    }
    uint64_t code = take_leb(&c);
    out->next = c.at;
    if (c.bad || code == 0) {
        return spend(dwarf, c.at - offset) && !c.bad;
    }
    if (code >= CODES_MAX || dwarf->table[code].tag == 0) {
        return false;
    }
    const struct dwarf_abbrev *abbrev = &dwarf->table[code];
    out->tag = abbrev->tag;
    out->has_children = abbrev->has_children;
    for (size_t i = 0; i < abbrev->attrs_count && !c.bad; i++) {
        struct form_value value = {(uint64_t)abbrev->constants[i], NULL};
        if (abbrev->forms[i] != DW_FORM_implicit_const) {
            value = take_form(dwarf, &c, unit, abbrev->forms[i]);
        }
        entry_note(out, abbrev->attrs[i], value);
    }
    out->next = c.at;
    return spend(dwarf, c.at - offset + abbrev->attrs_count) && !c.bad;
}

// ---- units --------------------------------------------------------------------------------------

// unit_read reads a unit's head at offset.
static bool unit_read(const struct go_dwarf *dwarf, uint64_t offset, struct dwarf_unit *out)
{
    struct cursor c = {dwarf->info.at, offset, dwarf->info.len, false};
    *out = (struct dwarf_unit){.start = offset, .offset_bytes = 4};
    uint64_t len = take(&c, 4);
    if (len == UINT32_MAX) {
        len = take(&c, 8);
        out->offset_bytes = 8;
    }
    if (c.bad || len > c.end - c.at) {
        return false;
    }
    out->end = c.at + len;
    out->version = (uint8_t)take(&c, 2);
    if (out->version >= 5) {
        skip(&c, 1); // what kind of unit
        out->address_bytes = (uint8_t)take(&c, 1);
        out->abbrev = take(&c, out->offset_bytes);
    } else {
        out->abbrev = take(&c, out->offset_bytes);
        out->address_bytes = (uint8_t)take(&c, 1);
    }
    out->first = c.at;
    return !c.bad && out->first <= out->end && out->version >= 2 && out->version <= 5 &&
           out->address_bytes == 8;
}

static bool unit_add(struct go_dwarf *dwarf, const struct dwarf_unit *unit)
{
    if (dwarf->units_count == dwarf->units_cap) {
        size_t cap = dwarf->units_cap == 0 ? 256 : 2 * dwarf->units_cap;
        struct dwarf_unit *units =
            cap > UNITS_MAX ? NULL : realloc(dwarf->units, cap * sizeof(*units));
        if (units == NULL) {
            return false;
        }
        dwarf->units = units;
        dwarf->units_cap = cap;
    }
    dwarf->units[dwarf->units_count++] = *unit;
    return true;
}

bool go_dwarf_open(struct go_dwarf *dwarf, struct go_bytes info, struct go_bytes abbrevs,
                   struct go_bytes strings)
{
    struct dwarf_unit unit = {0};
    // Where the last string is ended, all are.
    bool ended = strings.len != 0 && strings.at[strings.len - 1] == '\0';
    *dwarf = (struct go_dwarf){.info = info,
                               .abbrevs = abbrevs,
                               .strings = ended ? strings : (struct go_bytes){0},
                               .table_offset = UINT64_MAX,
                               .work_left = 2 * info.len + WORK_PATHS};
    dwarf->table = malloc(CODES_MAX * sizeof(*dwarf->table));
    if (dwarf->table == NULL) {
        return false;
    }
    while (unit.end < info.len && unit_read(dwarf, unit.end, &unit) && unit_add(dwarf, &unit)) {
    }
    return dwarf->units_count != 0;
}

void go_dwarf_close(struct go_dwarf *dwarf)
{
    free(dwarf->units);
    free(dwarf->table);
    *dwarf = (struct go_dwarf){0};
}

static const struct dwarf_unit *unit_of(const struct go_dwarf *dwarf, uint64_t offset)
{
    size_t low = 0;
    size_t high = dwarf->units_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (dwarf->units[middle].end <= offset) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < dwarf->units_count && dwarf->units[low].first <= offset ? &dwarf->units[low]
                                                                         : NULL;
}

// ---- roots --------------------------------------------------------------------------------------

static size_t root_note(struct go_root *roots, size_t count, const struct entry *entry,
                        uint64_t offset)
{
    if (strncmp(entry->name, "runtime.", 8) != 0) {
        return 0;
    }
    bool is_type = entry->tag == DW_TAG_structure_type;
    for (size_t i = 0; i < count; i++) {
        if (roots[i].type == 0 && roots[i].is_type == is_type &&
            strcmp(roots[i].name, entry->name) == 0) {
            roots[i].type = is_type ? offset : entry->type;
            roots[i].addr = is_type ? 0 : entry->addr;
            return roots[i].type != 0;
        }
    }
    return 0;
}

static size_t unit_roots(struct go_dwarf *dwarf, const struct dwarf_unit *unit,
                         struct go_root *roots, size_t count, size_t left)
{
    struct entry entry;
    size_t found = 0;
    uint64_t depth = 0;
    uint64_t at = unit->first;
    while (found < left && entry_read(dwarf, unit, at, &entry)) {
        if (entry.tag == 0) {
            if (depth <= 1) {
                break;
            }
            depth--;
        } else if (depth == 1 &&
                   (entry.tag == DW_TAG_variable || entry.tag == DW_TAG_structure_type)) {
            found += root_note(roots, count, &entry, at);
        }
        depth += entry.has_children;
        at = entry.next;
    }
    return found;
}

size_t go_dwarf_roots(struct go_dwarf *dwarf, struct go_root *roots, size_t count)
{
    size_t found = 0;
    for (size_t i = 0; i < dwarf->units_count && found < count; i++) {
        const struct dwarf_unit *unit = &dwarf->units[i];
        struct entry head;
        if (entry_read(dwarf, unit, unit->first, &head) && head.has_children &&
            head.tag == DW_TAG_compile_unit && strcmp(head.name, "runtime") == 0) {
            found += unit_roots(dwarf, unit, roots, count, count - found);
        }
    }
    return found;
}

// ---- paths --------------------------------------------------------------------------------------

// type_plain goes through typedefs to what has members or elements.
static bool type_plain(struct go_dwarf *dwarf, uint64_t type, struct entry *out,
                       const struct dwarf_unit **unit)
{
    for (size_t i = 0; i < CHAIN_MAX; i++) {
        *unit = unit_of(dwarf, type);
        if (*unit == NULL || !entry_read(dwarf, *unit, type, out)) {
            return false;
        }
        if (out->tag != DW_TAG_typedef && out->tag != DW_TAG_const_type &&
            out->tag != DW_TAG_volatile_type) {
            return true;
        }
        type = out->type;
    }
    return false;
}

static bool member_find(struct go_dwarf *dwarf, const struct dwarf_unit *unit,
                        const struct entry *parent, const char *name, size_t len, struct entry *out)
{
    uint64_t at = parent->next;
    uint64_t depth = 1;
    while (depth != 0 && parent->has_children && entry_read(dwarf, unit, at, out)) {
        if (depth == 1 && out->tag == DW_TAG_member && strncmp(out->name, name, len) == 0 &&
            out->name[len] == '\0') {
            return true;
        }
        depth = out->tag == 0 ? depth - 1 : depth + out->has_children;
        at = out->next;
    }
    return false;
}

bool go_dwarf_path(struct go_dwarf *dwarf, uint64_t type, const char *path, uint64_t *offset,
                   uint64_t *size)
{
    const struct dwarf_unit *unit;
    struct entry entry;
    *offset = 0;
    if (!type_plain(dwarf, type, &entry, &unit)) {
        return false;
    }
    while (*path != '\0') {
        if (*path == '[') {
            path++;
            if (entry.tag != DW_TAG_array_type) {
                return false;
            }
        } else {
            size_t len = strcspn(path + 1, ".[");
            struct entry member;
            if (entry.tag != DW_TAG_structure_type ||
                !member_find(dwarf, unit, &entry, path + 1, len, &member)) {
                return false;
            }
            *offset += member.member;
            entry.type = member.type;
            path += 1 + len;
        }
        if (!type_plain(dwarf, entry.type, &entry, &unit)) {
            return false;
        }
    }
    // Pointers, and all that is one, have no size of their own.
    *size = entry.has_bytes ? entry.bytes : 8;
    return true;
}
