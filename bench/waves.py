# SPDX-License-Identifier: MIT
"""Waves: peaks and pauses under every policy and peer, sampled from outside.

Model
  A load is a way to call bench/curve/waves.c. A recording is one process under one peer: every
  sample has its time, resident size and lazily freed bytes (smaps_rollup), the live bytes (from a
  page that the process shares), processor time and minor faults of the whole process (stat).
  held is the integral of RSS - RSS before the load - live bytes over time: byte-seconds.

Flow
  record -> rounds of loads -> groups of processes with staggered starts -> sample all -> summary

Why this way
  The processes rest most of the time, so several run at once, their peaks apart: processes of a
  group start at even distances within a period. The order of peers is shuffled for each round.

Go  none
"""

import json
import mmap
import os
import random
import select
import statistics
import struct
import subprocess
import time

import machine

SAMPLE_SECONDS = 0.25
# Long loads are sampled more rarely: smaps_rollup of a large process takes milliseconds.
SAMPLES_WANTED = 240
SAMPLE_SECONDS_MAX = 1.0
GROUP_SECONDS_MAX = 120
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
MIB = 1 << 20
GIB_SECOND = float(1 << 30)


class Load:
    """One panel: a name, the program's arguments, how many may run at once, how long it takes."""

    def __init__(self, kind, percent, mib, period, waves=1, hold=0.0, parallel=16):
        self.kind = kind
        self.percent = percent
        self.mib = mib
        self.period = period
        self.waves = waves
        self.hold = hold
        self.parallel = parallel
        self.name = f"{kind}-{percent}%"
        self.seconds = 7 * period if kind == "big-small-big" else waves * period

    def arguments(self):
        """arguments of the program, without the shared page."""
        result = ["--mib", str(self.mib), "--survivors", str(self.percent),
                  "--period-ms", str(int(self.period * 1000))]
        if self.kind == "big-small-big":
            return result + ["--big-small-big"]
        return result + ["--waves", str(self.waves), "--hold-ms", str(int(self.hold * 1000))]

    def describe(self):
        """describe the load for the result file and the tables."""
        if self.kind == "peak":
            text = f"one peak of {self.mib} MiB, then {self.period:.0f} s of rest"
        elif self.kind == "big-small-big":
            text = (f"{self.mib} MiB in one block, in small blocks, in one block; "
                    f"rests of {self.period:.0f} s")
        else:
            text = (f"{self.waves} waves of {self.mib} MiB, one every {self.period:.0f} s, "
                    f"held {self.hold:g} s")
        return {"name": self.name, "kind": self.kind, "percent": self.percent, "text": text,
                "mib": self.mib, "period": self.period, "seconds": self.seconds}


def loads(size, only, mib=None):
    """loads of a run, all of one size if mib is given; in quick and smoke go1.11's five minutes
    cannot come."""
    if size == "smoke":
        found = [Load("peak", 1, 8, 0.5), Load("waves-5s", 1, 8, 0.4, 2, 0.1),
                 Load("big-small-big", 1, 8, 0.1)]
    elif size == "quick":
        found = [Load("peak", 1, 256, 15), Load("waves-5s", 1, 128, 5, 3, 1.5, 8),
                 Load("waves-60s", 1, 128, 20, 2, 5), Load("big-small-big", 1, 256, 2, parallel=8)]
    else:
        found = [Load("peak", percent, 512, 480) for percent in (0, 1, 10)]
        found += [Load("waves-5s", percent, 256, 5, 12, 1.5, 4) for percent in (0, 1, 10)]
        found += [Load("waves-60s", percent, 256, 60, 3, 15) for percent in (0, 1, 10)]
        found += [Load("big-small-big", percent, 512, 3, parallel=4) for percent in (0, 1, 10)]
    for load in found:
        load.mib = mib or load.mib
    names = [load.name for load in found]
    for name in only:
        if name not in names and name not in [load.kind for load in found]:
            raise ValueError(f"--only: no load '{name}'; known: {', '.join(names)}")
    return [load for load in found if not only or load.name in only or load.kind in only]


