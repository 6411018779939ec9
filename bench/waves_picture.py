#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""waves_picture.py draws the suite policy: waves_picture.py results.json... policies.svg

Of several result files each gives the loads that no later one has; peaks with a short and with a
long rest are two loads.

One row per load. On the left Ebb under its policies, on the right the other allocators as they
come (solid) and at their best (dashed) beside Ebb's default. The grey area is what is live.
Drawn by matplotlib, into an SVG whose text stays text.

Go  none
"""

import json
import sys

import matplotlib

from picture_labels import spread_labels

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402  the backend has to be chosen first

from picture import COLOURS, GRID, INK, STYLE, draw_footer  # noqa: E402  needs the backend

MIB = 1 << 20
LABEL_GAP = 0.068
POLICY_COLOURS = {"go1.16": "#111111", "go1.19": "#8c8c8c", "go1.11": "#d55e00",
                  "go1.12": "#e69f00", "go1.13": "#0072b2", "decay": "#009e73",
                  "never": "#cc79a7", "now": "#56b4e9"}
KINDS = ["peak", "waves-5s", "waves-60s", "big-small-big"]
# go1.19 without a limit is go1.16: dashes let both be seen.
DASHED_POLICIES = ("go1.19", "go1.12")
DASHES = (0, (3, 2))


def style_of(peer):
    """style_of a line: colour, dashes, width, and the name in the picture."""
    if peer.startswith("ebb "):
        policy = peer[4:]
        return (POLICY_COLOURS.get(policy, INK), DASHES if policy in DASHED_POLICIES else "-",
                2.2 if policy == "go1.16" else 1.5, policy)
    name = peer.partition("+")[0]
    return COLOURS.get(name, "#7f7f7f"), DASHES if "+" in peer else "-", 1.5, peer


def first_round(results, load):
    """first_round of a load: {peer: recording}; medians of curves would be curves of nobody."""
    return {r["peer"]: r for r in results["policy"]
            if r["load"] == load and r["round"] == 0 and r["summary"]}


def thinned(samples, key, least):
    """thinned leaves out points within a level stretch, which no eye misses: (times, MiB)."""
    kept = []
    last = len(samples) - 1
    for index, sample in enumerate(samples):
        level = (0 < index < last and
                 abs(sample[key] - samples[index - 1][key]) < least and
                 abs(sample[key] - samples[index + 1][key]) < least)
        if not level or abs(sample[key] - kept[-1][key]) >= least:
            kept.append(sample)
    return [s["time"] for s in kept], [s[key] / MIB for s in kept]


def draw_panel(axes, recordings, peers, top, seconds):
    """draw_panel draws some peers of one load, with labels at the ends of the lines."""
    axes.set_xlim(0, seconds)
    axes.set_ylim(0, top)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    labels = []
    least = top * MIB / 500
    shown = [peer for peer in peers if peer in recordings]
    if shown:
        axes.fill_between(*thinned(recordings[shown[0]]["samples"], "live_bytes", least),
                          color="#e6e6e6", linewidth=0, zorder=1)
    for peer in shown:
        samples = recordings[peer]["samples"]
        colour, dashes, width, name = style_of(peer)
        axes.plot(*thinned(samples, "rss_bytes", least), color=colour,
                  linestyle=dashes, linewidth=width, zorder=3 + (width > 2))
        last = samples[-1]["rss_bytes"] / MIB
        labels.append((last, f"{name}  {last:.0f}", colour))
    heights = spread_labels([label[0] for label in labels], LABEL_GAP * top, 0.03 * top,
                            0.98 * top)
    for (size, text, colour), height in zip(labels, heights):
        axes.annotate(text, xy=(seconds, size), xytext=(seconds * 1.04, height), color=colour,
                      fontsize=8.5, va="center", annotation_clip=False,
                      arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6,
                                  "relpos": (0, 0.5), "shrinkA": 1, "shrinkB": 1})


def draw_row(row, load, recordings, peers):
    """draw_row draws both panels of a load to one scale."""
    sizes = [s["rss_bytes"] / MIB for r in recordings.values() for s in r["samples"]]
    top = 1.06 * max(sizes, default=1)
    seconds = max((r["samples"][-1]["time"] for r in recordings.values()), default=1)
    ours = [peer for peer in peers if peer.startswith("ebb ")]
    others = [peer for peer in peers if not peer.startswith("ebb ")]
    draw_panel(row[0], recordings, ours, top, seconds)
    draw_panel(row[1], recordings, others + ours[:1], top, seconds)
    if ours:
        label = row[1].texts[-1] if row[1].texts else None
        if label is not None and "ebb " + label.get_text().partition("  ")[0] == ours[0]:
            label.set_text("ebb " + label.get_text())
    title = f"{load['text']}; {load['percent']} % survive"
    row[0].set_title(f"{title}\nEbb, by policy", loc="left", fontsize=9.5, pad=6)
    row[1].set_title("other allocators: as they come, and at their best (dashed)", loc="left",
                     fontsize=9.5, pad=6)
    row[0].set_ylabel("resident size (MiB)")


def draw(results):
    """draw returns the figure."""
    loads = [load for load in results["loads"] if first_round(results, load["name"])]
    peers = [peer["name"] for peer in results["lineup"]]
    rows = len(loads)
    figure, grid = plt.subplots(rows, 2, figsize=(12.6, 2.75 * rows + 1.0), squeeze=False)
    for row, load in zip(grid, loads):
        draw_row(row, load, first_round(results, load["name"]), peers)
    for axes in grid[-1]:
        axes.set_xlabel("seconds since the load began")
    height = figure.get_figheight()
    figure.text(0.008, 1 - 0.28 / height, "Resident size over time, by policy and allocator",
                fontsize=13, weight="bold")
    figure.text(0.008, 1 - 0.5 / height,
                "Grey: bytes live. Numbers at the lines: MiB at the end.", fontsize=9)
    draw_footer(figure, results["machine"])
    figure.tight_layout(rect=(0, 0.25 / height, 0.995, 1 - 0.6 / height), h_pad=1.6, w_pad=2.5)
    return figure


def merged(files):
    """merged result files: the loads of all, in the order of the kinds."""
    result = dict(files[-1])
    by_name = {}
    for results in files:
        for load in results.get("loads", []):
            found = [r for r in results["policy"] if r["load"] == load["name"]]
            if found:
                key = load["name"]
                if load["kind"] == "peak":
                    key = f"{load['name']} of {load['period']} s"
                by_name[key] = (dict(load, name=key), [dict(r, load=key) for r in found])
    kept = sorted(by_name.values(), key=lambda pair: (KINDS.index(pair[0]["kind"]),
                                                      pair[0]["seconds"]))
    result["loads"] = [load for load, _ in kept]
    result["policy"] = [recording for _, found in kept for recording in found]
    return result


def main():
    """main reads the result files and writes the picture."""
    if len(sys.argv) < 3:
        sys.exit("usage: waves_picture.py results.json... policies.svg")
    files = []
    for path in sys.argv[1:-1]:
        with open(path, encoding="utf-8") as file:
            files.append(json.load(file))
    results = merged(files)
    if not results["policy"]:
        sys.exit("no policies in " + " ".join(sys.argv[1:-1]))
    plt.rcParams.update(STYLE)
    draw(results).savefig(sys.argv[-1], metadata={"Date": None})


if __name__ == "__main__":
    main()
