# SPDX-License-Identifier: MIT
"""Latency: is a request later because memory goes back at the same time?

Model
  bench/micro/latency.c --release does 10,000 requests a second on a fixed schedule while another
  thread builds peaks of 512 MiB, keeps one block in a hundred and rests. It runs under each policy,
  in rounds; the order within a round is shuffled. What is judged is the difference to
  policy=never of the same round, for the 99.9th percentile and for the maximum: its median over
  the rounds and the interval that holds that median in 95 % of bootstrap draws.
  A round counts only if in each of its runs the other thread rested during a third of the requests:
  on a machine so busy that it never got through its peaks, nothing goes back.

Go  none
"""

import json
import os
import random
import statistics
import subprocess

import figures

POLICIES = ["go1.16", "now", "never"]
BASE = "never"
# Figure, words, and the most it may be above policy=never, in ns.
TARGETS = [("late_p999_ns", "99.9 %", 100_000), ("late_max_ns", "maximum", 1_000_000)]
RUN_SECONDS_MAX = 120
RESTED_SHARE = 1 / 3


def run_one(peer, options):
    """run_one returns the JSON line as a dict, or a text that says what went wrong."""
    command = [os.path.join(options.bindir, "latency"), f"--{options.size}", "--release"]
    try:
        done = subprocess.run(command, env=peer.environment(), text=True, capture_output=True,
                              timeout=RUN_SECONDS_MAX, check=False)
    except (subprocess.TimeoutExpired, OSError) as error:
        return str(error)
    if done.returncode != 0:
        return f"status {done.returncode}: {done.stderr.strip()[-100:]}"
    result = json.loads(done.stdout.strip().splitlines()[-1])
    return result if peer.serves(result["malloc_from"]) else "malloc is not the peer's"


def record(ebb, options, progress):
    """record all rounds: a list of dicts with policy, round and the figures."""
    runs = []
    variants = [ebb.variant(name, {"EBB": f"policy={name}"}) for name in POLICIES]
    for round_index in range(options.rounds):
        random.Random(f"{options.seed}/{round_index}").shuffle(variants)
        for variant in variants:
            progress.step_text(f"latency: round {round_index + 1}, {variant.name}")
            found = run_one(variant, options)
            if isinstance(found, str):
                progress.note(f"latency under {variant.name}: {found}")
                found = {"failure": found}
            runs.append({"policy": variant.name, "round": round_index, **found})
        progress.round_done(round_index)
    return runs


def median_of(runs, policy, key):
    """median_of a figure over the rounds of a policy; 0 without a run."""
    values = [run[key] for run in runs if run["policy"] == policy and key in run]
    return statistics.median(values) if values else 0


def rested(runs):
    """rested: the runs of the rounds that count."""
    poor = {run["round"] for run in runs
            if "failure" in run or run["rest_requests"] < RESTED_SHARE * run["operations"]}
    return [run for run in runs if run["round"] not in poor]


def differences(runs, policy, key):
    """differences to policy=never of the same round."""
    base = {run["round"]: run[key] for run in runs if run["policy"] == BASE and key in run}
    return [run[key] - base[run["round"]] for run in runs
            if run["policy"] == policy and key in run and run["round"] in base]


def judge(values, target):
    """judge differences: their median, its interval or None, and a verdict in words."""
    if not values:
        return {"median": None, "interval": None, "verdict": "no runs"}
    median = statistics.median(values)
    interval = None
    if len(values) >= figures.INTERVAL_ROUNDS_MIN:
        interval = figures.interval([statistics.median([values[i] for i in drawn])
                                     for drawn in figures.draw_rounds(len(values))])
    if interval is None:
        verdict = "too few rounds"
    elif interval[1] <= target:
        verdict = "met"
    elif interval[0] > target:
        verdict = "missed"
    else:
        verdict = "cannot say"
    return {"median": median, "interval": interval, "verdict": verdict}


def verdicts(runs):
    """verdicts: one per policy and figure."""
    runs = rested(runs)
    return [{"policy": policy, "figure": key, "words": words, "target_ns": target,
             **judge(differences(runs, policy, key), target)}
            for policy in POLICIES if policy != BASE for key, words, target in TARGETS]
