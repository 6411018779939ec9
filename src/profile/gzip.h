// SPDX-License-Identifier: MIT
//
// Gzip: bytes pressed into one gzip member on their way to a sink.
//
// Go  compress/gzip NewWriterLevel(w, gzip.BestSpeed), as runtime/pprof has it.
#ifndef EBB_PROFILE_GZIP_H
#define EBB_PROFILE_GZIP_H

#include "profile/profile.h"

struct gzip;

// gzip_open returns a writer in the region (300 KiB), or NULL. The sink must outlive it.
struct gzip *gzip_open(struct region *region, struct profile_sink *sink);
bool gzip_write(struct gzip *gzip, const void *bytes, size_t count);
// gzip_close writes what is left and the end. False if anything did not get through.
bool gzip_close(struct gzip *gzip);

#endif
