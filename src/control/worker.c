// SPDX-License-Identifier: MIT
//
// The two threads behind the control socket: the worker carries requests out, the door has the
// socket. Between them one job, handed over by a futex.
//
// Two, because a thread that the door started (the releaser's, when a policy rings it) would share
// the door's private descriptors: keep the socket open and lose its own trace lines.
//
// Go  none.
#include <sys/prctl.h>

#include "control/control_int.h"
#include "ledger/ledger.h"
#include "os/futex.h"
#include "os/sys.h"

// Who moves job on: the door NONE -> ASKED, the worker ASKED -> ANSWERED, the door ANSWERED ->
// NONE, and the door anything -> CLOSED at its end.
enum { JOB_NONE, JOB_ASKED, JOB_ANSWERED, JOB_CLOSED };

static struct job {
    atomic_u32 state;               // (A)
    struct control_request request; // (state) the door's until ASKED
    struct fmt reply;               // (state) the worker's until ANSWERED
    char buf[CONTROL_REPLY_BYTES];  // (state)
} job;

static void job_move(uint32_t state)
{
    store_release(&job.state, state); // pairs with the load_acquire of whoever waits
    futex_wake(&job.state, 1);
}

const struct fmt *control_ask(const struct control_request *request)
{
    job.request = *request;
    job_move(JOB_ASKED);
    while (load_acquire(&job.state) == JOB_ASKED) { // pairs with job_move in control_session
        futex_wait(&job.state, JOB_ASKED, 0);
    }
    store_relaxed(&job.state, JOB_NONE);
    return &job.reply;
}

static void door_run(void *arg)
{
    (void)arg;
    sys_call2(SYS_prctl, PR_SET_NAME, "ebb-door");
    store_seq(&control_main.tid, (uint32_t)sys_call0(SYS_gettid)); // pairs with server_ring
    if (!control_is_over()) {
        control_serve();
    }
    store_seq(&control_main.tid, 0);
    job_move(JOB_CLOSED);
}

void control_session(void)
{
    store_relaxed(&job.state, JOB_NONE);
    long error = bare_start(&control_main.door, &vm_kernel, door_run, NULL);
    if (error != 0) {
        control_opened(error);
        return;
    }
    ledger_page_add_own(control_main.door.block, control_main.door.block_bytes);
    for (;;) {
        uint32_t state = load_acquire(&job.state); // pairs with job_move in door_run, control_ask
        if (state == JOB_CLOSED) {
            break;
        }
        if (state == JOB_ASKED) {
            fmt_init(&job.reply, job.buf, sizeof(job.buf));
            control_answer(&job.request, &job.reply);
            job_move(JOB_ANSWERED);
        } else {
            futex_wait(&job.state, state, 0);
        }
    }
    bare_wait_gone(&control_main.door, 0); // until then the stack is in use
}
