#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""objects KIND: Python with many small objects.

live   a table of 1,200,000 records, all of them in use
thin   the same; then all but every 16th was deleted, so a few survivors hold every 16 KiB pool of
       Python's own allocator, and with the pools its arenas. malloc_trim has nothing to do with
       them: they are mapped.
"""
import gc
import sys

import blindpy

RECORDS = 1200000
STEP = 16


def main():
    blindpy.begin()
    gc.disable()  # it would only cost time: nothing here is a cycle
    table = {}
    total = 0
    for number in range(RECORDS):
        record = (number * 1000003, 'customer %012d of the north' % number, float(number))
        total += sum(map(sys.getsizeof, record)) + sys.getsizeof(record)
        table[number] = record
    bytes_ = total + sys.getsizeof(table)
    if sys.argv[1] == 'thin':
        kept = [table[number] for number in range(0, RECORDS, STEP)]
        table = None
        bytes_ = total - total // STEP
        blindpy.ready(bytes_)
        blindpy.hold()
        return len(kept)
    blindpy.ready(bytes_)
    blindpy.hold()
    return len(table)


if __name__ == '__main__':
    main()
