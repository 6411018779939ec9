// SPDX-License-Identifier: MIT
//
// Doctor, what the sources of evidence of a Go program share: its file, where its runtime keeps
// what, and readers of that.
//
// Model
//   A file is the program's ELF file, read through /proc/PID/exe: also a deleted one, also one of
//   another mount namespace. A layout is where the runtime's variables are and at which offsets the
//   members of its structures lie: every minor version has another. Of known versions the offsets
//   are in a table, and addresses come from symbols or, without these, from code that refers to
//   them; what memory does not confirm is not used. Else a layout comes from the file's DWARF. With
//   a layout, counters, goroutines and profile buckets are read from the memory of the process,
//   while it runs on: every number is bounded before it is used.
//
// Go  none: gops reads the version alone, and asks an agent for the rest.
#ifndef EBB_DOCTOR_GO_LOOK_H
#define EBB_DOCTOR_GO_LOOK_H

#include <libelf.h>

#include "doctor_int.h"

// ---- the program's file (go_file.c) -------------------------------------------------------------

// A piece of the file in memory; the file's, for as long as it is open.
struct go_bytes {
    const uint8_t *at;
    size_t len;
};

#define GO_LOADS_MAX 32 // linkers make two to eight

struct go_file {
    int fd;
    Elf *elf;
    struct go_bytes names; // of sections, the last one ended
    bool is_pie;
    uint16_t machine;
    uint64_t first_addr; // of the first segment, by page
    uint64_t bytes;
    Elf64_Phdr loads[GO_LOADS_MAX]; // what is mapped of it
    size_t loads_count;
};

// Where a section lies.
struct go_place {
    uint64_t offset, addr, bytes;
};

// go_file_open opens a 64-bit ELF file; takes the descriptor over, also where it fails.
bool go_file_open(struct go_file *file, int fd);
void go_file_close(struct go_file *file);

// go_section reads a section of that name, at most cap bytes; false if there is none such.
// Compressed ones (also .zdebug_, of Go 1.11 to 1.18) are inflated, if not larger than cap.
bool go_section(const struct go_file *file, const char *name, size_t cap, struct go_bytes *out);
// go_section_size is what go_section would have to hold, or more than cap; 0: there is none.
uint64_t go_section_size(const struct go_file *file, const char *name, uint64_t cap);
// go_section_place tells where a section lies, in the file and in the program; false if there is
// none such.
bool go_section_place(const struct go_file *file, const char *name, struct go_place *out);
// go_segments_hold tells whether an address is in a segment that can be written, or executed.
enum go_segment { GO_SEGMENT_WRITTEN, GO_SEGMENT_CODE };
bool go_segments_hold(const struct go_file *file, uint64_t addr, enum go_segment kind);

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
    uint64_t work_left; // entries fail when it is 0
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
    GO_ALLGS,
    GO_ALLGS_LEN,
    GO_ALLP,
    GO_ALLP_LEN,
    GO_NGSYS,
    GO_SCHED_FREE,
    GO_SCHED_FREE_STACKLESS,
    GO_P_FREE,
    GO_P_ID,
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
    GO_MODULE_TABLE,
    GO_MODULE_TEXT,
    GO_MODULE_FUNCS,
    GO_FIELD_COUNT,
};

_Static_assert(GO_FIELD_COUNT <= GO_FIELDS_MAX, "a layout has room for all of them");

// What the fields are members of: variables first, then types.
enum go_root_index {
    GO_ROOT_MEMSTATS,
    GO_ROOT_CONTROLLER,
    GO_ROOT_MHEAP,
    GO_ROOT_CLASS_SIZES,
    GO_ROOT_DEBUG,
    GO_ROOT_PERCENT,
    GO_ROOT_ALLGS,
    GO_ROOT_ALLP,
    GO_ROOT_SCHED,
    GO_ROOT_BUCKETS,
    GO_ROOT_RATE,
    GO_ROOT_TIMERS,
    GO_ROOT_REASONS,
    GO_ROOT_MODULE,
    GO_VARIABLES, // from here on types
    GO_ROOT_P = GO_VARIABLES,
    GO_ROOT_MCACHE,
    GO_ROOT_MSPAN,
    GO_ROOT_G,
    GO_ROOT_BUCKET,
    GO_ROOT_RECORD,
    GO_ROOTS,
    GO_ROOT_NONE = UINT8_MAX,
};
const char *const *go_root_names(void); // GO_ROOTS of them

// A field by what it is a member of: the same in every program of one version.
struct go_part {
    uint8_t root; // GO_ROOT_NONE: this version has no such field
    uint32_t offset, size;
};
struct go_shape {
    struct go_part parts[GO_FIELD_COUNT];
};

// go_shape_dwarf reads a shape, and the addresses of variables, without bias. budget_bytes bounds
// the DWARF that is inflated; walking it is bounded by its size. False if there is none; why then
// is a clause.
bool go_shape_dwarf(const struct go_file *file, uint64_t budget_bytes, struct go_shape *shape,
                    uint64_t *addrs, const char **why);
// go_layout_join makes a layout of a shape and the addresses of variables; 0: not known.
void go_layout_join(struct go_layout *layout, const struct go_shape *shape, const uint64_t *addrs,
                    uint64_t bias);

