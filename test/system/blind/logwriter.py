#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""logwriter FOLDER: has written 300 MiB of log. The process is small; its cgroup is charged for the
pages of the file."""
import os
import sys

import blindpy

MIB = 1 << 20
LOG_BYTES = 300 * MIB


def main():
    blindpy.begin()
    line = b'2026-01-01T00:00:00 worker 17 answered 200 in 12 ms, 4711 bytes\n'
    block = line * (MIB // len(line))
    written = 0
    with open(os.path.join(sys.argv[1], 'service.log'), 'wb') as log:
        while written < LOG_BYTES:
            written += log.write(block)
        log.flush()
        blindpy.ready(written)
        blindpy.hold()


if __name__ == '__main__':
    main()
