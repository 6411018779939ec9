// SPDX-License-Identifier: MIT
//
// EBB_GO_BUILDINFO as C11 and as C++11 with every warning: a version of one byte.
// Go  none
#include <ebb/ebb.h>

EBB_GO_BUILDINFO("1")
