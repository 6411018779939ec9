// SPDX-License-Identifier: MIT
//
// Asking a running process: opens its control socket by the signal, if need be, and speaks the
// protocol of src/control.
//
// Model
//   Before the signal is sent, everything is checked from outside that could make it harmful: it is
//   named in the live page of Ebb, the process catches it, a thread will take it that neither
//   blocks it nor waits for signals, no system call filter is in the way.
//
// Flow
//   client_ask -> (socket open? else checks -> tgkill -> wait) -> connect by /proc/PID/root ->
//   SO_PEERCRED -> request -> reply.
//
// Why this way
//   A signal to one thread and not to the process: a program may have a thread in sigwait(3) for
//   all signals, which would take it and wonder.
//
// Go       none: gops finds a TCP port in a file.
// Tests    test/cli/control_test.py  test/system/control.py
#ifndef EBB_CLI_CLIENT_H
#define EBB_CLI_CLIENT_H

#include "target.h"

struct client_answer {
    struct control_reply reply; // points into buf
    char buf[CONTROL_REPLY_BYTES + 1];
};

// client_ask sends the request and receives the answer. force: also where a system call filter
// could end the process. Returns 0, or EXIT_EBB after it has told the user what is wrong; an error
// that the process answers counts as that.
int client_ask(struct target *target, const struct control_request *request, bool force,
               struct client_answer *answer);

// client_value returns the value of a line of the answer as a number; 0 if there is none.
uint64_t client_value(const struct client_answer *answer, const char *key);

#endif
