// SPDX-License-Identifier: MIT
//
// What ebb doctor and ebb node share: finding processes, watching one, the report.
//
// Model
//   An examination is what one look, or a series of looks, has found: facts of the last look, the
//   samples between the first and the last, and the diagnosis.
//
// Flow
//   cmd_doctor -> doctor_find, doctor_group (whom) -> looks and samples -> doctor_text,
//   doctor_json.
//
// Go       none
// Tests    test/cli/doctor_test.py  test/system/doctor.py
#ifndef EBB_CLI_DOCTOR_H
#define EBB_CLI_DOCTOR_H

#include <jansson.h>

#include "cli.h"
#include "doctor/doctor.h"
#include "prof.h"
#include "term.h"

// Statuses of ebb doctor, which answers a question: 0 healthy, 1 a finding, 2 cannot tell, 3 no
// answer at all.
enum doctor_status { DOCTOR_HEALTHY, DOCTOR_FINDING, DOCTOR_CANNOT_TELL, DOCTOR_FAILED };

struct examination {
    struct facts facts;
    struct diagnosis diagnosis;
    uint64_t for_ns; // 0: a single look
};

enum doctor_status doctor_status_of(const struct diagnosis *diagnosis);

// doctor_text prints the report. verbose: each source with its cost.
void doctor_text(const struct examination *examination, bool verbose);
// doctor_json makes the report as JSON; NULL without memory.
json_t *doctor_json(const struct examination *examination);

// json_of_u64 is a number, or null for UINT64_MAX, which stands for none. json_of_text is a text;
// what is no UTF-8 is a question mark, not left out: readers count on the member.
json_t *json_of_u64(uint64_t value);
json_t *json_of_text(const char *text);

// doctor_sites asks the process itself, there or where it is found to listen (NULL), for its heap
// profile, and a Go program for MemStats if its memory did not tell. False after it has said why
// not.
bool doctor_sites(const struct prof_source *where, struct facts *facts);

// By which name processes are picked.
enum pick_kind { PICK_PID, PICK_CGROUP, PICK_CONTAINER, PICK_POD };
struct doctor_pick {
    enum pick_kind kind;
    const char *name;
};
// pick_take takes an option's name into *pick; false after it has said, for the command, that there
// is one already or that it is empty.
bool pick_take(const char *command, struct doctor_pick *pick, enum pick_kind kind,
               const char *name);
// pick_find finds the processes, of PICK_PID all; false, with found->how, if there are none.
bool pick_find(const struct doctor_pick *pick, struct found *found);
// doctor_find finds the processes of a container that live, the largest first, without ourselves;
// false after it has said what was tried.
bool doctor_find(const struct doctor_pick *pick, struct found *found);
// doctor_group says a sentence on each of several processes, and which one matters most, whose full
// report is to follow; as JSON, the reports of all. Returns the status of the gravest, or
// DOCTOR_FAILED after it has said why.
int doctor_group(const struct found *found, const struct doctor_options *how, bool json,
                 int *most_pid);
// doctor_group_json makes what a container is as JSON, whether of one process or of many; takes
// reports over. NULL without memory.
json_t *doctor_group_json(const struct found *found, json_t *reports, int status);
// doctor_worse returns the graver of two statuses: no answer, then a finding, then what cannot be
// told, then healthy.
int doctor_worse(int a, int b);

// doctor_apply does what the verdict with a remedy of Ebb's asks for, and waits until RSS rests.
// What could not be done has been said.
enum apply_result { APPLY_DONE, APPLY_NOTHING, APPLY_FAILED };
enum apply_result doctor_apply(const struct examination *examination);
// doctor_compare prints what was predicted beside what came.
void doctor_compare(FILE *out, const struct examination *before, const struct examination *after);
// doctor_verify does so with a report saved by --json; false after it has said why not.
bool doctor_verify(FILE *out, const char *file, const struct examination *after);

#endif
