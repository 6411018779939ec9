#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""compare.py says what changed between two result files of run.py.

    bench/compare.py before.json after.json              every peer that is in both
    bench/compare.py before.json after.json --peer ebb
    bench/compare.py before.json after.json --peer ebb --relative-to glibc

Each row has both medians with their spread, the ratio after / before with its 95 % interval, and a
verdict. A difference is claimed only if the interval does not hold 1 and the ranks of the single
values agree (two-sided, 1 %, so that a table of 25 rows is right three times out of four). All else
is "no difference", and with less than 5 rounds on a side nothing can be said.
With --relative-to every figure is first divided by that peer's in the same round: what the machine
did to all of them between the two files falls out.

Go  none
"""

import argparse
import json
import random
import statistics
import sys

import figures
import tables

NO_DIFFERENCE = "no difference"
CANNOT_SAY = "too few rounds: cannot say"
PROBABILITY_MAX = 0.01
QUANTITIES = (("seconds", "time (s)", 1), ("cpu_seconds", "processor time (s)", 1),
              ("peak_rss_bytes", "peak RSS (MiB)", 1 / tables.MIB))


def read_results(path):
    """read_results of run.py; anything else is refused in a sentence."""
    try:
        with open(path, encoding="utf-8") as file:
            results = json.load(file)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
    if not isinstance(results, dict) or results.get("format") != 1 or not results.get("runs"):
        raise ValueError(f"{path}: no runs of run.py in it")
    return results


def values_of(results, quantity, relative_to):
    """values_of a file: {(case, peer): [value, ...]} in the order of rounds."""
    series = figures.Series(results["runs"], quantity)
    found = {}
    for case, by_peer in series.values.items():
        base = by_peer.get(relative_to) if relative_to else None
        for peer, by_round in by_peer.items():
            if relative_to is None:
                found[case, peer] = [by_round[r] for r in sorted(by_round)]
            elif base:
                shared = [r for r in sorted(by_round) if r in base]
                found[case, peer] = [by_round[r] / base[r] for r in shared]
    return {key: values for key, values in found.items() if values}


def ratio_interval(before, after):
    """ratio_interval of the medians after / before, by drawing both sides with replacement."""
    if min(len(before), len(after)) < figures.INTERVAL_ROUNDS_MIN:
        return None
    source = random.Random(figures.BOOTSTRAP_SEED)
    draws = []
    for _ in range(figures.BOOTSTRAP_DRAWS):
        old = statistics.median(source.choices(before, k=len(before)))
        new = statistics.median(source.choices(after, k=len(after)))
        draws.append(new / old)
    return figures.interval(draws)


def rank_probability(before, after):
    """rank_probability: how likely ranks as uneven as these are if nothing changed.

    The rank sum of Wilcoxon, two-sided and exact: counts[k][s] is the number of ways to choose k of
    the first ranks with sum s. Ties share their mean rank, which makes the answer a little too
    large, that is careful.
    """
    pooled = sorted(before + after)
    rank = {value: pooled.index(value) + (pooled.count(value) + 1) / 2 for value in set(pooled)}
    total, chosen = len(pooled), len(after)
    counts = [[0] * (total * total + 1) for _ in range(chosen + 1)]
    counts[0][0] = 1
    for r in range(1, total + 1):
        for k in range(min(r, chosen), 0, -1):
            for s in range(r, total * total + 1):
                counts[k][s] += counts[k - 1][s - r]
    middle = chosen * (total + 1) / 2
    distance = abs(sum(rank[value] for value in after) - middle)
    far = sum(n for s, n in enumerate(counts[chosen]) if abs(s - middle) >= distance - 1e-9)
    return far / sum(counts[chosen])


def verdict(ratio, interval, probability, words):
    """verdict in words; words are those for less and for more."""
    if interval is None:
        return CANNOT_SAY
    if interval[0] <= 1 <= interval[1] or probability > PROBABILITY_MAX:
        return NO_DIFFERENCE
    percent = abs(ratio - 1) * 100
    return f"{percent:.1f} % {words[0] if ratio < 1 else words[1]}"


def row_of(name, before, after, scale, words):
    """row_of one case under one peer."""
    ratio = statistics.median(after) / statistics.median(before)
    interval = ratio_interval(before, after)
    return [name[0], name[1],
            tables.median_cell(figures.spread(before), scale),
            tables.median_cell(figures.spread(after), scale),
            f"{ratio:.3f} {tables.limits(interval)}".rstrip(),
            verdict(ratio, interval, rank_probability(before, after), words)]


def compare(before, after, quantity, title, scale, peers, relative_to):
    """compare one quantity; returns the table, or None when the files share no case."""
    old = values_of(before, quantity, relative_to)
    new = values_of(after, quantity, relative_to)
    shared = [key for key in old if key in new and (not peers or key[1] in peers)
              and key[1] != relative_to]
    if not shared:
        return None
    words = ("smaller", "larger") if quantity == "peak_rss_bytes" else ("faster", "slower")
    if relative_to:
        title, scale = f"{title.partition(' (')[0]} / that of {relative_to}", 1
    rows = [[title, "peer", "before", "after", "after / before", ""]]
    rows += [row_of(key, old[key], new[key], scale, words) for key in shared]
    changed = sum(1 for row in rows[1:] if row[5] not in (NO_DIFFERENCE, CANNOT_SAY))
    text = tables.aligned(rows, left=2)
    return f"{text}\n{changed} of {len(shared)} differ"


def warnings(before, after):
    """warnings: what makes two files hard to compare."""
    lines = []
    for key in ("cpu", "processors", "kernel", "memory_bytes", "libc", "huge_pages"):
        old, new = before["machine"].get(key), after["machine"].get(key)
        if old != new:
            lines.append(f"not the same machine: {key} was {old}, is {new}")
    if before["options"].get("size") != after["options"].get("size"):
        lines.append(f"not the same size: {before['options'].get('size')}, "
                     f"{after['options'].get('size')}: times cannot be compared")
    for path, results in (("before", before), ("after", after)):
        load = results["machine"]["load_average"][0]
        if load > results["machine"]["processors"] / 2:
            lines.append(f"the machine was busy {path}: load average {load:.1f}")
    return lines


def main():
    """main prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("before")
    parser.add_argument("after")
    parser.add_argument("--peer", action="append", default=[])
    parser.add_argument("--relative-to", metavar="PEER")
    options = parser.parse_args()
    before, after = read_results(options.before), read_results(options.after)
    for line in warnings(before, after):
        print(f"note: {line}")
    parts = [compare(before, after, quantity, title, scale, options.peer, options.relative_to)
             for quantity, title, scale in QUANTITIES]
    parts = [part for part in parts if part]
    if not parts:
        raise ValueError("the files share no case and peer")
    print("\n\n".join(parts))


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"compare.py: {error}")
