// SPDX-License-Identifier: MIT
//
// Profiles: who allocated, who waits, who runs; and how that is written for go tool pprof.
//
// Model
//   kind     what can be asked for, by the name it has in the URL: its columns, its period, and a
//            collector. One table, filled at start by profile_add_kind; what reads it makes the
//            routes, the index page and the help.
//   stack    return addresses, leaf first, at most PROFILE_DEPTH_MAX.
//   set      what a collector found: samples, each a stack with labels and a value for each column,
//            equal ones added up. Lives in a region and is gone with it.
//   The writers make of a set the proto of pprof (pprof.c) or the texts of debug=1 (proftext.c);
//   both are pure but for the names, which come from symbol.c.
//   Values of a set are estimates of the truth already (for heap: unsampled). The heap text, whose
//   readers unsample once more, gets them sampled again.
//
// Locking
//   A set belongs to one thread. Collectors take what locks they need and let them go.
//
// Flow
//   agent -> profile_find -> profile_collect -> kind->collect -> profile_set_add
//         -> pprof_write or proftext_write -> symbol_find -> sink
//
// Why this way
//   Below the heap, although users see it on top: recording is called from everywhere.
//
// Go       1.19 runtime/pprof/pprof.go, proto.go, protomem.go; net/http/pprof/pprof.go.
// Tests    test/unit/profile_test.c  test/system/pprof.py
#ifndef EBB_PROFILE_PROFILE_H
#define EBB_PROFILE_PROFILE_H

#include "base/atomic.h"
#include "base/fmt.h"
#include "ebb/stats.h"
#include "os/region.h"
#include "profile/heap_sample.h"
#include "profile/labels.h"
#include "profile/usdt.h"
#include "profile/wait_sample.h"

#define PROFILE_DEPTH_MAX 64
#define PROFILE_VALUE_MAX 4
#define PROFILE_LABEL_MAX 8
#define PROFILE_KIND_MAX 24
#define PROFILE_COMMENT_MAX 16
#define PROFILE_NAMES_BYTES (128 * MIB)

// --- sets ---

struct profile_type {
    const char *type; // "alloc_space"
    const char *unit; // "bytes"
};

// A label has a text or, if text is NULL, a number with a unit.
struct profile_label {
    const char *key;
    const char *text;
    int64_t number;
    const char *unit;
};

struct profile_sample {
    const uintptr_t *stack; // depth addresses, leaf first; may be NULL if depth is 0
    uint32_t depth;
    // stack[0] is where a thread was, not where a call will return to (CPU samples).
    bool leaf_exact;
    int64_t values[PROFILE_VALUE_MAX]; // as many as the kind has columns
    struct profile_label labels[PROFILE_LABEL_MAX];
    uint32_t label_count;
};

struct profile_entry {
    struct profile_sample sample; // stack and texts in the set's region
    uint64_t hash;
    struct profile_entry *chain; // in the set's table
    struct profile_entry *next;  // in order of arrival
};

struct profile_kind;

struct profile_set {
    const struct profile_kind *kind;
    struct region region;
    struct profile_entry **table;
    size_t table_count; // a power of two
    struct profile_entry *first;
    struct profile_entry *last;
    size_t count;
    int64_t period;       // as the kind's period type has it; for heap the mean interval in bytes
    uint64_t time_ns;     // wall clock, since 1970
    uint64_t duration_ns; // 0: a moment
    const char *comments[PROFILE_COMMENT_MAX];
    size_t comment_count;
    bool cut; // memory was short: samples are missing
    // What the writers may use to find names, PROFILE_NAMES_BYTES unless changed; in a cgroup with
    // a limit at most a quarter of what is left below it, if that is more than 1 MiB. With too
    // little there are names without lines, or only addresses and mappings.
    size_t names_limit_bytes;
};

// profile_set_init makes an empty set of a kind, in a region of up to limit_bytes.
void profile_set_init(struct profile_set *set, const struct profile_kind *kind, size_t limit_bytes);
void profile_set_end(struct profile_set *set);

// profile_set_add adds a sample to the set: its values to an equal entry (same stack, exactness and
// labels), or a new one. Everything is copied. False, and set->cut, when memory is short.
bool profile_set_add(struct profile_set *set, const struct profile_sample *sample);

// profile_sample_label adds a thread's labels to a sample that has room for them.
void profile_sample_label(struct profile_sample *sample, const struct labels *labels);

// profile_set_comment adds a line, copied; further ones than PROFILE_COMMENT_MAX are dropped.
void profile_set_comment(struct profile_set *set, const char *text);

// profile_set_subtract makes later - earlier of later; entries whose values all come to 0 vanish.
// Times: later's, and the duration between both. Go: profile.Scale(-1) and profile.Merge.
bool profile_set_subtract(struct profile_set *later, const struct profile_set *earlier);

// --- kinds ---

// How debug=1 writes it (INTERFACES 4.1, 4.2, 4.4).
enum profile_text {
    PROFILE_TEXT_HEAP,       // columns: alloc_objects alloc_space inuse_objects inuse_space
    PROFILE_TEXT_COUNT,      // one column
    PROFILE_TEXT_CONTENTION, // contentions, delay
    PROFILE_TEXT_TABLE,      // any columns; ours, no reader but people
};

