// SPDX-License-Identifier: MIT
//
// Sets: samples added up by stack, exactness and labels, in a hash table that doubles.
//
// Go  google/pprof profile/merge.go Merge, Scale; runtime/pprof/map.go profMap.
#include <string.h>

#include "profile/profile.h"

#define TABLE_FIRST_COUNT 64

void profile_set_init(struct profile_set *set, const struct profile_kind *kind, size_t limit_bytes)
{
    *set =
        (struct profile_set){.kind = kind, .period = 1, .names_limit_bytes = PROFILE_NAMES_BYTES};
    region_init(&set->region, limit_bytes);
}

void profile_set_end(struct profile_set *set)
{
    region_end(&set->region);
    set->table = NULL;
    set->table_count = set->count = set->comment_count = 0;
    set->first = set->last = NULL;
}

static uint64_t hash_word(uint64_t hash, uint64_t word)
{
    hash = (hash ^ word) * 0x9e3779b97f4a7c15U;
    return hash ^ hash >> 32;
}

static uint64_t hash_text(uint64_t hash, const char *text)
{
    for (; text != NULL && *text != '\0'; text++) {
        hash = hash_word(hash, (unsigned char)*text);
    }
    return hash_word(hash, text == NULL ? 256 : 257);
}

static uint64_t hash_sample(const struct profile_sample *sample)
{
    uint64_t hash = sample->depth + (sample->leaf_exact ? UINT64_C(1) << 32 : 0);
    for (uint32_t i = 0; i < sample->depth; i++) {
        hash = hash_word(hash, sample->stack[i]);
    }
    for (uint32_t i = 0; i < sample->label_count; i++) {
        const struct profile_label *label = &sample->labels[i];
        hash = hash_text(hash, label->key);
        hash = hash_text(hash, label->text);
        hash = hash_text(hash_word(hash, (uint64_t)label->number), label->unit);
    }
    return hash;
}

