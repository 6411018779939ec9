// SPDX-License-Identifier: MIT
//
// The calls of a view as a tree from the root down, for flame graphs.
//
// Go  github.com/google/pprof internal/driver/flamegraph.go. Unlike Go: what a difference took away
//     has no width and is told as a number.
#include "prof.h"

#include <stdlib.h>
#include <string.h>

// Deeper calls count for their caller: walking a tree must not use up the stack.
#define DEPTH_MAX 512

struct builder {
    struct prof_call **slots;
    size_t slot_count; // a power of two
    size_t call_count;
    const struct prof *profs[2];
    char **names[2]; // per frame, made when it is needed
    int lines;
};

static uint64_t call_hash(const struct prof_call *parent, const char *name)
{
    uint64_t hash = (uint64_t)(uintptr_t)parent * UINT64_C(0x9e3779b97f4a7c15);
    for (; *name != '\0'; name++) {
        hash = (hash ^ (unsigned char)*name) * UINT64_C(1099511628211);
    }
    return hash ^ (hash >> 31);
}

static void slots_grow(struct builder *b)
{
    size_t count = b->slot_count * 2;
    struct prof_call **slots = prof_alloc(count, sizeof(*slots));
    for (size_t i = 0; i < b->slot_count; i++) {
        for (struct prof_call *call = b->slots[i]; call != NULL;) {
            struct prof_call *next = call->hash_next;
            size_t at = call_hash(call->parent, call->name) & (count - 1);
            call->hash_next = slots[at];
            slots[at] = call;
            call = next;
        }
    }
    free(b->slots);
    b->slots = slots;
    b->slot_count = count;
}

static struct prof_call *call_get(struct builder *b, struct prof_call *parent, char *name)
{
    size_t at = call_hash(parent, name) & (b->slot_count - 1);
    for (struct prof_call *call = b->slots[at]; call != NULL; call = call->hash_next) {
        if (call->parent == parent && strcmp(call->name, name) == 0) {
            return call;
        }
    }
    struct prof_call *call = prof_alloc(1, sizeof(*call));
    *call = (struct prof_call){
        .name = name, .next = parent->child, .hash_next = b->slots[at], .parent = parent};
    parent->child = call;
    b->slots[at] = call;
    b->call_count++;
    if (b->call_count > b->slot_count) {
        slots_grow(b);
    }
    return call;
}

static char *frame_name(struct builder *b, const struct prof *prof, const struct prof_frame *frame)
{
    size_t at = prof == b->profs[0] ? 0 : 1;
    if (b->names[at] == NULL) {
        b->profs[at] = prof;
        b->names[at] = prof_alloc(prof->frame_count, sizeof(char *));
    }
    char **name = &b->names[at][frame - prof->frames];
    if (*name == NULL) {
        char text[PROF_NAME_BYTES];
        prof_frame_name(frame, b->lines, text, sizeof(text));
        *name = prof_format("%s", text);
    }
    return *name;
}

static int call_compare(const void *a, const void *b)
{
    const struct prof_call *x = *(struct prof_call *const *)a;
    const struct prof_call *y = *(struct prof_call *const *)b;
    int order = (x->value < y->value) - (x->value > y->value);
    return order != 0 ? order : strcmp(x->name, y->name);
}

// Puts the children in order, the largest first, without those that have no width.
static void children_sort(struct prof_call *call)
{
    size_t count = 0;
    size_t cap = 0;
    struct prof_call **list = NULL;
    for (struct prof_call *child = call->child; child != NULL; child = child->next) {
        if (child->value > 0) {
            list = prof_grow(list, count, &cap, sizeof(*list)); // NOLINT: pointers
            list[count++] = child;
        }
    }
    call->child = NULL;
    if (count > 1) {
        qsort(list, count, sizeof(struct prof_call *), call_compare);
    }
    while (count-- > 0) {
        list[count]->next = call->child;
        call->child = list[count];
    }
    free(list);
}

// Adds up from the leaves and returns how deep the tree is.
static size_t call_finish(struct prof_tree *tree, struct prof_call *call)
{
    size_t depth = 0;
    if (call->self < 0) {
        tree->negative = prof_add(tree->negative, call->self);
        call->self = 0;
    }
    call->value = call->self;
    for (struct prof_call *child = call->child; child != NULL; child = child->next) {
        size_t below = call_finish(tree, child);
        depth = child->value > 0 ? max_size(depth, below) : depth;
        call->value = prof_add_width(call->value, child->value);
    }
    children_sort(call);
    return depth + 1;
}

void prof_tree_make(struct prof_tree *tree, const struct prof_view *view, int lines)
{
    struct builder b = {.slot_count = 1024, .lines = lines};
    b.slots = prof_alloc(b.slot_count, sizeof(struct prof_call *));
    *tree = (struct prof_tree){.root = prof_alloc(1, sizeof(struct prof_call))};
    tree->root->name = prof_format("all");
    b.profs[0] = view->row_count != 0 ? view->rows[0].prof : NULL;
    for (size_t i = 0; i < view->row_count; i++) {
        size_t count;
        const struct prof_frame **frames =
            prof_frames(view->rows[i].prof, view->rows[i].sample, &count);
        struct prof_call *call = tree->root;
        for (size_t j = 0; j < count && j < DEPTH_MAX; j++) {
            call = call_get(&b, call, frame_name(&b, view->rows[i].prof, frames[count - 1 - j]));
        }
        call->self = prof_add(call->self, view->rows[i].value);
        free(frames);
    }
    tree->depth = call_finish(tree, tree->root);
    free(b.slots);
    free(b.names[0]);
    free(b.names[1]);
}

unsigned flame_tint(const char *name)
{
    // Of the package or library, so that neighbours of one origin look alike, with some spread.
    const char *shown = prof_short_name(name);
    size_t origin = strcspn(shown, ".(: ");
    uint64_t hash = UINT64_C(14695981039346656037);
    for (size_t i = 0; shown[i] != '\0'; i++) {
        hash = (hash ^ (unsigned char)shown[i]) * UINT64_C(1099511628211);
        if (i + 1 == origin) {
            hash &= ~UINT64_C(0xffff);
        }
    }
    return (unsigned)((hash ^ (hash >> 17) ^ (hash >> 41)) & 0xff);
}
