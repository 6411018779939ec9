# SPDX-License-Identifier: MIT
"""Picture labels: keeps the labels at the ends of lines from lying on each other. Apart from
picture.py because it needs no drawing library, and so can be tested where there is none.

Go  none
"""


def spread_labels(wanted, gap, low, high):
    """spread_labels moves label heights apart to at least gap, in their order, within bounds."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    placed = [0.0] * len(wanted)
    last = low - gap
    for index in order:
        last = max(wanted[index], last + gap)
        placed[index] = last
    limit = high
    for index in reversed(order):
        placed[index] = min(placed[index], limit)
        limit = placed[index] - gap
    return placed
