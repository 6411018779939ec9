// SPDX-License-Identifier: MIT
//
// Boot, what only its own files share.
//
// Go  none.
#ifndef EBB_BOOT_BOOT_INT_H
#define EBB_BOOT_BOOT_INT_H

#include "base/option.h"
#include "boot/boot.h"

// environment_read fills options_main from EBB and GODEBUG, reports mistakes on stderr, and takes
// the options that print out of EBB, so that children do not inherit them (unless children=1).
// entries is the third argument of main: libc has not set environ yet when our constructor runs.
void environment_read(char **entries);

// environment_find returns the value of name among the entries, or NULL.
char *environment_find(char **entries, const char *name);
// limits_print_before_abort prints MemStats when limit_action=abort ends the program.
void limits_print_before_abort(void);

#endif
