// SPDX-License-Identifier: MIT
//
// The public functions of profiles, on top of the folders that make them.
//
// Go  1.19 runtime/pprof/pprof.go Profile.WriteTo, StartCPUProfile.
#include <errno.h>
#include <string.h>

#include "boot/boot_int.h"
#include "ebb/profile.h"
#include "malloc/malloc.h"
#include "profile/profile.h"

#define RATE_MAX ((size_t)1 << 30)
#define SECONDS_MAX 3600

// What a profile may take beside the heap.
#define SET_BYTES_MAX (256 * MIB)

static int set_write(const struct profile_set *set, int fd, int debug)
{
    struct profile_file to = profile_file(fd);
    struct ebb_memstats stats;
    bool done;
    if (debug == 0) {
        done = pprof_write(set, &to.sink);
    } else {
        memstats_read(&stats);
        done = proftext_write(set, &stats, &to.sink);
    }
    return done ? 0 : to.error != 0 ? (int)to.error : -ENOMEM;
}

ATTR_EXPORT int ebb_profile_write(const char *name, int fd, int debug)
{
    const struct profile_kind *kind = name == NULL ? NULL : profile_find(name, strlen(name));
    if (kind == NULL) {
        return -ENOENT;
    }
    if (kind->collect == NULL || debug < 0 || debug > 1) {
        return -EINVAL;
    }
    struct profile_set set;
    const char *why;
    bool done = profile_collect(kind, &set, SET_BYTES_MAX, &why);
    int result = done ? set_write(&set, fd, debug) : -ENOMEM;
    profile_set_end(&set);
    return result;
}

ATTR_EXPORT int ebb_profile_cpu(int fd, unsigned seconds)
{
    if (seconds == 0 || seconds > SECONDS_MAX) {
        return -EINVAL;
    }
    struct profile_set set;
    profile_set_init(&set, &cpu_sample_kind, SET_BYTES_MAX);
    long error = cpu_sample_run(&set, seconds * NS_PER_S, NULL);
    int result = error == 0 ? set_write(&set, fd, 0) : (int)error;
    profile_set_end(&set);
    return result;
}

ATTR_EXPORT int ebb_profile_set_rate(size_t bytes)
{
    if (bytes > RATE_MAX) {
        return -EINVAL;
    }
    heap_init();
    sample_set_interval(&heap_main, bytes);
    return 0;
}

ATTR_EXPORT size_t ebb_profile_rate(void)
{
    heap_init();
    return load_relaxed(&heap_main.sample_interval);
}

ATTR_EXPORT int ebb_label_set(const char *key, const char *value)
{
    const struct labels *labels;
    if (key == NULL || key[0] == '\0') {
        return -EINVAL;
    }
    heap_init();
    switch (labels_with(cache_labels(), key, value, &labels)) {
    case LABELS_TOO_LONG:
    case LABELS_TOO_MANY:
        return -E2BIG;
    case LABELS_NO_ROOM:
        return -ENOSPC;
    case LABELS_DONE:
        break;
    }
    return cache_set_labels(labels) ? 0 : -ENOMEM;
}
