// SPDX-License-Identifier: MIT
//
// The keeper: starts the door, gives memory back for it, and is the last to go. Its descriptors are
// the program's, so that a thread that a release starts has the program's too (control/worker.c).
//
// Go  none.
#include <sys/prctl.h>

#include "agent/agent_int.h"
#include "os/futex.h"
#include "os/sys.h"
#include "release/release.h"

// Who moves release_ask on: a worker NONE -> ASKED, the keeper ASKED -> DONE, the worker DONE ->
// NONE.
enum { RELEASE_NONE, RELEASE_ASKED, RELEASE_DONE };

static void release_move(uint32_t state)
{
    store_release(&agent_main.release_ask, state); // pairs with the load_acquire of who waits
    futex_wake(&agent_main.release_ask, INT32_MAX);
}

static void keeper_ring(void)
{
    add_seq(&agent_main.keeper_bell, 1); // pairs with load_seq in session_run
    futex_wake(&agent_main.keeper_bell, 1);
}

void agent_release(void)
{
    for (;;) {
        uint32_t state = RELEASE_NONE;
        // Pairs with release_move of the worker that asked before.
        if (cas_acquire(&agent_main.release_ask, &state, RELEASE_ASKED)) {
            break;
        }
        futex_wait(&agent_main.release_ask, state, NS_PER_MS);
    }
    keeper_ring();
    while (load_acquire(&agent_main.release_ask) == RELEASE_ASKED) { // pairs with release_move
        futex_wait(&agent_main.release_ask, RELEASE_ASKED, 0);
    }
    release_move(RELEASE_NONE);
}

static void wait_gone(struct bare_thread *thread)
{
    // The kernel clears alive and wakes; pairs with nothing of ours.
    while (load_acquire(&thread->alive) != 0) {
        futex_wait(&thread->alive, 1, NS_PER_MS);
    }
}

static void session_run(void)
{
    store_relaxed(&agent_main.door_gone, 0);
    store_relaxed(&agent_main.workers_over, 0);
    uint32_t wants = load_seq(&agent_main.wants); // pairs with add_seq in wants_ask
    long error = bare_start(&agent_main.door, &vm_kernel, door_run, NULL);
    if (error != 0) {
        agent_main.http_error = error;
        agent_main.gops_error = error;
        store_release(&agent_main.acted, wants); // pairs with load_acquire in acted_wait
        futex_wake(&agent_main.acted, INT32_MAX);
        return;
    }
    for (;;) {
        uint32_t bell = load_seq(&agent_main.keeper_bell); // pairs with keeper_ring, door_run
        if (load_acquire(&agent_main.release_ask) == RELEASE_ASKED) {
            releaser_release_now("agent", NULL);
            release_move(RELEASE_DONE);
        }
        if (load_acquire(&agent_main.door_gone) != 0) { // pairs with store_release in door_run
            break;
        }
        futex_wait(&agent_main.keeper_bell, bell, 0);
    }
    wait_gone(&agent_main.door);
}

void keeper_run(void *arg)
{
    (void)arg;
    sys_call2(SYS_prctl, PR_SET_NAME, "ebb-agent");
    for (;;) {
        if (!agent_is_over()) {
            session_run();
        }
        store_seq(&agent_main.running, AGENT_NONE); // pairs with cas_seq in keeper_start
        futex_wake(&agent_main.running, INT32_MAX);
        uint32_t expected = AGENT_NONE;
        // Somebody may have wanted something of a door that was on its way out.
        if (load_seq(&agent_main.wants) == load_seq(&agent_main.acted) || agent_is_over() ||
            !cas_seq(&agent_main.running, &expected, AGENT_RUNNING)) {
            return;
        }
    }
}
