#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The ledger adds up: its sum against what the kernel says, and the identities of MemStats.

The other side of the comparison is smaps_rollup as this script reads it, before and after: the sum
must lie between the two, give or take 1 % or 1 MiB. Programs are looked at as they come: redis
under load, python, a large heap, lazily freed memory while it is being freed, parent and child
after a fork, eight threads in motion.
"""
import json
import resource
import subprocess
import sys
import threading
import time

import measure
import redisutil
import sysutil
from sysutil import CMD, EBB, Fail, MIB

TRIES = 4
GIB = 1 << 30
CPU_S_MAX_10_GIB = 0.15


def ebb(*words):
    done = subprocess.run([CMD, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          timeout=60, check=False)
    if done.returncode != 0:
        raise Fail('ebb %s: %s' % (' '.join(words), sysutil.tail(done.stderr)))
    return json.loads(done.stdout.decode())


def identities(numbers, what, before=None, slack=0):
    """I1 to I8, and I9 against an earlier reading; slack: allocations that may be missing."""
    s = numbers
    wrong = [name for name, right in {
        'I1': s['HeapSys'] == s['HeapIdle'] + s['HeapInuse'],
        'I2': s['HeapReleased'] <= s['HeapIdle'],
        'I3': s['Sys'] == sum(s[name] for name in (
            'HeapSys', 'StackSys', 'MSpanSys', 'MCacheSys', 'BuckHashSys', 'GCSys', 'OtherSys')),
        'I4': s['Alloc'] == s['HeapAlloc'] and s['HeapObjects'] == s['Mallocs'] - s['Frees'],
        'I5': s['HeapAlloc'] <= s['HeapInuse'],
        'I6': all(s[x + 'Inuse'] <= s[x + 'Sys'] for x in ('Stack', 'MSpan', 'MCache')),
        'I8': s['Sys'] >= s['HeapReleased'],
    }.items() if not right]
    if before:
        wrong += ['I9 ' + name for name in ('Mallocs', 'Frees') if s[name] + slack < before[name]]
        wrong += ['I9 ' + name for name in ('Sys', 'HeapSys') if s[name] < before[name]]
        if not slack and s['TotalAlloc'] < before['TotalAlloc']:
            wrong.append('I9 TotalAlloc')
    if wrong:
        shown = {k: '%d, before %d' % (s[k], (before or s)[k]) for k in s if k != 'BySize'}
        raise Fail('%s: %s (give or take %d): %s' % (what, ', '.join(wrong), slack, shown))


def off(total, before, after):
    """How far the sum lies beyond what is allowed; 0 if it does not."""
    slack = max(MIB, max(before, after) // 100)
    return max(0, min(before, after) - slack - total, total - max(before, after) - slack)


def look(pid, what, quiet=False):
    """One ledger that adds up, or a failure after some tries: the program may be in motion."""
    for _ in range(TRIES):
        before = measure.rss_bytes(pid)
        got = ebb('ledger', '--json', str(pid))
        after = measure.rss_bytes(pid)
        classes = got['classes']
        if sum(classes.values()) != got['sum_bytes']:
            raise Fail('%s: the classes are not the sum' % what)
        identities(got['memstats'], what)
        missed = off(got['sum_bytes'], before, after)
        if not missed and got['unexplained_bytes'] <= max(MIB, after // 100):
            break
    else:
        raise Fail('%s: sum %.1f MiB, RSS %.1f to %.1f: %s' % (
            what, got['sum_bytes'] / MIB, before / MIB, after / MIB, classes))
    if not quiet:
        largest = max(classes, key=classes.get)
        sysutil.say('%-28s sum %8.1f MiB, RSS %8.1f to %8.1f, largest %s %.1f' % (
            what, got['sum_bytes'] / MIB, before / MIB, after / MIB, largest,
            classes[largest] / MIB))
    return got


class Held:
    """The helper program, holding blocks."""

    def __init__(self, size, block, keep, options=None):
        argv = [sysutil.prog('ledger'), 'hold', str(size), str(block), str(keep)]
        self.process = sysutil.spawn(EBB, argv, options, stdin=-1, stdout=-1)
        self.pid = self.process.pid
        self.hear('ready')

    def hear(self, word):
        line = self.process.stdout.readline().decode().strip()
        if not line.startswith(word):
            raise Fail('the helper said %r, not %s' % (line, word))
        return line

    def tell(self, word):
        self.process.stdin.write(word.encode() + b'\n')
        self.process.stdin.flush()

    def end(self):
        sysutil.kill(self.process)


def near(value, wanted, what, share=0.02):
    if abs(value - wanted) > max(2 * MIB, wanted * share):
        raise Fail('%s: %.1f MiB instead of %.1f' % (what, value / MIB, wanted / MIB))


def check_python():
    code = ('import sys\nkeep = [{str(i): [i] * 20} for i in range(200000)]\n'
            'del keep[::3]\nprint("ready", flush=True)\nsys.stdin.read()\n')
    process = sysutil.spawn(EBB, [sys.executable, '-c', code], stdin=-1, stdout=-1)
    process.stdout.readline()
    look(process.pid, 'python')
    sysutil.kill(process)


def check_redis(seconds):
    load = sysutil.need('redis-tools', 'redis-benchmark')
    server = redisutil.Server()
    client = subprocess.Popen([load, '-p', str(server.port), '-q', '-n', '100000000', '-r',
                               '200000', '-d', '900', '-t', 'set,get,lpush', '-l'],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + seconds
        count = 0
        while time.monotonic() < end:
            look(server.pid, 'redis under load', quiet=count % 8 != 0)
            count += 1
            time.sleep(0.2)
    finally:
        client.kill()
        client.wait()
        server.stop()


def check_heap(size):
    held = Held(size, 1000, 1, {'releaser': '0'})
    got = look(held.pid, 'a heap of %.1f GiB' % (size / GIB))
    block = 1024  # the size class of 1000 bytes
    near(got['classes']['live_bytes'], size // 1000 * block + size // 1000 * 8, 'live')
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    ebb('ledger', '--json', str(held.pid))
    then = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = then.ru_utime + then.ru_stime - used.ru_utime - used.ru_stime
    sysutil.say('%-28s %.0f ms of CPU time' % ('ebb ledger', spent * 1000))
    if spent > CPU_S_MAX_10_GIB * max(1, size / (10 * GIB)):
        raise Fail('ebb ledger took %.0f ms of CPU time' % (spent * 1000))
    held.end()


def check_lazy(size):
    options = {'madvise': 'free', 'policy': 'now'}
    held = Held(size, 20000, 1, options)
    look(held.pid, 'before')
    held.tell('free')
    for i in range(12):  # in mid-flight
        look(held.pid, 'while freed lazily', quiet=i % 4 != 0)
    held.hear('freed')
    time.sleep(3)
    got = look(held.pid, 'freed lazily')
    lazy = measure.rollup(held.pid)['LazyFree']
    near(got['classes']['lazy_bytes'], lazy, 'lazily freed beside LazyFree', 0.01)
    if lazy < size // 2:
        raise Fail('only %d MiB were freed lazily' % (lazy // MIB))
    held.tell('load')
    held.hear('loaded')
    look(held.pid, 'loaded again')
    held.end()


def check_fork(size):
    held = Held(size, 3000, 2)
    held.tell('fork')
    child = int(held.hear('child').split()[1])
    of_parent = look(held.pid, 'parent after fork')
    of_child = look(child, 'child after fork')
    near(of_child['classes']['live_bytes'], of_parent['classes']['live_bytes'], 'live in the child')
    held.tell('free')
    held.hear('freed')
    time.sleep(0.5)
    look(held.pid, 'parent, all freed')
    look(child, 'child of it')
    held.end()


def check_threads(seconds):
    argv = [sysutil.prog('ledger'), 'threads', str(seconds)]
    process = sysutil.spawn(EBB, argv, stdin=-3, stdout=-1)
    if process.stdout.readline().strip() != b'ready':
        raise Fail('the threads did not start')
    said = []
    reader = threading.Thread(target=lambda: said.append(process.stdout.read()))
    reader.start()
    before, slack, count, exact = None, 0, 0, 0
    end = time.monotonic() + seconds * 0.9
    while time.monotonic() < end:
        got = ebb('memstats', '--json', str(process.pid))
        missed = got['ebb']['moved_count']
        identities(got['memstats'], 'from outside', before, slack + missed)
        if got['ebb']['refused_count'] > 8:
            raise Fail('%d records made no sense' % got['ebb']['refused_count'])
        before, slack = got['memstats'], missed
        count += 1
        exact += missed == 0
        if count % 8 == 0:
            look(process.pid, 'eight threads', quiet=count % 64 != 0)
    status = process.wait(60)
    reader.join()
    if status != 0:
        raise Fail('from inside: %s' % sysutil.tail(said[0]))
    sysutil.say('%-28s inside %s; outside %d readings, %d exact' % (
        'eight threads', said[0].decode().strip(), count, exact))


def test(args):
    if not sysutil.command_usable():
        raise sysutil.Skip('no command beside the library')
    check_python()
    check_fork(64 * MIB)
    check_lazy((1024 if args.long else 192) * MIB)
    check_threads(40 if args.long else 8)
    check_redis(40 if args.long else 8)
    check_heap((10 if args.long else 1) * GIB)


sysutil.main(test, __doc__)
