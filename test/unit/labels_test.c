// SPDX-License-Identifier: MIT
// Tier  quick
//
// Labels: sets of pairs, equal ones only once; their limits; and that samples carry them.
//
// Go  runtime/pprof/label_test.go.
#include "support/unit.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "ebb/ebb.h"
#include "malloc/malloc.h"
#include "profile/profile.h"
#include "support/heapbox.h"

static struct heapbox box;

static const struct labels *with(const struct labels *base, const char *key, const char *value)
{
    const struct labels *result;
    cr_assert(labels_with(base, key, value, &result) == LABELS_DONE);
    return result;
}

EBB_TEST(labels, equal_sets_are_one_whatever_the_order)
{
    heap_init();
    const struct labels *one = with(with(NULL, "b", "2"), "a", "1");
    const struct labels *two = with(with(NULL, "a", "1"), "b", "2");
    cr_assert(one == two && one->count == 2);
    cr_assert(strcmp(one->pairs[0].key, "a") == 0 && strcmp(one->pairs[1].value, "2") == 0);
    cr_assert(with(one, "a", "1") == one, "nothing new");
    const struct labels *other = with(one, "a", "3");
    cr_assert(other != one && other->count == 2 && strcmp(other->pairs[0].value, "3") == 0);
    cr_assert(with(other, "a", "1") == one);
    cr_assert(with(one, "a", NULL) == with(NULL, "b", "2"));
    cr_assert(with(with(one, "a", NULL), "b", NULL) == NULL, "no labels are no set");
    cr_assert(with(one, "c", NULL) == one);
    cr_assert(with(NULL, "x", "yz") != with(NULL, "xy", "z"));
}

EBB_TEST(labels, limits)
{
    char text[70];
    const struct labels *labels = NULL;
    const struct labels *same = NULL;
    heap_init();
    memset(text, 'x', sizeof(text));
    text[63] = '\0';
    cr_assert(ebb_label_set(text, text) == 0 && ebb_label_set(text, NULL) == 0);
    text[63] = 'x';
    text[64] = '\0';
    cr_assert(ebb_label_set(text, "v") == -E2BIG && ebb_label_set("k", text) == -E2BIG);
    cr_assert(ebb_label_set(NULL, "v") == -EINVAL && ebb_label_set("", "v") == -EINVAL);
    for (int i = 0; i < LABELS_PAIRS_MAX; i++) {
        text[0] = (char)('a' + i);
        text[1] = '\0';
        labels = with(labels, text, "v");
    }
    cr_assert(labels_with(labels, "z", "v", &same) == LABELS_TOO_MANY);
    cr_assert(with(labels, "a", "w")->count == LABELS_PAIRS_MAX, "another value has room");
    int result = 0;
    int made = 0;
    for (; made < 5000 && result == 0; made++) {
        snprintf(text, sizeof(text), "%d", made);
        result = ebb_label_set("number", text);
    }
    cr_assert(result == -ENOSPC && made > 4000 && made <= LABEL_SETS_MAX);
    cr_assert(ebb_label_set("number", "5") == 0, "those there are stay");
}

static const struct heap_stack *stack_of_sample(const void *block)
{
    static struct heap_sample samples[100];
    size_t count = heap_sample_live(samples, 100);
    cr_assert(count <= 100);
    for (size_t i = 0; i < count; i++) {
        if (samples[i].addr == (uintptr_t)block) {
            return samples[i].stack;
        }
    }
    return NULL;
}

static void *unlabelled(void *arg)
{
    (void)arg;
    void *block = ebb_malloc(100);
    cr_assert(stack_of_sample(block)->labels == NULL, "labels are not inherited");
    ebb_free(block);
    cr_assert(ebb_label_set("thread", "other") == 0);
    return NULL;
}

static void *same_stack(size_t bytes)
{
    return ebb_malloc(bytes);
}

EBB_TEST(labels, samples_carry_them)
{
    heapbox_adopt_main(&box, 4 * KIB, GIB, 1);
    sample_set_interval(&heap_main, 1);
    void *blocks[3];
    static const char *const values[] = {"a", "b", NULL};
    for (size_t i = 0; i < 3; i++) {
        cr_assert(ebb_label_set("customer", values[i]) == 0);
        blocks[i] = same_stack(100);
    }
    cr_assert(ebb_label_set("customer", "c") == 0);
    cr_assert(strcmp(stack_of_sample(blocks[0])->labels->pairs[0].value, "a") == 0);
    cr_assert(strcmp(stack_of_sample(blocks[1])->labels->pairs[0].value, "b") == 0);
    cr_assert(stack_of_sample(blocks[2])->labels == NULL);
    blocks[0] = ebb_realloc(blocks[0], 100000);
    cr_assert(strcmp(stack_of_sample(blocks[0])->labels->pairs[0].value, "a") == 0);
    // A thread's cache is used again by others; its labels are not.
    for (int i = 0; i < 3; i++) {
        pthread_t thread;
        cr_assert(pthread_create(&thread, NULL, unlabelled, NULL) == 0);
        pthread_join(thread, NULL);
    }
    struct profile_set set;
    const char *why;
    malloc_add_profiles();
    cr_assert(profile_collect(profile_find("heap", 4), &set, 16 * MIB, &why));
    unsigned labelled = 0;
    for (const struct profile_entry *e = set.first; e != NULL; e = e->next) {
        for (uint32_t i = 0; i < e->sample.label_count; i++) {
            labelled += strcmp(e->sample.labels[i].key, "customer") == 0;
        }
    }
    cr_assert(labelled == 3, "a, a after realloc, b: %u", labelled);
    profile_set_end(&set);
}
