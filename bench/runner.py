# SPDX-License-Identifier: MIT
"""Runner: runs one case under one peer and reads its JSON line; runs a series of rounds.

Model
  A series is rounds x (case, peer) in an order that is shuffled anew in each round from a printed
  seed, so that neither a neighbour nor the time of day favours a peer. A run that fails is kept as
  a failure and shown; it is never run again in the hope of a better end.

Go  none
"""

import json
import os
import random
import subprocess
import time

import redis_load

RUN_SECONDS_MAX = 120


class Failure(Exception):
    """A run that gave no number; the text says why."""


def last_error_line(text):
    """last_error_line of a child's stderr, for messages."""
    lines = [line for line in text.strip().splitlines() if line]
    return lines[-1] if lines else "no message"


def pin_last_processor():
    """pin_last_processor keeps a single-threaded child on one processor; runs in the child."""
    allowed = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {allowed[-1]})


def run_program(case, peer, bindir, size, pin):
    """run_program runs a bench program once and returns its JSON line as a dict."""
    path = os.path.join(bindir, case.program)
    pin = pin and case.is_single_threaded()
    try:
        done = subprocess.run([path] + case.arguments(size), env=peer.environment(), text=True,
                              capture_output=True, timeout=RUN_SECONDS_MAX, check=False,
                              preexec_fn=pin_last_processor if pin else None)
    except subprocess.TimeoutExpired as error:
        raise Failure(f"not done after {RUN_SECONDS_MAX} s") from error
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}") from error
    if done.returncode != 0:
        how = f"status {done.returncode}" if done.returncode > 0 else f"signal {-done.returncode}"
        raise Failure(f"{how}: {last_error_line(done.stderr)}")
    try:
        result = json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError) as error:
        raise Failure("its output is not a JSON line") from error
    if not peer.serves(result["malloc_from"]):
        raise Failure(f"malloc came from {result['malloc_from']}")
    return result


def run_case(case, peer, bindir, size, pin):
    """run_case runs a program, or the redis load."""
    if case.name == "redis":
        try:
            return redis_load.run(peer, size)
        except redis_load.LoadError as error:
            raise Failure(str(error)) from error
    return run_program(case, peer, bindir, size, pin)


class Series:
    """A series of rounds: fills runs and failures, and stops when its time is over."""

    def __init__(self, cases, peers, options, progress):
        self.cases = cases
        self.peers = peers
        self.options = options
        self.progress = progress
        self.runs = []
        self.failures = []
        self.round_count = 0
        self.checksums = {}
        self.broken = set()

    def order(self, round_index):
        """order of one round."""
        late = round_index > 0 and self.options.size == "quick"
        pairs = [(case, peer) for case in self.cases for peer in self.peers
                 if not (late and case.once_in_quick)]
        random.Random(f"{self.options.seed}/{round_index}").shuffle(pairs)
        return pairs

    def check_sum(self, case, peer, result):
        """check_sum compares with what the same case gave before, under whichever peer."""
        expected, who = self.checksums.setdefault(case.name, (result["checksum"], peer.name))
        if result["checksum"] != expected:
            raise Failure(f"checksum {result['checksum']}, under {who} it was {expected}")

    def run_one(self, case, peer, round_index):
        """run_one adds one run or one failure; a pair that failed is not run in later rounds."""
        if (case.name, peer.name) in self.broken:
            return
        try:
            result = run_case(case, peer, self.options.bindir, self.options.size,
                              self.options.pin)
            self.check_sum(case, peer, result)
        except Failure as failure:
            self.broken.add((case.name, peer.name))
            self.failures.append({"case": case.name, "peer": peer.name, "round": round_index,
                                  "why": str(failure)})
            self.progress.note(f"{case.name} under {peer.name}: {failure}")
            return
        result.update({"case": case.name, "peer": peer.name, "round": round_index})
        self.runs.append(result)

    def run(self):
        """run does the rounds; a round that would end after the deadline is not begun."""
        longest = 0.0
        for round_index in range(self.options.rounds):
            start = time.monotonic()
            deadline = self.options.deadline
            if deadline and round_index > 0 and start + longest > deadline:
                self.progress.note(f"time is over: {round_index} of {self.options.rounds} rounds")
                break
            pairs = self.order(round_index)
            for index, (case, peer) in enumerate(pairs):
                self.progress.step(round_index, index, len(pairs), f"{case.name}  {peer.name}")
                self.run_one(case, peer, round_index)
            longest = max(longest, time.monotonic() - start)
            self.round_count = round_index + 1
            self.progress.round_done(round_index)
