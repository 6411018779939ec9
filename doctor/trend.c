// SPDX-License-Identifier: MIT
//
// Doctor, the trend: plateau, wave, slope or fall, from samples in order of time. Pure.
//
// Model
//   The line is what the heap counts as in use, where the target tells it; else anonymous memory
//   with shared memory. It is cut into thirds. A slope rises from third to third by their
//   least values: what a wave gives back in its valleys does not count, so a wave around a level is
//   no slope, and a wave around a rising one is. A change below SMALL is none.
//
// Go  none.
#include "doctor.h"

#define THIRDS 3
#define SAMPLES_MIN 6
// A change below 1 MiB and below 2 % of the level is noise.
#define SMALL_BYTES MIB
#define SMALL_SHARE 0.02

const char *trend_shape_name(enum trend_shape shape)
{
    static const char *const names[] = {
        [TREND_UNKNOWN] = "unknown", [TREND_PLATEAU] = "plateau", [TREND_WAVE] = "wave",
        [TREND_SLOPE] = "slope",     [TREND_FALL] = "fall",
    };
    return names[shape];
}

static uint64_t level(const struct sample *sample, bool live)
{
    return live ? sample->live_bytes : sample->anon_bytes + sample->shmem_bytes;
}

struct third {
    uint64_t least, most;
};

static struct third third_of(const struct sample *samples, size_t from, size_t to, bool live)
{
    struct third third = {UINT64_MAX, 0};
    for (size_t i = from; i < to; i++) {
        uint64_t bytes = level(&samples[i], live);
        third.least = min_u64(third.least, bytes);
        third.most = max_u64(third.most, bytes);
    }
    return third;
}

// Tells whether `to` lies above `from` by more than noise.
static bool above(uint64_t to, uint64_t from)
{
    double small = (double)from * SMALL_SHARE;
    small = small > (double)SMALL_BYTES ? small : (double)SMALL_BYTES;
    return (double)to > (double)from + small;
}

static void thirds_fill(const struct sample *samples, size_t count, bool live,
                        struct third thirds[THIRDS])
{
    thirds_fill(samples, count, live, thirds);
    bool confirmed = true;
    if (live && last->collected) {
        struct third memory[THIRDS];
        thirds_fill(samples, count, false, memory);
        confirmed = rises(memory);
    }
    trend.shape = shape_of(thirds, &trend, confirmed);
    // From the valley of the first third to that of the last: two thirds of the time apart.
    double rise = (double)thirds[THIRDS - 1].least - (double)thirds[0].least;
    trend.slope_bytes_per_s = rise / (seconds * (THIRDS - 1) / THIRDS);
    return trend;
}
