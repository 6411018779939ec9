// SPDX-License-Identifier: MIT
//
// Boot: the constructor, fork handlers, the end; and the public functions that need more than one
// folder.
//
// Go  1.16 proc.go schedinit, main.
#include "boot/boot.h"

#include <errno.h>
#include <pthread.h>
#include <unistd.h>

#include "boot/boot_int.h"
#include "release/release.h"
#include "span/span.h"

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
    if (!options_main.children) {
        options_main.stats = OPTION_STATS_OFF;
        options_main.releasetrace = false;
    }
}

__attribute__((constructor(101))) static void boot_constructor(int argc, char **argv,
                                                               char **entries)
{
    (void)argc;
    (void)argv;
    heap_init();
    environment_read(entries);
    if (options_main.check >= 2) {
        harden_enable(&heap_main);
    }
    pageheap_main.populate = options_main.populate;
    releaser_init();
    if (options_main.syscalls == OPTION_SYSCALLS_CORE) {
        releaser_restrict();
    }
    pthread_atfork(boot_fork_prepare, boot_fork_parent, boot_fork_child);
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
    if (options_main.check >= 2) {
        verify_all();
    }
    if (options_main.stats == OPTION_STATS_EXIT) {
        boot_print_stats(STDERR_FILENO);
    }
}

uint64_t boot_release_now(void)
{
    uint64_t bytes = releaser_release_now("malloc_trim or ebb_release_now");
    return bytes == UINT64_MAX ? 0 : bytes;
}

void boot_filter_coming(void)
{
    releaser_restrict();
}

void boot_credentials_change(void)
{
    releaser_pause();
}

ATTR_EXPORT int ebb_release_now(uint64_t *bytes)
{
    uint64_t done = releaser_release_now("ebb_release_now");
    if (done == UINT64_MAX) {
        return -EBUSY;
    }
    if (bytes != NULL) {
        *bytes = done;
    }
    return 0;
}

ATTR_EXPORT const char *ebb_release_policy(void)
{
    return releaser_policy_name();
}

ATTR_EXPORT const char *ebb_version(void)
{
    return EBB_VERSION_STRING;
}
