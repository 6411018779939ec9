# SPDX-License-Identifier: MIT
"""Starts and ends the situations of situations.py, and reads what the kernel says of them.

Model
  A Situation is a program, what is true of its memory, and which verdicts would send somebody the
  wrong way. start(situation) runs it and gives a Running: pid, bytes, cgroup; it ends with the
  block. What is claimed can be measured: `shows` are figures of the kernel as multiples of the
  bytes that the program names, `mended` is how much of them its allocator gives back when asked
  to, `course` is how resident size moves. run.py checks all three.
Verdicts
  truth is the verdict that ought to come first. `also` are others which would be right as well,
  each with the reason; `forbidden` are those that would be wrong advice, at any place of the list.
  Two situations that look the same from outside are never asked to be told apart, unless there is
  a way to tell; where telling needs a look into the allocator's own tables, "unknown" is in `also`.
Why this way
  The figures come from the program (what it allocated and freed) and from the kernel, not from the
  tool under test.
Tests  run.py
"""
import contextlib
import dataclasses
import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
import measure  # noqa: E402  (found through the line above)
import redisutil  # noqa: E402
import sysutil  # noqa: E402
from sysutil import Fail, GLIBC, Skip  # noqa: E402

VERDICTS = ('leak', 'growth', 'kept', 'decay', 'lazy', 'pinned', 'arenas', 'hugepages', 'native',
            'pagecache', 'stacks', 'shmem', 'healthy', 'unknown')
C_FLAGS = ['-D_GNU_SOURCE', '-O1', '-g', '-fno-builtin', '-pthread']
JEMALLOC = ('libjemalloc2', 'libjemalloc.so.2')
MIMALLOC = ('libmimalloc2.0', 'libmimalloc.so.2')
TCMALLOC = ('libtcmalloc-minimal4', 'libtcmalloc_minimal.so.4')
RESIDENT = {'Rss': (0.97, 1.1)}


@dataclasses.dataclass(frozen=True)
class Situation:
    name: str
    command: tuple  # kind:name (c, cc, py, sh, node, java, go, redis), and the words after it
    truth: str
    forbidden: frozenset
    why: str
    also: dict = dataclasses.field(default_factory=dict)
    shows: dict = dataclasses.field(default_factory=lambda: dict(RESIDENT))
    mended: tuple = None  # least and most part of the bytes that goes back when asked for
    course: str = None    # slope, plateau, step, wave, tide: see run.py
    watch_s: int = 0      # how long the doctor has to look, 0: once
    cgroup: bool = False
    settle_s: float = 0   # how long after "ready" until it is what it is to be
    preload: tuple = None
    env: dict = dataclasses.field(default_factory=dict)


class Running:
    """A situation that is there."""

    def __init__(self, situation, process, cgroup):
        self.situation = situation
        self.process = process
        self.cgroup = cgroup
        self.pid = process.pid
        self.truth = situation.truth
        self.bytes = 0

    def hear(self, pattern):
        line = self.process.stdout.readline().decode()
        found = re.match(pattern, line)
        if not found:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5)
            status = self.process.poll()
            raise Fail('%s: said %r; %s' % (self.situation.name, line, sysutil.ended(status)
                                            if status is not None else 'still there'))
        return found

    def mend(self):
        """Has the allocator give back what it can."""
        self.process.stdin.write(b'mend\n')
        self.process.stdin.flush()
        self.hear('mended')

    def figures(self):
        """What the kernel says, in bytes: smaps_rollup, and the cgroup where there is one."""
        numbers = measure.rollup(self.pid)
        numbers['Shared'] = numbers['Shared_Clean'] + numbers['Shared_Dirty']
        numbers['File'] = numbers['Rss'] - numbers['Anonymous']
        if self.cgroup:
            numbers.update(charges(self.cgroup))
        return numbers


def charges(cgroup):
    """charge, cache, shmem and kernel of a cgroup, either version; cache without shmem."""
    with open(os.path.join(cgroup.path, 'memory.stat')) as text:
        stat = {name: int(number) for name, number in (line.split() for line in text)}
    kernel = stat.get('kernel', 0)
    if cgroup.version == 1:
        with open(os.path.join(cgroup.path, 'memory.kmem.usage_in_bytes')) as text:
            kernel = int(text.read())
    return {'charge': cgroup.charge_bytes(), 'shmem': stat['shmem'], 'kernel': kernel,
            'cache': stat['cache' if cgroup.version == 1 else 'file'] - stat['shmem']}


# ---- programs -------------------------------------------------------------------------------

def library(package, name):
    """The path of a malloc library, its package installed if need be."""
    def path():
        with contextlib.suppress(Skip):
            return sysutil.arch_lib(name)
        for folder in ('/usr/lib/x86_64-linux-gnu', '/usr/lib/aarch64-linux-gnu'):
            if os.path.exists(os.path.join(folder, name)):
                return os.path.join(folder, name)
        return None
    return sysutil.need(package, name, path)


def compiled(argv, target, env=None):
    done = subprocess.run(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          timeout=300)
    if done.returncode:
        raise Fail('cannot build %s: %s' % (target, sysutil.tail(done.stdout)))
    return target


