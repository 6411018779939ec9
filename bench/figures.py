# SPDX-License-Identifier: MIT
"""Figures: medians, spreads, ratios to the best peer and their 95 % intervals. No I/O.

Rounds are interleaved: in each, every peer runs every case once. So a bootstrap draws whole rounds
with replacement, and what disturbed a round disturbs all peers of the draw alike. Below
INTERVAL_ROUNDS_MIN rounds no interval is given: draws of three values know too little to hold 95 %
of anything. What stands in its place is the range of the ratio over the rounds.

Go  none
"""

import math
import random
import statistics

BOOTSTRAP_DRAWS = 1000
BOOTSTRAP_SEED = 20210816
INTERVAL_ROUNDS_MIN = 5


def quantile(values, q):
    """quantile by linear interpolation between the sorted values."""
    ordered = sorted(values)
    place = q * (len(ordered) - 1)
    low = math.floor(place)
    high = math.ceil(place)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def spread(values):
    """spread of one series: median, quartiles, extremes and how many."""
    return {"median": statistics.median(values), "quartile_low": quantile(values, 0.25),
            "quartile_high": quantile(values, 0.75), "min": min(values), "max": max(values),
            "rounds": len(values)}


def geometric_mean(values):
    """geometric_mean of positive numbers."""
    return math.exp(sum(math.log(value) for value in values) / len(values))


class Series:
    """The runs of one quantity: values[case][peer][round]."""

    def __init__(self, runs, quantity):
        self.values = {}
        for run in runs:
            if quantity not in run:
                continue
            cell = self.values.setdefault(run["case"], {}).setdefault(run["peer"], {})
            cell[run["round"]] = run[quantity]

    def cell(self, case, peer):
        """cell returns the values by round, or None."""
        return self.values.get(case, {}).get(peer)

    def median(self, case, peer, rounds=None):
        """median over the drawn rounds; those a peer has not run are left out."""
        cell = self.cell(case, peer)
        if not cell:
            return None
        if rounds is None:
            return statistics.median(cell.values())
        drawn = [cell[r] for r in rounds if r in cell]
        return statistics.median(drawn) if drawn else None

    def best_peer(self, case, references):
        """best_peer is the reference with the lowest median of a case, or None."""
        found = [(self.median(case, peer), peer) for peer in references if self.cell(case, peer)]
        return min(found)[1] if found else None


def interval(draws):
    """interval that holds 95 % of the draws; None when there are too few to say."""
    usable = [draw for draw in draws if draw is not None]
    if len(usable) < BOOTSTRAP_DRAWS // 2:
        return None
    return [quantile(usable, 0.025), quantile(usable, 0.975)]


def draw_rounds(round_count, seed=BOOTSTRAP_SEED):
    """draw_rounds yields bootstrap draws of round numbers, the same ones on every call."""
    source = random.Random(seed)
    for _ in range(BOOTSTRAP_DRAWS):
        yield [source.randrange(round_count) for _ in range(round_count)]


def round_range(ratios):
    """round_range: lowest and highest of the rounds' own ratios; None below two of them."""
    usable = [ratio for ratio in ratios if ratio is not None]
    return [min(usable), max(usable)] if len(usable) > 1 else None


def ratio_in(series, case, peer, best, rounds=None):
    """ratio_in is median over median of the best peer, or None."""
    own = series.median(case, peer, rounds)
    other = series.median(case, best, rounds)
    return own / other if own is not None and other else None


def case_summary(series, case, peers, references, round_count):
    """case_summary: per peer the spread, the ratio to the best reference and its interval."""
    best = series.best_peer(case, references)
    result = {"best": best, "peers": {}}
    for peer in peers:
        cell = series.cell(case, peer)
        if not cell:
            continue
        entry = spread(list(cell.values()))
        if best is not None:
            entry["ratio"] = ratio_in(series, case, peer, best)
            entry["ratio_range"] = round_range(
                [ratio_in(series, case, peer, best, [r]) for r in range(round_count)])
            entry["ratio_95"] = None
            if round_count >= INTERVAL_ROUNDS_MIN:
                entry["ratio_95"] = interval(
                    [ratio_in(series, case, peer, best, rounds)
                     for rounds in draw_rounds(round_count)])
        result["peers"][peer] = entry
    return result


def mean_ratio(series, cases, peer, best_of, rounds=None):
    """mean_ratio is the geometric mean of a peer's ratios to the best of each case."""
    ratios = [ratio_in(series, case, peer, best_of[case], rounds) for case in cases]
    if not ratios or any(ratio is None for ratio in ratios):
        return None
    return geometric_mean(ratios)


def overall(series, cases, peers, references, round_count):
    """overall: geometric means over the cases that every present peer has run.

    vs_case_best   ratio to the best reference case by case: 1.00 means best everywhere
    vs_best_peer   the same divided by that of the reference with the lowest mean
    """
    present = [peer for peer in peers if any(series.cell(case, peer) for case in cases)]
    shared = [case for case in cases if all(series.cell(case, peer) for peer in present)]
    best_of = {case: series.best_peer(case, references) for case in shared}
    shared = [case for case in shared if best_of[case] is not None]
    result = {"cases": shared, "peers": {}, "best_peer": None}
    means = {peer: mean_ratio(series, shared, peer, best_of) for peer in present}
    known = [(means[peer], peer) for peer in references if means.get(peer)]
    if not known:
        return result
    best = min(known)[1]
    result["best_peer"] = best
    many = draw_rounds(round_count) if round_count >= INTERVAL_ROUNDS_MIN else []
    drawn = mean_draws(series, shared, present, best_of, best, many)
    for peer in present:
        entry = {"vs_case_best": means[peer], "vs_best_peer": means[peer] / means[best]}
        for index, key in enumerate(("vs_case_best", "vs_best_peer")):
            entry[f"{key}_95"] = interval(drawn[peer][index])
        result["peers"][peer] = entry
    return result


def mean_draws(series, cases, present, best_of, best, draws):
    """mean_draws: per peer its two means in each draw of rounds."""
    result = {peer: ([], []) for peer in present}
    for rounds in draws:
        drawn = {peer: mean_ratio(series, cases, peer, best_of, rounds) for peer in present}
        for peer in present:
            result[peer][0].append(drawn[peer])
            both = drawn[peer] and drawn[best]
            result[peer][1].append(drawn[peer] / drawn[best] if both else None)
    return result


def losing(summaries, peer, limit=1.05):
    """losing lists (ratio, case) where peer is above limit times the best, worst first."""
    found = []
    for case, summary in summaries.items():
        ratio = summary["peers"].get(peer, {}).get("ratio")
        if ratio is not None and ratio > limit:
            found.append((ratio, case))
    return sorted(found, reverse=True)
