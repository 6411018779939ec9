// SPDX-License-Identifier: MIT
//
// Labels: the table of sets.
//
// Go  1.19 runtime/pprof/label.go mergeLabelSets.
#include "profile/labels.h"

#include <string.h>

#include "os/lock.h"

#define SLOTS 256

static struct {
    struct lock lock;
    struct meta *meta;           // (C)
    struct labels *slots[SLOTS]; // (L)
    size_t count;                // (L)
} table = {.lock = LOCK_INIT(PROFILE)};

// What is being put together.
struct draft {
    uint32_t count;
    struct {
        const char *key;
        const char *value;
    } pairs[LABELS_PAIRS_MAX + 1];
};

void labels_init(struct meta *meta)
{
    table.meta = meta;
}

static uint64_t hash_text(uint64_t hash, const char *text)
{
    do { // FNV-1a, with the end, so that pairs do not run into one another
        hash = (hash ^ (unsigned char)*text) * UINT64_C(0x100000001b3);
    } while (*text++ != '\0');
    return hash;
}

static bool same(const struct labels *set, const struct draft *draft)
{
    bool equal = set->count == draft->count;
    for (uint32_t i = 0; i < draft->count && equal; i++) {
        equal = strcmp(set->pairs[i].key, draft->pairs[i].key) == 0 &&
                strcmp(set->pairs[i].value, draft->pairs[i].value) == 0;
    }
    return equal;
}

// base with key and value in its place, or without key.
static void draft_make(struct draft *draft, const struct labels *base, const char *key,
                       const char *value)
{
    bool placed = value == NULL;
    *draft = (struct draft){.count = 0};
    for (uint32_t i = 0; base != NULL && i < base->count; i++) {
        int order = strcmp(base->pairs[i].key, key);
        if (order >= 0 && !placed) {
            draft->pairs[draft->count].key = key;
            draft->pairs[draft->count++].value = value;
            placed = true;
        }
        if (order != 0) {
            draft->pairs[draft->count].key = base->pairs[i].key;
            draft->pairs[draft->count++].value = base->pairs[i].value;
        }
    }
    if (!placed) {
        draft->pairs[draft->count].key = key;
        draft->pairs[draft->count++].value = value;
    }
}

// The caller holds the lock.
static const struct labels *intern_locked(const struct draft *draft, uint64_t hash)
{
    lock_assert_held(&table.lock);
    struct labels **slot = &table.slots[hash % SLOTS];
    for (struct labels *set = *slot; set != NULL; set = set->chain) {
        if (set->hash == hash && same(set, draft)) {
            return set;
        }
    }
    if (table.count == LABEL_SETS_MAX) {
        return NULL;
    }
    size_t bytes = sizeof(struct labels) + draft->count * sizeof(((struct labels *)0)->pairs[0]);
    struct labels *made = meta_alloc(table.meta, bytes, META_PROFILE);
    if (made == NULL) {
        return NULL;
    }
    made->hash = hash;
    made->count = draft->count;
    for (uint32_t i = 0; i < draft->count; i++) {
        memcpy(made->pairs[i].key, draft->pairs[i].key, strlen(draft->pairs[i].key));
        memcpy(made->pairs[i].value, draft->pairs[i].value, strlen(draft->pairs[i].value));
    }
    made->chain = *slot;
    *slot = made;
    table.count++;
    return made;
}

enum labels_result labels_with(const struct labels *base, const char *key, const char *value,
                               const struct labels **result)
{
    struct draft draft;
    if (strlen(key) >= LABEL_BYTES_MAX || (value != NULL && strlen(value) >= LABEL_BYTES_MAX)) {
        return LABELS_TOO_LONG;
    }
    draft_make(&draft, base, key, value);
    if (draft.count > LABELS_PAIRS_MAX) {
        return LABELS_TOO_MANY;
    }
    *result = NULL;
    if (draft.count == 0) {
        return LABELS_DONE;
    }
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (uint32_t i = 0; i < draft.count; i++) {
        hash = hash_text(hash_text(hash, draft.pairs[i].key), draft.pairs[i].value);
    }
    lock_acquire(&table.lock);
    *result = intern_locked(&draft, hash);
    lock_release(&table.lock);
    return *result != NULL ? LABELS_DONE : LABELS_NO_ROOM;
}

void labels_freeze(void)
{
    lock_freeze(&table.lock);
}

void labels_thaw(void)
{
    lock_thaw(&table.lock);
}
