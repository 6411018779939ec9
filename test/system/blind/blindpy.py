# SPDX-License-Identifier: MIT
"""What the Python programs of the blind situations share: ready, and the end."""
import ctypes
import signal
import sys

LIFE_S = 120


def begin():
    """A program lives for two minutes at most, whatever becomes of the driver."""
    signal.alarm(LIFE_S)


def ready(count_bytes):
    print('ready bytes=%d' % count_bytes, flush=True)


def hold():
    """Until standard input closes. "mend" has libc give back what it can."""
    for line in sys.stdin:
        if line.strip() == 'mend':
            ctypes.CDLL(None).malloc_trim(0)
            print('mended', flush=True)
