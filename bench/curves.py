# SPDX-License-Identifier: MIT
"""Curves: what resident size does after a peak, sampled from outside while the process sleeps.

Model
  bench/curve/curve.c grows to a peak, frees and sleeps, and says so on its stdout; here it is
  started under each peer and sampled every 0.25 s: resident size, the charge of a memory cgroup of
  its own (where one can be made), lazily freed bytes, voluntary context switches of all threads,
  processor time. Time zero is the moment it goes to sleep.

Flow
  record -> batches that fit into memory -> start one after the other, sample all -> finish

Why this way
  A process that samples itself is not asleep. Peaks are built one at a time, because they need the
  processors; the rests overlap, because sleeping needs nothing.

Go  none
"""

import json
import os
import select
import subprocess
import time

import machine

SAMPLE_SECONDS = 0.25
# While a peak is built its shape is wanted too.
LOAD_SAMPLE_SECONDS = 0.1
# No sample so close to the end of the rest that it could see the process awake.
WAKE_MARGIN_SECONDS = 0.15
LOAD_SECONDS_MAX = 60
# smaps_rollup walks every mapping: once a second is enough for LazyFree.
LAZY_EVERY = 4
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGESIZE")
MIB = 1 << 20


class Cgroup:
    """A memory cgroup for one process, directly under the mount: only there may both versions have
    processes and a charge. Without the right to make one, path is None and no charge is read."""

    def __init__(self, name):
        self.path = None
        self.charge_file = None
        for root, file in (("/sys/fs/cgroup/memory", "memory.usage_in_bytes"),
                           ("/sys/fs/cgroup", "memory.current")):
            if not os.path.exists(os.path.join(root, "cgroup.procs")):
                continue
            path = os.path.join(root, name)
            try:
                os.mkdir(path)
            except OSError:
                continue
            if os.path.exists(os.path.join(path, file)):
                self.path = path
                self.charge_file = os.path.join(path, file)
                return
            os.rmdir(path)

    def enter(self):
        """enter moves the calling process in; runs in the child before exec."""
        if self.path is not None:
            with open(os.path.join(self.path, "cgroup.procs"), "w", encoding="utf-8") as file:
                file.write(str(os.getpid()))

    def charge_bytes(self):
        """charge_bytes of the group now, or None."""
        text = machine.first_line(self.charge_file) if self.charge_file else None
        return int(text) if text and text.isdigit() else None

    def remove(self):
        """remove the group; its process has ended."""
        if self.path is not None:
            try:
                os.rmdir(self.path)
            except OSError:
                pass
            self.path = None


