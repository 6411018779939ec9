// SPDX-License-Identifier: MIT
//
// Searching .eh_frame_hdr and reading the entries of .eh_frame.
//
// Go  none; libgcc unwind-dw2-fde-dip.c, unwind-pe.h.
#include <dlfcn.h>
#include <string.h>

#include "profile/fde.h"

// Encodings of pointers: the low four bits are the format, the next three what is added.
enum {
    PE_ABSPTR = 0x00,
    PE_ULEB128 = 0x01,
    PE_UDATA2 = 0x02,
    PE_UDATA4 = 0x03,
    PE_UDATA8 = 0x04,
    PE_SLEB128 = 0x09,
    PE_SDATA2 = 0x0a,
    PE_SDATA4 = 0x0b,
    PE_SDATA8 = 0x0c,
    PE_PCREL = 0x10,
    PE_DATAREL = 0x30,
    PE_INDIRECT = 0x80,
    PE_OMIT = 0xff,
};

// Tables may be unaligned, and are others' memory.
#define ATTR_TABLE __attribute__((no_sanitize("address", "thread")))

ATTR_TABLE static uint64_t load(const uint8_t *p, uint32_t bytes)
{
    uint64_t value = 0;
    for (uint32_t i = 0; i < bytes; i++) {
        value |= (uint64_t)p[i] << 8 * i;
    }
    return value;
}

// A number of seven bits a byte, the lowest first; p moves behind it.
ATTR_TABLE static uint64_t leb128(const uint8_t **p, bool is_signed)
{
    uint64_t value = 0;
    uint32_t shift = 0;
    uint8_t byte;
    do {
        byte = *(*p)++;
        if (shift < 64) {
            value |= (uint64_t)(byte & 0x7f) << shift;
        }
        shift += 7;
    } while ((byte & 0x80) != 0);
    if (is_signed && (byte & 0x40) != 0 && shift < 64) {
        value |= ~UINT64_C(0) << shift;
    }
    return value;
}

// A pointer in an encoding; p moves behind it. false for an encoding that these tables never have.
static bool pointer_read(const uint8_t **p, uint8_t encoding, uintptr_t data, uintptr_t *value)
{
    const uint8_t *start = *p;
    switch (encoding & 0x0f) {
    case PE_ABSPTR:
    case PE_UDATA8:
    case PE_SDATA8:
        *value = (uintptr_t)load(start, 8);
        *p += 8;
        break;
    case PE_UDATA4:
        *value = (uintptr_t)load(start, 4);
        *p += 4;
        break;
    case PE_SDATA4:
        *value = (uintptr_t)(int64_t)(int32_t)load(start, 4);
        *p += 4;
        break;
    case PE_UDATA2:
        *value = (uintptr_t)load(start, 2);
        *p += 2;
        break;
    case PE_SDATA2:
        *value = (uintptr_t)(int64_t)(int16_t)load(start, 2);
        *p += 2;
        break;
    case PE_ULEB128:
        *value = (uintptr_t)leb128(p, false);
        break;
    case PE_SLEB128:
        *value = (uintptr_t)leb128(p, true);
        break;
    default:
        return false;
    }
    switch (encoding & 0x70) {
    case 0:
        return (encoding & PE_INDIRECT) == 0;
    case PE_PCREL:
        *value += (uintptr_t)start;
        return (encoding & PE_INDIRECT) == 0;
    case PE_DATAREL:
        *value += data;
        return (encoding & PE_INDIRECT) == 0;
    default:
        return false;
    }
}

