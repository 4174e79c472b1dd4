#!/usr/bin/env python3
"""Draws docs/benchmarks.png out of the table that `cargo bench` prints.

    cargo bench -- --event-listener | tee table.md
    pip install matplotlib
    python3 docs/benchmarks.py table.md
"""

import pathlib
import re
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

OURS, THEIRS = "#2a6f97", "#bc6c25"


def rows(text):
    """Each line of the table: figure, service, compared with, ratio, target."""
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) == 5 and not cells[0].startswith(("figure", "---")):
            yield cells


def number(text):
    found = re.match(r"[\d.]+", text)
    return float(found.group()) if found else None


def ratios(axes, table):
    """What a delivery costs beside what cannot be done without: more is better, 1 is all that there is."""
    wanted = ["per second"]
    chosen = [row for row in table if any(word in row[0] for word in wanted) and row[3]]
    names = [row[0].replace("filtered deliveries per second", "filtered").replace(" (24 KiB, signed, one core)", "") for row in chosen]
    names = [name.replace("created runs per second, 16 connections", "created") for name in names]
    values = [float(row[3]) for row in chosen]
    places = range(len(chosen))
    axes.barh(places, values, color=OURS)
    for place, row, value in zip(places, chosen, values):
        target = number(row[4].lstrip(">= "))
        if target:
            axes.plot([target, target], [place - 0.4, place + 0.4], color="black", linewidth=2)
        axes.text(value, place, f" {value:.2f}", va="center", fontsize=8)
    axes.axvline(1, color="grey", linewidth=0.8, linestyle=":")
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.2)
    axes.set_title("Deliveries per second, as a part of what they are compared with\n(black: the target)", fontsize=9)


def sizes(axes, table):
    """How long an answer takes, by the size of the body."""
    units = {"KiB": 1 << 10, "MiB": 1 << 20}
    points = []
    for figure, ours, theirs, *_ in table:
        found = re.match(r"time to answer a body of (\d+) (\w+)", figure)
        if found:
            points.append((int(found.group(1)) * units[found.group(2)], number(ours), number(theirs)))
    points.sort()
    bytes_, ours, theirs = zip(*points)
    axes.loglog(bytes_, theirs, "s--", color=THEIRS, label="bare axum handler")
    axes.loglog(bytes_, ours, "o-", color=OURS, label="github-trigger")
    axes.set_xticks(bytes_, [f"{b >> 10} KiB" if b < 1 << 20 else f"{b >> 20} MiB" for b in bytes_], fontsize=7)
    axes.minorticks_off()
    axes.set_ylabel("ms")
    axes.legend(fontsize=8)
    axes.set_title("Time to answer, by the size of the body", fontsize=9)


def listener(axes, table):
    """300 merges, 20 a second, and a kill."""
    chosen = [row for row in table if "(EventListener)" in row[2] and not row[3]]
    names = ["acknowledged", "exist when the\nlast one was sent", "acknowledged and\nlost by a kill"]
    width = 0.38
    for shift, column, colour, label in [(-width / 2, 1, OURS, "github-trigger"), (width / 2, 2, THEIRS, "EventListener")]:
        values = [number(row[column]) for row in chosen]
        bars = axes.bar([place + shift for place in range(len(chosen))], values, width, color=colour, label=label)
        axes.bar_label(bars, fmt="%d", fontsize=8)
    axes.set_xticks(range(len(chosen)), names[: len(chosen)], fontsize=8)
    axes.legend(fontsize=8)
    axes.set_title("300 merges, 20 a second, then SIGKILL", fontsize=9)


def main():
    table = list(rows(pathlib.Path(sys.argv[1]).read_text()))
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.2))
    ratios(axes[0], table)
    sizes(axes[1], table)
    listener(axes[2], table)
    figure.tight_layout()
    path = pathlib.Path(__file__).with_name("benchmarks.png")
    figure.savefig(path, dpi=110)
    print(path)


if __name__ == "__main__":
    main()
