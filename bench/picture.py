#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""picture.py draws the curves of a result file: picture.py results.json curves.svg

One panel per configuration: resident size over the seconds since the process went to sleep, one
line per peer, labelled at its end; below them what no heap can give back: the survivors, and the
pages that hold one. Drawn by matplotlib, into an SVG whose text stays text.

Go  none
"""

import json
import math
import sys

import matplotlib

from picture_labels import spread_labels

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402  the backend has to be chosen first

MIB = 1 << 20
PAGE_BYTES = 4096
# Okabe and Ito's palette: told apart also by those who see few colours. Ebb is the dark one.
COLOURS = {"glibc": "#d55e00", "jemalloc": "#0072b2", "tcmalloc": "#009e73",
           "mimalloc": "#cc79a7", "ebb": "#111111"}
SPARE_COLOURS = ["#e69f00", "#56b4e9", "#7f7f7f", "#8c564b"]
INK = "#333333"
GRID = "#e4e4e4"
# Of the time before the rest, this much is shown: a fifth of the rest.
SHARE_BEFORE = 0.2
# Lines of text in a label column must not come closer than this share of the panel's height.
LABEL_GAP = 0.072

STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "ebb",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Arial", "Helvetica", "sans-serif"],
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": "#b0b0b0",
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def colour_of(peer, peers):
    """colour_of a peer: its own, or the next spare one in the order of the file."""
    if peer in COLOURS:
        return COLOURS[peer]
    unknown = [name for name in peers if name not in COLOURS]
    return SPARE_COLOURS[unknown.index(peer) % len(SPARE_COLOURS)]


def title_of(curve):
    """title_of a panel in words, from a name like mixed-8t-1%."""
    blocks, threads, survivors = curve.split("-")
    sizes = {"small": "small blocks, 16-64 B", "mixed": "mixed blocks, 16-1024 B",
             "big": "big blocks, 4-256 KiB", "word": "blocks of 64 B"}[blocks]
    count = int(threads[:-1])
    who = "1 thread" if count == 1 else f"{count} threads"
    kept = "nothing survives" if survivors == "0%" else f"{survivors} survive at random"
    return f"{sizes}\n{who}, {kept}"


def draw_lines(axes, recordings, peers, before):
    """draw_lines draws the peers' curves and returns the (height, text, colour) of their labels."""
    labels = []
    for recording in recordings:
        samples = [s for s in recording["samples"] if s["time"] >= -before]
        if not samples or not recording["summary"]:
            continue
        colour = colour_of(recording["peer"], peers)
        sizes = [s["rss_bytes"] / MIB for s in samples]
        is_ours = recording["peer"] not in COLOURS or recording["peer"] == "ebb"
        axes.plot([s["time"] for s in samples], sizes, color=colour, zorder=3 + is_ours,
                  linewidth=2.4 if is_ours else 1.5, solid_capstyle="round")
        labels.append((sizes[-1], f"{recording['peer']}  {sizes[-1]:.0f}", colour))
    return labels


def draw_floor(axes, recordings):
    """draw_floor draws what cannot be given back: bytes live, and pages that hold a survivor."""
    figures = [recording["summary"] for recording in recordings if recording["summary"]]
    starts = [r["start"]["rss_bytes"] for r in recordings if r["summary"]]
    if not figures:
        return
    base = min(starts) / MIB
    pages = [f["survivor_page_bytes"] / MIB for f in figures if f["survivor_page_bytes"]]
    live = min(f["live_bytes"] for f in figures) / MIB
    axes.axhline(base + live, color="#888888", linewidth=1, linestyle=(0, (1, 2)), zorder=2)
    if pages:
        axes.axhline(base + min(pages), color="#888888", linewidth=1, linestyle=(0, (5, 3)),
                     zorder=2)


