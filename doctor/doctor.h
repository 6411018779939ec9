// SPDX-License-Identifier: MIT
//
// Doctor: looks at any process from outside and says why its memory is as it is.
//
// Model
//   A look gathers facts; an account puts every resident byte into one row; rules over both give
//   verdicts. Facts come from sources. Each source says what became of it (read, refused, left out
//   to save time, not there, senseless), what it cost, and why; so what was not looked at is part
//   of the report. Sizes are bytes, times are nanoseconds of CLOCK_MONOTONIC.
//   Regions are the mappings of the process with what of them is resident. Each belongs to one
//   place; who knows a heap (Go, glibc, Ebb, ...) claims its regions for it and divides them:
//   live + pinned + kept + lazy + meta + undivided = resident. No row is worked out as RSS minus
//   the others: what the kernel counts beyond their sum is "unexplained".
//   The process is never stopped and never asked: only /proc, its cgroup, its file and its memory
//   are read (process_vm_readv). All that comes from there may be torn, or made to mislead: it is
//   bounded before it is used.
//
// Locking
//   None; one thread. A look allocates with malloc, so it belongs into a program of its own.
//
// Flow
//   doctor_look -> evidence_*.c in the order of a table, under a budget -> struct facts
//   -> account_make (account.c) -> trend_of (trend.c) -> verdicts_of (verdicts.c): all pure.
//
// Why this way
//   Deciding is pure, so that each rule is tested with facts no machine has. A budget and not a
//   fixed set of sources, because on call a quick answer comes first: smaps of a large process
//   takes seconds and holds a lock that the process may want.
//
// Go       none; gops and pprof look at what the program offers.
// Tests    test/unit/verdicts_test.c  test/unit/evidence_test.c  test/system/doctor.py
#ifndef EBB_DOCTOR_DOCTOR_H
#define EBB_DOCTOR_DOCTOR_H

#include <limits.h>

#include "base/base.h"

// ---- sources ------------------------------------------------------------------------------------

enum source_id {
    SOURCE_STATUS,
    SOURCE_STAT,
    SOURCE_COMMAND,
    SOURCE_ENVIRON,
    SOURCE_EXE,
    SOURCE_KERNEL,
    SOURCE_CGROUP,
    SOURCE_MAPS,
    SOURCE_PAGES,
    SOURCE_ROLLUP,
    SOURCE_PAGEFLAGS,
    SOURCE_HUGE,
    SOURCE_EBB,
    SOURCE_GO,
    SOURCE_GOROUTINES,
    SOURCE_GO_PROFILE,
    SOURCE_GLIBC,
    SOURCE_JEMALLOC,
    SOURCE_MIMALLOC,
    SOURCE_TCMALLOC,
    SOURCE_JVM,
    SOURCE_PYTHON,
    SOURCE_REACH,
    SOURCE_SITES,
    SOURCE_COUNT,
};

enum source_state {
    SOURCE_NOT_ASKED, // does not apply to this process
    SOURCE_READ,
    SOURCE_REFUSED, // by the kernel: permissions
    SOURCE_LEFT,    // it would cost more than the budget
    SOURCE_ABSENT,  // this kernel or program does not have it
    SOURCE_BROKEN,  // it was there and made no sense
};

#define SOURCE_WHY_BYTES 192
struct source {
    enum source_state state;
    uint64_t cost_ns;
    char why[SOURCE_WHY_BYTES]; // a clause without a full stop; "" where nothing is to be said
};

// source_name is what the report calls it, "smaps_rollup"; source_place where it is read from.
const char *source_name(enum source_id id);
const char *source_place(enum source_id id);
const char *source_state_name(enum source_state state);

// ---- facts --------------------------------------------------------------------------------------

#define SETTINGS_MAX 24
#define SETTING_NAME_BYTES 40
#define SETTING_VALUE_BYTES 160
// An environment variable that an allocator or runtime listens to.
struct setting {
    char name[SETTING_NAME_BYTES];
    char value[SETTING_VALUE_BYTES];
};

// setting_meaning writes what a setting means for memory, one clause per call: index is 0 at first,
// then what the last call returned. 0: there is nothing more to say.
size_t setting_meaning(const struct setting *setting, size_t index, char *buf, size_t cap);

