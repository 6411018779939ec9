// SPDX-License-Identifier: MIT
//
// Maps: the executable mappings of our process, and which file each is of.
//
// Go  1.19 runtime/pprof/proto.go parseProcSelfMaps, elf.go elfBuildID.
#ifndef EBB_PROFILE_MAPS_H
#define EBB_PROFILE_MAPS_H

#include "os/cgroup.h"
#include "profile/profile.h"

// symbols_share returns how much of wanted_bytes may be used to find names: a quarter of what is
// left below the cgroup's limit, but SYMBOLS_LEAST_BYTES in any case. Files that are only cached
// count as left. A profile of a program that is short of memory must not be its end.
#define SYMBOLS_LEAST_BYTES MIB
size_t symbols_share(size_t wanted_bytes, const struct cgroup_memory *memory);

// symbols_limit is symbols_share with our cgroup; up to 14 KiB of stack.
size_t symbols_limit(size_t wanted_bytes);

// One line of /proc/self/maps.
struct maps_line {
    uintptr_t start;
    uintptr_t end;
    uint64_t offset;
    uint64_t device; // as st_dev has it
    uint64_t inode;
    bool executable;
    const char *path; // not ended by a zero
    size_t path_length;
    bool deleted;
};

// maps_parse reads a line without its end; false if it is none of maps.
bool maps_parse(const char *text, size_t length, struct maps_line *line);

// A file, or an image in memory, that code runs from.
struct maps_module {
    const char *path; // as in symbol_mapping
    const char *build_id;
    uint64_t device;
    uint64_t inode;
    uintptr_t image; // where its first byte is mapped, 0 if it is not
    uintptr_t text;  // one of its mappings: start, end and offset in the file
    uintptr_t text_end;
    uint64_t text_offset;
    size_t image_bytes; // of [vdso]
    bool deleted;
    bool main;
    struct maps_module *next;
    // symbol.c's.
    bool opened;
    bool plain;       // without its DWARF
    uintptr_t bias;   // address minus address in the file
    uintptr_t unwind; // where its table for unwinding lies, 0 if unknown
    bool unwind_known;
    struct backtrace_state *state;
};

struct maps {
    struct symbol_mapping *mappings;
    struct maps_module **modules; // of each mapping
    size_t count;
    size_t room;
    struct maps_module *first;
    int memory; // /proc/self/mem, or -1 as long as it is not needed
    bool failed;
};

// maps_read fills an empty struct; memory is the region's but for the descriptor. False: no memory.
bool maps_read(struct maps *maps, struct region *region);
void maps_close(struct maps *maps);

// maps_memory copies memory of our own process that may be gone by now, and returns how many bytes
// there were.
size_t maps_memory(struct maps *maps, uintptr_t from, void *to, size_t bytes);

// maps_function returns where the function begins that holds pc, by the unwind tables of the module
// as it lies in memory; 0 if they do not say. The module's bias becomes known.
uintptr_t maps_function(struct maps *maps, struct maps_module *module, uintptr_t pc,
                        struct region *region);

// maps_bias finds the distance between addresses of the module and those its file has for them;
// head is the first bytes of its image. False: it is no ELF image, or not of this text.
bool maps_bias(struct maps_module *module, const char *head, size_t bytes);

// maps_build_id writes the build id in an ELF image's notes as hex, or "" if there is none. head is
// the first bytes of the image.
const char *maps_build_id(const char *head, size_t bytes, struct region *region);

#endif
