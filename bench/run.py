#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""run.py compares allocators side by side: speed, peak size, and what comes back after a peak.

    bench/run.py --quick                      under three minutes, to look
    bench/run.py                              15 rounds, to quote
    bench/run.py --suite policy --quick       every policy through peaks and waves, and survivors
    bench/run.py --suite latency              how late requests come while memory goes back
    bench/run.py --suite overhead --quick     what the heap profile costs, by instructions
    bench/run.py --only larson,redis --rounds 5 --peer snmalloc=/path/libsnmallocshim.so

Tables go to stdout, progress to stderr; results.json and curves.svg to build/bench (--out).
bench/README.md says what each number means and how far to trust it.

Go  none
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import cases
import curves
import figures
import latency
import machine
import overhead
import peers
import progress
import redis_load
import runner
import tables
import waves
import waves_tables

FOLDER = os.path.dirname(os.path.abspath(__file__))
PROJECT = os.path.dirname(FOLDER)
QUANTITIES = ("seconds", "cpu_seconds", "peak_rss_bytes")
# Quick has to end within three minutes; what is left after the series is for the curves.
QUICK_SERIES_SECONDS = 120


def words(text):
    """words of a comma-separated list."""
    return [word for word in text.split(",") if word]


def read_options():
    """read_options from the command line, with what follows from --quick filled in."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, 3 rounds, 6 curves")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, to test the benches")
    parser.add_argument("--suite", choices=("speed", "curve", "all", "policy",
                        "survivors", "latency", "overhead"), default="all",
                        help="all: speed and curve; the others only by name")
    parser.add_argument("--only", type=words, default=[], metavar="CASE,...")
    parser.add_argument("--rounds", type=int, metavar="N")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PATH",
                        help="compare this library too")
    parser.add_argument("--peer-env", action="append", default=[], metavar="NAME:VAR=VALUE",
                        help="an environment variable for one peer")
    parser.add_argument("--peers", type=words, default=[], metavar="NAME,...",
                        help="only these peers")
    parser.add_argument("--best-of", type=words, default=peers.REFERENCES, metavar="NAME,...",
                        help="the peers whose best is 1.00")
    parser.add_argument("--ebb", default=os.path.join(PROJECT, "build", "libebb.so"))
    parser.add_argument("--bindir", default=os.path.join(PROJECT, "build", "bench"),
                        help="where the built bench programs are")
    parser.add_argument("--out", default=os.path.join(PROJECT, "build", "bench"))
    parser.add_argument("--no-curve", action="store_true", help="the same as --suite speed")
    parser.add_argument("--no-pin", dest="pin", action="store_false",
                        help="let single-threaded cases wander")
    parser.add_argument("--no-touch", dest="touch", action="store_false",
                        help="do not touch free memory first")
    parser.add_argument("--seed", type=int, help="of the order of runs")
    parser.add_argument("--curve-mib", type=int, metavar="N", help="size of the peak")
    parser.add_argument("--idle-seconds", type=float, default=10.0)
    options = parser.parse_args()
    complete(options)
    return options


def complete(options):
    """complete fills in what depends on the size of the run."""
    small = options.quick or options.smoke
    options.size = "smoke" if options.smoke else "quick" if options.quick else "full"
    # A round of policies takes an hour, most of it asleep.
    options.policy_rounds = options.rounds or (1 if small else 3)
    options.rounds = options.rounds or (1 if options.smoke else 3 if options.quick else 15)
    options.seed = random.randrange(1 << 32) if options.seed is None else options.seed
    options.load_mib = options.curve_mib
    options.curve_mib = options.curve_mib or (16 if options.smoke else 256 if small else 1024)
    options.curve_parallel = 15 if small else 5
    options.bindir = os.path.abspath(options.bindir)
    options.deadline = None
    if options.no_curve:
        options.suite = "speed"


def skipped_cases(chosen, bindir):
    """skipped_cases: cases this machine cannot run, with the reason."""
    found = []
    for case in chosen:
        if case.name == "redis":
            reason = redis_load.missing()
        elif os.path.exists(os.path.join(bindir, case.program)):
            reason = None
        else:
            reason = f"no {case.program} in {bindir}"
        if reason:
            found.append({"case": case.name, "why": reason})
    return found


def summarise(results, series):
    """summarise fills results['summary'] from the runs."""
    names = [peer["name"] for peer in results["peers"] if not peer["missing"]]
    best_of = results["options"]["best_of"]
    summary = {"overall": {}}
    for quantity in QUANTITIES:
        values = figures.Series(series.runs, quantity)
        summary[quantity] = {case: figures.case_summary(values, case, names, best_of,
                                                        series.round_count)
                             for case in values.values}
        macro = [case for case in results["macro"] if case in values.values]
        summary["overall"][quantity] = figures.overall(values, macro, names, best_of,
                                                       series.round_count)
    results["summary"] = summary


def run_series(results, options, present, show):
    """run_series does the speed part."""
    chosen = cases.choose(options.only)
    results["skipped"] = skipped_cases(chosen, options.bindir)
    skipped = {entry["case"] for entry in results["skipped"]}
    chosen = [case for case in chosen if case.name not in skipped]
    results["macro"] = [case.name for case in chosen if case.kind == "macro"]
    results["micro"] = [case.name for case in chosen if case.kind == "micro"]
    if options.quick:
        options.deadline = time.monotonic() + QUICK_SERIES_SECONDS
    series = runner.Series(chosen, present, options, show)
    series.run()
    results["runs"] = series.runs
    results["failures"] = series.failures
    results["rounds"] = series.round_count
    if series.runs:
        summarise(results, series)


def run_curves(results, options, present, show):
    """run_curves does the curves and their picture."""
    if not os.path.exists(os.path.join(options.bindir, "curve")):
        results["skipped"].append({"case": "curve", "why": f"no curve in {options.bindir}"})
        return
    small = options.quick or options.smoke
    chosen = cases.CURVES_QUICK if small else cases.CURVES_FULL
    results["curves"] = curves.record(chosen, present, options, show)


def run_policies(results, options, all_peers, show):
    """run_policies does the suite policy: loads under every policy and peer, then survivors."""
    peers_run = [peer for peer in peers.lineup(all_peers, policies=True) if not peer.missing]
    chosen = waves.loads(options.size, options.only, options.load_mib)
    results["lineup"] = [peer.describe() for peer in peers_run]
    results["loads"] = [load.describe() for load in chosen]
    results["policy"] = waves.record(chosen, peers_run, options, show)


def run_survivors(results, options, all_peers, show):
    """run_survivors compares what 1 % of the blocks keep resident."""
    peers_run = [peer for peer in peers.lineup(all_peers, policies=False) if not peer.missing]
    results["survivors"] = curves.record(cases.CURVES_SURVIVORS, peers_run, options, show)


def run_latency(results, options, all_peers, show):
    """run_latency judges the policies of Ebb against never."""
    ebb = [peer for peer in all_peers if peer.name == "ebb"]
    if not ebb or ebb[0].missing:
        results["skipped"].append({"case": "latency", "why": "no ebb to measure"})
        return
    results["latency"] = latency.record(ebb[0], options, show)
    results["verdicts"] = latency.verdicts(results["latency"])


def run_overhead(results, options, all_peers, show):
    """run_overhead sets Ebb beside itself without the heap profile."""
    ebb = [peer for peer in all_peers if peer.name == "ebb" and not peer.missing]
    if not ebb or not shutil.which("valgrind"):
        results["skipped"].append({"case": "overhead", "why": "no ebb to measure" if not ebb else
                                   "valgrind is missing, which counts instructions"})
        return
    pair = overhead.variants(ebb[0])
    results["peers"] = [peer.describe() for peer in pair]
    results["options"]["best_of"] = options.best_of = ["off"]
    chosen = [case for case in cases.choose(options.only) if case.program
              and os.path.exists(os.path.join(options.bindir, case.program))]
    results["overhead"] = overhead.record(chosen, ebb[0], options, show)
    results["overhead_verdicts"] = overhead.verdicts(results["overhead"])
    run_series(results, options, pair, show)


def draw(json_path, svg_path, show, program="picture.py"):
    """draw runs picture.py; where this Python lacks matplotlib, the system's may have it."""
    script = os.path.join(FOLDER, program)
    text = "no Python"
    for python in dict.fromkeys([sys.executable, "/usr/bin/python3"]):
        try:
            done = subprocess.run([python, script, json_path, svg_path], text=True,
                                  capture_output=True, check=False)
        except OSError:
            continue
        if done.returncode == 0:
            return svg_path
        text = done.stderr.strip().splitlines()[-1:] or [f"status {done.returncode}"]
        text = text[0]
    show.note(f"no picture of the curves: {text} (package python3-matplotlib)")
    return None


