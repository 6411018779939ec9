#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""check.py tests the bench tools: the arithmetic against answers known beforehand, run.py and
compare.py on tiny runs, and that a run which went wrong is reported as wrong.

Go  none
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import unittest

import compare
import figures
import guide
import latency
import overhead
import peers
import picture_labels
import waves

FOLDER = os.path.dirname(os.path.abspath(__file__))
BINDIR = None


def runs_of(table, quantity="seconds"):
    """runs_of {(case, peer): [values]} as run.py keeps them."""
    return [{"case": case, "peer": peer, "round": index, quantity: value}
            for (case, peer), values in table.items() for index, value in enumerate(values)]


class Arithmetic(unittest.TestCase):
    """figures.py and compare.py."""

    def test_spread(self):
        """Median and quartiles of 1..5."""
        found = figures.spread([5, 3, 1, 4, 2])
        self.assertEqual((found["quartile_low"], found["median"], found["quartile_high"]),
                         (2, 3, 4))

    def test_geometric_mean(self):
        """The mean of a ratio and its inverse is 1."""
        self.assertAlmostEqual(figures.geometric_mean([4, 0.25, 1]), 1)

    def test_ratio_to_the_best_reference(self):
        """ebb is not its own reference: ahead of the best it has a ratio below 1."""
        series = figures.Series(runs_of({("a", "glibc"): [4] * 5, ("a", "jemalloc"): [2] * 5,
                                         ("a", "ebb"): [1] * 5}), "seconds")
        found = figures.case_summary(series, "a", ["glibc", "jemalloc", "ebb"],
                                     peers.REFERENCES, 5)
        self.assertEqual(found["best"], "jemalloc")
        self.assertEqual(found["peers"]["ebb"]["ratio"], 0.5)
        self.assertEqual(found["peers"]["ebb"]["ratio_95"], [0.5, 0.5])
        self.assertEqual(found["peers"]["glibc"]["ratio"], 2)

    def test_overall(self):
        """Best everywhere is 1; a case that a peer has not run is left out for all."""
        series = figures.Series(runs_of({("a", "glibc"): [1, 1], ("a", "ebb"): [2, 2],
                                         ("b", "glibc"): [1, 1], ("b", "ebb"): [8, 8],
                                         ("c", "glibc"): [1, 1]}), "seconds")
        found = figures.overall(series, ["a", "b", "c"], ["glibc", "ebb"], ["glibc"], 2)
        self.assertEqual(found["cases"], ["a", "b"])
        self.assertAlmostEqual(found["peers"]["ebb"]["vs_case_best"], 4)
        self.assertAlmostEqual(found["peers"]["glibc"]["vs_best_peer"], 1)

    def test_losing(self):
        """Only what lies above the limit, worst first."""
        summaries = {"a": {"peers": {"ebb": {"ratio": 1.05}}},
                     "b": {"peers": {"ebb": {"ratio": 1.06}}},
                     "c": {"peers": {"ebb": {"ratio": 2.0}}}}
        self.assertEqual(figures.losing(summaries, "ebb"), [(2.0, "c"), (1.06, "b")])

    def test_verdict(self):
        """The same values twice are no difference; 10 % on steady values is one."""
        steady = [1.0, 1.01, 0.99, 1.002, 1.005]
        slower = [value * 1.1 for value in steady]
        words = ("faster", "slower")
        self.assertEqual(compare.row_of(("a", "ebb"), steady, steady, 1, words)[5],
                         compare.NO_DIFFERENCE)
        self.assertEqual(compare.row_of(("a", "ebb"), steady, slower, 1, words)[5],
                         "10.0 % slower")
        self.assertEqual(compare.row_of(("a", "ebb"), steady[:4], slower[:4], 1, words)[5],
                         compare.CANNOT_SAY)

    def test_rank_probability(self):
        """Five against five apart: 2 of the 252 ways. Every second one: nothing to see."""
        self.assertAlmostEqual(compare.rank_probability([1, 2, 3, 4, 5], [6, 7, 8, 9, 10]),
                               2 / 252)
        self.assertGreater(compare.rank_probability([1, 3, 5, 7, 9], [2, 4, 6, 8, 10]), 0.5)

    def test_false_alarms(self):
        """Of 400 pairs of series with the same noise, not more than 2 % are called different."""
        source = random.Random(1)
        alarms = 0
        for _ in range(400):
            series = [[source.lognormvariate(0, 0.1) for _ in range(7)] for _ in range(2)]
            text = compare.row_of(("a", "ebb"), series[0], series[1], 1, ("less", "more"))[5]
            alarms += text != compare.NO_DIFFERENCE
        self.assertLessEqual(alarms, 8)

    def test_labels(self):
        """Labels keep their order and their distance, and stay inside."""
        placed = picture_labels.spread_labels([10, 10, 9.5, 1], 1, 0, 10)
        ordered = sorted(placed)
        self.assertLessEqual(ordered[-1], 10)
        self.assertTrue(all(b - a >= 0.999 for a, b in zip(ordered, ordered[1:])))
        self.assertLess(placed[2], placed[0])


