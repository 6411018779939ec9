// SPDX-License-Identifier: MIT
//
// ebb/api.h: EBB_API marks the functions that the library exports; nothing else of it is visible.
#ifndef EBB_API_H
#define EBB_API_H

#if defined(__GNUC__)
#define EBB_API __attribute__((visibility("default")))
#else
#define EBB_API
#endif

#endif
