#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A real server gives its memory back: redis-server, 500 MB loaded by a client, FLUSHALL.

Ten seconds after the flush RSS is at most 1.2 times what it was before the load. "Before" is read
after a few keys have come and gone, so that the server's own code is in memory both times. The
short form loads 150 MB; the long form 500 MB, once with FLUSHALL SYNC, once with ASYNC (redis then
frees in a thread of its own), and shows that policy=never does not pass.
"""
import time

import measure
import redisutil
import resp
import sysutil
from sysutil import Fail, MIB

WITHIN_S = 10
RATIO = 1.2


def peak_and_flush(goal_bytes, flush, options=None):
    """One server's life. Returns RSS before, at the peak and after, and when it was low enough."""
    server = redisutil.Server(options=options)
    client = server.client()
    resp.Load(client, MIB).run()
    client.call('FLUSHALL', 'SYNC')
    time.sleep(2)
    before = measure.rss_bytes(server.pid)
    load = resp.Load(client, goal_bytes)
    load.run()
    peak = measure.rss_bytes(server.pid)
    if peak - before < goal_bytes:
        raise Fail('redis: after %d MiB of values RSS has only grown by %d MiB'
                   % (goal_bytes // MIB, (peak - before) // MIB))
    last = client.call('GET', b'key:%09d' % (load.key_count - 1))
    if not last or client.call('DBSIZE') != load.key_count:
        raise Fail('redis: the server does not hold what was loaded')
    client.call('FLUSHALL', flush)
    flushed_at = time.monotonic()
    low_at = None
    while time.monotonic() < flushed_at + WITHIN_S:
        if low_at is None and measure.rss_bytes(server.pid) <= RATIO * before:
            low_at = time.monotonic() - flushed_at
        time.sleep(0.1)
    after = measure.rss_bytes(server.pid)
    client.close()
    server.stop()
    sysutil.say('FLUSHALL %-5s %s before %.1f, peak %.1f, after %.1f MiB; low enough %s'
                % (flush, options or '', before / MIB, peak / MIB, after / MIB,
                   'after %.1f s' % low_at if low_at is not None else 'never'))
    return before, peak, after


def check(goal_bytes, flush):
    before, _, after = peak_and_flush(goal_bytes, flush)
    if after > RATIO * before:
        raise Fail('redis: %d s after FLUSHALL %s RSS is %.1f MiB, %.2f times the %.1f MiB before '
                   '(at most %.1f)' % (WITHIN_S, flush, after / MIB, after / before,
                                       before / MIB, RATIO))


def test(args):
    if not args.long:
        check(150 * MIB, 'SYNC')
        return
    check(500 * 1000 * 1000, 'SYNC')
    check(500 * 1000 * 1000, 'ASYNC')
    before, peak, after = peak_and_flush(150 * MIB, 'SYNC', {'policy': 'never'})
    if after < (before + peak) // 2:
        raise Fail('redis: with policy=never memory went back all the same: the test shows nothing')


sysutil.main(test, __doc__)