struct facts_process {
    char name[32];
    char command[512];
    char exe[PATH_MAX]; // "" if it cannot be read; its name at the start, if it was removed since
    uint32_t uid;
    char state; // as in ps: R S D Z T
    uint64_t rss_bytes, anon_bytes, file_bytes, shmem_bytes, swap_bytes;
    uint64_t rss_after_bytes; // once more, when the pages had been counted; 0: not read
    uint64_t peak_rss_bytes, vm_size_bytes;
    uint64_t threads_count;
    uint64_t cpu_ns;      // user and system, since the start
    uint64_t age_ns;      // since the start
    uint64_t start_ticks; // of the machine's clock: with the PID it names one process for good
    struct setting settings[SETTINGS_MAX];
    size_t settings_count;
    uint32_t gops_port; // of the file that an agent of gops leaves; 0: none
};

// facts_setting returns the value of a variable, or NULL if it is not set or was not read.
struct facts;
const char *facts_setting(const struct facts *facts, const char *name);

enum place {
    PLACE_HEAP,    // of a heap in facts.heaps, by the claims of doctor_int.h
    PLACE_STACK,   // of a thread
    PLACE_NATIVE,  // other anonymous memory
    PLACE_DATA,    // variables of the program and its libraries
    PLACE_FILE,    // mapped files
    PLACE_SHMEM,   // memfd, /dev/shm, System V, shared anonymous
    PLACE_SPECIAL, // vdso and the like
    PLACE_COUNT,
};

struct facts_pages {
    uint64_t resident_bytes[PLACE_COUNT];
    uint64_t huge_bytes;       // anonymous, in huge pages
    uint64_t huge_zero_bytes;  // of these: small pages full of zeros, an estimate
    uint64_t huge_error_bytes; // half of its 95 % interval
    uint64_t lazyfree_bytes;
    uint64_t lazyfree_error_bytes; // 0: exact
    bool lazyfree_known;
    uint64_t mappings_count;
    uint64_t stack_most_bytes; // of the one with most
    bool whole;                // all regions were looked at
    char file_most[PATH_MAX];  // of the mapping of a file with most resident bytes, and they
    uint64_t file_most_bytes;
    char shmem_most[128];
    uint64_t shmem_most_bytes;
};

struct facts_cgroup {
    int version;     // 0: none was found
    char path[1024]; // the directory whose numbers these are: the process's, or one further up
    char name[1024]; // of it, below the mount: /system.slice/x.service
    bool asked;      // the user named the cgroup, not the process
    bool alone;      // the process is the only one in it
    bool root;       // of the hierarchy: everything on the machine
    uint64_t processes_count; // in it and below; 0 for the root
    uint64_t limit_bytes;     // UINT64_MAX: none
    uint64_t high_bytes;      // UINT64_MAX: none
    uint64_t usage_bytes;
    uint64_t anon_bytes, file_bytes, shmem_bytes;
    uint64_t inactive_file_bytes, active_file_bytes;
    uint64_t dirty_bytes; // of files, not written yet
    uint64_t kernel_bytes, sock_bytes;
    uint64_t swap_bytes;
    // (inactive + active) - (file - shmem): lazily freed pages wait on the lists of files, and are
    // no file's.
    uint64_t lazyfree_bytes;
    uint64_t oom_kill_count, limit_hit_count;
    uint32_t pressure; // hundredths of a percent of the last 10 s; UINT32_MAX: unknown
};

struct facts_kernel {
    char release[64];
    char thp[16]; // always, madvise, never; "" unknown
    uint64_t max_ptes_none;
    uint64_t page_bytes;
};

enum heap_kind {
    HEAP_EBB,
    HEAP_GO,
    HEAP_GLIBC,
    HEAP_JEMALLOC,
    HEAP_MIMALLOC,
    HEAP_TCMALLOC,
    HEAP_JVM,
    HEAP_PYTHON,
    HEAP_V8,
    HEAP_KINDS,
};
const char *heap_kind_name(enum heap_kind kind);

