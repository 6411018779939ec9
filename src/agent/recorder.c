// SPDX-License-Identifier: MIT
//
// Recorder: what was in memory before the kernel ended the program, on disk.
//
// Model
//   When the process's RSS has passed recorder percent of the memory limit in force, and again with
//   every peak that is 3 % higher, two files are written to recorder_dir:
//     ebb-PID-N.heap.pb.gz   the heap profile, as go tool pprof reads it
//     ebb-PID-N.json         the ledger and MemStats
//   N counts round recorder_files. A file has its name only when it is whole.
//   watch    the size of the heap from which on RSS may have come so far: the limit's gate tells us
//            when it gets there (release/limiter.c). In between nothing runs.
//   cushion  memory that is held while all is well and given back when a record is made, so that
//            there is room for the work where there is no other.
//   running, held, era  as in life.c.
//
// Locking
//   None: the words above; everything else belongs to the thread.
//
// Flow
//   limiter_grown -> recorder_heard -> (thread) RSS -> record -> next watch.
//
// Why this way
//   The heap's growth and not a timer: a process at rest has no wake-ups, and one that fills its
//   memory in a second is not missed. What grows outside of the heap is seen when the heap grows.
//
// Go       none: services are watched from outside, and their profiles taken too late.
// Tests    test/unit/recorder_test.c  test/system/recorder.py
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "agent/agent.h"
#include "agent/agent_int.h"
#include "base/option.h"
#include "ledger/ledger.h"
#include "os/clock.h"
#include "os/futex.h"
#include "os/leave.h"
#include "os/procfs.h"
#include "os/sys.h"
#include "profile/profile.h"
#include "release/release.h"

#define RECORDER_SIGNAL SIGURG // nobody sends it; leave_process wants one
#define STACK_BYTES (256 * KIB)
#define CUSHION_BYTES (4 * MIB)
#define SET_BYTES_MAX (64 * MIB)
#define NAMES_BYTES (1 * MIB) // mappings, and names without lines as far as they go
#define JSON_BYTES (64 * KIB)
#define LEAVE_NS (5 * NS_PER_S)
#define GONE_NS (100 * NS_PER_MS)
#define NAME_BYTES 64

// RSS and the heap's size do not grow by the same pages: this close is not looked at again.
#define STEP_MIN_BYTES (256 * KIB)

enum { RECORDER_NONE, RECORDER_RUNNING };

static struct {
    atomic_u32 bell;       // (A)
    atomic_u32 running;    // (A)
    atomic_u32 held;       // (A) above 0: nobody may start it
    atomic_u32 era;        // (A) raised to end what runs
    atomic_u32 restricted; // (A)
    uint32_t own_era;      // (running)
    struct bare_thread thread;
    char *cushion;       // (running)
    uint64_t peak_bytes; // (running) RSS at the last record
    uint32_t count;      // (running) records ever
    long error;          // (running) of the last one, 0: none
} recorder;

uint64_t recorder_wants_bytes(uint64_t limit_bytes, unsigned percent, uint64_t last_bytes)
{
    uint64_t share = limit_bytes / 100 * percent;
    uint64_t higher = last_bytes + max_u64(last_bytes / 32, 1 * MIB);
    return last_bytes == 0 ? share : max_u64(share, higher);
}

static bool recorder_is_over(void)
{
    return load_seq(&recorder.era) != recorder.own_era; // pairs with add_seq in recorder_stop
}

// --- files ---

static void file_name(char *name, const char *ending, const char *more)
{
    struct fmt text;
    fmt_init(&text, name, NAME_BYTES);
    fmt_str(&text, "ebb-");
    fmt_i64(&text, sys_call0(SYS_getpid));
    fmt_char(&text, '-');
    fmt_u64(&text, recorder.count % (uint32_t)options_main.recorder_files);
    fmt_str(&text, ending);
    fmt_str(&text, more);
}

// Writes one file under another name and gives it its own when it is whole. The folder's
// descriptor is dir.
static long file_make(int dir, const char *ending, bool (*fill)(struct profile_sink *sink))
{
    char name[NAME_BYTES];
    char draft[NAME_BYTES];
    file_name(name, ending, "");
    file_name(draft, ending, ".part");
    long fd = sys_call4(SYS_openat, dir, draft,
                        O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return fd;
    }
    struct profile_file to = profile_file((int)fd);
    bool done = fill(&to.sink);
    sys_call1(SYS_close, fd);
    long error = to.error != 0 ? to.error : done ? 0 : -ENOMEM;
    if (error == 0) {
        error = sys_call4(SYS_renameat, dir, draft, dir, name);
    }
    if (error != 0) {
        sys_call3(SYS_unlinkat, dir, draft, 0);
    }
    return error;
}

