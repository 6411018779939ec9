# SPDX-License-Identifier: MIT
"""Curves in a terminal: filled panels side by side on one scale.

A column of a panel is a stretch of time, filled up to the value then, in eighths of a line where
the locale has the characters and in thirds where it has not. Colour only where it is asked for.
"""
EIGHTHS = ' ▁▂▃▄▅▆▇█'
PLAIN = ' .:|'
LEFT = 9  # columns for the numbers on the left, with the axis
GAP = 3
RESET, DIM, BOLD = '\033[0m', '\033[2m', '\033[1m'


class Style:
    """What the terminal can show."""

    def __init__(self, width, unicode, colour):
        self.width = max(50, min(width, 160))
        self.unicode = unicode
        self.colour = colour

    def paint(self, code, text):
        return code + text + RESET if self.colour and code and text.strip() else text

    def levels(self):
        return EIGHTHS if self.unicode else PLAIN

    def sign(self, fancy, plain):
        return fancy if self.unicode else plain


class Panel:
    """One curve: points of (second, value), a title, marks of (second, text)."""

    def __init__(self, title, code, points, marks=()):
        self.title = title
        self.code = code
        self.points = points
        self.marks = marks


def step_of(top, count):
    """The smallest of 1, 2, 5, 10, 20, ... by which count steps reach top."""
    unit = 1
    while True:
        for factor in (1, 2, 5):
            if unit * factor * count >= top:
                return unit * factor
        unit *= 10


def columns(points, width, end):
    """The highest value within each column's stretch of time; None where there is nothing yet."""
    values = [None] * width
    for second, value in points:
        column = min(width - 1, int(second / end * width))
        values[column] = max(values[column] or 0, value)
    last = max((i for i, v in enumerate(values) if v is not None), default=-1)
    held = None
    for i in range(last + 1):
        held = values[i] if values[i] is not None else held
        values[i] = held
    return values


def fill(values, row, height, top, levels):
    """One line of a panel, row counted from below."""
    full = len(levels) - 1
    text = ''
    for value in values:
        filled = 0 if value is None else value / top * height - row
        # What is not nothing is seen: at least the lowest level on the lowest line.
        least = 1 if value and row == 0 else 0
        text += levels[max(least, min(full, int(filled * full + 0.5)))]
    return text


def axis(style, width, end):
    """The ruler under a panel and its numbers."""
    step = step_of(end, max(2, width // 8))
    line = [style.sign('─', '-')] * width
    numbers = [' '] * (width + 4)
    second = 0
    while second <= end:
        column = min(width - 1, int(second / end * width))
        line[column] = style.sign('┴', '+')
        text = '%d s' % second if second == 0 or second + step > end else '%d' % second
        start = max(0, min(column - (len(text) - 1) // 2, width - len(text)))
        for i, c in enumerate(text):
            numbers[start + i] = c
        second += step
    return ''.join(line), ''.join(numbers)[:width]


def marks(style, panel, width, end):
    line = [' '] * width
    for second, text in panel.marks:
        column = min(width - 1, int(second / end * width))
        text = style.sign('▲', '^') + ' ' + text
        start = column if column + len(text) <= width else width - len(text)
        if start < column:
            text = text[2:] + ' ' + text[0]
            start = max(0, column - len(text) + 1)
        for i, c in enumerate(text[:width]):
            line[start + i] = c
    return ''.join(line)


def draw(style, panels, end, top, unit, height=15):
    """The lines of the picture. Values from 0 to top (rounded up), seconds from 0 to end."""
    width = (style.width - LEFT - GAP * (len(panels) - 1)) // len(panels)
    step = step_of(top, 5)
    steps = -(-int(top) // step) or 1
    rows_per_step = max(1, height // steps)
    height, top = steps * rows_per_step, steps * step
    gap = ' ' * GAP
    lines = [' ' * LEFT + gap.join(style.paint(BOLD + p.code, p.title[:width].ljust(width))
                                   for p in panels)]
    filled = [columns(p.points, width, end) for p in panels]
    for row in range(height - 1, -1, -1):
        # The line of a number is the one whose upper edge is that value.
        label = '%d' % ((row + 1) // rows_per_step * step) if (row + 1) % rows_per_step == 0 else ''
        if label and row == height - 1:
            label = '%s %s' % (label, unit)
        edge = style.sign('┤', '+') if label else style.sign('│', '|')
        parts = [style.paint(p.code, fill(v, row, height, top, style.levels()))
                 for p, v in zip(panels, filled)]
        lines.append('%*s' % (LEFT - 1, label) + edge + gap.join(parts))
    ruler, numbers = axis(style, width, end)
    lines.append('0'.rjust(LEFT - 1) + style.sign('┼', '+') + gap.join([ruler] * len(panels)))
    lines.append(' ' * LEFT + gap.join([numbers] * len(panels)))
    if any(p.marks for p in panels):
        lines.append(' ' * LEFT + gap.join(style.paint(p.code, marks(style, p, width, end))
                                           for p in panels))
    return [line.rstrip() if not style.colour else line for line in lines]
