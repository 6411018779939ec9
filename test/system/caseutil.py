# SPDX-License-Identifier: MIT
"""The cases of examples/, started and spoken to: Go programs of one toolchain, C twins on Ebb.

Model
  case    a running program. It prints `ready` and its numbers when it is in the state it is for,
          answers each line of its standard input by `now` and numbers, and ends with its input
  seen    the program's numbers beside RSS, LazyFree and the highest RSS, in bytes
"""
import os
import re
import select
import time

import gotool
import measure
import sysutil
from sysutil import EBB, Fail, GLIBC, Skip

FOLDER = os.path.join(sysutil.REPO, 'examples', 'go')
PR_SET_THP_DISABLE = 41
READY_S = 90

# name: (words of the short form, words of the long form, what to write after the watch)
PROGRAMS = {
    'a1_peak': ('-mib 96', '-mib 600', 'now'),
    'a2_tagcache': ('-mib 8 -peak 160 -n 1', '-mib 32 -peak 400', 'now'),
    'a3_demand': ('-mib 96 -demand 48', '-mib 300 -demand 200', 'demand'),
    'a4_query': ('-mib 96 -live 8', '-mib 300', 'now'),
    'a5_waves': ('-mib 64 -live 4 -period 6s', '-mib 64 -live 4 -period 6s', 'now'),
    'a6_holes': ('-mib 32 -n 4', '-mib 64 -n 5', 'now'),
    'a7_giveback': ('-mib 96', '-mib 300', 'now'),
    'b1_blocked': ('-items 1000', '-items 10000', 'now'),
    'b2_released': ('-items 1000', '-items 5000', 'now'),
    'b10_timers': ('-n 5000 -rate 1000', '-n 20000 -rate 1000', 'now'),
    'b13_cache': ('-mib 16 -rate 4', '-mib 64 -rate 4', 'now'),
    'healthy': ('-mib 32', '-mib 64', 'now'),
    'native': ('-mib 96', '-mib 512', 'now'),
}

# What the memory of a peak comes to under a policy: kept, LazyFree, or gone.
POLICIES = [
    ('kept', {'policy': 'go1.11'}),
    ('lazy', {'policy': 'go1.16', 'madvise': 'free'}),
    ('gone', {'policy': 'go1.16'}),
]
TWINS = {
    'a1': ['--mib', '96'],
    'a2': ['--mib', '160', '--live', '2', '--count', '1'],
    'a3': ['--mib', '96', '--demand', '48'],
    'a4': ['--mib', '96', '--live', '4'],
    'a5': ['--mib', '64', '--live', '4', '--period', '6000'],
    'a6': ['--mib', '32', '--live', '2'],
    'a7': ['--mib', '96'],
}


def without_huge_pages():
    """Where the machine gives huge pages to all, sizes would be rounded up to them."""
    sysutil.libc.prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)


class Case:
    """A program on its way into its state."""

    def __init__(self, label, kind, argv, options=None, extra=None):
        self.label = label
        self.url = None
        self.rest = b''
        self.series = []
        self.quiet = False  # a line would change its state
        self.process = sysutil.spawn(kind, argv, options, extra, before=without_huge_pages,
                                     stdin=-1, stdout=-1, stderr=-1)
        self.end = time.monotonic() + READY_S

    def require(self, condition, text, *values):
        if not condition:
            raise Fail('%s: %s' % (self.label, text % values))

    def line(self):
        """The next line of output, or Fail when the program ends or time is over."""
        fd = self.process.stdout.fileno()
        while b'\n' not in self.rest:
            left = self.end - time.monotonic()
            self.require(left > 0 and select.select([fd], [], [], left)[0],
                         'no line of output in time')
            got = os.read(fd, 4096)
            if not got:
                error = self.process.stderr.read()
                raise Fail('%s: ended early: %s' % (self.label, sysutil.tail(error)))
            self.rest += got
        text, self.rest = self.rest.split(b'\n', 1)
        return text.decode()

    def numbers(self, word):
        """The numbers of the next line that begins with word, beside what the kernel says."""
        while True:
            text = self.line()
            if text.startswith('listening on '):
                self.url = 'http://%s/debug/pprof/' % text.split()[-1]
            if text.split()[0] == word:
                break
        found = {name: int(number) for name, number in re.findall(r'(\w+)=(\d+)\b', text)}
        return dict(found, **self.kernel())

    def kernel(self):
        pid = self.process.pid
        rollup = measure.rollup(pid)
        with open('/proc/%d/status' % pid) as file:
            high = int(re.search(r'VmHWM:\s+(\d+)', file.read()).group(1)) * 1024
        return {'rss': rollup['Rss'], 'lazy': rollup['LazyFree'], 'high_rss': high}

    def ready(self):
        self.at_ready = self.numbers('ready')

    def sample(self):
        self.series.append(self.kernel())

    def ask(self, word):
        self.end = time.monotonic() + 20
        self.process.stdin.write(word.encode() + b'\n')
        self.process.stdin.flush()
        self.answer = self.numbers('now')

    def close(self):
        """The end of its input ends the program."""
        self.process.stdin.close()
        self.process.stdin = None
        try:
            status = self.process.wait(10)
        except Exception:
            raise Fail('%s: does not end with its input' % self.label)
        self.require(status == 0, '%s', sysutil.ended(status))
        sysutil.kill(self.process)


def toolchain(version):
    """The toolchain of a version; Skip with the reason where it cannot be had."""
    try:
        return gotool.find(version)
    except gotool.NoToolchain as reason:
        raise Skip('Go %s: %s' % (version, reason))


def start_go(tool, name, long=False, extra=None):
    """A Go program of a toolchain; its first line has not been read."""
    try:
        program = gotool.build(tool, os.path.join(FOLDER, name + '.go'))
    except gotool.BuildError as error:
        raise Fail(str(error))
    words = PROGRAMS[name][1 if long else 0].split()
    label = ' '.join([name, tool.version] + ['%s=%s' % pair for pair in (extra or {}).items()])
    case = Case(label, GLIBC, [program] + words, extra=extra)
    case.name = name
    case.quiet = name == 'a7_giveback'
    return case


def start_twin(name, options):
    """The C program of a case on Ebb with options; its first line has not been read."""
    # In a build folder the examples lie beside the library.
    program = os.path.join(os.path.dirname(sysutil.LIB), 'examples', 'cases_a')
    if not os.access(program, os.X_OK):
        raise Skip('no %s: build the examples' % program)
    label = '%s %s' % (name, ','.join(options.values()))
    case = Case(label, EBB, [program, name] + TWINS[name], options)
    case.name = name
    case.quiet = name == 'a7'
    return case
