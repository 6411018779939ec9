# SPDX-License-Identifier: MIT
"""Overhead: what the heap profile costs that is always on.

Model
  Each program of the speed suite runs under Ebb as it comes ("ebb") and with profile_rate=0
  ("off"). Two measures of the same runs' work:
    instructions  cachegrind counts those of the whole process and its children, start to end;
                  median of the rounds. Threads take turns there, and one that waits for another
                  spins, so a case with threads may count differently each time: its range is shown
    time          the speed suite with these two peers, beside: it says what is lost to caches too
  redis is not counted, since a server's instructions depend on when requests arrive: its processor
  time stands for it.
  The targets are DESIGN's: every case below 2 %, the geometric mean below 0.5 %. A case is met if
  its whole range is below, missed if its whole range is above, else it cannot be said.

Go  none
"""

import os
import re
import statistics
import subprocess
import tempfile

import figures
import tables

CASE_LIMIT = 1.02
MEAN_LIMIT = 1.005
RUN_SECONDS_MAX = 900
# The default is spelt out, so that both read an option when they start.
OFF = {"EBB": "profile_rate=0"}
ON = {"EBB": "profile_rate=524288"}
# It does little but wait for the clock.
UNCOUNTED = ("latency",)


def variants(ebb):
    """variants: Ebb with and without the profile."""
    return [ebb.variant("off", OFF), ebb.variant("ebb", ON)]


def count(case, peer, options):
    """count returns instructions of a run, or a text that says what went wrong."""
    with tempfile.TemporaryDirectory(prefix="ebb-overhead-") as folder:
        command = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--trace-children=yes",
                   "--fair-sched=try",
                   f"--cachegrind-out-file={folder}/%p", "--log-file=/dev/null",
                   os.path.join(options.bindir, case.program)] + case.arguments(options.size)
        try:
            done = subprocess.run(command, env=peer.environment(), text=True, capture_output=True,
                                  timeout=RUN_SECONDS_MAX, check=False)
        except (subprocess.TimeoutExpired, OSError) as error:
            return str(error)
        if done.returncode != 0:
            return f"status {done.returncode}: {done.stderr.strip()[-100:]}"
        total = 0
        for name in os.listdir(folder):
            with open(os.path.join(folder, name), encoding="utf-8") as file:
                total += sum(int(n) for n in re.findall(r"(?m)^summary:\s+(\d+)", file.read()))
        return total or "cachegrind has counted nothing"


def record(cases, ebb, options, progress):
    """record the instructions of all rounds: one dict per run, as runner.Series keeps them."""
    runs = []
    for round_index in range(options.rounds):
        for case in cases:
            if case.name in UNCOUNTED:
                continue
            for peer in variants(ebb):
                progress.step_text(f"instructions: round {round_index + 1}, {case.name} "
                                   f"{peer.name}")
                found = count(case, peer, options)
                run = {"case": case.name, "peer": peer.name, "round": round_index}
                if isinstance(found, str):
                    progress.note(f"{case.name} under {peer.name}: {found}")
                    run["failure"] = found
                else:
                    run["instructions"] = found
                runs.append(run)
        progress.round_done(round_index)
    return runs


def judge(low, high, limit):
    """judge a range of ratios against a limit."""
    if high < limit:
        return "met"
    return "missed" if low >= limit else "cannot say"


def ratios(series, case):
    """ratios of each round, on over off."""
    off, ebb = series.cell(case, "off") or {}, series.cell(case, "ebb") or {}
    return [ebb[index] / off[index] for index in sorted(off) if index in ebb]


def verdicts(runs):
    """verdicts: a row per case, and the mean."""
    series = figures.Series(runs, "instructions")
    rows = []
    for case in series.values:
        found = ratios(series, case)
        if found:
            rows.append({"case": case, "instructions": series.median(case, "off"),
                         "ratio": statistics.median(found), "low": min(found),
                         "high": max(found), "limit": CASE_LIMIT,
                         "verdict": judge(min(found), max(found), CASE_LIMIT)})
    if rows:
        means = [figures.geometric_mean([row[key] for row in rows])
                 for key in ("ratio", "low", "high")]
        rows.append({"case": "geometric mean", "instructions": None, "ratio": means[0],
                     "low": means[1], "high": means[2], "limit": MEAN_LIMIT,
                     "verdict": judge(means[1], means[2], MEAN_LIMIT)})
    return rows


def time_of(results, case):
    """time_of a case: its entries of time and of processor time, None where there is none."""
    cells = []
    for quantity in ("seconds", "cpu_seconds"):
        summary = results["summary"].get(quantity, {}).get(case)
        entry = summary["peers"].get("ebb") if summary else None
        cells.append(entry)
    return cells


def report(results):
    """report is the table of this suite, "" if it was not run."""
    if not results["overhead"]:
        return ""
    rows = [["heap profile on / off", "instructions, off", "on / off", "range", "limit", "verdict",
             "time", "processor time"]]
    judged = {row["case"]: row for row in results["overhead_verdicts"]}
    names = [name for name in judged if name != "geometric mean"]
    names += [name for name in results["summary"].get("seconds", {}) if name not in judged]
    for name in names:
        rows.append(count_cells(name, judged.get(name))
                    + [tables.ratio_cell(entry) for entry in time_of(results, name)])
    if "geometric mean" in judged:
        overall = results["summary"].get("overall", {})
        cells = []
        for quantity in ("seconds", "cpu_seconds"):
            entry = overall.get(quantity, {}).get("peers", {}).get("ebb")
            cells.append("-" if entry is None else f"{entry['vs_case_best']:.3f} "
                         f"{tables.limits(entry['vs_case_best_95'])}".rstrip())
        rows.append(count_cells("geometric mean", judged["geometric mean"]) + cells)
    return (tables.aligned(rows) + "\n(instructions of whole processes by cachegrind, median and "
            "range of the rounds; off: profile_rate=0.\n time: ratio of the medians, in brackets "
            "the 95 % interval, below 5 rounds the range of the rounds)")


def count_cells(name, row):
    """count_cells: the first columns of a line."""
    if row is None:
        return [name, "-", "-", "-", "-", "-"]
    millions = "" if row["instructions"] is None else f"{row['instructions'] / 1e6:,.1f} M"
    return [name, millions, f"{row['ratio']:.4f}", f"{row['low']:.4f}-{row['high']:.4f}",
            f"{row['limit']:.3f}", row["verdict"]]
