// SPDX-License-Identifier: MIT
//
// Labels: words that a thread carries, and that its samples carry from then on.
//
// Model
//   A set of pairs is made once and never changed or freed; equal sets are one. A thread has one
//   set, or none; with another pair it has another set. At most PROFILE_LABEL_MAX - 1 pairs, and
//   LABEL_SETS_MAX sets in a process: labels are for subsystems and customers, not for requests.
//
// Locking
//   One lock, rank PROFILE. A set that somebody has may be read without.
//
// Flow
//   ebb_label_set -> labels_with -> cache->labels; span/spansample.c, cpu_sample.c read that.
//
// Go       1.19 runtime/pprof/label.go. Unlike Go: by thread, not by context.
// Tests    test/unit/labels_test.c
#ifndef EBB_PROFILE_LABELS_H
#define EBB_PROFILE_LABELS_H

#include "os/meta.h"

#define LABELS_PAIRS_MAX 7
#define LABEL_BYTES_MAX 64 // of a key, or of a value, with its end
#define LABEL_SETS_MAX 4096

struct labels {
    struct labels *chain;
    uint64_t hash;
    uint32_t count;
    struct {
        char key[LABEL_BYTES_MAX];
        char value[LABEL_BYTES_MAX];
    } pairs[]; // sorted by key
};

// labels_init says where memory comes from. Once, before any set.
void labels_init(struct meta *meta);

enum labels_result {
    LABELS_DONE,
    LABELS_TOO_LONG,
    LABELS_TOO_MANY, // pairs
    LABELS_NO_ROOM,  // sets, or memory
};

// labels_with finds or makes the set that has key and value besides what base has; value NULL:
// without key. base may be NULL. *result is NULL for no labels.
enum labels_result labels_with(const struct labels *base, const char *key, const char *value,
                               const struct labels **result);

// labels_freeze and labels_thaw belong to a fork.
void labels_freeze(void);
void labels_thaw(void);

#endif
