#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What the doctor says of heaps that others have made, beside what is true of them.

A program allocates, frees most at random and rests, under jemalloc, mimalloc and tcmalloc; it
prints the bytes it holds, and its allocator's own counters where it has any. The doctor, from
outside, must find live and kept within 5 %, and divide all that is resident. The same for a
redis-server on jemalloc, with data and after they were deleted, for a JVM by its counters, and for
the small objects of a Python.
"""
import json
import os
import subprocess

import redisutil
import sysutil
from sysutil import Fail, MIB, Skip

LIBRARIES = {
    'jemalloc': ('libjemalloc2', ['libjemalloc.so.2'], '5.3.0'),
    'mimalloc': ('libmimalloc2.0', ['libmimalloc.so.2.0'], '2.0.9'),
    'tcmalloc': ('libtcmalloc-minimal4', ['libtcmalloc_minimal.so.4'], 'gperftools 2.10'),
}
PARTS = ('live_bytes', 'kept_bytes', 'pinned_bytes', 'lazy_bytes', 'meta_bytes')
SHARE = 0.05
# What any program has beside what it counts: its tables, stdio.
SLACK_BYTES = MIB

JAVA = '''
import java.util.*;
public class Rest {
    public static void main(String[] a) throws Exception {
        List<byte[]> all = new ArrayList<>();
        for (int i = 0; i < 200000; i++) { all.add(new byte[1000]); }
        List<byte[]> kept = new ArrayList<>();
        for (int i = 0; i < all.size(); i += 10) { kept.add(all.get(i)); }
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
pairs = [(i, str(i) * 3) for i in range(400000)]
pairs = [p for i, p in enumerate(pairs) if i % 10 == 0 or i > 350000]
gc.collect()
sys._debugmallocstats()
print("rest", file=sys.stderr, flush=True)
input()
'''


def library(kind):
    package, names, _ = LIBRARIES[kind]

    def find():
        for name in names:
            try:
                return sysutil.arch_lib(name)
            except Skip:
                pass
        return None
    return sysutil.need(package, names[0], find)


def examine(pid):
    done = subprocess.run([sysutil.CMD, 'doctor', '--json', str(pid)], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=30)
    if done.returncode not in (0, 1, 2):
        raise Fail('ebb doctor %d: status %d, %s' % (pid, done.returncode,
                                                     sysutil.tail(done.stderr)))
    return json.loads(done.stdout.decode())


def heap_of(report, kind):
    for heap in report['heaps']:
        if heap['kind'] == kind:
            return heap
    raise Fail('no %s heap was found' % kind)


def check_near(what, seen, true, share=SHARE, slack=SLACK_BYTES):
    if abs(seen - true) > max(share * max(seen, true), slack):
        raise Fail('%s: the doctor says %.1f MiB, it is %.1f' % (what, seen / MIB, true / MIB))


def check_divided(what, heap):
    parts = sum(heap[name] for name in PARTS)
    if not heap['divided']:
        raise Fail('%s: not divided' % what)
    check_near(what + ': parts and resident', parts, heap['resident_bytes'], 0.02)
    sysutil.say('%-34s resident %4d: live %4d, kept %4d, pinned %4d, meta %3d MiB'
                % ((what, heap['resident_bytes'] // MIB)
                   + tuple(heap[n] // MIB for n in
                           ('live_bytes', 'kept_bytes', 'pinned_bytes', 'meta_bytes'))))


def run_program(kind, args, extra=None):
    env = dict(os.environ, LD_PRELOAD=library(kind), **(extra or {}))
    program = subprocess.Popen([sysutil.prog('heaps')] + args, stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, env=env)
    try:
        truth = json.loads(program.stdout.readline().decode())
        return truth, examine(program.pid)
    finally:
        program.kill()
        program.communicate()


def check_program(kind, args, extra=None):
    what = ' '.join([kind] + args[1:])
    truth, report = run_program(kind, args, extra)
    heap = heap_of(report, kind)
    if heap['version'] != LIBRARIES[kind][2]:
        raise Skip('%s here is %s, which is not known' % (kind, heap['version']))
    check_divided(what, heap)
    check_near(what + ', live', heap['live_bytes'], truth['live'])
    if kind == 'jemalloc':
        check_near(what + ', kept', heap['kept_bytes'], truth['dirty'] + truth['muzzy'])
    if kind == 'tcmalloc':
        check_near(what + ', kept', heap['kept_bytes'], truth['free'])
        check_near(what + ', released', heap['released_bytes'], truth['unmapped'])


def check_settings(size):
    env = {'MALLOC_CONF': 'background_thread:true,dirty_decay_ms:7000'}
    _, report = run_program('jemalloc', [str(size), '5', '2'], env)
    note = heap_of(report, 'jemalloc')['note']
    if 'dirty_decay_ms 7000' not in note or 'with a background thread' not in note:
        raise Fail('jemalloc with %s: the doctor notes %r' % (env['MALLOC_CONF'], note))


def check_redis(keys):
    server = redisutil.Server(kind=None, extra={'LD_PRELOAD': ''})
    try:
        client = server.client()
        maps = open('/proc/%d/maps' % server.pid).read()
        if 'libjemalloc' not in maps:
            sysutil.say('redis-server here is not linked against jemalloc')
            return
        client.call('CONFIG', 'SET', 'jemalloc-bg-thread', 'no')
        client.call('DEBUG', 'POPULATE', str(keys), 'key', '1000')
        for what in ('redis with data', 'redis without'):
            heap = heap_of(examine(server.pid), 'jemalloc')
            info = client.call('INFO', 'memory').decode()
            used = int(info.split('allocator_allocated:')[1].split()[0])
            check_divided(what, heap)
            check_near(what + ', live', heap['live_bytes'], used)
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
            heap = heap_of(examine(program.pid), 'JVM')
        finally:
            program.kill()
            program.communicate()
        check_divided('JVM ' + collector, heap)
        # What was allocated since the last collection is in no counter.
        check_near('JVM %s, live' % collector, heap['live_bytes'], used, slack=8 * MIB)


def check_python():
    """Python's own count of its small objects, beside the doctor's."""
    python = sysutil.need('python3', 'python3', lambda: sysutil.shutil.which(
        'python3', path='/usr/bin:/bin'))
    program = subprocess.Popen([python, '-c', PYTHON], stdin=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    truth = None
    try:
        for line in iter(program.stderr.readline, b'rest\n'):
            words = line.decode().split('=')
            if words[0].strip() == '# bytes in allocated blocks':
                truth = int(words[1].replace(',', ''))
        heap = heap_of(examine(program.pid), 'Python')
    finally:
        program.kill()
        program.communicate()
    check_divided('Python ' + heap['version'], heap)
    check_near('Python, live', heap['live_bytes'], truth)


def test(args):
    size = (1024 if args.long else 160) * MIB
    for kind in LIBRARIES:
        check_program(kind, [str(size), '30', '1'])
        check_program(kind, [str(size), '5', '8', 'large'])
    check_settings(size)
    check_redis(800000 if args.long else 100000)
    check_jvm()
    check_python()


sysutil.main(test, __doc__)
