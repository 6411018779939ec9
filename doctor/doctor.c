// SPDX-License-Identifier: MIT
//
// Doctor, an examination: the table of its steps, in their order.
//
// Go  none.
#include <stdlib.h>
#include <string.h>

#include "doctor_int.h"
#include "os/clock.h"
#include "parts.h"

// What is cheap and always allowed comes first, then what says who owns which vma, then pages,
// then what divides the heaps.
static void (*const steps[])(struct exam *exam) = {
    evidence_status,    evidence_command,      evidence_environ,
    evidence_kernel,    evidence_cgroup,       evidence_maps,
    evidence_pagemap,   evidence_exe,          evidence_ebb,
    evidence_go,        evidence_jvm,          evidence_allocators,
    evidence_glibc,     evidence_pages,        evidence_rss_again,
    evidence_lazyfree,  evidence_huge,         evidence_ebb_divide,
    evidence_go_divide, evidence_glibc_divide, evidence_allocators_divide,
    evidence_reach,     evidence_end,
};

static void exam_free(struct exam *exam)
{
    if (exam->scans) {
        residency_close(&exam->residency);
    }
    free(exam->scan_buf);
    free(exam->anonymous.addrs);
    free(exam->huge.addrs);
    go_free(exam);
    parts_free(exam);
    glibc_free(exam);
    vmas_free(exam);
}

enum doctor_error doctor_look(int pid, const struct doctor_options *options, struct facts *facts)
{
    struct doctor_options own = *options;
    own.budget_ns = own.budget_ns == 0 ? DOCTOR_BUDGET_NS : own.budget_ns;
    own.root = own.root == NULL ? "" : own.root;
    struct exam exam = {
        .facts = facts,
        .options = &own,
        .reader = {.pid = pid},
    };
    memset(facts, 0, sizeof(*facts));
    facts->pid = pid;
    facts->taken_ns = clock_now_ns();
    exam.deadline_ns = clock_thread_cpu_ns() + own.budget_ns;
    for (size_t i = 0; i < ARRAY_COUNT(steps) && exam.error == DOCTOR_OK; i++) {
        steps[i](&exam);
    }
    exam_free(&exam);
    facts->cost_ns = clock_now_ns() - facts->taken_ns;
    return exam.error;
}
