// SPDX-License-Identifier: MIT
//
// Agent: the door for tools. HTTP for browsers, go tool pprof and Prometheus, and gops, answered
// inside a running process by threads of Ebb's own.
//
// Model
//   listener  http: a unix socket or a TCP address; gops: a port of 127.0.0.1 and a file that tells
//             it. Each is wanted or not, and open or not.
//   keeper    a bare thread that starts the door and gives memory back when asked ("ebb-agent")
//   door      a bare thread with the sockets ("ebb-http"): accepts, asks who it is, reads requests,
//             sends answers. It never waits for one client, and never works for one.
//   worker    bare threads, started at need, at most AGENT_WORKERS ("ebb-work"): make answers, in
//             memory. None of them touches a socket.
//   connection READ -> WORK -> (WAIT -> WORK) -> SEND -> READ or DRAIN -> free. WAIT is for what
//             takes seconds=N: no thread is kept for it. A profile over some time is two answers of
//             a worker with a WAIT between them.
//   route     a line of route.def: path, methods, handler, help. docs/ROUTES.md is made from it.
//   peer      the user at the other end: SO_PEERCRED, or for TCP on this machine the socket table
//             of the kernel. Root and the process's own user may ask; others by http_allow, each
//             for all or for a route. Who may not is told so (HTTP), closed and counted.
//   All that grows has an end: AGENT_CONNS connections, of which the longest silent one goes when
//   another comes; HTTP_HEAD_MAX and HTTP_BODY_MAX; ANSWER_MAX; seconds=; time for each state.
//
// Locking
//   agent_main.mutex: who starts or stops. Between door and workers one word in each connection
//   (job_state): the worker has the job from RUNNING to DONE, else the door has it. Stopping is an
//   era, as in control.
//
// Flow
//   agent_open -> keeper -> door: private descriptors, sockets -> ppoll -> peer -> http_feed ->
//   route_find -> (worker) route->handle -> answer -> (door) send.
//
// Why this way
//   One thread that waits and a few that work: a client that says nothing, a profile of half a
//   minute and a binary with slow symbols do not stop each other, and an agent nobody asks wakes
//   nobody. The door has descriptors of its own, as control's (os/leave.h); workers share them, so
//   that a program that closes or reuses numbers cannot meet ours. What could start the releaser's
//   thread is done by the keeper, whose descriptors are the program's (control/worker.c).
//   Answers are made in memory: a reader that is slow keeps memory and no thread.
//   The parser is llhttp: requests come from browsers too, and parsing them is not our business.
//
// Go       net/http/pprof/pprof.go; gops agent.go. Unlike Go: gops clients are answered at the same
//          time, a connection says who it is before it is answered, POST works on symbol.
// Tests    test/unit/agent_http_test.c  test/unit/agent_text_test.c  test/system/agent.py
//          test/system/agent_gops.py  test/fuzz/http_fuzz.c  test/fuzz/gops_fuzz.c
#ifndef EBB_AGENT_AGENT_H
#define EBB_AGENT_AGENT_H

#include "base/base.h"

#define AGENT_WHERE_BYTES 128

// What the process's environment said at its start; NULL where it said nothing.
struct agent_environment {
    const char *gops_config_dir;
    const char *xdg_config_home;
    const char *home;
};

// agent_init reads options_main and opens what they ask for; says on stderr what cannot be opened,
// and where it listens if the kernel chose the port. Once, by boot. Without http or gops no system
// call is made.
void agent_init(const struct agent_environment *environment);

// agent_open opens a listener: an address (base/address.h), or "gops". where (at least
// AGENT_WHERE_BYTES, or NULL) receives its address. Waits until it is open. 0, also if it was open
// there already; -EINVAL no such address, -EBUSY HTTP is open at another address, -EPERM a system
// call filter was announced or the address needs http_allow=any, -EAGAIN paused or in a fork,
// -ETIMEDOUT; or what socket, bind and clone say.
long agent_open(const char *what, char *where, size_t cap);

// agent_where copies the address of an open listener, "" if it is not open.
void agent_where(bool gops, char *where, size_t cap);

// agent_close closes all listeners and waits for that, at most 5 s.
void agent_close(void);

// agent_error_text says in words what a negative errno of agent_open means.
const char *agent_error_text(long error);

// agent_fork_child makes the child a process without an agent; with children=1 one of its own.
void agent_fork_child(void);

// agent_pause, agent_resume, agent_restrict, agent_end: as control's (control/control.h).
void agent_pause(void);
void agent_resume(void);
void agent_restrict(void);
void agent_end(void);

// --- the recorder (recorder.c): before a memory limit kills, files are written ---

// recorder_wants_bytes is the RSS from which on a record is due, when the last one was made at
// last_bytes (0: none yet). Pure.
uint64_t recorder_wants_bytes(uint64_t limit_bytes, unsigned percent, uint64_t last_bytes);

// recorder_init acts on the options recorder, recorder_dir and recorder_files; says on stderr what
// is missing. Once, by boot, after the limiter has its limit.
void recorder_init(void);

// As agent_fork_child and the others.
void recorder_fork_child(void);
void recorder_pause(void);
void recorder_resume(void);
void recorder_restrict(void);
void recorder_end(void);

#endif
