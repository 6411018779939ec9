#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What the doctor says of heaps that others have made, beside what is true of them.

A program allocates, frees most at random and rests, under jemalloc, mimalloc and tcmalloc; it
prints the bytes it holds, and its allocator's own counters where it has any. The doctor, from
outside, must find live within 5 %, kept too where the allocator counts it (mimalloc does not), and
divide all that is resident. The same for live of a redis-server on jemalloc, with data and after
they were deleted, of a JVM, and of the small objects of a Python.

An allocator of a version that is known must be recognized. Each part that cannot run here is
skipped by itself.
"""
import json
import os
import re
import subprocess
import time

import doctorutil
import redisutil
import sysutil
from sysutil import Fail, MIB, Skip

LIBRARIES = {
    'jemalloc': ('libjemalloc2', 'libjemalloc.so.2', '5.3.0'),
    'mimalloc': ('libmimalloc2.0', 'libmimalloc.so.2.0', '2.0.9'),
    'tcmalloc': ('libtcmalloc-minimal4', 'libtcmalloc_minimal.so.4', 'gperftools 2.10'),
}
PARTS = ('live_bytes', 'kept_bytes', 'pinned_bytes', 'lazy_bytes', 'meta_bytes')
SHARE = 0.05
# What any program has beside what it counts: its tables, stdio.
SLACK_BYTES = MIB
CRON_S = 0.2

JAVA = '''
import java.util.*;
public class Rest {
    public static void main(String[] a) throws Exception {
        List<byte[]> all = new ArrayList<>();
        for (int i = 0; i < 300000; i++) { all.add(new byte[1000]); }
        List<byte[]> kept = new ArrayList<>();
        for (int i = 0; i < all.size(); i += 3) { kept.add(all.get(i)); }
        all = null;
        System.gc();
        Runtime r = Runtime.getRuntime();
        System.out.println(r.totalMemory() - r.freeMemory());
        System.in.read();
        System.out.println(kept.size());
    }
}
'''

PYTHON = '''
import gc, sys
%s
gc.collect()
sys._debugmallocstats()
print("rest", file=sys.stderr, flush=True)
input()
'''
THINNED = '''
pairs = [(i, str(i) * 3) for i in range(400000)]
pairs = [p for i, p in enumerate(pairs) if i % 10 == 0 or i > 350000]
'''
# One of 53 pools has an object, and so each arena, of 63 pools: no arena can be given back.
SCATTERED = '''
blocks = [bytes(100) for _ in range(1000000)]
blocks = blocks[::6000]
'''


def library(kind):
    """Its path; skips where the package is of a version that the doctor does not know."""
    package, name, known = LIBRARIES[kind]

    def find():
        try:
            return sysutil.arch_lib(name)
        except Skip:
            return None
    path = sysutil.need(package, name, find)
    version = subprocess.run(['dpkg-query', '-W', '-f', '${Version}', package], check=False,
                             stdout=subprocess.PIPE).stdout.decode()
    if not re.match(re.escape(known.split()[-1]) + r'\b', version):
        raise Skip('%s here is %s, which is not known' % (package, version))
    return path


def check_near(what, seen, true, share=SHARE, slack=SLACK_BYTES):
    if abs(seen - true) > max(share * max(seen, true), slack):
        raise Fail('%s: the doctor says %.1f MiB, it is %.1f' % (what, seen / MIB, true / MIB))


def check_divided(what, heap):
    parts = sum(heap[name] for name in PARTS)
    if not heap['divided']:
        raise Fail('%s: not divided' % what)
    check_near(what + ': parts and resident', parts, heap['resident_bytes'], 0.02)
    sysutil.say('%-36s resident %4d: live %4d, kept %4d, pinned %4d, meta %3d MiB'
                % ((what, heap['resident_bytes'] // MIB)
                   + tuple(heap[n] // MIB for n in
                           ('live_bytes', 'kept_bytes', 'pinned_bytes', 'meta_bytes'))))


def run_program(kind, args, extra=None):
    env = dict(os.environ, LD_PRELOAD=library(kind), **(extra or {}))
    program = subprocess.Popen([sysutil.prog('heaps')] + args, stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, env=env)
    try:
        truth = json.loads(program.stdout.readline().decode())
        return truth, doctorutil.ask(program.pid)
    finally:
        program.kill()
        program.communicate()


def check_program(kind, args, extra=None):
    what = ' '.join([kind] + args[1:] + list((extra or {}).values()))
    truth, report = run_program(kind, args, extra)
    heap = doctorutil.heap(report, kind)
    if heap['version'] != LIBRARIES[kind][2]:
        raise Fail('%s is not recognized: %s' % (what, report['sources'][kind]))
    check_divided(what, heap)
    check_near(what + ', live', heap['live_bytes'], truth['live'])
    if kind == 'jemalloc':
        check_near(what + ', kept', heap['kept_bytes'], truth['dirty'] + truth['muzzy'])
    if kind == 'tcmalloc':
        check_near(what + ', kept', heap['kept_bytes'], truth['free'])
        check_near(what + ', released', heap['released_bytes'], truth['unmapped'])


def check_settings(size):
    env = {'MALLOC_CONF': 'background_thread:true,dirty_decay_ms:7000'}
    _, report = run_program('jemalloc', [size, '5', '2'], env)
    note = doctorutil.heap(report, 'jemalloc')['note']
    if 'dirty_decay_ms 7000' not in note or 'with a background thread' not in note:
        raise Fail('jemalloc with %s: the doctor notes %r' % (env['MALLOC_CONF'], note))


def redis_allocated(client):
    """jemalloc's count as redis tells it: as serverCron has last read it, ten times a second."""
    time.sleep(CRON_S)
    client.call('PING')  # what is due runs after the requests of a turn, so before the next
    info = client.call('INFO', 'memory').decode()
    return int(info.split('allocator_allocated:')[1].split()[0])