def draw_panel(axes, curve, recordings, peers, top, seconds):
    """draw_panel draws one configuration."""
    axes.set_title(title_of(curve), loc="left", fontsize=9.5, pad=8)
    before = SHARE_BEFORE * seconds
    axes.set_xlim(-before, seconds)
    axes.set_ylim(0, top)
    axes.axvspan(-before, 0, color="#f5f3ee", zorder=0, linewidth=0)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    labels = draw_lines(axes, recordings, peers, before)
    draw_floor(axes, recordings)
    heights = spread_labels([label[0] for label in labels], LABEL_GAP * top, 0.05 * top,
                            0.99 * top)
    for (size, text, colour), height in zip(labels, heights):
        axes.annotate(text, xy=(seconds, size), xytext=(seconds * 1.05, height),
                      color=colour, fontsize=8.5, va="center", annotation_clip=False,
                      arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6,
                                  "relpos": (0, 0.5), "shrinkA": 1, "shrinkB": 1})


def draw_legend(figure, results, peers):
    """draw_legend below the title: peers as lines, then the two floors and the shaded time."""
    line = matplotlib.lines.Line2D
    handles = [line([], [], color=colour_of(peer, peers), linewidth=2.2, label=peer)
               for peer in peers]
    handles.append(line([], [], color="#888888", linewidth=1, linestyle=(0, (1, 2)),
                        label="bytes that survive"))
    handles.append(line([], [], color="#888888", linewidth=1, linestyle=(0, (5, 3)),
                        label="pages that hold a survivor"))
    handles.append(matplotlib.patches.Patch(color="#f5f3ee", label="loading and freeing"))
    absent = [p["name"] + ": " + p["missing"] for p in results["peers"] if p["missing"]]
    if absent:
        handles.append(line([], [], linewidth=0, label="; ".join(absent)))
    figure.legend(handles=handles, loc="upper left", ncol=len(handles), frameon=False,
                  bbox_to_anchor=(0.005, 1 - 0.52 / figure.get_figheight()), fontsize=9,
                  columnspacing=1.4, handlelength=1.8, borderaxespad=0)


def draw_footer(figure, machine):
    """draw_footer says what was measured on what."""
    text = (f"{machine['cpu']}, {machine['processors']} processors, Linux {machine['kernel']}, "
            f"{machine['libc']}, {machine['time']}, "
            f"commit {(machine['commit'] or 'unknown')[:12]}")
    figure.text(0.008, 0.12 / figure.get_figheight(), text, fontsize=7.5, color="#777777")


def draw(results):
    """draw returns the figure."""
    recordings = results["curves"]
    names = list(dict.fromkeys(recording["curve"] for recording in recordings))
    peers = [peer["name"] for peer in results["peers"] if not peer["missing"]]
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    figure, grid = plt.subplots(rows, columns, figsize=(4.6 * columns, 2.75 * rows + 1.1),
                                squeeze=False)
    # Panels of one row of configurations are compared, so all have one scale.
    sizes = [s["rss_bytes"] / MIB for r in recordings for s in r["samples"]]
    top = 1.06 * max(sizes, default=1)
    times = [r["samples"][-1]["time"] for r in recordings if r["samples"]]
    seconds = max(1.0, round(max(times, default=10)))
    cells = [axes for row in grid for axes in row]
    for axes, name in zip(cells, names):
        mine = [recording for recording in recordings if recording["curve"] == name]
        draw_panel(axes, name, mine, peers, top, seconds)
    for axes in cells[len(names):]:
        axes.set_visible(False)
    for row in grid:
        row[0].set_ylabel("resident size (MiB)")
    for axes in cells[max(0, len(names) - columns):len(names)]:
        axes.set_xlabel("seconds since the process went to sleep")
    height = figure.get_figheight()
    figure.text(0.008, 1 - 0.3 / height, "Resident size after a peak of "
                f"{results['options']['curve_mib']} MiB", fontsize=13, weight="bold")
    draw_legend(figure, results, peers)
    draw_footer(figure, results["machine"])
    figure.tight_layout(rect=(0, 0.2 / height, 0.995, 1 - 0.75 / height), h_pad=2.0, w_pad=3.0)
    return figure


def main():
    """main reads the result file and writes the picture."""
    if len(sys.argv) != 3:
        sys.exit("usage: picture.py results.json curves.svg")
    with open(sys.argv[1], encoding="utf-8") as file:
        results = json.load(file)
    if not results["curves"]:
        sys.exit("no curves in " + sys.argv[1])
    plt.rcParams.update(STYLE)
    draw(results).savefig(sys.argv[2], metadata={"Date": None})


if __name__ == "__main__":
    main()
