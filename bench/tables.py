# SPDX-License-Identifier: MIT
"""Tables: the text a person reads, made from the results.

Go  none
"""

import figures

MIB = 1 << 20

# Micro benches whose figure is not seconds per operation: the fields to show, and their rows.
MICRO_FIELDS = {
    "cxx-shared": [(f"{what}_{phase}_ns", f"{what}, {phase} a peak")
                   for what in ("shared_ptr", "putc", "iostream")
                   for phase in ("before", "after")],
    "latency": [("late_median_ns", "latency, median"), ("late_p99_ns", "latency, 99 %"),
                ("late_p999_ns", "latency, 99.9 %"), ("late_max_ns", "latency, maximum")],
}


def aligned(rows, left=1):
    """aligned joins rows of cells; the first left columns to the left, the rest to the right."""
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.ljust(widths[i]) if i < left else cell.rjust(widths[i])
                 for i, cell in enumerate(row)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def number(value):
    """number with three significant figures."""
    if value >= 100:
        return f"{value:.0f}"
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= 1 else f"{value:.3f}"


def either(entry, key):
    """either the 95 % interval, or, with too few rounds for one, the range over the rounds."""
    return entry[f"{key}_95"] or entry[f"{key}_range"]


def limits(pair):
    """limits of an interval, or nothing when there is none."""
    return f"[{pair[0]:.2f} {pair[1]:.2f}]" if pair else ""


def median_cell(entry, scale):
    """median_cell: the median with half its quartile range in percent, if there is a range."""
    if entry is None:
        return "failed"
    return with_spread(number(entry["median"] * scale), entry)


def with_spread(text, entry):
    """with_spread adds half the quartile range in percent of the median."""
    if entry["rounds"] < 2 or not entry["median"]:
        return text
    half = (entry["quartile_high"] - entry["quartile_low"]) / 2
    return f"{text} ±{100 * half / entry['median']:2.0f}%"


def ratio_cell(entry):
    """ratio_cell: the ratio to the best and its interval."""
    if entry is None or entry.get("ratio") is None:
        return "-"
    return f"{entry['ratio']:.2f} {limits(either(entry, 'ratio'))}".rstrip()


def quantity_table(results, quantity, title, names, cell):
    """quantity_table: one row per case, one column per peer, cells by the function given."""
    peers = results["peers"]
    rows = [[title] + [peer["name"] for peer in peers]]
    for name in names:
        entries = results["summary"][quantity][name]["peers"]
        rows.append([name] + [absent_cell(peer) or cell(entries.get(peer["name"]))
                              for peer in peers])
    return aligned(rows)


def absent_cell(peer):
    """absent_cell: why a peer has no numbers, short enough for a column; None if it has."""
    if not peer["missing"]:
        return None
    return peer["missing"].partition(" (")[0] if len(peer["missing"]) < 40 else "missing"


def overall_rows(results, quantity, title):
    """overall_rows: the geometric means of one quantity."""
    overall = results["summary"]["overall"][quantity]
    rows = []
    for key, text in (("vs_case_best", "best of each case"), ("vs_best_peer", "best peer")):
        row = [f"{title}, to the {text}"]
        for peer in results["peers"]:
            entry = overall["peers"].get(peer["name"])
            if entry is None or entry[key] is None:
                row.append("-")
            else:
                row.append(f"{entry[key]:.3f} {limits(entry[f'{key}_95'])}".rstrip())
        rows.append(row)
    return rows


def overall_table(results):
    """overall_table: geometric means over all macro cases that every peer has run."""
    rows = [["geometric mean"] + [peer["name"] for peer in results["peers"]]]
    rows += overall_rows(results, "seconds", "time")
    rows += overall_rows(results, "cpu_seconds", "processor time")
    rows += overall_rows(results, "peak_rss_bytes", "peak RSS")
    count = len(results["summary"]["overall"]["seconds"]["cases"])
    return aligned(rows) + f"\n({count} cases that every peer has run)"


def losing_lines(results):
    """losing_lines: where ebb is more than 5 % above the best, or without it, nothing."""
    lines = []
    for peer in results["peers"]:
        if peer["missing"] or peer["name"] in results["options"]["best_of"]:
            continue
        for quantity, title in (("seconds", "slower"), ("peak_rss_bytes", "larger")):
            macro = {name: summary for name, summary in results["summary"][quantity].items()
                     if name in results["macro"]}
            found = figures.losing(macro, peer["name"])
            text = ", ".join(f"{case} {ratio:.2f}" for ratio, case in found) or "none"
            lines.append(f"{peer['name']} {title} than the best by more than 5 %: {text}")
    return "\n".join(lines)