def sample(moment, rss_bytes, live_bytes=0):
    """sample with the fields that the arithmetic reads."""
    return {"time": moment, "rss_bytes": rss_bytes, "live_bytes": live_bytes}


class Waves(unittest.TestCase):
    """The arithmetic of waves.py and latency.py."""

    def test_held(self):
        """Held counts what is beyond base and live, over uneven steps, and never less than 0."""
        samples = [sample(0, 10), sample(2, 30, 20), sample(3, 30, 0), sample(5, 5, 0)]
        self.assertEqual(waves.held_byte_seconds(samples, 10), 0 + 10 + 20)
        self.assertEqual(waves.mean_bytes([sample(0, 10), sample(1, 20), sample(4, 20)]), 18.75)

    def test_size_at(self):
        """The last sample not after the moment; none when the recording ended long before."""
        samples = [sample(0, 1), sample(1, 2), sample(2, 3)]
        self.assertEqual(waves.size_at(samples, 1.5), 2)
        self.assertEqual(waves.size_at(samples, 2.5), 3)
        self.assertIsNone(waves.size_at(samples, 10))

    def test_lineup(self):
        """Every policy once, every other peer as it comes and at its best, and no setting twice."""
        found = peers.lineup([peers.Peer("glibc"), peers.Peer("jemalloc", "/j"),
                              peers.Peer("ebb", "/e")], policies=True)
        names = [peer.name for peer in found]
        self.assertEqual(names[:8], [f"ebb {name}" for name in peers.POLICIES])
        self.assertEqual(names[8:], ["glibc", "glibc+trim", "jemalloc", "jemalloc+1s"])
        self.assertEqual(found[9].arguments, ["--trim"])
        self.assertEqual(found[10].settings, {})
        self.assertEqual(found[1].settings, {"EBB": "policy=go1.11"})

    def test_judge(self):
        """Met, missed, undecided and too few, by the interval and not by the median."""
        self.assertEqual(latency.judge([1, 2, 3, 4, 5], 10)["verdict"], "met")
        self.assertEqual(latency.judge([11, 12, 13, 14, 15], 10)["verdict"], "missed")
        self.assertEqual(latency.judge([1, 2, 3, 24, 25], 10)["verdict"], "cannot say")
        self.assertEqual(latency.judge([1, 2, 3, 4], 10)["verdict"], "too few rounds")
        self.assertEqual(latency.judge([], 10)["verdict"], "no runs")

    def test_differences(self):
        """Differences are taken within a round; a round without its base is left out."""
        runs = [{"policy": "never", "round": 0, "x": 5}, {"policy": "now", "round": 0, "x": 7},
                {"policy": "now", "round": 1, "x": 9}]
        self.assertEqual(latency.differences(runs, "now", "x"), [2])

    def test_rested(self):
        """A round in which one run hardly rested, or failed, does not count."""
        runs = [{"round": 0, "operations": 30, "rest_requests": 10},
                {"round": 0, "operations": 30, "rest_requests": 30},
                {"round": 1, "operations": 30, "rest_requests": 9},
                {"round": 1, "operations": 30, "rest_requests": 30}, {"round": 2, "failure": "x"}]
        self.assertEqual(latency.rested(runs), runs[:2])

    def test_overhead(self):
        """A range below the limit is met, one around it is not known, one above is missed."""
        runs = runs_of({("a", "off"): [100, 100], ("a", "ebb"): [101, 100],
                        ("b", "off"): [100, 100], ("b", "ebb"): [101, 103],
                        ("c", "off"): [100, 100], ("c", "ebb"): [105, 103],
                        ("d", "off"): [100]}, "instructions")
        found = {row["case"]: row for row in overhead.verdicts(runs)}
        self.assertEqual([found[case]["verdict"] for case in "abc"],
                         ["met", "cannot say", "missed"])
        self.assertNotIn("d", found)
        self.assertEqual((found["c"]["ratio"], found["c"]["low"]), (1.04, 1.03))
        self.assertAlmostEqual(found["geometric mean"]["ratio"], (1.005 * 1.02 * 1.04) ** (1 / 3))
        self.assertEqual(found["geometric mean"]["verdict"], "missed")

    def test_guide(self):
        """Places are filled by suite, size and load; one that no file has is left as it was."""
        results = {"options": {"size": "quick"}, "loads": [{"name": "peak-1%", "text": "one peak",
                                                           "percent": 1, "seconds": 15}],
                   "lineup": [{"name": "ebb now"}], "policy": []}
        self.assertIn("One peak; 1 % survive",
                      guide.part(["policy", "quick", "peak-1%"], [results]))
        self.assertIsNone(guide.part(["policy", "full", "peak-1%"], [results]))
        self.assertIsNone(guide.part(["policy", "quick", "peak-2%"], [results]))
        self.assertIsNone(guide.part(["latency", "quick"], [results]))


