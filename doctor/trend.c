// SPDX-License-Identifier: MIT
//
// Doctor, the trend: plateau, wave, slope or fall, from samples in order of time. Pure.
//
// Model
//   The line is what the heap counts as in use, where the target tells it; else anonymous memory
//   with shared memory. It is cut into thirds. A slope rises from third to third by their
//   least values: what a wave gives back in its valleys does not count, so a wave around a level is
//   no slope, and a wave around a rising one is. A change below SMALL is none. The second step has
//   at least a quarter of the rise, where a straight line has half: what has filled and stays,
//   but for crumbs, is no slope.
//   In a collected heap what counts as in use rises with garbage until the next collection: there
//   it is a slope only if anonymous memory rises too.
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
    for (size_t i = 0; i < THIRDS; i++) {
        thirds[i] = third_of(samples, i * count / THIRDS, (i + 1) * count / THIRDS, live);
    }
}

// Small steps count if they all point the same way.
static bool rises(const struct third thirds[THIRDS])
{
    return thirds[1].least > thirds[0].least && thirds[2].least > thirds[1].least &&
           thirds[2].least - thirds[1].least >= (thirds[2].least - thirds[0].least) / 4 &&
           above(thirds[2].least, thirds[0].least);
}

static bool falls(const struct third thirds[THIRDS])
{
    return thirds[1].most < thirds[0].most && thirds[2].most < thirds[1].most &&
           above(thirds[0].most, thirds[2].most);
}

// The shape of the line; in a collected heap a rise counts only if memory rises with it.
static enum trend_shape shape_of(const struct sample *samples, size_t count, bool live,
                                 const struct third thirds[THIRDS])
{
    struct third memory[THIRDS];
    struct third all = third_of(samples, 0, count, live);
    if (rises(thirds)) {
        thirds_fill(samples, count, false, memory);
        bool garbage = live && samples[count - 1].collected && !rises(memory);
        return garbage ? TREND_WAVE : TREND_SLOPE;
    }
    if (falls(thirds)) {
        return TREND_FALL;
    }
    return above(all.most, all.least) ? TREND_WAVE : TREND_PLATEAU;
}

// The first and the last number that was told.
static void goroutines_fill(const struct sample *samples, size_t count, struct trend *trend)
{
    for (size_t i = 0; i < count; i++) {
        uint64_t told = samples[i].goroutines_count;
        if (told != UINT64_MAX) {
            trend->goroutines_first_count =
                trend->goroutines_told ? trend->goroutines_first_count : told;
            trend->goroutines_last_count = told;
            trend->goroutines_told = true;
        }
    }
}

struct trend trend_of(const struct sample *samples, size_t count)
{
    struct trend trend = {.samples_count = count, .of = "anonymous and shared memory"};
    struct third thirds[THIRDS];
    bool live = count != 0;
    for (size_t i = 0; i < count; i++) {
        live &= samples[i].live_bytes != UINT64_MAX;
    }
    if (count == 0) {
        return trend;
    }
    const struct sample *last = &samples[count - 1];
    struct third all = third_of(samples, 0, count, live);
    trend.of = live ? "memory in use" : trend.of;
    goroutines_fill(samples, count, &trend);
    trend.first_bytes = level(&samples[0], live);
    trend.last_bytes = level(last, live);
    trend.least_bytes = all.least;
    trend.most_bytes = all.most;
    trend.span_ns = last->at_ns - samples[0].at_ns;
    if (count < SAMPLES_MIN || trend.span_ns == 0) {
        return trend;
    }
    double seconds = (double)trend.span_ns / (double)NS_PER_S;
    trend.cpu_share = (double)(last->cpu_ns - samples[0].cpu_ns) / (double)trend.span_ns;
    thirds_fill(samples, count, live, thirds);
    trend.shape = shape_of(samples, count, live, thirds);
    // From the valley of the first third to that of the last: two thirds of the time apart.
    double rise = (double)thirds[THIRDS - 1].least - (double)thirds[0].least;
    trend.slope_bytes_per_s = rise / (seconds * (THIRDS - 1) / THIRDS);
    return trend;
}
