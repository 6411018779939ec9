#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A zlib compressor for each of 1,000 connections. The Python object is 100 bytes; behind it lies
what zlib has allocated by itself, 256 KiB each, of which Python's own tools know nothing."""
import resource
import zlib

import blindpy

CONNECTIONS = 1000


def peak_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main():
    blindpy.begin()
    before = peak_bytes()
    streams = []
    for number in range(CONNECTIONS):
        stream = zlib.compressobj(1, zlib.DEFLATED, 15, 9)
        # Enough input that the window has been all around.
        stream.compress(b'%d' % number * 20000)
        streams.append(stream)
    blindpy.ready(peak_bytes() - before)
    blindpy.hold()
    return len(streams)


if __name__ == '__main__':
    main()