struct profile_kind {
    const char *name;                             // "heap"
    const char *help;                             // one sentence, for the index page
    struct profile_type types[PROFILE_VALUE_MAX]; // columns
    uint32_t type_count;
    struct profile_type period_type;
    const char *default_type; // column shown first, or NULL: the last
    enum profile_text text;
    bool delta; // understands seconds=N
    // collect fills the set, which is empty but for kind, and sets period and comments. False: it
    // cannot, and why says so in one line.
    bool (*collect)(struct profile_set *set, const char **why);
    // run fills it by watching for a while, or until *stop is not 0; 0 or a negative errno (see
    // cpu_sample_run). Such a kind has no collect.
    long (*run)(struct profile_set *set, uint64_t duration_ns, const atomic_u32 *stop);
    uint64_t (*count)(void); // for the index page: records there are
};

// profile_add_kind adds a kind, which must live for ever. At start only, by one thread.
void profile_add_kind(const struct profile_kind *kind);

// profile_find returns the kind of that name, or NULL.
const struct profile_kind *profile_find(const char *name, size_t length);

// profile_kind_at returns the kinds sorted by name, NULL after the last.
const struct profile_kind *profile_kind_at(size_t index);

// profile_collect initialises the set, notes the time and has the kind fill it. False as collect.
bool profile_collect(const struct profile_kind *kind, struct profile_set *set, size_t limit_bytes,
                     const char **why);

// --- processor time ---

// Samples in a second of processor time of a thread, as in Go.
#define CPU_SAMPLE_HZ 100

// The kind "cpu": columns samples and cpu, label thread with its name (cpu_sample.c).
extern const struct profile_kind cpu_sample_kind ATTR_HIDDEN;

// cpu_sample_run profiles for duration_ns, or until *stop is not 0 (NULL: never), and fills the
// set, which profile_set_init has made for cpu_sample_kind. Looks at stop ten times a second.
// Returns 0; -EBUSY while another one runs; -EAGAIN if no real-time signal is free; -ENOMEM;
// -EACCES if /proc cannot be read; -EPERM after cpu_sample_restrict. Any thread, also a bare one.
long cpu_sample_run(struct profile_set *set, uint64_t duration_ns, const atomic_u32 *stop);

// cpu_sample_set_labels says who knows the labels of the calling thread, in a signal handler.
// Called once, at start.
void cpu_sample_set_labels(const struct labels *(*labels_of)(void));

// cpu_sample_restrict: a system call filter has come. No timers any more.
void cpu_sample_restrict(void);

// cpu_sample_fork_child: timers are not inherited; what was under way is over.
void cpu_sample_fork_child(void);

// --- writing ---

// A sink takes bytes in order; false stops the writer.
struct profile_sink {
    bool (*write)(struct profile_sink *sink, const void *bytes, size_t count);
};

// A sink that writes to a descriptor; error is what the kernel said, a negative errno.
struct profile_file {
    struct profile_sink sink;
    int fd;
    long error; // 0: none
};

struct profile_file profile_file(int fd);

// pprof_write writes profile.proto, one gzip member, with names, files and lines where they are
// known. False: the sink did not take it, or memory was short.
bool pprof_write(const struct profile_set *set, struct profile_sink *sink);

// proftext_write writes the text of debug=1. stats: for heap the MemStats block at its end, else
// NULL.
bool proftext_write(const struct profile_set *set, const struct ebb_memstats *stats,
                    struct profile_sink *sink);

// --- names ---

struct symbol_line {
    const char *function; // NULL: unknown
    const char *file;     // NULL: unknown
    uint32_t line;        // 0: unknown
};

struct symbols;

// A mapping that can be executed, as /proc/self/maps has it.
struct symbol_mapping {
    uintptr_t start;
    uintptr_t end;
    uint64_t offset;
    const char *path;     // without " (deleted)"; "[vdso]"; "" if it has none
    const char *build_id; // lower-case hex, "" if it has none
    bool asked;           // some address was looked up in it
    bool functions;       // every address looked up in it so far had a function,
    bool files;           // a file,
    bool lines;           // a line
};

// symbols_open reads the process's executable mappings, the program's own first; all memory is the
// region's, and stays until its end. NULL: no memory.
struct symbols *symbols_open(struct region *region);

// symbols_close lets files and mappings of files go.
void symbols_close(struct symbols *symbols);

struct symbol_mapping *symbols_mappings(struct symbols *symbols, size_t *count);

// symbols_mapping_of returns the index of the mapping that holds pc, or SIZE_MAX.
size_t symbols_mapping_of(const struct symbols *symbols, uintptr_t pc);

// symbols_answer answers a request to /debug/pprof/symbol (INTERFACES 2.3): query is addresses with
// + between them; those that have a function are written with it. False: the sink did not take it.
bool symbols_answer(const char *query, size_t length, struct profile_sink *sink);

// symbols_find writes the lines of an address, the innermost inlined call first, at most max of
// them, and returns how many: 0 if nothing is known of it. start is set to the address of the
// function it is in, 0 if unknown. Strings are the region's. Blocks on files.
size_t symbols_find(struct symbols *symbols, uintptr_t pc, struct symbol_line *lines, size_t max,
                    uintptr_t *start);

#endif
