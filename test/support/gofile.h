// SPDX-License-Identifier: MIT
//
// A Go program's file, put together for tests: what of it the doctor reads, in 8 KiB.
//
// Model
//   main.leak, with sync.f inlined, in a table of functions as from 1.20; one unit "runtime" of
//   DWARF with memstats; two symbols; one segment. gofile_make makes it, tests damage it then.
//
// Go  none.
#ifndef EBB_TEST_GOFILE_H
#define EBB_TEST_GOFILE_H

#include <elf.h>

#include "base/base.h"

struct gofile {
    _Alignas(8) uint8_t at[8192];
    size_t len;
};

#define HEAP_INUSE_ADDR 0x5000
#define LOAD_ADDR UINT64_C(0x400000) // of the file's start

enum { CODE_UNIT = 1, CODE_VARIABLE, CODE_STRUCT, CODE_MEMBER, CODE_BASE, CODE_TYPEDEF };
enum { BUILDINFO, INFO, ABBREVS, PCLNTAB, NODES, SYMBOLS, STRINGS, NAMES, SECTIONS };

// gofile_put appends bytes, gofile_number the low ones of a number.
void gofile_put(struct gofile *out, const void *bytes, size_t len);
void gofile_number(struct gofile *out, uint64_t value, size_t bytes);
// gofile_abbrev appends an abbreviation of DWARF; pairs of attribute and form end in 0.
void gofile_abbrev(struct gofile *out, unsigned code, unsigned tag, bool children,
                   const uint8_t *pairs);

// gofile_make puts the whole file together; gofile_pclntab its table of functions alone.
void gofile_make(struct gofile *out);
void gofile_pclntab(struct gofile *out);
// gofile_section is the header of a section of it.
Elf64_Shdr *gofile_section(struct gofile *file, size_t index);
// gofile_fd makes a file of bytes; whoever asks closes it.
int gofile_fd(const uint8_t *bytes, size_t len);

#endif
