// SPDX-License-Identifier: MIT
//
// The agent's state, and what its threads tell each other: look, it is over, give memory back.
//
// Go  none.
#include "agent/agent_int.h"
#include "os/clock.h"
#include "os/futex.h"
#include "os/sys.h"

struct agent agent_main;

bool agent_is_over(void)
{
    return load_seq(&agent_main.era) != agent_main.own_era; // pairs with add_seq in agent_stop
}

void agent_ring_door(void)
{
    uint32_t tid = load_seq(&agent_main.door_tid); // pairs with store_seq in door_run
    if (tid != 0) {
        sys_call3(SYS_tgkill, load_relaxed(&agent_main.pid), tid, DOOR_SIGNAL);
    }
}

static void keeper_ring(void)
{
    add_seq(&agent_main.keeper_bell, 1); // pairs with load_seq in session_run
    futex_wake(&agent_main.keeper_bell, 1);
}

// Who moves release_ask on: a worker NONE -> ASKED, the keeper ASKED -> DONE, the worker DONE ->
// NONE.
enum { RELEASE_NONE, RELEASE_ASKED, RELEASE_DONE };

static void release_move(uint32_t state)
{
    store_release(&agent_main.release_ask, state); // pairs with the load_acquire of who waits
    futex_wake(&agent_main.release_ask, INT32_MAX);
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

bool agent_release_asked(void)
{
    return load_acquire(&agent_main.release_ask) == RELEASE_ASKED; // pairs with agent_release
}

void agent_release_done(void)
{
    release_move(RELEASE_DONE);
}
