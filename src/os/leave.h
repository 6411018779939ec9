// SPDX-License-Identifier: MIT
//
// Leave: a bare thread takes leave of the program's descriptors, current directory and umask, and
// has its own from then on (docs/design/007).
//
// Go  none.
#ifndef EBB_OS_LEAVE_H
#define EBB_OS_LEAVE_H

#include "base/base.h"

// leave_process gives the calling thread a table of descriptors of its own. Then 0 is a signalfd
// that takes signal number, which the thread blocks; 1 and 2 are the same one, so that nobody is
// reached by what is written there. *mask, unless NULL, receives the program's umask; the new one
// is umask. 0 or a negative errno.
#define LEAVE_BELL 0
long leave_process(uint32_t number, uint32_t umask, uint32_t *mask);

#endif