// The encoding of addresses in the entries that refer to this CIE; PE_OMIT if it is not understood.
static uint8_t cie_encoding(const uint8_t *cie)
{
    const uint8_t *p = cie + 8; // behind length and id
    uint8_t version = *p++;
    const char *augmentation = (const char *)p;
    p += strlen(augmentation) + 1;
    if (augmentation[0] != 'z') {
        return augmentation[0] == '\0' ? PE_ABSPTR : PE_OMIT;
    }
    leb128(&p, false); // code alignment
    leb128(&p, true);  // data alignment
    if (version == 1) {
        p++; // the return address' register
    } else {
        leb128(&p, false);
    }
    leb128(&p, false); // length of what follows
    for (const char *letter = augmentation + 1; *letter != '\0'; letter++) {
        uintptr_t ignored;
        uint8_t encoding;
        switch (*letter) {
        case 'R':
            return *p;
        case 'L':
            p++;
            break;
        case 'P':
            encoding = *p++;
            if (!pointer_read(&p, encoding & 0x7f, 0, &ignored)) {
                return PE_OMIT;
            }
            break;
        case 'S': // a signal handler's frame
        case 'B': // return addresses are signed
            break;
        default:
            return PE_OMIT;
        }
    }
    return PE_ABSPTR;
}

// The table's rows: address of a function and of its FDE, both as 32 bit from the header on.
static const uint8_t *row_find(const uint8_t *rows, uint64_t count, uintptr_t hdr, uintptr_t pc)
{
    uint64_t low = 0;
    uint64_t high = count;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        uintptr_t start = hdr + (uintptr_t)(int64_t)(int32_t)load(rows + 8 * middle, 4);
        if (start <= pc) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low == 0 ? NULL : rows + 8 * (low - 1);
}

const void *fde_search(const void *eh_frame_hdr, uintptr_t pc, uintptr_t *function)
{
    const uint8_t *p = eh_frame_hdr;
    uintptr_t hdr = (uintptr_t)eh_frame_hdr;
    uintptr_t ignored;
    uintptr_t count;
    uint8_t frame_encoding = p[1];
    uint8_t count_encoding = p[2];
    bool sorted = p[0] == 1 && p[3] == (PE_DATAREL | PE_SDATA4);
    p += 4;
    if (!sorted || count_encoding == PE_OMIT || !pointer_read(&p, frame_encoding, hdr, &ignored) ||
        !pointer_read(&p, count_encoding, hdr, &count)) {
        return NULL;
    }
    const uint8_t *row = row_find(p, count, hdr, pc);
    if (row == NULL) {
        return NULL;
    }
    // An FDE: length (0xffffffff: in 64 bits, which linkers do not make), distance back to the
    // CIE from here, start, how many bytes, ...
    const uint8_t *fde =
        (const uint8_t *)hdr + (intptr_t)(int32_t)load(row + 4, 4); // may be before the header
    uint64_t length = load(fde, 4);
    if (length == 0 || length == UINT32_MAX) {
        return NULL;
    }
    uint8_t encoding = cie_encoding(fde + 4 - load(fde + 4, 4));
    uintptr_t start;
    uintptr_t bytes;
    p = fde + 8;
    if (encoding == PE_OMIT || !pointer_read(&p, encoding, 0, &start) ||
        !pointer_read(&p, encoding & 0x0f, 0, &bytes) || pc - start >= bytes) {
        return NULL;
    }
    *function = start;
    return fde;
}

const void *fde_find(uintptr_t pc, uintptr_t *function)
{
    struct dl_find_object found;
    if (_dl_find_object((void *)pc, &found) != 0 || found.dlfo_eh_frame == NULL) {
        return NULL;
    }
    return fde_search(found.dlfo_eh_frame, pc, function);
}

// What libgcc's unwinder calls, by libgcc's name with our prefix. Bases of text and data are for
// encodings that x86-64 and arm64 do not use.
struct dwarf_eh_bases {
    void *text;
    void *data;
    void *function;
};

const void *parts__Unwind_Find_FDE(void *pc, struct dwarf_eh_bases *bases);

const void *parts__Unwind_Find_FDE(void *pc, struct dwarf_eh_bases *bases)
{
    uintptr_t function = 0;
    const void *fde = fde_find((uintptr_t)pc, &function);
    bases->text = NULL;
    bases->data = NULL;
    bases->function = (void *)function;
    return fde;
}
