// SPDX-License-Identifier: MIT
// Tier  quick
//
// Tables of unwinding: for addresses all over this program, libc and libstdc++ the entry is the one
// that libgcc finds; and headers that are none, or of another make, have no entries.
//
// Go  none.
#include "support/unit.h"

#include <dlfcn.h>
#include <link.h>
#include <string.h>

#include "profile/fde.h"

// As libgcc_s.so has it.
struct bases {
    void *text;
    void *data;
    void *function;
};
typedef const void *find_fn(void *pc, struct bases *bases);

static find_fn *reference;
static unsigned asked;
static unsigned found;

static void compare_at(uintptr_t pc)
{
    uintptr_t function = 0;
    struct bases bases = {0};
    const void *wanted = reference((void *)pc, &bases);
    const void *fde = fde_find(pc, &function);
    cr_assert(fde == wanted, "at %p: entry %p, libgcc's %p", (void *)pc, fde, wanted);
    cr_assert(fde == NULL || function == (uintptr_t)bases.function, "at %p: function %p, not %p",
              (void *)pc, (void *)function, bases.function);
    asked++;
    found += fde != NULL;
}

static int compare_object(struct dl_phdr_info *info, size_t bytes, void *arg)
{
    (void)bytes;
    uint64_t *random = arg;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];
        if (part->p_type != PT_LOAD || (part->p_flags & PF_X) == 0) {
            continue;
        }
        uintptr_t start = info->dlpi_addr + part->p_vaddr;
        for (uintptr_t pc = start; pc < start + part->p_memsz; pc += 1 + frame_below(random, 200)) {
            compare_at(pc);
        }
        compare_at(start - 1);
        compare_at(start + part->p_memsz);
    }
    return 0;
}

EBB_TEST(fde, the_entries_are_those_that_libgcc_finds)
{
    uint64_t random = frame_seed();
    void *libgcc = dlopen("libgcc_s.so.1", RTLD_NOW);
    void *libstdcxx = dlopen("libstdc++.so.6", RTLD_NOW);
    cr_assert(libgcc != NULL && libstdcxx != NULL, "%s", dlerror());
    *(void **)&reference = dlsym(libgcc, "_Unwind_Find_FDE");
    cr_assert(reference != NULL, "%s", dlerror());
    dl_iterate_phdr(compare_object, &random);
    cr_assert(asked > 20000 && found > asked / 2, "%u asked, %u found", asked, found);
    compare_at(0);
    compare_at((uintptr_t)&random);
    compare_at(UINTPTR_MAX);
}

// A header with one row, behind it a CIE and the FDE it leads to, of 16 bytes at `code`.
struct tables {
    uint8_t header[4];
    int32_t frame;
    uint32_t count;
    int32_t row[2];
    uint8_t cie[32];
    uint8_t fde[24];
    uint8_t code[16];
};

static void put(uint8_t *to, int64_t value)
{
    int32_t word = (int32_t)value;
    memcpy(to, &word, 4);
}

static void tables_make(struct tables *t, const char *augmentation, const uint8_t *extra,
                        size_t extra_bytes)
{
    memset(t, 0, sizeof(*t));
    memcpy(t->header, (uint8_t[]){1, 0x1b, 0x03, 0x3b}, 4);
    t->count = 1;
    t->row[0] = (int32_t)((char *)t->code - (char *)t);
    t->row[1] = (int32_t)((char *)t->fde - (char *)t);
    put(t->cie, sizeof(t->cie) - 4);
    uint8_t *p = t->cie + 8;
    *p++ = 1;
    p = (uint8_t *)stpcpy((char *)p, augmentation) + 1;
    *p++ = 1;    // code alignment
    *p++ = 0x78; // data alignment, -8
    *p++ = 16;   // return address
    *p++ = (uint8_t)extra_bytes;
    memcpy(p, extra, extra_bytes);
    put(t->fde, sizeof(t->fde) - 4);
    put(t->fde + 4, t->fde + 4 - t->cie);
    put(t->fde + 8, t->code - (t->fde + 8));
    put(t->fde + 12, sizeof(t->code));
}

static bool is_found(const struct tables *t, ptrdiff_t offset)
{
    uintptr_t function;
    const void *fde = fde_search(t, (uintptr_t)t->code + (uintptr_t)offset, &function);
    cr_assert(fde == NULL || (fde == t->fde && function == (uintptr_t)t->code), "another entry");
    return fde != NULL;
}

EBB_TEST(fde, augmentations_are_read_to_the_encoding_of_addresses)
{
    struct tables t;
    tables_make(&t, "zR", (uint8_t[]){0x1b}, 1);
    cr_assert(is_found(&t, 0) && is_found(&t, 15));
    cr_assert(!is_found(&t, 16) && !is_found(&t, -1));
    // A personality of 4 bytes and a place for language data before; a signal handler's frame.
    tables_make(&t, "zPLR", (uint8_t[]){0x9b, 1, 2, 3, 4, 0x1b, 0x1b}, 7);
    cr_assert(is_found(&t, 3));
    tables_make(&t, "zRS", (uint8_t[]){0x1b}, 1);
    cr_assert(is_found(&t, 3));
    // What is not known is not guessed.
    tables_make(&t, "zQR", (uint8_t[]){0x1b, 0x1b}, 2);
    cr_assert(!is_found(&t, 3));
    tables_make(&t, "eh", (uint8_t[]){0x1b}, 1);
    cr_assert(!is_found(&t, 3));
    tables_make(&t, "zR", (uint8_t[]){0x2b}, 1); // relative to text
    cr_assert(!is_found(&t, 3));
}

EBB_TEST(fde, headers_of_another_make_have_no_entries)
{
    struct tables t;
    for (int byte = 0; byte < 4; byte++) {
        tables_make(&t, "zR", (uint8_t[]){0x1b}, 1);
        t.header[byte] = byte == 0 ? 2 : 0xff;
        cr_assert(!is_found(&t, 3), "byte %d", byte);
    }
    tables_make(&t, "zR", (uint8_t[]){0x1b}, 1);
    t.count = 0;
    cr_assert(!is_found(&t, 3));
    tables_make(&t, "zR", (uint8_t[]){0x1b}, 1);
    put(t.fde, 0);
    cr_assert(!is_found(&t, 3));
    put(t.fde, -1);
    cr_assert(!is_found(&t, 3));
}
