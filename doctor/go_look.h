// SPDX-License-Identifier: MIT
//
// Doctor, what the sources of evidence of a Go program share: its file, where its runtime keeps
// what, and readers of that.
//
// Model
//   A file is the program's ELF file, read through /proc/PID/exe: also a deleted one, also one of
//   another mount namespace. A layout is where the runtime's variables are and at which offsets the
//   members of its structures lie. It comes from the file's DWARF and symbols, because every minor
//   version has another. With a layout, counters, goroutines and profile buckets are read from the
//   memory of the process, while it runs on: every number is bounded before it is used.
//
// Go  none: gops reads the version alone, and asks an agent for the rest.
#ifndef EBB_DOCTOR_GO_LOOK_H
#define EBB_DOCTOR_GO_LOOK_H

#include <libelf.h>

#include "doctor_int.h"

// ---- the program's file (go_file.c) -------------------------------------------------------------

struct go_file {
    int fd;
    Elf *elf;
    size_t names_index; // section that holds the names of sections
    bool is_pie;
    uint64_t first_addr; // of the first segment, by page
    uint64_t bytes;
};

// A piece of the file in memory; the file's, for as long as it is open.
struct go_bytes {
    const uint8_t *at;
    size_t len;
};

// go_file_open opens a 64-bit ELF file; takes the descriptor over, also where it fails.
bool go_file_open(struct go_file *file, int fd);
void go_file_close(struct go_file *file);

// go_section reads a section of that name, at most cap bytes; false if there is none such.
// Compressed ones (also .zdebug_, of Go 1.11 to 1.18) are inflated, if not larger than cap.
bool go_section(const struct go_file *file, const char *name, size_t cap, struct go_bytes *out);
// go_section_size is what go_section would have to hold; 0: there is none.
uint64_t go_section_size(const struct go_file *file, const char *name);
// go_section_addr is its address in the program; 0: there is none, or it is not loaded.
uint64_t go_section_addr(const struct go_file *file, const char *name);

// go_file_read copies bytes at an address of the program, as far as the file has them.
bool go_file_read(const struct go_file *file, uint64_t addr, void *to, size_t bytes);

// go_version_read takes the version out of the build info: "go1.19.8". Before 1.18 the file only
// points to it. False if this is not a Go program.
bool go_version_read(const struct go_file *file, char *version, size_t cap);
// go_version_minor is the 19 of it; 0 if it has none ("devel ...").
int go_version_minor(const char *version);

// go_symbols finds the addresses of count names in the symbol table; 0 where a name is not there.
// Returns how many were found.
size_t go_symbols(const struct go_file *file, const char *const *names, uint64_t *addrs,
                  size_t count);

// ---- types and variables (go_dwarf.c) ----------------------------------------------------------

// A variable of package runtime, or one of its types.
struct go_root {
    const char *name; // "runtime.memstats", "runtime.g"
    bool is_type;
    uint64_t addr; // of a variable; 0: not told
    uint64_t type; // offset in .debug_info; 0: not found
};

struct dwarf_unit {
    uint64_t start, end; // of the whole unit
    uint64_t first;      // its first entry
    uint64_t abbrev;
    uint8_t version, address_bytes, offset_bytes;
};

struct dwarf_abbrev;
struct go_dwarf {
    struct go_bytes info, abbrevs, strings;
    struct dwarf_unit *units;
    size_t units_count, units_cap;
    struct dwarf_abbrev *table; // of one offset in abbrevs; the last one used
    uint64_t table_offset;
};

// go_dwarf_open lists the units; the sections stay the caller's. False if they make no sense.
bool go_dwarf_open(struct go_dwarf *dwarf, struct go_bytes info, struct go_bytes abbrevs,
                   struct go_bytes strings);
void go_dwarf_close(struct go_dwarf *dwarf);
// go_dwarf_roots looks for the roots in all units of package runtime. Returns how many it found.
size_t go_dwarf_roots(struct go_dwarf *dwarf, struct go_root *roots, size_t count);
// go_dwarf_path follows ".member" and "[" (an element of an array) from a type. size is that of
// what is there.
bool go_dwarf_path(struct go_dwarf *dwarf, uint64_t type, const char *path, uint64_t *offset,
                   uint64_t *size);

// ---- layout (go_layout.c) -----------------------------------------------------------------------