// go_layout_make reads a layout from DWARF and symbols. False if the file has not enough; why then
// is a clause that says what is missing.
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
    uint64_t functions_count;
    uint64_t names, units, files, values, functions; // offsets of the tables
    int age;                                         // 0: up to 1.15; 1: 1.16; 2: 1.18; 3: 1.20
    uint64_t base;                                   // where entries of `functions` point from
    const struct go_file *file;
    uint64_t addr;            // of the table
    uint64_t inlines;         // address of the trees of inlined calls; 0: not known
    struct go_chunks *chunks; // what of the table has been read
};

// go_pcln_file reads the table of a file, which must stay open. exam may be NULL: then the
// position-independent ones up to 1.17 have none, because it is filled in at start.
bool go_pcln_file(struct go_pcln *pcln, const struct go_file *file, uint64_t bias,
                  const struct exam *exam);
void go_pcln_close(struct go_pcln *pcln);
// go_pcln_module takes from the runtime where code and inlined calls are, if the layout tells.
void go_pcln_module(struct go_pcln *pcln, const struct exam *exam, const struct go_layout *layout);
// go_pcln_function is the index-th function, by address; addresses are those of the file.
struct go_function {
    const char *name;
    uint64_t addr, bytes;
};
bool go_pcln_function(const struct go_pcln *pcln, uint64_t index, struct go_function *out);
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

// ---- known layouts (go_known.c, go_check.c) -----------------------------------------------------

// A function of the runtime whose code refers to a variable, so far from its start.
struct go_witness {
    uint8_t root;
    uint32_t offset;
    const char *function; // without "runtime."
};

// go_known_shape is the shape of a minor version on this machine; NULL: it is not known.
const struct go_shape *go_known_shape(int minor);
// go_known_layout makes a layout out of what is known of the version. Parts that do not hold in the
// memory of this process are left out; nothing holds if the counters do not: why is a clause.
enum go_trust {
    GO_TRUST_NONE,
    GO_TRUST_SOME,
    GO_TRUST_ALL,
};
enum go_trust go_known_layout(const struct exam *exam, const struct go_file *file,
                              struct go_pcln *pcln, struct go_layout *layout, const char **why);
// go_references lists what the code of a function at addr refers to, as far as it can be written;
// how many.
size_t go_references(const struct go_file *file, const uint8_t *code, size_t len, uint64_t addr,
                     uint64_t *found, size_t cap);
// go_vote gives the address that most witnesses of a root name, where no other has as many; 0.
struct go_told {
    size_t count;
    uint64_t *addrs; // what the function of the witness of the same index refers to
};
uint64_t go_vote(const struct go_witness *witnesses, const struct go_told *told, size_t count,
                 uint8_t root);
// go_layout_check forgets fields that contradict memory.
enum go_trust go_layout_check(const struct exam *exam, const struct go_file *file, uint64_t bias,
                              struct go_layout *layout);

// ---- readers ------------------------------------------------------------------------------------

// Arenas are numbered from the lowest address that the processor has.
#define GO_ARENA_BYTES (64 * MIB)
#if defined(__x86_64__)
#define GO_ARENA_BASE UINT64_C(0xffff800000000000)
#else
#define GO_ARENA_BASE UINT64_C(0)
#endif
// Enough for every machine: GOMAXPROCS is at most 1024 before 1.10, unbounded since.
#define GO_P_MAX 1024
// What is above these is no number of the runtime: reasons to wait, frames of a bucket's stack.
#define GO_REASONS_MAX 128
#define GO_DEPTH_MAX 1024
#define GO_BUCKET_MEMORY 1 // the type of buckets of the heap profile

// States of a goroutine, in runtime2.go.
enum g_status {
    G_IDLE,
    G_RUNNABLE,
    G_RUNNING,
    G_SYSCALL,
    G_WAITING,
    G_DEAD = 6,
    G_COPYSTACK = 8,
    G_PREEMPTED = 9,
    G_LEAKED = 10,     // from 1.26
    G_DEAD_EXTRA = 11, // from 1.26: kept for a thread of C that may call into Go
    G_SCAN = 0x1000,   // beside one of the others
};

// go_p_list reads the addresses of the Ps; how many.
size_t go_p_list(const struct exam *exam, const struct go_layout *layout, uint64_t *ps, size_t cap);

// go_stats.c: false if the essential ones cannot be read.
bool go_stats_read(const struct exam *exam, const struct go_layout *layout, struct facts_go *go);
// The part of it that costs a dozen reads: sizes of the heap and of stacks.
bool go_sizes_read(const struct exam *exam, const struct go_layout *layout, struct facts_go *go);
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

// go_bias is what addresses in the file lie off those in the process.
uint64_t go_bias(const struct exam *exam, const struct go_file *file);
// go_releases_lazily tells by version and GODEBUG (or NULL) whether the runtime uses MADV_FREE.
bool go_releases_lazily(int minor, const char *godebug);
// go_divide fills the parts of a heap whose resident_bytes are set; arenas_bytes of them are in the
// arenas, the others are tables.
void go_divide(const struct facts_go *go, const struct facts_pages *pages, uint64_t arenas_bytes,
               uint64_t heap_meta_bytes, struct facts_heap *heap);

// ---- samples (go_sample.c) ----------------------------------------------------------------------

// go_sample reads what a light sample has of a Go program, by the layout in its facts. What cannot
// be read is left as it is.
void go_sample(const struct facts *facts, struct sample *sample);

#endif
