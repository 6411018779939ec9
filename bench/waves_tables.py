# SPDX-License-Identifier: MIT
"""Waves tables: the text a person reads of the suites policy, survivors and latency.

Go  none
"""

import statistics

import latency
import waves
from tables import aligned

MIB = 1 << 20
PAGE_BYTES = 4096
SURVIVOR_FACTOR = 1.15
SURVIVOR_ROOM_BYTES = 8 * MIB


def mib(value):
    """mib of a number of bytes, or a dash."""
    return "-" if value is None else f"{value / MIB:.0f}"


def milliseconds(value):
    """milliseconds of seconds, or a dash."""
    return "-" if value is None else f"{value * 1000:.0f}"


def load_row(name, entry, note):
    """load_row of one peer under one load."""
    return [name, mib(entry["peak_bytes"]), mib(entry["mean_bytes"]), mib(entry["rss_10s_bytes"]),
            mib(entry["last_bytes"]), mib(entry["lazyfree_last_bytes"]),
            f"{entry['held_byte_seconds'] / waves.GIB_SECOND:.2f}",
            f"{entry['cpu_seconds']:.2f}", f"{entry['faults'] / 1000:.0f}",
            milliseconds(entry["first_grow_seconds"]), milliseconds(entry["later_grow_seconds"]),
            milliseconds(entry["free_seconds"]), note]


def note_of(load, peer):
    """note_of what a number does not show by itself."""
    if peer in ("ebb go1.11", "ebb go1.12") and load["seconds"] < 460:
        return "its 5 minutes are not over"
    return ""


def policy_tables(results):
    """policy_tables: one table per load, peers in the order of the lineup."""
    cells = waves.medians(results["policy"])
    parts = []
    head = ["peak", "mean", "10 s", "end", "lazy", "held", "cpu", "faults", "grow 1", "grow",
            "free", ""]
    for load in results["loads"]:
        rows = [["RSS in MiB:"] + head]
        for peer in results["lineup"]:
            entry = cells.get((load["name"], peer["name"]))
            if entry:
                rows.append(load_row(peer["name"], entry, note_of(load, peer["name"])))
        if len(rows) > 1:
            parts.append(f"{load['name']}: {load['text']}; {load['percent']} % of the blocks "
                         f"survive\n{aligned(rows)}")
    rounds = max([recording["round"] for recording in results["policy"]], default=0) + 1
    parts.append(f"(medians of {rounds} rounds. peak: VmHWM. mean: over the whole load. 10 s, end: "
                 "10 s after the last\n freeing, when the last rest ends. lazy: of that, given "
                 "away lazily. held: GiB x s of RSS beyond\n RSS before and live bytes. cpu: s. "
                 "faults: thousands. grow 1, grow, free: ms of the first\n growth, the later ones, "
                 "a freeing)")
    return parts


def survivor_rows(results):
    """survivor_rows: one per curve and peer."""
    rows = [["1 % survive", "peer", "peak", "10 s", "over RSS before", "pages", "bound", ""]]
    for result in results["survivors"]:
        figure = result["summary"]
        if figure is None:
            rows.append([result["curve"], result["peer"], "failed"] + [""] * 5)
            continue
        grown = figure["last_bytes"] - result["start"]["rss_bytes"]
        pages = figure["survivor_page_bytes"]
        bound = SURVIVOR_FACTOR * pages + SURVIVOR_ROOM_BYTES
        rows.append([result["curve"], result["peer"], mib(figure["peak_bytes"]),
                     mib(figure["last_bytes"]), mib(grown), mib(pages), mib(bound),
                     "within" if grown <= bound else f"{grown / bound:.2f} x the bound"])
    return rows


def survivor_table(results):
    """survivor_table with its legend."""
    return (aligned(survivor_rows(results), left=2) +
            f"\n(MiB. peak of {results['options']['curve_mib']} MiB, 1 % of the blocks kept at "
            "random, all others freed. over RSS before: 10 s later,\n minus RSS before the load. "
            "pages: of 4 KiB, that hold a survivor. bound: 1.15 x pages + 8 MiB)")


def microseconds(value):
    """microseconds of ns, with three figures."""
    return f"{value / 1000:,.0f}" if abs(value) >= 10_000 else f"{value / 1000:.1f}"


def latency_figures(results):
    """latency_figures: medians over the rounds, whole run and by what the other thread does."""
    runs = latency.rested(results["latency"])
    keys = [("late_median_ns", "median"), ("late_p99_ns", "99 %"), ("late_p999_ns", "99.9 %"),
            ("late_max_ns", "maximum")]
    keys += [(f"{phase}_{name}_ns", f"99.9 % while it {word}" if name == "p999" else
              f"maximum while it {word}")
             for phase, word in (("grow", "grows"), ("free", "frees"), ("rest", "rests"))
             for name in ("p999", "max")]
    rows = [["lateness in us"] + latency.POLICIES]
    for key, words in keys:
        row = [words]
        for policy in latency.POLICIES:
            values = [run[key] for run in runs if run["policy"] == policy]
            row.append(microseconds(statistics.median(values)) if values else "-")
        rows.append(row)
    return aligned(rows)


def verdict_rows(results, between):
    """verdict_rows: a row for each verdict; between joins the ends of an interval."""
    rows = []
    for entry in results["verdicts"]:
        pair = entry["interval"]
        median = "-" if entry["median"] is None else microseconds(entry["median"])
        interval = between.join(microseconds(end) for end in pair) if pair else "-"
        rows.append([entry["policy"], entry["words"], median, interval,
                     microseconds(entry["target_ns"]), entry["verdict"]])
    return rows


def latency_tables(results):
    """latency_tables: the figures and the verdicts."""
    rows = [["above never, in us", "figure", "median", "95 %", "target", ""],
            *verdict_rows(results, " .. ")]
    counted = len({run["round"] for run in latency.rested(results["latency"])})
    rounds = f"{counted} of {results['options']['rounds']}"
    plain = [run for run in results["latency"] if not run.get("realtime")]
    how = ("without SCHED_FIFO: what it waits for is mostly the scheduler" if plain else
           "the thread with the requests had SCHED_FIFO")
    return [latency_figures(results),
            aligned(rows, left=2) + f"\n(medians of {rounds} rounds: those in which the other "
            f"thread had time to rest; differences are\n taken within a round; {how})"]


def report(results):
    """report of the three suites, as far as they were run."""
    parts = []
    if results.get("policy"):
        parts += policy_tables(results)
    if results.get("survivors"):
        parts.append(survivor_table(results))
    if results.get("latency"):
        parts += latency_tables(results)
    return "\n\n".join(parts)
