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
        uint32_t bell =
            load_seq(&agent_main.keeper_bell); // pairs with keeper_ring in bell.c, door_run
        if (agent_release_asked()) {
            releaser_release_now("agent", NULL);
            agent_release_done();
        }
        if (load_acquire(&agent_main.door_gone) != 0) { // pairs with store_release in door_run
            break;
        }
        futex_wait(&agent_main.keeper_bell, bell, 0);
    }
    bare_wait_gone(&agent_main.door, 0);
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
