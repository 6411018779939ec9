// SPDX-License-Identifier: MIT
//
// Kinds: the table of what can be asked for, sorted by name.
//
// Go  1.19 runtime/pprof/pprof.go profiles, Lookup, Profiles.
#include <string.h>

#include "base/check.h"
#include "os/clock.h"
#include "profile/profile.h"

static const struct profile_kind *kinds[PROFILE_KIND_MAX];
static size_t kind_count;

void profile_add_kind(const struct profile_kind *kind)
{
    CHECK(kind_count < PROFILE_KIND_MAX, "profile: more kinds than PROFILE_KIND_MAX");
    size_t at = kind_count;
    while (at > 0 && strcmp(kinds[at - 1]->name, kind->name) > 0) {
        kinds[at] = kinds[at - 1];
        at--;
    }
    kinds[at] = kind;
    kind_count++;
}

const struct profile_kind *profile_find(const char *name, size_t length)
{
    for (size_t i = 0; i < kind_count; i++) {
        if (strlen(kinds[i]->name) == length && memcmp(kinds[i]->name, name, length) == 0) {
            return kinds[i];
        }
    }
    return NULL;
}

const struct profile_kind *profile_kind_at(size_t index)
{
    return index < kind_count ? kinds[index] : NULL;
}

bool profile_collect(const struct profile_kind *kind, struct profile_set *set, size_t limit_bytes,
                     const char **why)
{
    profile_set_init(set, kind, limit_bytes);
    set->time_ns = clock_wall_ns();
    return kind->collect(set, why);
}