def check_redis(keys):
    server = redisutil.Server(kind=None, extra={'LD_PRELOAD': ''})
    try:
        client = server.client()
        maps = open('/proc/%d/maps' % server.pid).read()
        if 'libjemalloc' not in maps:
            raise Skip('redis-server here is not linked against jemalloc')
        client.call('CONFIG', 'SET', 'jemalloc-bg-thread', 'no')
        client.call('DEBUG', 'POPULATE', str(keys), 'key', '1000')
        for what in ('redis with data', 'redis without'):
            heap = doctorutil.heap(doctorutil.ask(server.pid), 'jemalloc')
            check_divided(what, heap)
            check_near(what + ', live', heap['live_bytes'], redis_allocated(client))
            client.call('FLUSHALL', 'SYNC')
    finally:
        server.stop()


def check_jvm():
    java = sysutil.need('default-jre-headless', 'java')
    javac = sysutil.need('default-jdk-headless', 'javac')
    folder = sysutil.tempdir()
    with open(os.path.join(folder, 'Rest.java'), 'w') as source:
        source.write(JAVA)
    subprocess.run([javac, '-d', folder, source.name], check=True, timeout=60)
    for collector in ('G1', 'Serial', 'Parallel'):
        program = subprocess.Popen([java, '-XX:+Use%sGC' % collector, '-Xmx512m', '-cp', folder,
                                    'Rest'], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            used = int(program.stdout.readline())
            heap = doctorutil.heap(doctorutil.ask(program.pid), 'JVM')
        finally:
            program.kill()
            program.communicate()
        check_divided('JVM ' + collector, heap)
        check_near('JVM %s, live' % collector, heap['live_bytes'], used)


def run_python(allocate):
    """Python's own count of its small objects, and the doctor's report."""
    python = sysutil.need('python3', 'python3', lambda: sysutil.shutil.which(
        'python3', path='/usr/bin:/bin'))
    program = subprocess.Popen([python, '-c', PYTHON % allocate], stdin=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    truth = None
    try:
        for line in program.stderr:
            if line == b'rest\n':
                break
            words = line.decode().split('=')
            if words[0].strip() == '# bytes in allocated blocks':
                truth = int(words[1].replace(',', ''))
        if truth is None:
            raise Fail('this Python does not tell what its blocks are')
        return truth, doctorutil.ask(program.pid)
    finally:
        program.kill()
        program.communicate()


def check_python():
    for what, allocate in (('Python, thinned', THINNED), ('Python, scattered', SCATTERED)):
        truth, report = run_python(allocate)
        heap = doctorutil.heap(report, 'Python')
        check_divided(what, heap)
        check_near(what + ', live', heap['live_bytes'], truth)
    # At most one arena is wholly free: what is free in the others cannot go back.
    check_near(what + ', kept', heap['kept_bytes'], 0)
    if 'pinned' not in doctorutil.names(report) or 'kept' in doctorutil.names(report):
        raise Fail('%s is called %s' % (what, ' '.join(doctorutil.names(report))))


def check_kind(kind, size):
    check_program(kind, [size, '30', '1'])
    check_program(kind, [size, '5', '8', 'large'])
    if kind == 'jemalloc':
        check_program(kind, [size, '30', '8'], {'MALLOC_CONF': 'bin_shards:1-14336:4'})
        check_settings(size)


def test(args):
    size = str((1024 if args.long else 160) * MIB)
    parts = [(kind, check_kind, kind, size) for kind in LIBRARIES]
    parts += [('redis', check_redis, 800000 if args.long else 100000), ('JVM', check_jvm),
              ('Python', check_python)]
    skipped = []
    for name, check, *words in parts:
        try:
            check(*words)
        except Skip as reason:
            sysutil.say('%-34s skipped: %s' % (name, reason))
            skipped.append(name)
    if len(skipped) == len(parts):
        raise Skip('none of %s can run here' % ', '.join(skipped))


sysutil.main(test, __doc__)
