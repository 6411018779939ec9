// SPDX-License-Identifier: MIT
//
// FDE: where the unwinding table of an address is, which the unwinder asks for at every frame.
//
// Model
//   Each object carries .eh_frame, a list of frame description entries (FDE), one a function, that
//   refer to common information entries (CIE) before them; and .eh_frame_hdr, a table of them
//   sorted by address, which a program header leads to. glibc's _dl_find_object finds the header
//   of the object that an address is in without a lock. Here the table is searched and the entry
//   read.
//
// Locking
//   None, and nothing is allocated: called in malloc, in signal handlers, amid dlopen.
//
// Flow
//   unwind.c -> libgcc's unwinder (in libparts.a) -> parts__Unwind_Find_FDE -> fde_find.
//
// Why this way
//   libgcc's own search first looks at the tables that programs have registered. It takes a mutex
//   for that, and the first time sorts them in memory from malloc; programs linked with -static
//   register theirs at start-up, so a sample within malloc would call malloc and wait for itself.
//   Registered tables are not looked at here: those of a JIT would end under our hands.
//   A program linked with -static has the sorted table only if it is linked with --eh-frame-hdr too
//   (-static-pie has it); without it stacks have one frame.
//
// Go       none. Linux Standard Base 5.0, Exception Frames; libgcc unwind-dw2-fde-dip.c.
// Tests    test/unit/fde_test.c
#ifndef EBB_PROFILE_FDE_H
#define EBB_PROFILE_FDE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// fde_find returns the frame description entry of the function that pc is in, and where that
// begins; NULL if there is none. Any thread, signal handlers too.
const void *fde_find(uintptr_t pc, uintptr_t *function);

// fde_search is the same in one object, by its .eh_frame_hdr.
const void *fde_search(const void *eh_frame_hdr, uintptr_t pc, uintptr_t *function);

#endif
