# SPDX-License-Identifier: MIT
"""Progress on stderr: one live line on a terminal, plain lines everywhere else.

Go  none
"""

import os
import shutil
import sys
import time


class Progress:
    """What is running now, how much is done and about how long the rest will take."""

    def __init__(self, round_count):
        self.round_count = round_count
        self.is_terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self.start = time.monotonic()

    def clear(self):
        """clear the live line."""
        if self.is_terminal:
            sys.stderr.write("\r\x1b[K")

    def line(self, text):
        """line that stays."""
        self.clear()
        sys.stderr.write(text + "\n")
        sys.stderr.flush()

    def note(self, text):
        """note something that went wrong or differs from what was asked."""
        self.line(f"note: {text}")

    def step_text(self, text):
        """step_text replaces the live line; nothing where there is none."""
        if self.is_terminal:
            width = shutil.get_terminal_size().columns - 1
            sys.stderr.write("\r\x1b[K" + text[:width])
            sys.stderr.flush()

    def step(self, round_index, index, count, what):
        """step of a series: run index of count in this round."""
        done = round_index * count + index
        total = self.round_count * count
        seconds = time.monotonic() - self.start
        rest = seconds / done * (total - done) if done else 0
        bar = "#" * (20 * done // total)
        self.step_text(f"[{bar:<20}] round {round_index + 1}/{self.round_count}  "
                       f"{what:<28} {rest / 60:4.1f} min left")

    def round_done(self, round_index):
        """round_done is a line for logs."""
        seconds = time.monotonic() - self.start
        self.line(f"round {round_index + 1} of {self.round_count} done after {seconds:.0f} s")
