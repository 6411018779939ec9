// SPDX-License-Identifier: MIT
//
// Doctor, what the rules share: the case before them, and the words they say.
//
// Model
//   A rule looks at a case and fills a verdict, or returns false. It does nothing else: no clock,
//   no file, no global. What holds for all rules (what matters, the order) is in verdicts.c.
//
// Go  none.
#ifndef EBB_DOCTOR_RULES_H
#define EBB_DOCTOR_RULES_H

#include "doctor.h"

struct patient {
    const struct facts *facts;
    const struct account *account;
    const struct trend *trend; // NULL: a single look
    char who[80];              // "thumbs (PID 123)"
};

typedef bool verdict_rule(const struct patient *patient, struct verdict *verdict);

verdict_rule rule_leak, rule_growth, rule_kept, rule_decay, rule_lazy, rule_pinned, rule_arenas;
verdict_rule rule_hugepages, rule_native, rule_pagecache, rule_stacks, rule_shmem;

// matters tells whether bytes are worth a verdict beside a whole: 16 MiB, and so many percent of
// it.
#define MATTERS_BYTES (16 * MIB)
bool matters(uint64_t bytes, uint64_t whole_bytes, unsigned percent);

// verdict_because and verdict_advice add a line; what is over VERDICT_LINES is left out.
void verdict_because(struct verdict *verdict, const char *format, ...) ATTR_PRINTF(2, 3);
void verdict_advice(struct verdict *verdict, const char *format, ...) ATTR_PRINTF(2, 3);
// verdict_run makes "ebb run" of the process the command to type.
void verdict_run(struct verdict *verdict, const struct facts *facts);
// verdict_predict says what RSS will be when so many bytes have gone.
void verdict_predict(struct verdict *verdict, const struct patient *patient, uint64_t gone_bytes);

// main_heap returns the heap with most resident bytes, or NULL.
const struct facts_heap *main_heap(const struct facts *facts);
// heap_title names it with its version: "Go 1.15.15".
const char *heap_title(const struct facts_heap *heap, const struct facts *facts, char *buf,
                       size_t cap);

#endif