def micro_table(results, names):
    """micro_table: nanoseconds per operation."""
    peers = [peer for peer in results["peers"] if not peer["missing"]]
    rows = [["micro (ns per operation)"] + [peer["name"] for peer in peers]]
    for name in names:
        for key, title in MICRO_FIELDS.get(name, [(None, name)]):
            rows.append([title] + [micro_cell(results, name, peer["name"], key)
                                   for peer in peers])
    return aligned(rows)


def micro_cell(results, case, peer, key):
    """micro_cell: median ± half the quartile range."""
    runs = [run for run in results["runs"] if run["case"] == case and run["peer"] == peer]
    if not runs:
        return "failed"
    values = [run[key] if key else run["seconds"] * 1e9 / run["operations"] for run in runs]
    entry = figures.spread(values)
    return with_spread(number(entry["median"]), entry)


def curve_row(result):
    """curve_row of one recording."""
    figure = result["summary"]
    if figure is None:
        return [result["curve"], result["peer"], "failed: " + str(result["failure"])] + [""] * 8
    charge = figure["cgroup_last_bytes"]
    lazy = figure["lazyfree_last_bytes"]
    ratio = figure["vs_survivor_pages"]
    return [
        result["curve"], result["peer"], f"{figure['peak_bytes'] / MIB:.0f}",
        f"{figure['last_bytes'] / MIB:.1f}",
        f"{charge / MIB:.1f}" if charge is not None else "-",
        f"{lazy / MIB:.1f}" if lazy is not None else "-",
        f"{figure['live_bytes'] / MIB:.1f}", f"{figure['over_live_bytes'] / MIB:+.1f}",
        f"{ratio:.2f}" if ratio is not None else "-",
        f"{figure['idle_cpu_seconds'] * 1000:.0f}", str(figure["late_switches"]),
    ]


def curve_table(results):
    """curve_table: one row per curve and peer, sizes in MiB at the end of the rest."""
    rows = [["curve", "peer", "peak", "RSS", "cgroup", "lazy", "live", "over live", "x pages",
             "cpu ms", "switches"]]
    rows += [curve_row(result) for result in results["curves"]]
    return (aligned(rows, left=2) +
            "\n(MiB when the rest ends. over live: RSS - RSS before the load - survivors. "
            "x pages: RSS\n over the pages that hold a survivor. cpu: while at rest. "
            "switches: in the last 3 s of it)")


def missing_lines(results):
    """missing_lines: peers without numbers, and failures."""
    lines = [f"{peer['name']}: {peer['missing']}" for peer in results["peers"] if peer["missing"]]
    lines += [f"{f['case']} under {f['peer']} failed in round {f['round'] + 1}: {f['why']}"
              for f in results["failures"]]
    lines += [f"{s['case']}: skipped, {s['why']}" for s in results["skipped"]]
    return "\n".join(lines)


def legend(results):
    """legend of the four tables above it."""
    present = {peer["name"] for peer in results["peers"] if not peer["missing"]}
    best = ", ".join(name for name in results["options"]["best_of"] if name in present)
    rounds = results["rounds"]
    if rounds == 1:
        return f"(one round; best: the lowest of {best})"
    brackets = "the 95 % interval"
    if rounds < figures.INTERVAL_ROUNDS_MIN:
        brackets = "the lowest and highest of a round"
    return (f"(medians of {rounds} rounds; ±: half the range between the quartiles; in brackets "
            f"{brackets};\n best: the lowest median of {best})")


def macro_tables(results, names):
    """macro_tables: medians and ratios of both quantities, the means, and what is lost."""
    parts = [
        quantity_table(results, "seconds", "time (s)", names, lambda e: median_cell(e, 1)),
        quantity_table(results, "seconds", "time, ratio to the best", names, ratio_cell),
        quantity_table(results, "peak_rss_bytes", "peak RSS (MiB)", names,
                       lambda e: median_cell(e, 1 / MIB)),
        quantity_table(results, "peak_rss_bytes", "peak RSS, ratio to the best", names,
                       ratio_cell),
        legend(results),
        overall_table(results), losing_lines(results),
    ]
    return parts


def report(results):
    """report: everything, in the order a reader wants it."""
    parts = []
    if results["runs"]:
        macro = [name for name in results["macro"] if name in results["summary"]["seconds"]]
        micro = [name for name in results["micro"] if name in results["summary"]["seconds"]]
        if macro:
            parts += macro_tables(results, macro)
        if micro:
            parts.append(micro_table(results, micro))
    if results["curves"]:
        parts.append(curve_table(results))
    parts.append(missing_lines(results))
    return "\n\n".join(part for part in parts if part)