@functools.lru_cache(maxsize=None)
def built(name, language):
    """A program of this folder: from the build when there is one, else compiled here."""
    ready = os.path.join(os.environ.get('EBB_PROGS') or '/nonexistent', 'blind_' + name)
    if os.path.exists(ready):
        return ready
    compiler = ['g++', '-std=gnu++17'] if language == 'cc' else ['gcc', '-std=gnu17']
    target = os.path.join(sysutil.tempdir(), name)
    return compiled(compiler + C_FLAGS + ['-o', target, os.path.join(HERE, '%s.%s' % (
        name, language)), '-ldl'], target)


@functools.lru_cache(maxsize=None)
def built_java(name):
    """A folder with the class."""
    folder = sysutil.tempdir()
    javac = sysutil.need('default-jdk-headless', 'javac')
    compiled([javac, '-d', folder, os.path.join(HERE, name + '.java')], name)
    return folder


@functools.lru_cache(maxsize=None)
def built_go(name):
    target = os.path.join(sysutil.tempdir(), name)
    env = dict(os.environ, CGO_ENABLED='0', GO111MODULE='off', GOFLAGS='')
    if 'HOME' not in env:
        env['GOCACHE'] = sysutil.tempdir()
    go = sysutil.need('golang-go', 'go')
    return compiled([go, 'build', '-o', target, os.path.join(HERE, name, 'main.go')], target, env)


def argv_of(situation, folder):
    """The command; the word {folder} is a folder of the run's own, {shm} a file in a tmpfs."""
    kind, name = situation.command[0].split(':')
    words = [word.format(folder=folder, shm='/dev/shm/ebb-test-%d' % os.getpid())
             for word in situation.command[1:]]
    if kind in ('c', 'cc'):
        return [built(name, kind)] + words
    if kind == 'java':
        java = sysutil.need('default-jre-headless', 'java')
        return [java, '-cp', built_java(name)] + words[:-1] + [name, words[-1]]
    if kind == 'go':
        return [built_go(name)] + words
    interpreter = {'py': ('python3', 'python3'), 'sh': ('bash', 'bash'), 'node': ('nodejs', 'node')}
    return [sysutil.need(*interpreter[kind]), os.path.join(HERE, name)] + words


@contextlib.contextmanager
def start(situation):
    """Runs a situation; gives it when it is ready, ends it with the block."""
    with contextlib.ExitStack() as stack:
        if situation.command[0].startswith('redis:'):
            yield stack.enter_context(redis(situation))
            return
        folder = tempfile.mkdtemp(prefix='ebb-test-')
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        argv = argv_of(situation, folder)
        preload = (library(*situation.preload),) if situation.preload else ()
        cgroup = None
        if situation.cgroup:
            cgroup = stack.enter_context(measure.Cgroup(situation.name))
        process = sysutil.spawn(GLIBC, argv, extra=situation.env, preload_after=preload,
                                before=cgroup.enter if cgroup else None, stdin=-1, stdout=-1)
        stack.callback(end, process)
        running = Running(situation, process, cgroup)
        found = running.hear(r'ready bytes=(\d+)(?: pid=(\d+))?\n')
        running.bytes = int(found.group(1))
        running.pid = int(found.group(2) or process.pid)
        time.sleep(situation.settle_s)
        yield running


def end(process):
    """Closes its standard input, which ends it; if not, it is killed."""
    with contextlib.suppress(OSError):
        process.stdin.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(5)
    sysutil.kill(process)


# ---- redis ----------------------------------------------------------------------------------

FILL = """for i = 1, {keys} do
  redis.call('set', 'key:' .. i, string.rep(string.format('%08x', i * 2654435 % 4294967296), {n}))
end"""
THIN = """for i = 1, {keys} do
  if i % 16 ~= 0 then redis.call('del', 'key:' .. i) end
end"""


def used_bytes(client):
    return int(re.search(rb'used_memory:(\d+)', client.call('INFO', 'memory')).group(1))


@contextlib.contextmanager
def redis(situation):
    """full: data in it. thinned: 15 of 16 keys have gone. flushed: FLUSHALL. Debian's redis-server
    is linked against jemalloc, and here nothing is put in front of it."""
    kind = situation.command[0].split(':')[1]
    folder = tempfile.mkdtemp(prefix='ebb-test-')
    port = sysutil.free_port()
    argv = [sysutil.need('redis-server', 'redis-server'), '--port', str(port), '--bind',
            '127.0.0.1', '--save', '', '--appendonly', 'no', '--dir', folder]
    process = sysutil.spawn(GLIBC, argv, stdin=-3, stdout=-3, stderr=-3)
    running = Running(situation, process, None)
    try:
        sysutil.wait_port(port, process)
        with contextlib.closing(redisutil.resp.Client(port)) as client:
            empty = used_bytes(client)
            keys, words = (300000, 55) if kind == 'thinned' else (100000, 250)
            client.call('EVAL', FILL.format(keys=keys, n=words), '0')
            full = used_bytes(client)
            running.bytes = full - empty
            if kind == 'thinned':
                client.call('EVAL', THIN.format(keys=keys), '0')
                running.bytes = full - used_bytes(client)
            elif kind == 'flushed':
                client.call('FLUSHALL')
                # jemalloc skips the purge where its own thread is at one; that takes ten seconds.
                sysutil.wait_for(lambda: measure.rss_bytes(process.pid) < full / 5, 20,
                                 'FLUSHALL that gives back', process)
            client.call('SCRIPT', 'FLUSH')
            time.sleep(1)
            yield running
    finally:
        sysutil.kill(process)
        shutil.rmtree(folder, ignore_errors=True)
