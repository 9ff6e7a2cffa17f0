#!/usr/bin/env python3
"""Draws the plots of docs/plots from the JSON lines of `kvasir bench NAME --json`.

    kvasir bench prefix --json | scripts/plot_bench.py docs/plots

Reads standard input or the files given after the folder. Each workload found among the lines gives
its plots: prefix bars, paging latency and waste by rate, turns time to first token by turn.
"""

import argparse
import html
import json
import math
import pathlib
import statistics
import sys

WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 72, 24, 40, 56
COLOURS = ["#1b6ca8", "#d1495b", "#3a7d44", "#7b5ea7", "#8a6d3b"]


class Axis:
    """Maps values to pixels, linearly or by logarithm, and says where ticks belong."""

    def __init__(self, low, high, first_px, last_px, log=False):
        self.low, self.high, self.log = low, high, log
        self.first_px, self.last_px = first_px, last_px

    def px(self, value):
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.first_px + share * (self.last_px - self.first_px)

    def ticks(self):
        if self.log:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            decades = [10.0**n for n in range(first, last + 1)]
            return [tick for tick in decades if self.low <= tick <= self.high]
        step = 10 ** math.floor(math.log10((self.high - self.low) / 3))
        step *= next(n for n in (1, 2, 5, 10) if (self.high - self.low) / (n * step) <= 6)
        first = math.ceil(self.low / step)
        return [n * step for n in range(first, math.floor(self.high / step + 1e-9) + 1)]


def axis_over(values, first_px, last_px, log=False):
    """An axis that shows all values; a linear one begins at zero, a logarithmic one at a decade."""
    high = max(values) or 1.0
    if log:
        low = 10.0 ** math.floor(math.log10(min(values)))
        return Axis(low, 10.0 ** math.ceil(math.log10(high)), first_px, last_px, log=True)
    return Axis(0.0, high * 1.08, first_px, last_px)


class Svg:
    def __init__(self, title, x_label, y_label):
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
            f'viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        ]
        self.text(WIDTH / 2, 22, title, size=14)
        self.text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14, x_label)
        middle = (TOP + HEIGHT - BOTTOM) / 2
        self.parts.append(
            f'<text transform="translate(16 {middle:.1f}) rotate(-90)" text-anchor="middle">'
            f"{html.escape(y_label)}</text>"
        )

    def text(self, x, y, text, anchor="middle", size=12):
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">'
            f"{html.escape(text)}</text>"
        )

    def line(self, points, colour, width=2.0):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}"/>'
        )

    def y_axis(self, axis):
        for tick in axis.ticks():
            y = axis.px(tick)
            self.line([(LEFT, y), (WIDTH - RIGHT, y)], "#dddddd", 1)
            self.text(LEFT - 8, y + 4, f"{tick:g}", anchor="end")

    def x_tick(self, x, label):
        self.text(x, HEIGHT - BOTTOM + 18, label)

    def legend(self, names):
        for i, name in enumerate(names):
            y = TOP + 8 + 18 * i
            self.line([(LEFT + 10, y), (LEFT + 30, y)], COLOURS[i % len(COLOURS)])
            self.text(LEFT + 36, y + 4, name, anchor="start")

    def save(self, path):
        path.write_text("\n".join([*self.parts, "</svg>"]) + "\n")
        print(path)


def chart(title, labels, series, log_y=False, log_x=False):
    """Lines with marks. `labels`: (x, y); `series`: name -> [(x, y), ...]."""
    svg = Svg(title, *labels)
    xs = sorted({x for points in series.values() for x, _ in points})
    y_axis = axis_over(
        [y for points in series.values() for _, y in points], HEIGHT - BOTTOM, TOP, log_y
    )
    span = (xs[0], xs[-1] if len(xs) > 1 else xs[0] * 2 + 1)
    x_axis = Axis(*span, LEFT + 20, WIDTH - RIGHT - 20, log=log_x)
    svg.y_axis(y_axis)
    for x in xs if len(xs) <= 10 else xs[:: max(1, len(xs) // 10)]:
        svg.x_tick(x_axis.px(x), f"{x:g}")
    for i, points in enumerate(series.values()):
        colour = COLOURS[i % len(COLOURS)]
        pixels = [(x_axis.px(x), y_axis.px(y)) for x, y in sorted(points)]
        svg.line(pixels, colour)
        for x, y in pixels:
            svg.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>')
    svg.legend(series)
    return svg


def plot_prefix(lines, folder):
    y_label = "ms, p50 (bar) and p95 (mark), log scale"
    svg = Svg("Time to first token, shared prefix", "case", y_label)
    axis = axis_over(
        [line[key] for line in lines for key in ("ttft_ms_p50", "ttft_ms_p95")],
        HEIGHT - BOTTOM, TOP, log=True,
    )
    svg.y_axis(axis)
    slot = (WIDTH - LEFT - RIGHT) / len(lines)
    for i, line in enumerate(lines):
        x, y = LEFT + slot * (i + 0.5), axis.px(line["ttft_ms_p50"])
        svg.parts.append(
            f'<rect x="{x - slot / 4:.1f}" y="{y:.1f}" width="{slot / 2:.1f}" '
            f'height="{HEIGHT - BOTTOM - y:.1f}" fill="{COLOURS[0]}"/>'
        )
        mark = axis.px(line["ttft_ms_p95"])
        svg.line([(x - slot / 4, mark), (x + slot / 4, mark)], COLOURS[1], 3)
        svg.text(x, min(y, mark) - 6, f"{line['ttft_ms_p50']:.0f}")
        svg.x_tick(x, line["case"])
    svg.save(folder / "prefix.svg")


def plot_paging(lines, folder):
    def by_case(key):
        series = {}
        for line in lines:
            series.setdefault(line["case"], []).append((line["rate"], line[key]))
        return series

    rate = "arrivals, multiples of contiguous_max's saturation"
    charts = {
        "latency": ("Normalised latency", "latency_s_per_token", "s per token, log scale", True),
        "waste": ("KV memory wasted", "waste_pct", "% of allocated slots", False),
        "sequences": ("Sequences at once", "sequences_peak", "peak", False),
    }
    for name, (title, key, y_label, log_y) in charts.items():
        svg = chart(title, (rate, y_label), by_case(key), log_y=log_y, log_x=True)
        svg.save(folder / f"paging-{name}.svg")


def plot_turns(lines, folder):
    alone_users = {line["user"] for line in lines if line["case"] == "alone"}
    series = {}
    for name, title in (("chat", "beside other users"), ("alone", "alone")):
        turns = {}
        for line in lines:
            if line["case"] == name and line["user"] in alone_users:
                turns.setdefault(line["turn"], []).append(line["ttft_ms"])
        series[title] = [(turn, statistics.median(ms)) for turn, ms in turns.items()]
    svg = chart("Time to first token by turn, median", ("turn", "ms"), series)
    svg.save(folder / "turns.svg")


PLOTS = {"prefix": plot_prefix, "paging": plot_paging, "turns": plot_turns}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("files", nargs="*", type=pathlib.Path, help="JSON lines; default: stdin")
    options = parser.parse_args()
    texts = [path.read_text() for path in options.files] or [sys.stdin.read()]
    lines = [json.loads(line) for text in texts for line in text.splitlines() if line.strip()]
    options.folder.mkdir(parents=True, exist_ok=True)
    for name, plot in PLOTS.items():
        mine = [line for line in lines if line["bench"] == name]
        if mine:
            plot(mine, options.folder)


if __name__ == "__main__":
    main()
