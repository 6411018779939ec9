#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""database FOLDER: a sqlite database of 200 MiB, mapped by sqlite (PRAGMA mmap_size) and read once
from end to end. Resident are clean pages of the file, which the kernel takes when it wants them."""
import os
import sqlite3
import sys

import blindpy

MIB = 1 << 20
ROWS = 200


def main():
    blindpy.begin()
    path = os.path.join(sys.argv[1], 'orders.db')
    with sqlite3.connect(path) as made:
        made.execute('PRAGMA journal_mode=OFF')
        made.execute('PRAGMA synchronous=OFF')
        made.execute('PRAGMA cache_size=-1024')
        made.execute('CREATE TABLE orders(id INTEGER PRIMARY KEY, body BLOB)')
        made.executemany('INSERT INTO orders(body) VALUES (?)',
                         ((os.urandom(MIB),) for _ in range(ROWS)))
    made.close()
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    reader = sqlite3.connect(path)
    reader.execute('PRAGMA cache_size=-1024')
    reader.execute('PRAGMA mmap_size=%d' % (1 << 30))
    for (total,) in reader.execute("SELECT sum(instr(body, x'00ff00ff00ff00ff')) FROM orders"):
        assert total >= 0
    blindpy.ready(os.path.getsize(path))
    blindpy.hold()
    reader.close()


if __name__ == '__main__':
    main()