class Tools(unittest.TestCase):
    """run.py and compare.py as programs."""

    def run_tool(self, *arguments):
        """run_tool returns the finished run.py."""
        command = [sys.executable, os.path.join(FOLDER, "run.py"), "--smoke", "--bindir", BINDIR]
        return subprocess.run(command + list(arguments), text=True, capture_output=True,
                              check=False, timeout=100)

    def test_run_and_compare(self):
        """Two rounds of two cases under glibc, a peer that is missing, and itself compared."""
        with tempfile.TemporaryDirectory() as out:
            done = self.run_tool("--only", "larson,cfrac", "--rounds", "2", "--no-curve",
                                 "--peers", "glibc,gone", "--peer", "gone=/no/such/library.so",
                                 "--out", out, "--seed", "1")
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn("no file /no/such/library.so", done.stdout)
            path = os.path.join(out, "results.json")
            with open(path, encoding="utf-8") as file:
                results = json.load(file)
            self.assertEqual(len(results["runs"]), 4)
            self.assertEqual(results["summary"]["seconds"]["larson"]["peers"]["glibc"]["ratio"], 1)
            same = subprocess.run([sys.executable, os.path.join(FOLDER, "compare.py"), path, path],
                                  text=True, capture_output=True, check=True)
            self.assertIn(compare.CANNOT_SAY, same.stdout)
            self.assertIn("0 of 2 differ", same.stdout)

    def test_wrong_library_is_a_failure(self):
        """A peer that the linker cannot preload is reported, not measured as glibc."""
        with tempfile.TemporaryDirectory() as out:
            broken = os.path.join(out, "broken.so")
            with open(broken, "w", encoding="utf-8") as file:
                file.write("not a library")
            done = self.run_tool("--only", "cfrac", "--no-curve", "--peers", "broken",
                                 "--peer", f"broken={broken}", "--out", out)
            self.assertEqual(done.returncode, 1)
            self.assertIn("malloc came from", done.stdout)

    def test_curve(self):
        """The curves of glibc alone: every one has samples of its rest and its survivors."""
        with tempfile.TemporaryDirectory() as out:
            done = self.run_tool("--suite", "curve", "--peers", "glibc", "--idle-seconds", "0.8",
                                 "--out", out)
            self.assertEqual(done.returncode, 0, done.stderr)
            with open(os.path.join(out, "results.json"), encoding="utf-8") as file:
                results = json.load(file)
            self.assertEqual(len(results["curves"]), 6)
            for curve in results["curves"]:
                self.assertGreater(curve["summary"]["peak_bytes"], 16 << 20)
                self.assertTrue(any(sample["time"] > 0.3 for sample in curve["samples"]))

    def test_policy(self):
        """The loads under glibc: all are recorded, and malloc_trim shows in what stays."""
        with tempfile.TemporaryDirectory() as out:
            done = self.run_tool("--suite", "policy", "--peers", "glibc", "--idle-seconds", "0.5",
                                 "--out", out)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn("glibc+trim", done.stdout)
            with open(os.path.join(out, "results.json"), encoding="utf-8") as file:
                results = json.load(file)
            self.assertEqual(len(results["policy"]), 6)
            self.assertEqual(len(results["survivors"]), 6)
            cells = waves.medians(results["policy"])
            trimmed, plain = cells["peak-1%", "glibc+trim"], cells["peak-1%", "glibc"]
            self.assertLess(trimmed["last_bytes"], plain["last_bytes"] / 2)
            self.assertLess(trimmed["held_byte_seconds"], plain["held_byte_seconds"] / 2)
            for entry in cells.values():
                self.assertGreater(entry["peak_bytes"], 8 << 20)
                self.assertGreater(entry["faults"], (8 << 20) / 4096)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--bindir", required=True)
    known, rest = parser.parse_known_args()
    BINDIR = known.bindir
    unittest.main(argv=[sys.argv[0]] + rest)