def prepare(options, show):
    """prepare touches free memory once; returns the bytes touched."""
    if not options.touch or options.smoke:
        return 0
    limit, seconds = (2 << 30, 5) if options.quick else (12 << 30, 60)
    show.step_text("touching free memory")
    return machine.touch_free_memory(limit, seconds)


def main():
    """main runs the parts asked for and writes tables, JSON and picture."""
    options = read_options()
    all_peers = peers.choose(options.ebb, options.peer, options.peer_env, options.peers)
    if options.suite != "policy":
        cases.choose(options.only)
    present = [peer for peer in all_peers if not peer.missing]
    show = progress.Progress(options.rounds)
    show.line(f"order seed {options.seed}; {options.rounds} rounds of size {options.size}; "
              f"peers: {', '.join(peer.name for peer in present)}")
    results = {"format": 1, "machine": machine.facts(PROJECT), "options": vars(options).copy(),
               "peers": [peer.describe() for peer in all_peers], "macro": [], "micro": [],
               "runs": [], "failures": [], "skipped": [], "summary": {}, "curves": [],
               "policy": [], "survivors": [], "latency": [], "overhead": []}
    load = results["machine"]["load_average"][0]
    if load > results["machine"]["processors"] / 2:
        show.note(f"the machine is busy (load average {load:.1f}): times will spread")
    results["touched_bytes"] = prepare(options, show)
    if options.suite in ("speed", "all"):
        run_series(results, options, present, show)
    if options.suite in ("curve", "all"):
        run_curves(results, options, present, show)
    if options.suite == "policy":
        run_policies(results, options, all_peers, show)
    if options.suite == "survivors" or (options.suite == "policy" and not options.only):
        run_survivors(results, options, all_peers, show)
    if options.suite == "latency":
        run_latency(results, options, all_peers, show)
    if options.suite == "overhead":
        run_overhead(results, options, all_peers, show)
    return finish(results, options, show)


