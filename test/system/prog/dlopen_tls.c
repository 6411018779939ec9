// SPDX-License-Identifier: MIT
//
// dlopen_tls LIBRARY: opens and closes a library with thread-local data a thousand times, used by
// this thread and by others that end before or after the closing; resident size stays flat.
// Go  none
#include <dlfcn.h>
#include <pthread.h>

#include "proglib.h"

enum { ROUNDS = 1000, THREADS = 3, EXPECTED = 5 + 'm' + 2999, GROWTH_MIB = 4 };

typedef int use_fn(int n);

static void *work(void *arg)
{
    use_fn *use = (use_fn *)arg;

    for (int i = 0; i < 5; i++) {
        REQUIRE(use(5) == EXPECTED, "the library's data is not what it was");
        free(malloc((size_t)i * 1000));
    }
    return NULL;
}

static void round_of(const char *path)
{
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    pthread_t threads[THREADS];
    void *symbol = NULL;

    REQUIRE(handle, "dlopen: %s", dlerror());
    symbol = dlsym(handle, "tlslib_use");
    REQUIRE(symbol, "dlsym: %s", dlerror());
    for (size_t i = 0; i < THREADS; i++) {
        REQUIRE(pthread_create(&threads[i], NULL, work, symbol) == 0, "no thread");
    }
    work(symbol);
    REQUIRE(!dlopen("/nonexistent/lib.so", RTLD_NOW), "opened what is not there");
    REQUIRE(dlerror(), "no error text"); // dlerror's text comes from the heap
    for (size_t i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    REQUIRE(dlclose(handle) == 0, "dlclose: %s", dlerror());
}

int main(int argc, char **argv)
{
    size_t early = 0;

    REQUIRE(argc == 2, "usage: dlopen_tls LIBRARY");
    for (int i = 0; i < ROUNDS; i++) {
        round_of(argv[1]);
        if (i == ROUNDS / 10) {
            early = rss_bytes();
        }
    }
    REQUIRE(rss_bytes() <= early + GROWTH_MIB * MIB, "RSS grew from %zu to %zu KiB", early >> 10,
            rss_bytes() >> 10);
    return 0;
}
