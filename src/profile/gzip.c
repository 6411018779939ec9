// SPDX-License-Identifier: MIT
//
// Gzip, by zlib: its fastest level, since the program waits for the processor that presses.
//
// Go  compress/gzip Writer.
#include "profile/gzip.h"

#define Z_PREFIX // tools/mkparts.sh renames them so
#include <zlib.h>

#include "profile/parts.h"

#define OUT_BYTES (16 * KIB)
// 31: a window of 32 KiB (15), and a gzip head and tail (16). 8: zlib's own choice.
#define WINDOW_BITS 31
#define MEMORY_LEVEL 8
#define PIECE_MAX ((size_t)1 << 30)

struct gzip {
    z_stream stream;
    struct profile_sink *sink;
    bool failed;
    unsigned char out[OUT_BYTES];
};

struct gzip *gzip_open(struct region *region, struct profile_sink *sink)
{
    struct gzip *gzip = region_alloc(region, sizeof(*gzip));
    if (gzip == NULL) {
        return NULL;
    }
    gzip->sink = sink;
    gzip->stream.zalloc = parts_zalloc;
    gzip->stream.zfree = parts_zfree;
    gzip->stream.opaque = region;
    if (deflateInit2(&gzip->stream, Z_BEST_SPEED, Z_DEFLATED, WINDOW_BITS, MEMORY_LEVEL,
                     Z_DEFAULT_STRATEGY) != Z_OK) {
        return NULL;
    }
    return gzip;
}

static bool gzip_push(struct gzip *gzip, int flush)
{
    z_stream *stream = &gzip->stream;
    do {
        stream->next_out = gzip->out;
        stream->avail_out = OUT_BYTES;
        if (deflate(stream, flush) == Z_STREAM_ERROR) {
            return false;
        }
        size_t count = OUT_BYTES - stream->avail_out;
        if (count != 0 && !gzip->sink->write(gzip->sink, gzip->out, count)) {
            return false;
        }
    } while (stream->avail_out == 0);
    return true;
}

bool gzip_write(struct gzip *gzip, const void *bytes, size_t count)
{
    const unsigned char *at = bytes;
    while (count > 0 && !gzip->failed) {
        size_t piece = min_size(count, PIECE_MAX);
        gzip->stream.next_in = (unsigned char *)(uintptr_t)at; // zlib only reads it
        gzip->stream.avail_in = (unsigned)piece;
        gzip->failed = !gzip_push(gzip, Z_NO_FLUSH);
        at += piece;
        count -= piece;
    }
    return !gzip->failed;
}

bool gzip_close(struct gzip *gzip)
{
    gzip->stream.avail_in = 0;
    bool good = !gzip->failed && gzip_push(gzip, Z_FINISH);
    deflateEnd(&gzip->stream);
    return good;
}