// A heap in the process, whoever made it. Where `divided`, the parts add up to resident_bytes.
#define HEAPS_MAX 8
struct facts_heap {
    enum heap_kind kind;
    char version[32]; // "" unknown
    bool divided;
    uint64_t error_bytes;    // half of the 95 % interval of the parts; 0: exact
    uint64_t resident_bytes; // set by the look, from the regions claimed for it
    uint64_t live_bytes;     // blocks in use
    uint64_t kept_bytes;     // whole free pages: could be given back now
    uint64_t pinned_bytes;   // free, but on pages that hold something in use
    uint64_t lazy_bytes;     // given back with MADV_FREE, still there
    uint64_t meta_bytes;     // the heap's own tables
    uint64_t released_bytes; // what it says it has given back; not resident, or lazily
    uint64_t arenas_count;
    uint64_t arenas_free_bytes; // of kept and pinned: in arenas beside the first
    bool decays;                // gives back by a clock that ticks only when it is called
    bool decay_thread;          // has a thread for it
    char note[160];             // what else is to be said
};

#define GO_GROUPS_MAX 16
#define GO_TEXT_BYTES 160
// Goroutines that wait for the same at the same line.
struct go_group {
    uint64_t count;
    char state[32];           // "chan receive"
    char site[GO_TEXT_BYTES]; // innermost function outside of the runtime
    char creator[GO_TEXT_BYTES];
    uint64_t waited_ns; // the longest; 0: not known
};

// Where the runtime has something: a variable's address, or a member's offset.
struct go_value {
    uint64_t at;   // 0 is a possible offset
    uint64_t size; // bytes; 0: the layout does not tell
    bool known;
};

#define GO_FIELDS_MAX 96
struct go_layout {
    struct go_value fields[GO_FIELDS_MAX]; // by enum go_field of go_look.h
    int minor;
};

struct facts_go {
    bool is_go;
    char version[32];  // "go1.15.15"
    int minor;         // 15; 0: not told
    bool memory_known; // the sizes below
    uint64_t sys_bytes, heap_sys_bytes, heap_idle_bytes, heap_inuse_bytes, heap_released_bytes;
    uint64_t heap_live_bytes, next_gc_bytes, stacks_bytes;
    bool madvise_free; // what this version and its environment do
    uint64_t goroutines_count;
    bool goroutines_known;
    uint64_t goroutine_stack_bytes;
    uint64_t timers_count;
    bool timers_known;
    struct go_layout layout;               // for samples; nothing is known unless memory_known
    struct go_group groups[GO_GROUPS_MAX]; // most first
    size_t groups_count;
};

struct facts_ebb {
    bool loaded, in_use;
    char version[24], policy[24];
    uint64_t limit_bytes; // UINT64_MAX: none
    bool control;         // it can be asked
    char options[256];    // "policy=now,check=1"
};

#define SITES_MAX 12
struct facts_site {
    char name[GO_TEXT_BYTES];
    char caller[GO_TEXT_BYTES];
    uint64_t bytes, count; // in use
    int64_t grown_bytes;   // since the first look of a series
};

// Which blocks in use any pointer leads to, by a scan of the memory. Sizes are resident bytes.
struct facts_reach {
    bool known;
    bool asked; // by --scan, or by watching: else it is a by-product of a look
    bool still; // nothing ran while it was looked at
    uint64_t reachable_bytes, unreachable_bytes, unreachable_count;
    uint64_t common_bytes, common_count; // the size most of the unreachable ones have
    uint64_t heads_count; // unreachable blocks that no other unreachable one leads to
    uint64_t held_bytes;  // of unreachable: pointers in registers, which cannot be seen, might lead
                          // to so much
    uint64_t read_bytes;  // memory that was looked at, each time
};

struct facts {
    int pid;
    uint64_t taken_ns;
    uint64_t cost_ns;
    struct source sources[SOURCE_COUNT];
    struct facts_process process;
    struct facts_pages pages;
    struct facts_cgroup cgroup;
    struct facts_kernel kernel;
    struct facts_heap heaps[HEAPS_MAX];
    size_t heaps_count;
    struct facts_go go;
    struct facts_ebb ebb;
    struct facts_reach reach;
    struct facts_site sites[SITES_MAX]; // most bytes first; or most grown in a series
    size_t sites_count;
};