static bool heap_fill(struct profile_sink *sink)
{
    struct profile_set set;
    const char *why;
    bool done = profile_collect(profile_find("heap", strlen("heap")), &set, SET_BYTES_MAX, &why);
    set.names_limit_bytes = NAMES_BYTES;
    done = done && pprof_write(&set, sink);
    profile_set_end(&set);
    return done;
}

static bool json_fill(struct profile_sink *sink)
{
    struct region region;
    struct fmt out;
    region_init(&region, 2 * JSON_BYTES);
    char *text = region_alloc(&region, JSON_BYTES);
    bool done = text != NULL;
    if (done) {
        fmt_init(&out, text, JSON_BYTES);
        done = numbers_ledger_print(&out) && sink->write(sink, text, out.len);
    }
    region_end(&region);
    return done;
}

// --- the cushion ---

static void cushion_drop(void)
{
    if (recorder.cushion != NULL) {
        sys_call2(SYS_munmap, recorder.cushion, CUSHION_BYTES);
        recorder.cushion = NULL;
    }
}

static void cushion_take(void)
{
    if (recorder.cushion != NULL) {
        return;
    }
    long addr = sys_call6(SYS_mmap, 0, (long)CUSHION_BYTES, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (addr != 0 && (unsigned long)addr < (unsigned long)-4095) {
        recorder.cushion = (char *)addr;
    }
}

// --- the thread ---

static void record(int dir, uint64_t rss_bytes)
{
    cushion_drop();
    long heap_error = file_make(dir, ".heap.pb.gz", heap_fill);
    long json_error = file_make(dir, ".json", json_fill);
    recorder.error = heap_error != 0 ? heap_error : json_error;
    recorder.peak_bytes = rss_bytes;
    recorder.count++;
}

// The limit in force, 0: none.
static uint64_t limit_in_force(void)
{
    struct limiter_report report;
    limiter_report(&report);
    return report.limit_bytes == UINT64_MAX ? 0 : report.limit_bytes;
}

// Records if it is time, and sets the watch for the next time.
static void recorder_look(int dir)
{
    struct procfs_memory memory;
    struct pageheap_stats stats;
    uint64_t limit_bytes = limit_in_force();
    if (limit_bytes == 0 || !procfs_memory_read(0, &memory)) {
        return;
    }
    unsigned percent = (unsigned)options_main.recorder;
    if (memory.rss_bytes >= recorder_wants_bytes(limit_bytes, percent, recorder.peak_bytes)) {
        record(dir, memory.rss_bytes);
    } else {
        cushion_take();
    }
    uint64_t wanted = recorder_wants_bytes(limit_bytes, percent, recorder.peak_bytes);
    uint64_t missing = wanted > memory.rss_bytes ? wanted - memory.rss_bytes : 0;
    pageheap_stats_read(&pageheap_main, &stats);
    uint64_t mapped_bytes = (stats.sys_pages - stats.released_pages) << PAGE_SHIFT;
    limiter_set_watch(mapped_bytes + max_u64(missing, STEP_MIN_BYTES));
}

static void recorder_run(void *arg)
{
    (void)arg;
    sys_call2(SYS_prctl, PR_SET_NAME, "ebb-recorder");
    long dir = leave_process(RECORDER_SIGNAL, 0177, NULL);
    if (dir == 0) {
        dir = sys_call4(SYS_openat, AT_FDCWD, options_main.recorder_dir.text,
                        O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    }
    while (dir >= 0 && !recorder_is_over()) {
        uint32_t bell = load_seq(&recorder.bell); // pairs with add_seq in recorder_ring
        recorder_look((int)dir);
        if (!recorder_is_over()) {
            futex_wait(&recorder.bell, bell, 0);
        }
    }
    cushion_drop();
    store_seq(&recorder.running, RECORDER_NONE); // pairs with cas_seq in recorder_start
    futex_wake(&recorder.running, INT32_MAX);
}

// --- start and stop ---

static void recorder_ring(void)
{
    add_seq(&recorder.bell, 1); // pairs with load_seq in recorder_run
    futex_wake(&recorder.bell, 1);
}

// May run inside an allocation: it starts the thread or rings it, and touches nothing of the heap.
static void recorder_heard(void)
{
    uint32_t expected = RECORDER_NONE;
    if (lock_am_freezer() || load_seq(&recorder.restricted) != 0) {
        return; // pairs with store_seq in recorder_restrict
    }
    // Pairs with store_seq in recorder_run and load_seq in recorder_stop.
    if (!cas_seq(&recorder.running, &expected, RECORDER_RUNNING)) {
        recorder_ring();
        return;
    }
    // First the era, then held: see control/signal.c server_start.
    uint32_t era = load_seq(&recorder.era);
    bool started = load_seq(&recorder.held) == 0 && bare_wait_gone(&recorder.thread, GONE_NS);
    if (started) {
        recorder.own_era = era;
        recorder.thread.stack_bytes = STACK_BYTES;
        started = bare_start(&recorder.thread, &vm_kernel, recorder_run, NULL) == 0;
    }
    if (started) {
        ledger_page_add_own(recorder.thread.block, recorder.thread.block_bytes);
    } else {
        store_seq(&recorder.running, RECORDER_NONE); // pairs with load_seq in recorder_stop
    }
}

static bool recorder_stop(uint64_t limit_ns)
{
    uint64_t until_ns = clock_now_ns() + limit_ns;
    add_seq(&recorder.held, 1); // pairs with load_seq in recorder_heard
    add_seq(&recorder.era, 1);  // pairs with load_seq in recorder_is_over
    // Pairs with the store_seq in recorder_run and recorder_heard.
    while (load_seq(&recorder.running) != RECORDER_NONE) {
        if (clock_now_ns() >= until_ns) {
            return false;
        }
        recorder_ring();
        futex_wait(&recorder.running, RECORDER_RUNNING, NS_PER_MS);
    }
    return bare_wait_gone(&recorder.thread, limit_ns);
}

static bool recorder_wanted(void)
{
    return options_main.recorder != 0 && getauxval(AT_SECURE) == 0 &&
           options_main.syscalls != OPTION_SYSCALLS_CORE;
}

// The thread comes to life at half of what it waits for: there is time then to take the cushion.
static void watch_first(void)
{
    uint64_t limit_bytes = limit_in_force();
    if (limit_bytes != 0) {
        limiter_set_watch(limit_bytes / 200 * (uint64_t)options_main.recorder);
    }
}

static void recorder_say(const char *text)
{
    char buf[FMT_LINE_BYTES];
    struct fmt line;
    fmt_init(&line, buf, sizeof(buf));
    fmt_str(&line, "ebb: option recorder: ");
    fmt_str(&line, text);
    fmt_char(&line, '\n');
    fmt_write(&line, STDERR_FILENO);
}

void recorder_init(void)
{
    if (!recorder_wanted()) {
        return;
    }
    const char *dir = options_main.recorder_dir.text;
    if (options_main.limit == OPTION_LIMIT_OFF) {
        recorder_say("a percentage of which limit? Right is limit=auto or limit=BYTES beside it; "
                     "nothing will be recorded");
        return;
    }
    if (dir[0] == '\0' || sys_call3(SYS_faccessat, AT_FDCWD, dir, W_OK | X_OK) != 0) {
        recorder_say("recorder_dir must name a folder that the program can write to; nothing will "
                     "be recorded");
        return;
    }
    limiter_set_watch_hook(recorder_heard);
    watch_first();
}

void recorder_fork_child(void)
{
    if (!recorder_wanted()) {
        return;
    }
    bare_forget(&recorder.thread);
    cushion_drop(); // the parent's would stay charged to the group through us
    recorder.peak_bytes = 0;
    recorder.count = 0;
    store_relaxed(&recorder.running, RECORDER_NONE);
    store_relaxed(&recorder.held, 0);
    watch_first();
}

void recorder_pause(void)
{
    if (recorder_wanted()) {
        recorder_stop(LEAVE_NS);
    }
}

void recorder_resume(void)
{
    if (recorder_wanted()) {
        add_seq(&recorder.held, UINT32_MAX); // minus 1; pairs with load_seq in recorder_heard
        watch_first();
    }
}

void recorder_restrict(void)
{
    store_seq(&recorder.restricted, 1); // pairs with load_seq in recorder_heard
    if (recorder_wanted()) {
        recorder_stop(LEAVE_NS);
    }
}

void recorder_end(void)
{
    if (recorder_wanted()) {
        recorder_stop(GONE_NS);
    }
}
