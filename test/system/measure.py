# SPDX-License-Identifier: MIT
"""A process seen from outside: resident size, lazily freed pages, CPU time, wake-ups, charge."""
import os
import time

from sysutil import Skip, need_root

V1 = '/sys/fs/cgroup/memory'
V2 = ('/sys/fs/cgroup', '/sys/fs/cgroup/unified')


def rollup(pid):
    """smaps_rollup in bytes. Exact, where VmRSS of status may lag by a batch per CPU."""
    numbers = {}
    with open('/proc/%d/smaps_rollup' % pid) as file:
        for line in file:
            part = line.split()
            if len(part) == 3 and part[2] == 'kB':
                numbers[part[0].rstrip(':')] = int(part[1]) * 1024
    return numbers


def rss_bytes(pid):
    return rollup(pid)['Rss']


def cpu_ns(pid):
    """CPU time of the whole process, ended threads included: its CPU clock, by its number."""
    return time.clock_gettime_ns((~pid << 3) | 2)


def switches(pid):
    """Voluntary context switches of every thread, by thread id."""
    counts = {}
    for tid in os.listdir('/proc/%d/task' % pid):
        try:
            with open('/proc/%d/task/%s/status' % (pid, tid)) as file:
                for line in file:
                    if line.startswith('voluntary_ctxt_switches'):
                        counts[int(tid)] = int(line.split()[1])
        except FileNotFoundError:
            continue  # ended between the listing and the reading
    return counts


def woken(before, after):
    """Threads that ran between two readings of switches(): {tid: times}. One that has gone is no
    wake-up that repeats; one that is new is."""
    grown = {tid: after[tid] - before.get(tid, 0) for tid in after}
    return {tid: count for tid, count in grown.items() if count > 0}


def thread_count(pid):
    return len(os.listdir('/proc/%d/task' % pid))


def mapping_count(pid):
    with open('/proc/%d/maps' % pid) as file:
        return sum(1 for _ in file)


class Cgroup:
    """A memory cgroup of our own, v1 or v2, removed at the end."""

    def __init__(self, name, limit_bytes=None):
        need_root('a memory cgroup is made')
        self.version, base = self._controller()
        self.path = os.path.join(base, 'ebb-test-%d-%s' % (os.getpid(), name))
        try:
            os.mkdir(self.path)
        except OSError as error:
            raise Skip('a memory cgroup cannot be made: %s' % error)
        if limit_bytes is not None:
            self._write('memory.limit_in_bytes' if self.version == 1 else 'memory.max',
                        limit_bytes)

    @staticmethod
    def _controller():
        if os.path.exists(os.path.join(V1, 'memory.limit_in_bytes')):
            return 1, V1
        for base in V2:
            try:
                with open(os.path.join(base, 'cgroup.subtree_control')) as file:
                    if 'memory' in file.read().split():
                        return 2, base
            except OSError:
                continue
        raise Skip('no memory controller for a cgroup of our own')

    def _write(self, file, value):
        with open(os.path.join(self.path, file), 'w') as out:
            out.write(str(value))

    def enter(self):
        """For the child, between fork and exec."""
        self._write('cgroup.procs', os.getpid())

    def charge_bytes(self):
        file = 'memory.usage_in_bytes' if self.version == 1 else 'memory.current'
        with open(os.path.join(self.path, file)) as out:
            return int(out.read())

    def oom_kills(self):
        """How many processes the kernel has killed for the limit."""
        file = 'memory.oom_control' if self.version == 1 else 'memory.events'
        with open(os.path.join(self.path, file)) as text:
            for line in text:
                name, number = line.split()
                if name == 'oom_kill':
                    return int(number)
        return 0

    def peak_bytes(self):
        """The highest charge so far; 0 where the kernel does not keep it."""
        file = 'memory.max_usage_in_bytes' if self.version == 1 else 'memory.peak'
        try:
            with open(os.path.join(self.path, file)) as text:
                return int(text.read())
        except OSError:
            return 0

    def __enter__(self):
        return self

    def __exit__(self, *why):
        for _ in range(100):
            try:
                os.rmdir(self.path)
                return
            except OSError:
                time.sleep(0.05)  # the last process is still being collected
