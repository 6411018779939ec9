// SPDX-License-Identifier: MIT
//
// Boot: the constructor, fork handlers, the end; and the public functions that need more than one
// folder.
//
// Go  1.16 proc.go schedinit, main.
#include "boot/boot.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "agent/agent.h"
#include "boot/boot_int.h"
#include "control/control.h"
#include "ledger/ledger.h"
#include "malloc/malloc.h"
#include "profile/profile.h"
#include "release/release.h"
#include "span/span.h"

// Of a program that is linked with libebb.a; libebb.so has another (preload/wait.c).
__attribute__((weak)) void boot_watch_waits(void)
{
}

// Between prepare and parent or child the heap is frozen, and only the forking thread passes.
static void boot_fork_prepare(void)
{
    releaser_fork_prepare();
    world_freeze(&heap_main);
}

static void boot_fork_parent(void)
{
    world_thaw(&heap_main);
    releaser_fork_parent();
}

static void boot_fork_child(void)
{
    world_forked(&heap_main);
    world_thaw(&heap_main);
    releaser_fork_child();
    control_fork_child();
    cpu_sample_fork_child();
    wait_sample_fork_child();
    agent_fork_child();
    recorder_fork_child();
    if (!options_main.children) {
        options_main.stats = OPTION_STATS_OFF;
        options_main.releasetrace = false;
        options_main.control = options_main.control == OPTION_CONTROL_ON ? OPTION_CONTROL_DEMAND
                                                                         : options_main.control;
    }
}

__attribute__((constructor(101))) static void boot_constructor(int argc, char **argv,
                                                               char **entries)
{
    (void)argc;
    (void)argv;
    heap_init();
    unwind_main_stack(entries);
    environment_read(entries);
    if (options_main.check >= 2) {
        harden_enable(&heap_main);
    }
    if (options_main.profile_rate != SAMPLE_INTERVAL_BYTES) {
        sample_set_interval(&heap_main, options_main.profile_rate);
    }
    pageheap_main.populate = options_main.populate;
    if (options_main.thp == OPTION_THP_NEVER) {
        vm_huge_forbid();
    } else if (options_main.thp == OPTION_THP_KEEP) {
        pageheap_dense(&pageheap_main);
    }
    ledger_page_init();
    malloc_add_profiles();
    profile_add_kind(&cpu_sample_kind);
    boot_watch_waits();
    cpu_sample_set_labels(cache_labels);
    limiter_set_abort_hook(limits_print_before_abort);
    releaser_init();
    if (options_main.syscalls == OPTION_SYSCALLS_CORE) {
        releaser_restrict();
        cpu_sample_restrict();
    }
    control_init(environment_find(entries, "XDG_RUNTIME_DIR"));
    pthread_atfork(boot_fork_prepare, boot_fork_parent, boot_fork_child);
    const struct agent_environment environment = {
        .gops_config_dir = environment_find(entries, "GOPS_CONFIG_DIR"),
        .xdg_config_home = environment_find(entries, "XDG_CONFIG_HOME"),
        .home = environment_find(entries, "HOME"),
    };
    agent_init(&environment);
    recorder_init();
}

// Walks everything; ends the program if an invariant does not hold.
static void verify_all(void)
{
    world_freeze(&heap_main);
    const char *wrong = span_verify_all(&heap_main);
    wrong = wrong != NULL ? wrong : pageheap_verify(&pageheap_main);
    world_thaw(&heap_main);
    if (wrong != NULL) {
        fatal(wrong);
    }
}

__attribute__((destructor)) static void boot_destructor(void)
{
    agent_end();
    recorder_end();
    control_end();
    if (options_main.check >= 2) {
        verify_all();
    }
    if (options_main.stats == OPTION_STATS_EXIT) {
        boot_print_stats(STDERR_FILENO);
    }
}

uint64_t boot_release_now(void)
{
    uint64_t bytes = releaser_release_now("malloc_trim", NULL);
    return bytes == UINT64_MAX ? 0 : bytes;
}

void boot_filter_coming(void)
{
    ledger_restrict();
    releaser_restrict();
    agent_restrict();
    recorder_restrict();
    control_restrict();
    cpu_sample_restrict();
}

void boot_credentials_change(void)
{
    releaser_pause();
    agent_pause();
    recorder_pause();
    control_pause();
}

void boot_credentials_changed(void)
{
    control_resume();
    agent_resume();
    recorder_resume();
}

ATTR_EXPORT int ebb_release_now(struct ebb_release_report *report)
{
    struct release_report done;
    if (report != NULL && report->size != sizeof(*report)) {
        return -EINVAL;
    }
    uint64_t bytes = releaser_release_now("ebb_release_now", &done);
    if (bytes == UINT64_MAX) {
        return -EBUSY;
    }
    if (report != NULL) {
        *report = (struct ebb_release_report){
            .size = sizeof(*report),
            .released = bytes,
            .runs = done.runs_bytes,
            .holes = done.holes_bytes,
            .tables = done.tables_bytes,
            .flushed = done.flushed_bytes,
            .lazy = done.lazy_bytes,
            .pinned = done.pinned_bytes,
            .refused = done.refused_bytes,
            .held = done.held_bytes,
            .skipped_count = done.skipped_count,
            .took_ns = done.took_ns,
            .pause_ns_max = done.pause_ns_max,
        };
    }
    return 0;
}

ATTR_EXPORT int ebb_release_set_policy(const char *name)
{
    for (size_t i = 0; name != NULL && i < RELEASE_POLICY_COUNT; i++) {
        if (strcmp(name, release_policies[i].name) == 0) {
            return releaser_set_policy(i) ? 0 : -EBUSY;
        }
    }
    return -EINVAL;
}

ATTR_EXPORT const char *ebb_release_policy(void)
{
    return release_policies[releaser_policy_index()].name;
}

ATTR_EXPORT const char *ebb_version(void)
{
    return EBB_VERSION_STRING;
}