static bool text_same(const char *a, const char *b)
{
    return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

// Labels count as equal in the same order only; collectors have an order.
static bool sample_same(const struct profile_sample *a, const struct profile_sample *b)
{
    if (a->depth != b->depth || a->leaf_exact != b->leaf_exact ||
        a->label_count != b->label_count ||
        (a->depth != 0 && memcmp(a->stack, b->stack, a->depth * sizeof(*a->stack)) != 0)) {
        return false;
    }
    for (uint32_t i = 0; i < a->label_count; i++) {
        const struct profile_label *x = &a->labels[i];
        const struct profile_label *y = &b->labels[i];
        if (!text_same(x->key, y->key) || !text_same(x->text, y->text) || x->number != y->number ||
            !text_same(x->unit, y->unit)) {
            return false;
        }
    }
    return true;
}

static struct profile_entry *set_find(const struct profile_set *set,
                                      const struct profile_sample *sample, uint64_t hash)
{
    if (set->table_count == 0) {
        return NULL;
    }
    struct profile_entry *entry = set->table[hash & (set->table_count - 1)];
    while (entry != NULL && !(entry->hash == hash && sample_same(&entry->sample, sample))) {
        entry = entry->chain;
    }
    return entry;
}

// Twice the table once there are as many entries as places; the old one stays in the region.
static bool set_grow(struct profile_set *set)
{
    if (set->count < set->table_count) {
        return true;
    }
    size_t count = set->table_count == 0 ? TABLE_FIRST_COUNT : 2 * set->table_count;
    struct profile_entry **table =
        region_alloc(&set->region, count * sizeof(struct profile_entry *));
    if (table == NULL) {
        return set->table_count != 0; // longer chains then
    }
    for (struct profile_entry *entry = set->first; entry != NULL; entry = entry->next) {
        struct profile_entry **slot = &table[entry->hash & (count - 1)];
        entry->chain = *slot;
        *slot = entry;
    }
    set->table = table;
    set->table_count = count;
    return true;
}

static bool copy_text(struct region *region, const char **text)
{
    if (*text != NULL) {
        *text = region_text(region, *text, strlen(*text));
        return *text != NULL;
    }
    return true;
}

static bool entry_fill(struct profile_entry *entry, const struct profile_sample *sample,
                       struct region *region)
{
    entry->sample = *sample;
    if (sample->depth != 0) {
        uintptr_t *stack = region_alloc(region, sample->depth * sizeof(*stack));
        if (stack == NULL) {
            return false;
        }
        memcpy(stack, sample->stack, sample->depth * sizeof(*stack));
        entry->sample.stack = stack;
    }
    for (uint32_t i = 0; i < sample->label_count; i++) {
        struct profile_label *label = &entry->sample.labels[i];
        if (!copy_text(region, &label->key) || !copy_text(region, &label->text) ||
            !copy_text(region, &label->unit)) {
            return false;
        }
    }
    return true;
}

bool profile_set_add(struct profile_set *set, const struct profile_sample *given)
{
    struct profile_sample sample = *given;
    sample.depth = sample.depth < PROFILE_DEPTH_MAX ? sample.depth : PROFILE_DEPTH_MAX;
    sample.label_count =
        sample.label_count < PROFILE_LABEL_MAX ? sample.label_count : PROFILE_LABEL_MAX;
    uint64_t hash = hash_sample(&sample);
    struct profile_entry *entry = set_find(set, &sample, hash);
    if (entry != NULL) {
        for (size_t i = 0; i < PROFILE_VALUE_MAX; i++) {
            entry->sample.values[i] += sample.values[i];
        }
        return true;
    }
    entry = set_grow(set) ? region_alloc(&set->region, sizeof(*entry)) : NULL;
    if (entry == NULL || !entry_fill(entry, &sample, &set->region)) {
        set->cut = true;
        return false;
    }
    entry->hash = hash;
    struct profile_entry **slot = &set->table[hash & (set->table_count - 1)];
    entry->chain = *slot;
    *slot = entry;
    *(set->last == NULL ? &set->first : &set->last->next) = entry;
    set->last = entry;
    set->count++;
    return true;
}

void profile_set_comment(struct profile_set *set, const char *text)
{
    if (set->comment_count == PROFILE_COMMENT_MAX) {
        return;
    }
    const char *copy = region_text(&set->region, text, strlen(text));
    if (copy == NULL) {
        set->cut = true;
        return;
    }
    set->comments[set->comment_count++] = copy;
}

static bool all_zero(const struct profile_sample *sample)
{
    for (size_t i = 0; i < PROFILE_VALUE_MAX; i++) {
        if (sample->values[i] != 0) {
            return false;
        }
    }
    return true;
}

static void set_drop_zero(struct profile_set *set)
{
    struct profile_entry **link = &set->first;
    set->last = NULL;
    set->count = 0;
    if (set->table_count != 0) {
        memset(set->table, 0, set->table_count * sizeof(struct profile_entry *));
    }
    while (*link != NULL) {
        struct profile_entry *entry = *link;
        if (all_zero(&entry->sample)) {
            *link = entry->next;
            continue;
        }
        struct profile_entry **slot = &set->table[entry->hash & (set->table_count - 1)];
        entry->chain = *slot;
        *slot = entry;
        set->last = entry;
        set->count++;
        link = &entry->next;
    }
}

bool profile_set_subtract(struct profile_set *later, const struct profile_set *earlier)
{
    bool good = true;
    for (const struct profile_entry *entry = earlier->first; entry != NULL; entry = entry->next) {
        struct profile_sample sample = entry->sample;
        for (size_t i = 0; i < PROFILE_VALUE_MAX; i++) {
            sample.values[i] = -sample.values[i];
        }
        good &= profile_set_add(later, &sample);
    }
    set_drop_zero(later);
    later->duration_ns = later->time_ns > earlier->time_ns ? later->time_ns - earlier->time_ns : 0;
    later->cut |= earlier->cut;
    return good;
}

void profile_sample_label(struct profile_sample *sample, const struct labels *labels)
{
    for (uint32_t i = 0; labels != NULL && i < labels->count; i++) {
        if (sample->label_count < PROFILE_LABEL_MAX) {
            sample->labels[sample->label_count++] =
                (struct profile_label){.key = labels->pairs[i].key, .text = labels->pairs[i].value};
        }
    }
}