// facts_heap returns the heap of that kind, or NULL.
struct facts_heap *facts_heap(struct facts *facts, enum heap_kind kind);
const struct facts_heap *facts_heap_const(const struct facts *facts, enum heap_kind kind);

// ---- looking ------------------------------------------------------------------------------------

#define DOCTOR_BUDGET_NS (UINT64_C(80) * NS_PER_MS)

struct doctor_options {
    uint64_t budget_ns; // of processor time; 0: DOCTOR_BUDGET_NS
    bool exact;         // whatever it costs
    bool asks_cgroup;   // the cgroup was named, so what is in it matters
    bool scan;          // look for unreachable blocks, whatever the heap's size
    const char *root;   // in front of /proc and /sys, for tests; NULL: ""
};

enum doctor_error {
    DOCTOR_OK,
    DOCTOR_NO_PROCESS,
    DOCTOR_ENDED, // while it was looked at
    DOCTOR_KERNEL_THREAD,
    DOCTOR_ZOMBIE,
    DOCTOR_BROKEN, // /proc/PID/status makes no sense
    DOCTOR_NO_MEMORY,
};

// doctor_look fills facts about a process. What may not be read is left at zero, and its source
// says so: an ordinary user learns something about every process. 100 KiB of stack.
enum doctor_error doctor_look(int pid, const struct doctor_options *options, struct facts *facts);

// doctor_sample fills a light sample: status, and what the heap counts, without pages or walks.
struct sample {
    uint64_t at_ns;
    uint64_t rss_bytes, anon_bytes, shmem_bytes;
    uint64_t live_bytes;       // UINT64_MAX: the target cannot tell
    bool collected;            // live_bytes holds garbage until the next collection
    uint64_t goroutines_count; // UINT64_MAX: the same
    uint64_t cpu_ns;
};
enum doctor_error doctor_sample(const struct facts *facts, struct sample *sample);

// ---- finding processes --------------------------------------------------------------------------

#define CONTAINER_ID_BYTES 72
#define CONTAINER_NAME_BYTES 256
// What /proc/PID/cgroup tells about a container.
struct container {
    char id[CONTAINER_ID_BYTES];      // 64 hexadecimal digits, or a name; "" if in none
    char pod_uid[CONTAINER_ID_BYTES]; // of Kubernetes, with dashes; "" if in none
};
// container_parse reads the text of /proc/PID/cgroup. Pure; false if it names no container.
bool container_parse(const char *text, size_t len, struct container *out);

#define FOUND_HOW_BYTES 512
struct found {
    int *pids; // in order
    size_t count, cap;
    char how[FOUND_HOW_BYTES]; // a clause: by what they were found, or what was tried in vain
};
// find_* list processes; those that end meanwhile may still be in the list. root stands in front of
// /proc, /sys, /var and /run, for tests; NULL: "". false, with `how` set, if none was found or
// memory is out. The list is found_free's to free, in any case; it may be filled again.
//   find_all        every process but threads of the kernel
//   find_cgroup     of a cgroup and all below it: its directory, its name as in /proc/PID/cgroup,
//                   or the last part of that, "nginx.service"
//   find_container  by name, POD/NAME, or the first 6 digits or more of the ID
//   find_pod        of Kubernetes, by name or UID
bool find_all(const char *root, struct found *out);
bool find_cgroup(const char *root, const char *path, struct found *out);
bool find_container(const char *root, const char *name, struct found *out);
bool find_pod(const char *root, const char *name, struct found *out);
void found_free(struct found *out);

// container_names looks up what a container is called, in the files of the engine that runs it; pid
// is a process in it. "" where nobody says.
struct container_names {
    char name[CONTAINER_NAME_BYTES];
    char pod[CONTAINER_NAME_BYTES];
    const char *source; // "docker", "containerd", "CRI-O", "podman", "environment"; NULL: nobody
};
void container_names(const char *root, const struct container *container, int pid,
                     struct container_names *out);

// ---- account ------------------------------------------------------------------------------------

