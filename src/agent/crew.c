// SPDX-License-Identifier: MIT
//
// Workers: bare threads that make answers. Between them and the door one word in each connection.
//
// Go  net/http/server.go starts a goroutine for each connection. Unlike Go: at most AGENT_WORKERS
//     answers are made at a time, since each may need tens of MiB.
#include <sys/prctl.h>

#include "agent/agent_int.h"
#include "os/futex.h"
#include "os/sys.h"

void job_run(struct job *job)
{
    job->wait_ns = 0;
    if (job->route != NULL) {
        job->route->handle(job);
    } else {
        gops_answer(job);
    }
    job->step++;
}

// Takes a job that nobody has, and does it.
static bool job_take(void)
{
    for (size_t i = 0; i < AGENT_CONNS; i++) {
        struct conn *conn = &agent_main.conns[i];
        uint32_t state = JOB_QUEUED;
        // Pairs with store_release in work_give.
        if (load_relaxed(&conn->job_state) == JOB_QUEUED &&
            cas_acquire(&conn->job_state, &state, JOB_RUNNING)) {
            job_run(&conn->job);
            store_release(&conn->job_state, JOB_DONE); // pairs with load_acquire in door_worked
            agent_ring_door();
            return true;
        }
    }
    return false;
}

void worker_run(void *arg)
{
    (void)arg;
    sys_call2(SYS_prctl, PR_SET_NAME, "ebb-work");
    for (;;) {
        uint32_t bell = load_acquire(&agent_main.work_bell); // pairs with work_ring
        if (load_acquire(&agent_main.workers_over) != 0) {   // pairs with workers_end
            return;
        }
        if (!job_take()) {
            futex_wait(&agent_main.work_bell, bell, 0);
        }
    }
}

static void work_ring(int count)
{
    add_seq(&agent_main.work_bell, 1); // pairs with load_acquire in worker_run
    futex_wake(&agent_main.work_bell, count);
}

void work_give(struct conn *conn, size_t working)
{
    if (agent_main.worker_count < AGENT_WORKERS && agent_main.worker_count < working) {
        struct bare_thread *thread = &agent_main.workers[agent_main.worker_count];
        if (bare_start(thread, &vm_kernel, worker_run, NULL) == 0) {
            agent_main.worker_count++;
        }
    }
    store_release(&conn->job_state, JOB_QUEUED); // pairs with cas_acquire in job_take
    if (agent_main.worker_count != 0) {
        work_ring(1);
        return;
    }
    store_relaxed(&conn->job_state, JOB_RUNNING);
    conn->job.in_door = true;
    job_run(&conn->job);                       // no thread may be started: others wait meanwhile
    store_release(&conn->job_state, JOB_DONE); // pairs with load_acquire in door_worked
    agent_ring_door();
}

void workers_end(void)
{
    store_release(&agent_main.workers_over, 1); // pairs with load_acquire in worker_run
    work_ring(AGENT_WORKERS);
    for (uint32_t i = 0; i < agent_main.worker_count; i++) {
        bare_wait_gone(&agent_main.workers[i], 0);
    }
    agent_main.worker_count = 0;
}