class Recording:
    """One process under one peer."""

    def __init__(self, load, peer, options):
        self.load = load
        self.peer = peer
        self.samples = []
        self.phases = {}
        self.waves = []
        self.text = b""
        self.failure = None
        self.base_bytes = None
        shared_fd = os.memfd_create("live")
        os.truncate(shared_fd, mmap.PAGESIZE)
        self.shared = mmap.mmap(shared_fd, mmap.PAGESIZE)
        self.started = time.monotonic()
        command = [os.path.join(options.bindir, "waves"), "--live-fd", str(shared_fd)]
        self.process = subprocess.Popen(
            command + load.arguments() + peer.arguments, env=peer.environment(),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            pass_fds=[shared_fd])
        os.close(shared_fd)

    def read(self):
        """read what the process has said since; False when it has ended or waits for its end."""
        while select.select([self.process.stdout], [], [], 0)[0]:
            part = os.read(self.process.stdout.fileno(), 4096)
            if not part:
                return False
            self.text += part
            while b"\n" in self.text:
                line, self.text = self.text.split(b"\n", 1)
                message = json.loads(line)
                self.phases[message["phase"]] = message
                if message["phase"] == "wave":
                    self.waves.append(message)
        return "end" not in self.phases

    def sample(self):
        """sample once; a process that has just ended gives none."""
        folder = f"/proc/{self.process.pid}"
        try:
            sizes = {}
            with open(f"{folder}/smaps_rollup", encoding="utf-8") as file:
                for line in file:
                    name, _, rest = line.partition(":")
                    if name in ("Rss", "LazyFree"):
                        sizes[name] = int(rest.split()[0]) * 1024
            now = time.monotonic()
            live_bytes = struct.unpack_from("Q", self.shared)[0]
            with open(f"{folder}/stat", encoding="utf-8") as file:
                fields = file.read().rpartition(")")[2].split()
            entry = {"time": now, "rss_bytes": sizes["Rss"], "lazyfree_bytes": sizes["LazyFree"],
                     "live_bytes": live_bytes, "faults": int(fields[7]),
                     "cpu_seconds": (int(fields[11]) + int(fields[12])) / CLOCK_TICKS}
        except (OSError, KeyError, IndexError):
            return
        if "start" in self.phases:
            self.samples.append(entry)

    def wait_start(self):
        """wait_start until the process has said that its load begins. Its resident size is then
        that of the program, the libraries and the table."""
        end = time.monotonic() + 10
        while "start" not in self.phases and time.monotonic() < end:
            if not self.read() and self.process.poll() is not None:
                return
            time.sleep(0.0005)

    def go(self):
        """go lets the load begin."""
        try:
            self.process.stdin.write(b"g")
            self.process.stdin.flush()
        except OSError:
            pass

    def finish(self):
        """finish lets the process end and checks what it says of itself."""
        try:
            _, errors = self.process.communicate(b"x", timeout=30)
        except subprocess.TimeoutExpired:
            self.kill()
            self.failure = "did not end"
            return
        if self.process.returncode != 0 or "end" not in self.phases:
            text = errors.decode(errors="replace").strip().splitlines()
            self.failure = text[-1] if text else f"status {self.process.returncode}"
        elif not self.peer.serves(self.phases["end"]["malloc_from"]):
            self.failure = f"malloc came from {self.phases['end']['malloc_from']}"

    def kill(self):
        """kill the process this recording started, if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def result(self, round_index):
        """result for the file; times are seconds since the load began."""
        start = self.phases.get("start", {}).get("clock_seconds", self.started)
        for entry in self.samples:
            entry["time"] = round(entry["time"] - start, 3)
        for message in list(self.phases.values()):
            if "clock_seconds" in message:
                message["time"] = round(message["clock_seconds"] - start, 3)
        summary = None
        if not self.failure and self.samples:
            summary = summarise(self.samples, self.phases, self.waves,
                                self.base_bytes)
        return {"load": self.load.name, "peer": self.peer.name, "round": round_index,
                "failure": self.failure, "samples": self.samples, "waves": self.waves,
                "base_bytes": self.base_bytes, "summary": summary}


def size_at(samples, moment):
    """size_at a moment: of the last sample not after it, or None when there is none so late."""
    if not samples or samples[-1]["time"] < moment - 1:
        return None
    found = [s["rss_bytes"] for s in samples if s["time"] <= moment]
    return found[-1] if found else None


def held_byte_seconds(samples, base_bytes):
    """held_byte_seconds: the integral of RSS beyond base and live bytes, by trapezoids."""
    total = 0.0
    over = [max(0, s["rss_bytes"] - base_bytes - s["live_bytes"]) for s in samples]
    for index in range(1, len(samples)):
        seconds = samples[index]["time"] - samples[index - 1]["time"]
        total += (over[index] + over[index - 1]) / 2 * seconds
    return total


def mean_bytes(samples):
    """mean_bytes of RSS over time, by trapezoids."""
    total = 0.0
    for index in range(1, len(samples)):
        seconds = samples[index]["time"] - samples[index - 1]["time"]
        total += (samples[index]["rss_bytes"] + samples[index - 1]["rss_bytes"]) / 2 * seconds
    seconds = samples[-1]["time"] - samples[0]["time"]
    return total / seconds if seconds > 0 else samples[-1]["rss_bytes"]


def summarise(samples, phases, waves, base_bytes):
    """summarise one recording: the figures of the table."""
    idle = phases["idle"]["time"]
    seconds = samples[-1]["time"] - samples[0]["time"]
    held = held_byte_seconds(samples, base_bytes)
    later = [wave["grow_seconds"] for wave in waves[1:]]
    return {
        "peak_bytes": phases["idle"]["peak_rss_bytes"],
        "rss_10s_bytes": size_at(samples, idle + 10),
        "last_bytes": samples[-1]["rss_bytes"],
        "lazyfree_last_bytes": samples[-1]["lazyfree_bytes"],
        "mean_bytes": mean_bytes(samples),
        "held_byte_seconds": held,
        "held_mean_bytes": held / seconds if seconds > 0 else 0,
        "cpu_seconds": samples[-1]["cpu_seconds"],
        "faults": samples[-1]["faults"],
        "first_grow_seconds": waves[0]["grow_seconds"],
        "later_grow_seconds": statistics.median(later) if later else None,
        "free_seconds": statistics.median(wave["free_seconds"] for wave in waves),
    }


def groups(load, lineup):
    """groups of peers whose peaks fit into half of the free memory, and onto the processors."""
    # A peak of N MiB of small blocks is up to 1.5 N resident; big-small-big may hold two.
    factor = 2.5 if load.kind == "big-small-big" else 1.5
    room = max(1, int(machine.free_bytes() / 2 / (load.mib * MIB * factor)))
    room = min(room, load.parallel)
    return [lineup[start:start + room] for start in range(0, len(lineup), room)]


def step(recordings, load):
    """step reads and samples every recording that is not done; returns how many those are."""
    seconds = min(SAMPLE_SECONDS_MAX, load.seconds / SAMPLES_WANTED)
    tick = time.monotonic() + max(SAMPLE_SECONDS, seconds)
    alive = 0
    for recording in recordings:
        if "end" in recording.phases or recording.process.poll() is not None:
            continue
        running = recording.read()
        recording.sample()
        alive += running
    time.sleep(max(0.0, tick - time.monotonic()))
    return alive


def record_group(load, lineup, options, round_index):
    """record_group runs one load under some peers at once, started at even distances."""
    recordings = []
    gap = load.period / len(lineup) if load.kind != "peak" else 0.0
    try:
        for peer in lineup:
            recording = Recording(load, peer, options)
            recordings.append(recording)
            recording.wait_start()
            recording.sample()
            recording.base_bytes = recording.samples[0]["rss_bytes"] if recording.samples else 0
            recording.go()
            end = time.monotonic() + gap
            limit = time.monotonic() + GROUP_SECONDS_MAX
            # A peak is built alone; waves only keep their distance.
            while time.monotonic() < limit:
                step(recordings, load)
                built = load.kind != "peak" or "idle" in recording.phases
                if (built and time.monotonic() >= end) or recording.process.poll() is not None:
                    break
        limit = time.monotonic() + load.seconds + GROUP_SECONDS_MAX
        while step(recordings, load) and time.monotonic() < limit:
            pass
        for recording in recordings:
            recording.finish()
    finally:
        for recording in recordings:
            recording.kill()
    return [recording.result(round_index) for recording in recordings]


def record(chosen, lineup, options, progress):
    """record all loads under all peers, in every round."""
    results = []
    for round_index in range(options.policy_rounds):
        for load in chosen:
            order = list(lineup)
            random.Random(f"{options.seed}/{round_index}/{load.name}").shuffle(order)
            parts = groups(load, order)
            for index, part in enumerate(parts):
                starts = 2 * len(part) if load.kind == "peak" else load.period
                progress.line(f"{load.name}: group {index + 1} of {len(parts)}, {len(part)} "
                              f"processes, about {load.seconds + starts:.0f} s")
                results += record_group(load, part, options, round_index)
    for result in results:
        if result["failure"]:
            progress.note(f"{result['load']} under {result['peer']}: {result['failure']}")
    return results


def medians(recordings):
    """medians of every figure by (load, peer), over the rounds that have it."""
    cells = {}
    for recording in recordings:
        if recording["summary"]:
            cells.setdefault((recording["load"], recording["peer"]), []).append(
                recording["summary"])
    result = {}
    for key, summaries in cells.items():
        entry = {}
        for name in summaries[0]:
            values = [s[name] for s in summaries if s[name] is not None]
            entry[name] = statistics.median(values) if values else None
        result[key] = entry
    return result
