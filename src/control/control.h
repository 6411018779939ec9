// SPDX-License-Identifier: MIT
//
// Control: a door through which somebody outside changes a running process: another policy, a
// release now, a limit. Looking needs no door (the counters are read from outside).
//
// Model
//   page     what readers of our memory find by the counters page: state, signal, path of the
//            socket
//   signal   a real-time signal, free when the process started; its handler opens the door
//   door     a bare thread with a unix socket; ends after control_idle seconds without use
//   worker   a bare thread that carries out what the door is asked (worker.c says why two)
//     OFF         option control=off, or a set-user-ID program: nothing is installed
//     RESTRICTED  syscalls=core, or the program has announced a system call filter: never again
//     NO_SIGNAL   no real-time signal was free
//     CLOSED      the signal opens it              FAILED  the last try failed: error says why
//     OPEN        path names the socket
//   One request a connection, one line each way and a body:
//     "ebb/1 policy never\n"  ->  "ebb/1 ok\nwas go1.16\npolicy never\n...end\n"
//                             ->  "ebb/1 error TEXT\nend\n"
//
// Locking
//   None. state is a word that one thread moves from NONE to RUNNING by compare and swap. The
//   handler takes no lock, allocates nothing and makes four system calls at most.
//
// Flow
//   signal -> handler -> worker -> door: private descriptors, directory, socket -> accept -> peer's
//   uid -> control_request_parse -> (worker) control_answer -> reply -> close.
//
// Why this way
//   The door has a table of descriptors, a current directory and a umask of its own: a program
//   that closes or reuses descriptor numbers cannot meet ours, ours are not inherited, and no
//   path is walked twice (docs/design/007).
//
// Go       none: x/net/trace and gops listen all the time.
// Tests    test/unit/control_test.c  test/system/control.py  test/cli/control_test.py
#ifndef EBB_CONTROL_CONTROL_H
#define EBB_CONTROL_CONTROL_H

#include "base/atomic.h"
#include "base/base.h"
#include "base/fmt.h"

// --- the page ---

#define CONTROL_PAGE_MAGIC 0x54434245u // "EBCT"
#define CONTROL_PAGE_VERSION 1u
#define CONTROL_PATH_BYTES 104 // sockaddr_un holds 108

enum control_state {
    CONTROL_OFF,
    CONTROL_RESTRICTED,
    CONTROL_NO_SIGNAL,
    CONTROL_CLOSED,
    CONTROL_FAILED,
    CONTROL_OPEN,
};

struct control_page {
    uint32_t magic;                // (C)
    uint32_t version;              // (C)
    atomic_u32 state;              // (A) enum control_state
    atomic_u32 signal;             // (A) 0: none
    atomic_u32 pid;                // (A) of the process this memory belongs to, as it sees itself
    atomic_u32 generation;         // (A) tries to open, ever
    atomic_u32 error;              // (A) errno of the last try
    atomic_u32 secure;             // (A) 1: OFF because the program runs with another's rights
    atomic_u64 served;             // (A) requests answered
    atomic_u64 refused;            // (A) connections of other users
    atomic_u64 dropped;            // (A) connections that said nothing, or too slowly
    atomic_u64 bad;                // (A) requests that were none
    char path[CONTROL_PATH_BYTES]; // (door) whole before state becomes OPEN
};

extern struct control_page control_page ATTR_HIDDEN;

// --- the process's side ---

// control_init reads options_main, installs the handler and, with control=on, opens the door. Once,
// by boot. runtime_dir is $XDG_RUNTIME_DIR or NULL. Two system calls.
void control_init(const char *runtime_dir);

// control_fork_child makes the child a process of its own: without the parent's door.
void control_fork_child(void);

// control_pause closes the door and waits for that, at most 5 s: before the program changes its
// credentials or namespaces. Until control_resume nobody opens it.
void control_pause(void);

// control_resume allows it again, after the change. Every control_pause needs one.
void control_resume(void);

// control_restrict closes it for good: a system call filter may come. Waits for a request under
// way, at most 5 s, because its next system call could be fatal.
void control_restrict(void);

// control_end removes the socket when the process ends.
void control_end(void);

// --- the protocol, pure (protocol.c) ---

#define CONTROL_REQUEST_BYTES 192 // longest request, newline counted
#define CONTROL_REPLY_BYTES 8192  // longest reply
#define CONTROL_ARG_BYTES 128     // longest argument, with a closing zero

enum control_verb {
    CONTROL_PING,
    CONTROL_POLICY,
    CONTROL_RELEASE,
    CONTROL_LIMIT,
    CONTROL_ATTACH, // argument: an address, "gops", "none" (only tell), "close", or none at all: a
                    // unix socket beside this one
};

struct control_request {
    enum control_verb verb;
    char arg[CONTROL_ARG_BYTES]; // "" if there is none
};

enum control_parse {
    CONTROL_PARSE_DONE,
    CONTROL_PARSE_MORE,      // right so far
    CONTROL_PARSE_MALFORMED, // not a request, or something behind it
    CONTROL_PARSE_LONG,
    CONTROL_PARSE_VERSION, // another version of the protocol
    CONTROL_PARSE_VERB,    // no such request
    CONTROL_PARSE_ARG,     // an argument where none belongs
};

// control_request_parse reads the request in buf[len].
enum control_parse control_request_parse(const char *buf, size_t len,
                                         struct control_request *request);
// control_parse_text says what was wrong, for an error reply.
const char *control_parse_text(enum control_parse parse);
void control_request_format(const struct control_request *request, struct fmt *out);

// The reply: control_reply_begin, lines "key value\n", control_reply_end; or control_reply_error.
void control_reply_begin(struct fmt *out);
void control_reply_text(struct fmt *out, const char *key, const char *value);
void control_reply_u64(struct fmt *out, const char *key, uint64_t value);
void control_reply_end(struct fmt *out);
void control_reply_error(struct fmt *out, const char *text);

struct control_reply {
    const char *body; // lines "key value\n", or the text of the error
    size_t len;
    bool ok; // false: the other side said error
};

// control_reply_parse reads the whole reply in buf[len]; MORE if it was cut off.
enum control_parse control_reply_parse(const char *buf, size_t len, struct control_reply *reply);
// control_reply_value copies the value of the index-th line with that key; false if there is none
// or it does not fit.
bool control_reply_value(const struct control_reply *reply, const char *key, size_t index,
                         char *value, size_t cap);
// control_number_parse reads a decimal number that is the whole text.
bool control_number_parse(const char *text, uint64_t *value);

#endif
