// SPDX-License-Identifier: MIT
//
// Parts: the world that libbacktrace and zlib run in here: memory from a region, files by raw
// system calls, and no module but the one that is asked for.
//
// The declarations of libbacktrace are ours, of its internal.h: its header lies in a folder of
// gcc's that clang does not look into, and the functions it calls are in none. tools/mkparts.sh
// gives what it wants of libc other names, which parts.c defines.
//
// Go  none; debug/elf, debug/dwarf and compress/flate allocate as everything does.
#ifndef EBB_PROFILE_PARTS_H
#define EBB_PROFILE_PARTS_H

#include "os/region.h"

#define PARTS_CLASS_COUNT 12 // 16 bytes to 32 KiB
// The descriptor of an image in memory. Kernel descriptors are smaller.
#define PARTS_FD_IMAGE 0x7ffffff0

struct parts_block;

// Memory and files of one piece of work; the data argument of every call of libbacktrace's.
struct parts_env {
    struct region *region; // small pieces; its limit holds for the blocks too
    void *free[PARTS_CLASS_COUNT];
    struct parts_block *blocks; // mappings of our own, newest first
    size_t block_bytes;         // of those that cost memory
    // Of the module that is being opened.
    const char *path;
    const char *image; // its bytes in memory, or NULL: path is a file
    size_t image_bytes;
    bool mapped;   // the file cannot be cut short while it runs: its bytes need not be copied
    bool plain;    // without its debug sections
    int file;      // its descriptor, or -1
    int head_file; // the file whose head was seen last,
    uint64_t sections_offset; // and where its section headers lie
    uint64_t sections_count;
    bool failed; // some error was reported
    void *call;  // the caller's
};

void parts_init(struct parts_env *env, struct region *region);
// parts_mark and parts_back give back the blocks taken between the two.
struct parts_block *parts_mark(const struct parts_env *env);
void parts_back(struct parts_env *env, struct parts_block *mark);
void parts_end(struct parts_env *env);

// parts_zalloc and parts_zfree are zlib's allocation functions; opaque is a region.
void *parts_zalloc(void *opaque, unsigned items, unsigned bytes);
void parts_zfree(void *opaque, void *memory);

struct backtrace_state;

// Returns 0 to go on.
typedef int (*backtrace_line_fn)(void *data, uintptr_t pc, const char *file, int line,
                                 const char *function);
typedef void (*backtrace_symbol_fn)(void *data, uintptr_t pc, const char *name, uintptr_t start,
                                    uintptr_t bytes);
typedef void (*backtrace_error_fn)(void *data, const char *text, int error);

struct backtrace_state *backtrace_create_state(const char *path, int threaded,
                                               backtrace_error_fn error, void *data);
int backtrace_pcinfo(struct backtrace_state *state, uintptr_t pc, backtrace_line_fn found,
                     backtrace_error_fn error, void *data);
int backtrace_syminfo(struct backtrace_state *state, uintptr_t addr, backtrace_symbol_fn found,
                      backtrace_error_fn error, void *data);

#endif