// What is read from the runtime. Of a variable: its address; of a member of a type that is not a
// variable: its offset. _ONE is an element of the array before it.
enum go_field {
    GO_HEAP_SYS,
    GO_HEAP_IDLE,
    GO_HEAP_INUSE,
    GO_HEAP_FREE,
    GO_HEAP_RELEASED,
    GO_STACKS_INUSE,
    GO_STACKS_SYS,
    GO_MSPAN_SYS,
    GO_MCACHE_SYS,
    GO_BUCKHASH_SYS,
    GO_GC_SYS,
    GO_OTHER_SYS,
    GO_TOTAL_ALLOC,
    GO_TOTAL_FREE,
    GO_STATS,
    GO_STATS_ONE,
    GO_STATS_STACKS,
    GO_STATS_WORKBUFS,
    GO_STATS_PTRBITS,
    GO_STATS_LARGE_ALLOC,
    GO_STATS_LARGE_FREE,
    GO_STATS_SMALL_ALLOC,
    GO_STATS_SMALL_FREE,
    GO_OLD_LARGE_ALLOC,
    GO_OLD_LARGE_FREE,
    GO_OLD_SMALL_FREE,
    GO_OLD_CENTRAL,
    GO_OLD_CENTRAL_ONE,
    GO_OLD_NMALLOC,
    GO_CLASS_SIZES,
    GO_P_MCACHE,
    GO_MCACHE_ALLOC,
    GO_MCACHE_SMALL_FREE,
    GO_MCACHE_LARGE_FREE,
    GO_SPAN_NELEMS,
    GO_SPAN_ALLOC_COUNT,
    GO_SPAN_ELEM_SIZE,
    GO_SPAN_COUNT_BEFORE,
    GO_NEXT_GC,
    GO_NUM_GC,
    GO_GC_PERCENT,
    GO_MEMORY_LIMIT,
    GO_MADVDONTNEED,
    GO_ARENAS,
    GO_ARENAS_LEN,
    GO_IS_CGO,
    GO_ALLGS,
    GO_ALLGS_LEN,
    GO_ALLP,
    GO_ALLP_LEN,
    GO_NGSYS,
    GO_SCHED_FREE,
    GO_SCHED_FREE_STACKLESS,
    GO_P_FREE,
    GO_G_STATUS,
    GO_G_REASON,
    GO_G_SINCE,
    GO_G_GOPC,
    GO_G_STARTPC,
    GO_G_STACK_LO,
    GO_G_STACK_HI,
    GO_G_PC,
    GO_G_SP,
    GO_G_BP,
    GO_G_SYSCALL_PC,
    GO_G_SYSCALL_SP,
    GO_REASONS,
    GO_P_TIMERS,
    GO_P_TIMERS_DEAD,
    GO_TIMERS,
    GO_TIMERS_ONE,
    GO_TIMERS_LEN,
    GO_BUCKETS,
    GO_PROFILE_RATE,
    GO_BUCKET,
    GO_BUCKET_NEXT,
    GO_BUCKET_TYPE,
    GO_BUCKET_SIZE,
    GO_BUCKET_DEPTH,
    GO_RECORD_ALLOCS,
    GO_RECORD_FREES,
    GO_RECORD_ALLOC_BYTES,
    GO_RECORD_FREE_BYTES,
    GO_FIELD_COUNT,
};

struct go_value {
    uint64_t at;   // 0 is a possible offset
    uint64_t size; // bytes; 0: the layout does not tell
    bool known;
};

struct go_layout {
    struct go_value fields[GO_FIELD_COUNT];
    int minor;
};

// go_layout_make reads a layout. budget_bytes bounds the DWARF that is inflated and walked. False
// if the file has not enough; why then is a clause that says what is missing.
bool go_layout_make(const struct go_file *file, uint64_t bias, uint64_t budget_bytes,
                    struct go_layout *layout, const char **why);

// go_value_read reads a variable of 1, 2, 4 or 8 bytes; false if it is not known or not readable.
bool go_value_read(const struct exam *exam, const struct go_layout *layout, enum go_field field,
                   uint64_t *value);
// go_member takes a member out of a copied structure of len bytes; 0 if it is not in it.
uint64_t go_member(const struct go_layout *layout, enum go_field field, const uint8_t *copy,
                   size_t len);

// ---- functions (go_pcln.c) ----------------------------------------------------------------------

