#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""guide.py puts the numbers of result files into a document: guide.py docs/GUIDE.md results.json...

A document has places for numbers, each between two comments on lines of their own:

    <!-- numbers: policy quick waves-5s-1% -->     suite, size of the run, load
    <!-- numbers: survivors full -->
    <!-- numbers: latency full -->
    <!-- numbers: head policy quick -->            on what machine, when, by which command
    <!-- end -->

What stands between them is replaced where one of the files has that part; else it stays. So no
number of the document is typed by hand.

Go  none
"""

import json
import re
import sys

import latency
import waves
from waves_tables import (SURVIVOR_FACTOR, SURVIVOR_ROOM_BYTES, mib, microseconds,
                          milliseconds, note_of, verdict_rows)

PLACE = re.compile(r"(<!-- numbers: ([^\n]*?) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
KIND_WORDS = {"mixed": "16-1024 B", "word": "64 B", "big": "4-256 KiB", "small": "16-64 B"}


def table(rows):
    """table in Markdown: the first column to the left, the others to the right."""
    lines = ["| " + " | ".join(rows[0]) + " |",
             "|---|" + "---:|" * (len(rows[0]) - 1)]
    lines += ["| " + " | ".join(row) + " |" for row in rows[1:]]
    return "\n".join(lines)


def command_of(results):
    """command_of a result file, as one would type it."""
    options = results["options"]
    words = ["./dev bench --suite", options["suite"]]
    if options["size"] != "full":
        words.append("--" + options["size"])
    if options["only"]:
        words += ["--only", ",".join(options["only"])]
    if options["suite"] != "survivors":
        policy = options["suite"] == "policy"
        words += ["--rounds", str(options["policy_rounds"] if policy else options["rounds"])]
    if options["load_mib"]:
        words += ["--curve-mib", str(options["load_mib"])]
    return " ".join(words)


def ended(results):
    """ended: the load average when a run ended, or nothing where the file lacks it."""
    found = results.get("load_average_end")
    return f" and {found[0]:.1f} when it ended" if found else ""


def head(results):
    """head: machine, date and command."""
    machine = results["machine"]
    return (f"`{command_of(results)}`: {machine['cpu']}, {machine['processors']} processors of a "
            f"virtual machine, Linux {machine['kernel']}, {machine['libc']}; load average "
            f"{machine['load_average'][0]:.1f} when it began"
            f"{ended(results)}, {machine['time'][:10]}, commit "
            f"{(machine['commit'] or 'unknown')[:12]}.")


def policy_part(results, name):
    """policy_part: the table of one load, or None."""
    loads = [load for load in results.get("loads", []) if load["name"] == name]
    if not loads:
        return None
    load = loads[0]
    cells = waves.medians(results["policy"])
    rows = [["", "peak", "mean", "10 s later", "at the end", "held GiB x s", "CPU s",
             "faults x 1000", "later growth ms"]]
    for peer in results["lineup"]:
        entry = cells.get((name, peer["name"]))
        if entry is None:
            continue
        title = peer["name"] + (" (too short)" if note_of(load, peer["name"]) else "")
        rows.append([title, mib(entry["peak_bytes"]), mib(entry["mean_bytes"]),
                     mib(entry["rss_10s_bytes"]), mib(entry["last_bytes"]),
                     f"{entry['held_byte_seconds'] / waves.GIB_SECOND:.2f}",
                     f"{entry['cpu_seconds']:.2f}", f"{entry['faults'] / 1000:.0f}",
                     milliseconds(entry["later_grow_seconds"])])
    text = load["text"]
    return f"{text[0].upper()}{text[1:]}; {load['percent']} % survive.\n\n{table(rows)}"


def survivors_part(results):
    """survivors_part: the table of survivors."""
    if not results.get("survivors"):
        return None
    rows = [["blocks", "allocator", "peak", "RSS after 10 s", "of that since the start",
             "pages with a survivor", "1.15 x + 8 MiB", "to the bound"]]
    for result in results["survivors"]:
        figure = result["summary"]
        if figure is None:
            continue
        grown = figure["last_bytes"] - result["start"]["rss_bytes"]
        pages = figure["survivor_page_bytes"]
        bound = SURVIVOR_FACTOR * pages + SURVIVOR_ROOM_BYTES
        rows.append([KIND_WORDS[result["curve"].partition("-")[0]], result["peer"],
                     mib(figure["peak_bytes"]), mib(figure["last_bytes"]), mib(grown),
                     mib(pages), mib(bound), f"{grown / bound:.2f}"])
    return f"Peak of {results['options']['curve_mib']} MiB; sizes in MiB.\n\n{table(rows)}"


def latency_part(results):
    """latency_part: the differences and the verdicts."""
    if not results.get("verdicts"):
        return None
    rows = [["policy", "figure", "above `never`, us", "95 % of medians", "target", "verdict"],
            *verdict_rows(results, " to ")]
    plain = [["lateness, us"] + latency.POLICIES]
    runs = latency.rested(results["latency"])
    for key, words in (("late_median_ns", "median"), ("late_p99_ns", "99 %"),
                       ("late_p999_ns", "99.9 %"), ("late_max_ns", "maximum")):
        plain.append([words] + [microseconds(latency.median_of(runs, policy, key))
                                for policy in latency.POLICIES])
    counted = len({run["round"] for run in runs})
    return (f"{counted} of {results['options']['rounds']} rounds count: those in which the other "
            f"thread had time to rest.\n\n{table(plain)}\n\n{table(rows)}")


def part(words, files):
    """part of a place in words, from the last file that has it, or None."""
    wants_head = words[0] == "head"
    if wants_head:
        words = words[1:]
    suite, size, name = words[0], words[1], words[2] if len(words) > 2 else None
    found = None
    for results in files:
        if results["options"]["size"] != size:
            continue
        if suite == "policy":
            text = policy_part(results, name) if name else None
        else:
            text = {"survivors": survivors_part, "latency": latency_part}[suite](results)
        if text is not None:
            found = head(results) if wants_head else text
    return found


def main():
    """main rewrites the document."""
    if len(sys.argv) < 3:
        sys.exit("usage: guide.py DOCUMENT results.json...")
    files = []
    for path in sys.argv[2:]:
        with open(path, encoding="utf-8") as file:
            files.append(json.load(file))
    with open(sys.argv[1], encoding="utf-8") as file:
        text = file.read()

    def fill(match):
        found = part(match.group(2).split(), files)
        print(f"{match.group(2)}: {'written' if found else 'no file has it, left as it was'}")
        return match.group(1) + (found + "\n" if found else match.group(3)) + match.group(4)

    text = PLACE.sub(fill, text)
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        file.write(text)


if __name__ == "__main__":
    main()
