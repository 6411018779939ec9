// SPDX-License-Identifier: MIT
//
// Another process: who it is, whether it runs on Ebb, and where in its memory Ebb's page lies.
//
// Model
//   Everything is read from outside, by /proc and process_vm_readv; the process notices nothing.
//   Ebb is found as by every command that looks (look.h); its counters page names the control page.
//
// Flow
//   target_open -> look_open -> counters page -> control page.
//
// Go       none
// Tests    test/cli/control_test.py  test/system/control.py
#ifndef EBB_CLI_TARGET_H
#define EBB_CLI_TARGET_H

#include <stdbool.h>
#include <stdint.h>

#include "control/control.h"

#define TARGET_NAME_BYTES 32

struct target {
    const char *command; // of ebb, for messages
    int pid;
    char name[TARGET_NAME_BYTES]; // as ps shows it
    uint64_t page_addr;           // of the control page, in its memory
    struct control_page page;     // as last read
};

// target_open finds the process named by text and reads its page. Returns 0, or EXIT_EBB after it
// has told the user what is wrong.
int target_open(struct target *target, const char *command, const char *text);

// target_page_read reads the page again; false if the process has gone.
bool target_page_read(struct target *target);

// target_status_read copies the value behind field ("SigCgt:") of /proc/PID/status, of thread tid
// unless that is 0, and returns false if there is none.
bool target_status_read(int pid, int tid, const char *field, char *value, size_t cap);

// target_printable puts '?' for everything in text[len] but ASCII that prints, newlines and the
// closing zero: what another process says must not command our terminal.
void target_printable(char *text, size_t len);

// target_rss_bytes returns its resident memory, or 0 if that cannot be read.
uint64_t target_rss_bytes(int pid);

#endif