// The table of functions that Go programs carry, also stripped ones.
struct go_pcln {
    struct go_bytes bytes;
    uint64_t text; // address that entries of the table count from
    uint64_t bias;
    uint64_t quantum; // of instructions
    uint64_t functions_count, files_count;
    uint64_t names, units, files, values, functions; // offsets of the tables
    int age;                                         // 0: up to 1.15; 1: 1.16; 2: 1.18; 3: 1.20
    uint64_t base;                                   // where entries of `functions` point from
    const struct go_file *file; // for what lies outside of the table; NULL: nothing
    uint64_t inlines;           // address of the trees of inlined calls; 0: not known
};

// go_pcln_open reads the head; the bytes stay the caller's. False if they make no sense.
bool go_pcln_open(struct go_pcln *pcln, struct go_bytes bytes, uint64_t bias);
// go_pcln_file reads the table of a file, which must stay open.
bool go_pcln_file(struct go_pcln *pcln, const struct go_file *file, uint64_t bias);
// go_pcln_name is the function whose code is at pc, or NULL.
const char *go_pcln_name(const struct go_pcln *pcln, uint64_t pc);
// go_pcln_frame_bytes is how far the return address of the function at pc lies above its stack
// pointer, where calls push it (x86-64); UINT64_MAX: not known.
uint64_t go_pcln_frame_bytes(const struct go_pcln *pcln, uint64_t pc);
// go_pcln_own goes from pc outwards through inlined calls to the first that is not the runtime's:
// pc itself, or the place of a call; 0 if there is none.
uint64_t go_pcln_own(const struct go_pcln *pcln, uint64_t pc);
// go_pcln_text writes "main.leak (main.go:30)"; "0x..." where pc is in no function.
void go_pcln_text(const struct go_pcln *pcln, uint64_t pc, char *text, size_t cap);
// go_is_runtime tells functions of the runtime, and what waits on its behalf (sync, internal).
bool go_is_runtime(const char *name);

// ---- readers ------------------------------------------------------------------------------------

// Enough for every machine: GOMAXPROCS is at most 1024 before 1.10, unbounded since.
#define GO_P_MAX 1024

// go_p_list reads the addresses of the Ps; how many.
size_t go_p_list(const struct exam *exam, const struct go_layout *layout, uint64_t *ps, size_t cap);

// go_stats.c: false if the essential ones cannot be read.
bool go_stats_read(const struct exam *exam, const struct go_layout *layout, struct facts_go *go);
// Bytes in use by objects, as runtime.ReadMemStats would say: HeapAlloc.
bool go_live_read(const struct exam *exam, const struct go_layout *layout, uint64_t *bytes);
// What the runtime took from its heap for itself: work buffers, bits.
uint64_t go_heap_meta_read(const struct exam *exam, const struct go_layout *layout);
// Goroutines that are neither dead nor the runtime's own, without a look at each.
bool go_count_read(const struct exam *exam, const struct go_layout *layout, uint64_t *count);
bool go_timers_read(const struct exam *exam, const struct go_layout *layout, uint64_t *count);

// go_routines.c and go_profile.c: into facts, with their sources.
void go_routines_read(struct exam *exam, const struct go_layout *layout,
                      const struct go_pcln *pcln);
void go_profile_read(struct exam *exam, const struct go_layout *layout, const struct go_pcln *pcln);

// ---- the program as a whole (evidence_exe.c, evidence_go.c) -------------------------------------

// exe_open opens the program's file; a descriptor or a negative errno.
int exe_open(const struct exam *exam);
// go_bias is what addresses in the file lie off those in the process.
uint64_t go_bias(const struct exam *exam, const struct go_file *file);
// go_releases_lazily tells by version and GODEBUG (or NULL) whether the runtime uses MADV_FREE.
bool go_releases_lazily(int minor, const char *godebug);
// go_divide fills the parts of a heap whose resident_bytes are set; arenas_bytes of them are in the
// arenas, the others are tables.
void go_divide(const struct facts_go *go, const struct facts_pages *pages, uint64_t arenas_bytes,
               uint64_t heap_meta_bytes, struct facts_heap *heap);

// ---- samples (go_sample.c) ----------------------------------------------------------------------

// go_sample_keep keeps the layout of a process for samples of it; of one process at a time.
void go_sample_keep(int pid, const struct go_layout *layout);
// go_sample reads what a light sample needs, with the layout that was kept. False, and UINT64_MAX,
// if there is none of this process, or its memory cannot be read.
bool go_sample(int pid, uint64_t *live_bytes, uint64_t *goroutines_count);

#endif