def finish(results, options, show):
    """finish writes tables, JSON and pictures; returns the exit status."""
    results["load_average_end"] = os.getloadavg()
    os.makedirs(options.out, exist_ok=True)
    json_path = os.path.join(options.out, "results.json")
    with open(json_path, "w", encoding="utf-8") as file:
        json.dump(results, file, indent=1)
        file.write("\n")
    show.clear()
    parts = [tables.report(results), waves_tables.report(results)]
    if options.suite == "overhead":
        parts = [overhead.report(results), tables.missing_lines(results)]
    print("\n\n".join(text for text in parts if text))
    print(f"\nresults: {json_path}")
    if results["curves"]:
        svg_path = draw(json_path, os.path.join(options.out, "curves.svg"), show)
        if svg_path:
            print(f"picture: {svg_path}")
    if results["policy"]:
        svg_path = draw(json_path, os.path.join(options.out, "policies.svg"), show,
                        "waves_picture.py")
        if svg_path:
            print(f"picture: {svg_path}")
    parts = ("curves", "policy", "survivors", "latency", "overhead")
    broken = results["failures"] or any(run.get("failure")
                                        for part in parts for run in results[part])
    return 1 if broken else 0


if __name__ == "__main__":
    # An end from outside still runs the clean-ups: children, cgroups, the redis server.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sys.exit(main())
    except ValueError as error:
        sys.exit(f"run.py: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