enum account_row {
    ROW_LIVE,
    ROW_UNDIVIDED, // in a heap that does not say what of it is in use
    ROW_PINNED,
    ROW_KEPT,
    ROW_LAZY,
    ROW_META,
    ROW_NATIVE,
    ROW_STACKS,
    ROW_DATA,
    ROW_FILES,
    ROW_SHMEM,
    ROW_SPECIAL,
    ROW_COUNT,
};
struct account {
    uint64_t bytes[ROW_COUNT];
    // As the kernel counts: of all it may have been while the pages were counted, the nearest to
    // the sum.
    uint64_t rss_bytes;
    uint64_t sum_bytes;
    int64_t unexplained_bytes; // rss - sum
};
// size_text writes a size for people, "70.4 MiB", into buf and returns it.
const char *size_text(uint64_t bytes, char *buf, size_t cap);
// SIZE(bytes) is such a text that lives until the end of the block.
#define SIZE_BYTES 32
#define SIZE(bytes) size_text((bytes), (char[SIZE_BYTES]){0}, SIZE_BYTES)

const char *account_row_name(enum account_row row);  // "kept", for JSON
const char *account_row_title(enum account_row row); // "kept by the heap", for people
struct account account_make(const struct facts *facts);

// ---- trend --------------------------------------------------------------------------------------

enum trend_shape {
    TREND_UNKNOWN, // too few samples
    TREND_PLATEAU,
    TREND_WAVE,
    TREND_SLOPE,
    TREND_FALL,
};
struct trend {
    enum trend_shape shape;
    const char *of; // "memory in use", "anonymous and shared memory"
    uint64_t first_bytes, last_bytes, least_bytes, most_bytes;
    uint64_t span_ns;
    double slope_bytes_per_s;
    double cpu_share; // processors used, mean
    uint64_t samples_count;
    bool goroutines_told;
    uint64_t goroutines_first_count, goroutines_last_count;
};
const char *trend_shape_name(enum trend_shape shape);
// trend_of tells plateau, wave and slope apart; samples in order of time.
struct trend trend_of(const struct sample *samples, size_t count);

// ---- verdicts -----------------------------------------------------------------------------------

enum verdict_id {
    VERDICT_LEAK,
    VERDICT_GROWTH,
    VERDICT_KEPT,
    VERDICT_DECAY,
    VERDICT_LAZY,
    VERDICT_PINNED,
    VERDICT_ARENAS,
    VERDICT_HUGEPAGES,
    VERDICT_NATIVE,
    VERDICT_PAGECACHE,
    VERDICT_STACKS,
    VERDICT_SHMEM,
    VERDICT_HEALTHY,
    VERDICT_UNKNOWN,
    VERDICT_COUNT,
};
const char *verdict_name(enum verdict_id id);
const char *verdict_title(enum verdict_id id);

enum confidence { CONFIDENCE_LOW, CONFIDENCE_MEDIUM, CONFIDENCE_HIGH };
const char *confidence_name(enum confidence confidence);

enum remedy {
    REMEDY_NONE,    // a person has to do it
    REMEDY_RELEASE, // ebb release
    REMEDY_POLICY,  // ebb policy, and release
};

#define VERDICT_LINES 6
#define VERDICT_LINE_BYTES 512
struct verdict {
    enum verdict_id id;
    enum confidence confidence;
    uint64_t bytes;                    // explained by it
    uint64_t weight_bytes;             // what orders verdicts: bytes, or what an hour adds
    char sentence[VERDICT_LINE_BYTES]; // what it is, to be pasted
    char because[VERDICT_LINES][VERDICT_LINE_BYTES];
    char refute[VERDICT_LINE_BYTES]; // what would show it wrong
    char advice[VERDICT_LINES][VERDICT_LINE_BYTES];
    char command[VERDICT_LINE_BYTES]; // to type; "" if there is none
    bool predicts;
    uint64_t predicted_rss_bytes; // after the advice
    enum remedy remedy;
    char remedy_arg[24]; // of REMEDY_POLICY: its name
    bool remedy_limit;   // and a limit from the container's
};

struct diagnosis {
    struct verdict verdicts[VERDICT_COUNT]; // by weight; at least one
    size_t count;
    struct account account;
    struct trend trend;
    bool finding; // the first one is neither healthy nor unknown
};

// verdicts_of applies all rules. trend may be NULL: a single look.
void verdicts_of(const struct facts *facts, const struct trend *trend, struct diagnosis *out);

#endif
