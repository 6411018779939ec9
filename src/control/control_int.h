// SPDX-License-Identifier: MIT
//
// Control, what only its own files share.
//
// Go  none.
#ifndef EBB_CONTROL_CONTROL_INT_H
#define EBB_CONTROL_CONTROL_INT_H

#include <sys/types.h>

#include "control/control.h"
#include "os/thread.h"

#define CONTROL_RUNTIME_BYTES 64

enum { CONTROL_NONE, CONTROL_RUNNING };

struct control {
    atomic_u32 running;                      // (A) CONTROL_NONE, CONTROL_RUNNING
    atomic_u32 bell;                         // (A) signals seen
    atomic_u32 held;                         // (A) above 0: nobody may start it
    atomic_u32 era;                          // (A) raised to end what runs
    uint32_t own_era;                        // (running) in which the server started
    atomic_u32 restricted;                   // (A) 1: no system calls beyond malloc's any more
    atomic_u32 tid;                          // (A) of the door
    struct bare_thread worker;               // (running) outlives the door
    struct bare_thread door;                 // (running)
    char runtime_dir[CONTROL_RUNTIME_BYTES]; // (C) "" if there is none
};

extern struct control control_main ATTR_HIDDEN;

// control_state_set publishes the state, unless RESTRICTED is in force.
void control_state_set(enum control_state state);

// control_is_over tells the server's threads that they are to end.
bool control_is_over(void);

// control_opened publishes the outcome of a try to open: 0 or a negative errno.
void control_opened(long error);

// control_session is the worker's life: starts the door, carries out what it asks, ends after it.
void control_session(void);

// control_ask has the worker carry out the request and returns the reply; for the door only.
const struct fmt *control_ask(const struct control_request *request);

// control_serve opens the socket and answers until it is to end; the door's life.
void control_serve(void);

// The socket's file, in the door's current directory.
#define CONTROL_NAME_BYTES 32

struct control_file {
    ino_t inode; // 0: none
    char name[CONTROL_NAME_BYTES];
};

// control_file_make goes to the folder, removes what is stale, and makes a listening socket there.
// Returns its descriptor and writes the whole path, or a negative errno.
long control_file_make(struct control_file *file, char *path, size_t path_bytes);
bool control_file_is_there(const struct control_file *file);
// control_file_remove removes it if it is still ours.
void control_file_remove(const struct control_file *file);

// control_answer does what the request asks and writes the reply. In the worker's thread: no libc
// that needs a thread.
void control_answer(const struct control_request *request, struct fmt *out);

#endif
