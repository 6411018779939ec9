// SPDX-License-Identifier: MIT
//
// thread_exit: at a thread's end destructors of keys and of thread-local objects allocate and free,
// round after round, also after the heap's own; nothing is lost, nothing crashes.
// Go  none
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "proglib.h"

enum { KEYS = 6, THREADS = 4000, AT_ONCE = 4, GROWTH_MIB = 4 };

int __cxa_thread_atexit_impl(void (*dtor)(void *), void *object, void *dso);
extern void *__dso_handle;

static pthread_key_t keys[KEYS];
static atomic_ulong destroyed;

struct note {
    unsigned left;
    unsigned key_index;
    char text[200];
};

static struct note *note_make(unsigned left, unsigned key_index)
{
    struct note *note = calloc(1, sizeof *note);

    REQUIRE(note && note->left == 0 && note->text[199] == 0, "calloc at a thread's end");
    note->left = left;
    note->key_index = key_index;
    memset(note->text, (int)key_index, sizeof note->text);
    return note;
}

// Sets its key again until the rounds that POSIX grants are used up.
static void key_destructor(void *arg)
{
    struct note *note = arg;
    char *text = NULL;

    REQUIRE(note->text[150] == (char)note->key_index, "a note was damaged");
    text = malloc(100 + note->key_index * 5000);
    REQUIRE(text, "malloc at a thread's end");
    text = realloc(text, 20000);
    REQUIRE(text, "realloc at a thread's end");
    free(text);
    if (note->left > 0) {
        pthread_setspecific(keys[note->key_index], note_make(note->left - 1, note->key_index));
    }
    free(note);
    atomic_fetch_add(&destroyed, 1);
}

static void object_destructor(void *arg)
{
    free(arg);
    free(malloc(333));
    atomic_fetch_add(&destroyed, 1);
}

static void *work(void *arg)
{
    for (unsigned i = 0; i < KEYS; i++) {
        pthread_setspecific(keys[i], note_make(PTHREAD_DESTRUCTOR_ITERATIONS - 1, i));
    }
    for (int i = 0; i < 10; i++) {
        __cxa_thread_atexit_impl(object_destructor, malloc(64 + (size_t)i * 100), &__dso_handle);
    }
    return arg;
}

int main(void)
{
    size_t early = 0;
    unsigned long expected = 0;

    for (size_t i = 0; i < KEYS; i++) {
        REQUIRE(pthread_key_create(&keys[i], key_destructor) == 0, "no key");
    }
    for (int n = 0; n < THREADS; n += AT_ONCE) {
        pthread_t threads[AT_ONCE];

        for (size_t i = 0; i < AT_ONCE; i++) {
            REQUIRE(pthread_create(&threads[i], NULL, work, NULL) == 0, "no thread");
        }
        for (size_t i = 0; i < AT_ONCE; i++) {
            pthread_join(threads[i], NULL);
        }
        if (n == THREADS / 10) {
            early = rss_bytes();
        }
    }
    expected = (unsigned long)THREADS * (KEYS * PTHREAD_DESTRUCTOR_ITERATIONS + 10);
    REQUIRE(atomic_load(&destroyed) == expected, "%lu destructors ran instead of %lu",
            atomic_load(&destroyed), expected);
    REQUIRE(rss_bytes() <= early + GROWTH_MIB * MIB, "RSS grew from %zu to %zu KiB", early >> 10,
            rss_bytes() >> 10);
    return 0;
}
