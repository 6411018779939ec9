#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""redis-server under redis-benchmark on Ebb: the data is what was put in, also after a reload."""
import hashlib
import time

import redisutil
import resp
import sysutil
from sysutil import EBB, Fail

COUNT = 5000


def fill(client):
    """Every type of value; the same on every server."""
    commands = []
    for i in range(COUNT):
        text = hashlib.sha256(b'%d' % i).hexdigest() * (1 + i % 30)
        commands.append(('SET', 'string:%d' % i, text))
        commands.append(('RPUSH', 'list:%d' % (i % 50), text[:i % 400 + 1]))
        commands.append(('HSET', 'hash:%d' % (i % 70), 'field:%d' % i, text[:i % 90 + 1]))
        commands.append(('SADD', 'set:%d' % (i % 20), text[:24]))
        commands.append(('ZADD', 'zset:%d' % (i % 10), i * 7919 % 1000, 'member:%d' % i))
        commands.append(('XADD', 'stream', '%d-1' % (i + 1), 'n', i))
        if i % 3 == 0:
            commands.append(('APPEND', 'string:%d' % i, 'x' * (i % 2000)))
        if i % 7 == 0:
            commands.append(('DEL', 'string:%d' % (i // 2)))
    for start in range(0, len(commands), 1000):
        part = commands[start:start + 1000]
        client.batch(b''.join(resp.encode(c) for c in part), len(part))


def digest(client):
    """The whole content, in an order of our own."""
    total = hashlib.sha256()
    read = {b'string': lambda k: client.call('GET', k),
            b'list': lambda k: client.call('LRANGE', k, 0, -1),
            b'hash': lambda k: sorted(pairs(client.call('HGETALL', k))),
            b'set': lambda k: sorted(client.call('SMEMBERS', k)),
            b'zset': lambda k: client.call('ZRANGE', k, 0, -1, 'WITHSCORES'),
            b'stream': lambda k: client.call('XRANGE', k, '-', '+')}
    for key in sorted(client.call('KEYS', '*')):
        total.update(repr((key, read[key.split(b':')[0]](key))).encode())
    return total.hexdigest()


def pairs(flat):
    return list(zip(flat[::2], flat[1::2]))


def snapshot(client):
    """BGSAVE: a forked child walks the heap while the parent goes on changing it."""
    before = client.call('LASTSAVE')
    time.sleep(1.1)  # LASTSAVE counts in seconds
    client.call('BGSAVE')
    for i in range(COUNT):
        client.call('SET', 'string:%d' % (i % 100), 'changed %d' % i)
    sysutil.wait_for(lambda: client.call('LASTSAVE') > before, 20, 'BGSAVE')
    if resp.info(client, 'persistence')['rdb_last_bgsave_status'].strip() != 'ok':
        raise Fail('redis: BGSAVE failed')


def life(kind, benchmark, requests):
    server = redisutil.Server(kind, args=('--io-threads', '2'))
    client = server.client()
    if benchmark:
        bench = sysutil.need('redis-tools', 'redis-benchmark')
        out = sysutil.run(EBB, [bench, '-p', str(server.port), '-n', str(requests), '-c', '20',
                                '-P', '8', '-d', '200', '-r', '10000', '--csv'],
                          timeout=300, command=True).stdout.decode()
        if out.count('\n') < 15:
            raise Fail('redis-benchmark ended early: %s' % sysutil.tail(out))
        client.call('FLUSHALL', 'ASYNC')
    fill(client)
    first = digest(client)
    snapshot(client)
    second = digest(client)
    client.call('DEBUG', 'RELOAD')
    if digest(client) != second:
        raise Fail('redis on %s: after saving and loading the data differs' % kind)
    client.close()
    server.stop()
    return first, second


def test(args):
    ours = life(EBB, True, 200_000 if args.long else 20_000)
    if ours != life(sysutil.GLIBC, False, 0):
        raise Fail('redis: the same commands lead to other data than on glibc')


sysutil.main(test, __doc__)
