#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""redis and python at work while every kind of profile is taken, each second: no crash, no hang, no
wrong answer. python allocates in threads, forks, and loads and unloads libraries all the time. The
short form takes 10 s each, the long form five minutes."""
import gzip
import subprocess
import sys
import threading
import time

import agentutil
import redisutil
import sysutil
from sysutil import Fail, say

KINDS = ['heap', 'allocs', 'growth', 'pins', 'heap?debug=1', 'heap?seconds=1']

STORM = r"""
import ctypes, os, random, sys, threading, time
over = time.monotonic() + float(sys.argv[1])
problems = []

def allocate(seed):
    chance = random.Random(seed)
    kept = [None] * 2000
    while time.monotonic() < over:
        i = chance.randrange(len(kept))
        kept[i] = bytes([i % 256]) * chance.randrange(20000)
        j = chance.randrange(len(kept))
        if kept[j] and kept[j].strip(kept[j][:1]):
            problems.append('a block lost its contents')
            return

def fork():
    while time.monotonic() < over:
        child = os.fork()
        if child == 0:
            x = [bytes(100) for _ in range(1000)]
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            problems.append('a child failed')
        time.sleep(.002)

def load():
    libc = ctypes.CDLL(None)
    libc.dlopen.restype = ctypes.c_void_p
    libc.dlclose.argtypes = [ctypes.c_void_p]
    while time.monotonic() < over:
        for name in (b'libresolv.so.2', b'libutil.so.1', b'libz.so.1', b'libexpat.so.1'):
            handle = libc.dlopen(name, 2)
            if handle:
                libc.dlclose(handle)

threads = [threading.Thread(target=allocate, args=(i,)) for i in range(3)]
threads += [threading.Thread(target=fork), threading.Thread(target=load)]
for t in threads:
    t.start()
for t in threads:
    t.join()
print('problems', problems, flush=True)
"""


class Profiler(threading.Thread):
    """Takes profiles of the agent at a unix socket, one of each kind in turn and one of processor
    time beside it, until told to stop."""

    def __init__(self, path):
        super().__init__()
        self.path = path
        self.over = False
        self.taken = 0
        self.problem = None

    def get(self, what):
        client = agentutil.Unix(self.path, timeout=30)
        client.request('GET', '/debug/pprof/' + what)
        answer = client.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise Fail('%s: %d %r' % (what, answer.status, body[:200]))
        if 'debug' not in what and not gzip.decompress(body):
            raise Fail('%s is empty' % what)
        client.close()
        self.taken += 1

    def run(self):
        try:
            while not self.over:
                second = time.monotonic() + 1
                self.get(KINDS[self.taken // 2 % len(KINDS)])
                self.get('profile?seconds=1')
                time.sleep(max(0, second - time.monotonic()))
        except (Fail, OSError, ValueError) as error:
            self.problem = '%s: %s' % (type(error).__name__, error)


def profiled(path, work):
    """What work() returns; profiles are taken meanwhile."""
    profiler = Profiler(path)
    profiler.start()
    try:
        return work()
    finally:
        profiler.over = True
        profiler.join(60)
        say('%d profiles' % profiler.taken)
        if profiler.is_alive() or profiler.problem or not profiler.taken:
            raise Fail('the profiler: %s' % (profiler.problem or 'it hangs, or took nothing'))


def redis(seconds):
    """redis under its own benchmark."""
    path = sysutil.tempdir(0o700) + '/socket'
    benchmark = sysutil.need('redis-tools', 'redis-benchmark')
    server = redisutil.Server(options={'http': 'unix:' + path, 'profile_rate': 65536})

    def load():
        until = time.monotonic() + seconds
        rounds = 0
        while time.monotonic() < until:
            done = subprocess.run(
                [benchmark, '-p', str(server.port), '-n', '20000', '-r', '100000', '-d', '300',
                 '-q', '-t', 'set,get,lpush,hset,zadd,mset'], stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, timeout=120)
            if done.returncode or server.process.poll() is not None:
                raise Fail('redis-benchmark: %s' % done.stdout[-300:])
            server.client().call('FLUSHALL')
            rounds += 1
        return rounds
    say('redis: %d rounds' % profiled(path, load))
    server.stop()


def python(seconds):
    """python in a storm."""
    path = sysutil.tempdir(0o700) + '/socket'
    process = sysutil.spawn(sysutil.EBB, [sys.executable, '-S', '-c', STORM, str(seconds)],
                            {'http': 'unix:' + path, 'profile_rate': 65536},
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    sysutil.wait_for(lambda: agentutil.os.path.exists(path), 10, 'the socket', process)

    def wait():
        # Till shortly before its end: the profiler would find nobody there.
        try:
            process.wait(max(1, seconds - 3))
        except subprocess.TimeoutExpired:
            return
        raise Fail('python ended early: %s' % process.stderr.read()[-300:])
    profiled(path, wait)
    out, err = process.communicate(timeout=60 + seconds)
    if process.returncode or b'problems []' not in out:
        raise Fail('python ended with %s: %s %s' % (process.returncode, out[-300:], err[-500:]))


def test(args):
    seconds = 300 if args.long else 10
    redis(seconds)
    python(seconds)


if __name__ == '__main__':
    sysutil.main(test, __doc__)