class Recording:
    """One process under one peer: start, samples, end."""

    def __init__(self, curve, peer, options):
        self.curve = curve
        self.peer = peer
        self.samples = []
        self.start = {}
        self.idle = {}
        self.end = {}
        self.failure = None
        self.switches = {}
        self.idle_time = None
        self.idle_seconds = options.idle_seconds
        self.text = b""
        self.cgroup = Cgroup(f"ebb-bench-{os.getpid()}-{peer.name}-{curve.name.rstrip('%')}")
        arguments = curve.arguments(options.curve_mib, int(options.idle_seconds * 1000))
        arguments += peer.arguments
        self.started_time = time.monotonic()
        self.process = subprocess.Popen(
            [os.path.join(options.bindir, "curve")] + arguments, env=peer.environment(),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=self.cgroup.enter)

    def read(self):
        """read what the process has said since; True while it lives and speaks."""
        if not select.select([self.process.stdout], [], [], 0)[0]:
            return True
        part = os.read(self.process.stdout.fileno(), 4096)
        self.text += part
        while b"\n" in self.text:
            line, self.text = self.text.split(b"\n", 1)
            message = json.loads(line)
            if message["phase"] == "idle":
                # Both clocks are CLOCK_MONOTONIC; reading the line may have taken a tick.
                self.idle_time = message["clock_seconds"]
            setattr(self, message["phase"], message)
        return bool(part)

    def sample(self):
        """sample once; a process that has just ended gives none."""
        folder = f"/proc/{self.process.pid}"
        now = time.monotonic()
        if self.idle_time and now > self.idle_time + self.idle_seconds - WAKE_MARGIN_SECONDS:
            return
        try:
            with open(f"{folder}/statm", encoding="utf-8") as file:
                rss_bytes = int(file.read().split()[1]) * PAGE_BYTES
            with open(f"{folder}/stat", encoding="utf-8") as file:
                fields = file.read().rpartition(")")[2].split()
            self.read_switches(folder)
            entry = {"time": now, "rss_bytes": rss_bytes,
                     "cgroup_bytes": self.cgroup.charge_bytes(),
                     "cpu_seconds": (int(fields[11]) + int(fields[12])) / CLOCK_TICKS,
                     "threads": int(fields[17]),
                     "voluntary_switches": sum(self.switches.values())}
            if len(self.samples) % LAZY_EVERY == 0:
                lazy = machine.first_line(f"{folder}/smaps_rollup", "LazyFree")
                entry["lazyfree_bytes"] = int(lazy.split()[0]) * 1024 if lazy else None
        except (OSError, IndexError):
            return
        if rss_bytes > 0:
            self.samples.append(entry)

    def read_switches(self, folder):
        """read_switches keeps the last count of each thread, also of those that ended."""
        for thread in os.listdir(f"{folder}/task"):
            text = machine.first_line(f"{folder}/task/{thread}/status", "voluntary_ctxt_switches")
            if text:
                self.switches[thread] = int(text)

    def finish(self):
        """finish waits for the end, checks it and takes the group away."""
        rest, errors = self.process.communicate(timeout=LOAD_SECONDS_MAX)
        for line in (self.text + rest).splitlines():
            message = json.loads(line)
            setattr(self, message["phase"], message)
        self.cgroup.remove()
        if self.process.returncode != 0:
            text = errors.decode(errors="replace").strip().splitlines()
            self.failure = text[-1] if text else f"status {self.process.returncode}"
        elif not self.peer.serves(self.end["malloc_from"]):
            self.failure = f"malloc came from {self.end['malloc_from']}"

    def kill(self):
        """kill the process this recording started, if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.cgroup.remove()

    def result(self):
        """result for the file; times are seconds since the process went to sleep."""
        zero = self.idle_time or self.started_time
        for entry in self.samples:
            entry["time"] = round(entry["time"] - zero, 3)
        return {"peer": self.peer.name, "curve": self.curve.name, "failure": self.failure,
                "start": self.start, "idle": self.idle, "end": self.end,
                "samples": self.samples, "summary": summary(self)}


def summary(recording):
    """summary of one recording: the figures of the table, in bytes, or None after a failure."""
    if recording.failure or not recording.end:
        return None
    resting = [entry for entry in recording.samples if entry["time"] >= 0]
    if not resting:
        return None
    last = resting[-1]
    start_bytes = recording.start["rss_bytes"]
    over_bytes = last["rss_bytes"] - start_bytes - recording.idle["live_bytes"]
    late = [entry for entry in resting if entry["time"] >= last["time"] - 3]
    survivor_bytes = recording.end["pages_with_survivor"] * PAGE_BYTES
    charge = last["cgroup_bytes"]
    lazy = [entry["lazyfree_bytes"] for entry in resting if entry.get("lazyfree_bytes") is not None]
    return {
        "peak_bytes": recording.idle["peak_rss_bytes"],
        "last_bytes": last["rss_bytes"],
        "cgroup_last_bytes": charge,
        "lazyfree_last_bytes": lazy[-1] if lazy else None,
        "live_bytes": recording.idle["live_bytes"],
        "over_live_bytes": over_bytes,
        "survivor_page_bytes": survivor_bytes,
        "vs_survivor_pages": ((last["rss_bytes"] - start_bytes) / survivor_bytes
                              if survivor_bytes else None),
        "idle_cpu_seconds": last["cpu_seconds"] - resting[0]["cpu_seconds"],
        "late_switches": late[-1]["voluntary_switches"] - late[0]["voluntary_switches"],
        "load_seconds": recording.idle["seconds"],
    }


def batches(curves, peers, options):
    """batches of (curve, peer) pairs whose peaks fit into half of the free memory at once."""
    # A peak of N MiB of small blocks is up to 1.5 N resident.
    room = max(1, int(machine.free_bytes() / 2 / (options.curve_mib * MIB * 1.5)))
    room = min(room, options.curve_parallel)
    pairs = [(curve, peer) for curve in curves for peer in peers]
    return [pairs[start:start + room] for start in range(0, len(pairs), room)]


def step(recordings, seconds):
    """step reads and samples every living recording, then waits for the next tick."""
    tick = time.monotonic() + seconds
    alive = 0
    for recording in recordings:
        if recording.process.poll() is None and recording.read():
            recording.sample()
            alive += 1
    time.sleep(max(0.0, tick - time.monotonic()))
    return alive


def record_batch(pairs, options, progress):
    """record_batch builds the peaks one after the other and samples until all have ended."""
    recordings = []
    try:
        for curve, peer in pairs:
            progress.step_text(f"curve {curve.name}  {peer.name}")
            recording = Recording(curve, peer, options)
            recordings.append(recording)
            end = time.monotonic() + LOAD_SECONDS_MAX
            while recording.idle_time is None and time.monotonic() < end:
                step(recordings, LOAD_SAMPLE_SECONDS)
                if recording.process.poll() is not None:
                    break
        progress.step_text(f"curve: {len(pairs)} processes asleep")
        end = time.monotonic() + options.idle_seconds + LOAD_SECONDS_MAX
        while step(recordings, SAMPLE_SECONDS) and time.monotonic() < end:
            pass
        for recording in recordings:
            recording.finish()
    finally:
        for recording in recordings:
            recording.kill()
    return [recording.result() for recording in recordings]


def record(curves, peers, options, progress):
    """record all curves under all peers."""
    results = []
    parts = batches(curves, peers, options)
    for index, pairs in enumerate(parts):
        results += record_batch(pairs, options, progress)
        progress.line(f"curves: batch {index + 1} of {len(parts)} done")
    for result in results:
        if result["failure"]:
            progress.note(f"curve {result['curve']} under {result['peer']}: {result['failure']}")
    return results
