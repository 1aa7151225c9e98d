# SPDX-License-Identifier: BSD-2-Clause
"""What a run has found, as JSON, as a table, and as bars (SVG)."""

import json
import statistics
from xml.sax.saxutils import escape

from works import UNITS

COLOURS = {"lacuna": "#1b6ca8", "lacuna-nbdkit": "#5fa8d3", "floor": "#b0b0b0", "fio": "#b0b0b0"}
# Those that keep what they are given, Lacuna apart: the best of them is what Lacuna is compared with.
PEERS = ("qemu-nbd", "qemu-nbd-direct", "qemu-nbd-qcow2", "nbdkit-file", "nbd-server")


def number(value):
    if value is None:
        return ""
    if value >= 10_000:
        return f"{value / 1000:,.0f}k"
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def better(unit, one, other):
    """How many times ONE is as good as OTHER."""
    if not one or not other:
        return None
    return one / other if UNITS[unit] else other / one


def rows_of(results):
    """[(work, pin, unit, {server: {median, min, max, cpu_us, syscalls, switches}})]."""
    rows = []
    for (work, pin), row in results.items():
        found = {}
        for name, of_server in row["servers"].items():
            values = of_server["values"]
            found[name] = {
                "median": statistics.median(values), "min": min(values), "max": max(values), "values": values,
                "cpu_us": statistics.median(of_server["cpu_us"]) if of_server.get("cpu_us") else None,
                "client_cpu_us": statistics.median(of_server["client_cpu_us"]) if of_server.get("client_cpu_us") else None,
                "syscalls": of_server.get("syscalls"), "switches": of_server.get("switches"),
            }
        rows.append((work, pin, row["unit"], found))
    return rows


def best_peer(unit, found):
    """(median, name) of the best of them."""
    peers = [(found[name]["median"], name) for name in PEERS if name in found]
    return (max(peers) if UNITS[unit] else min(peers)) if peers else (None, "")


def floor_of(found):
    """What cannot be done without: of the device where that is what counts, else of the socket."""
    return found.get("fio", found.get("floor", {})).get("median")


def ratio(unit, one, other):
    return number(better(unit, one, other) or None)


def summary(rows):
    """A line for each work: Lacuna beside the best peer, and the floor."""
    lines = [f"{'':42}{'lacuna':>8}  {'min .. max':13}{'floor':>8}{'/floor':>7}{'peer':>8}{'/peer':>7}  best peer"]
    for work, pin, unit, found in rows:
        if "lacuna" not in found:
            continue
        figures, floor, (peer, name) = found["lacuna"], floor_of(found), best_peer(unit, found)
        spread = f"{number(figures['min'])} .. {number(figures['max'])}"
        what = f"{work}, {unit}" + (f", {pin}" if pin == "same" else "")
        if len(what) > 42:
            lines.append(what)
            what = ""
        lines.append(f"{what:42}{number(figures['median']):>8}  {spread:13}{number(floor):>8}"
                     f"{ratio(unit, figures['median'], floor):>7}{number(peer):>8}"
                     f"{ratio(unit, figures['median'], peer):>7}  {name}")
    return lines + [""]


def table(machine, rows):
    lines = [f"{machine['date']}, Linux {machine['kernel']}, {machine['processors']} x {machine['processor']}, "
             f"load {machine['load']:.1f} before and {machine['load at the end']:.1f} after",
             ", ".join(f"{name} {version}" for name, version in machine["versions"].items()),
             f"medians of {machine['repeats']} (or fewer, as time allowed), {machine['seconds']} s each; "
             "/floor, /peer: how many times as good as the floor, as the best peer that stores its data",
             "CPU, calls, switches: of the server, per request; where fio was run (direct I/O, no client), that is the floor",
             "", *summary(rows)]
    head = f"{'':24}{'median':>9}{'min':>9}{'max':>9}{'/floor':>8}{'/peer':>8}{'CPU us':>9}{'calls':>8}{'switches':>9}"
    for work, pin, unit, found in rows:
        floor, (peer, _) = floor_of(found), best_peer(unit, found)
        lines += [f"{work}  ({pin}, {unit})", head]
        for name, figures in found.items():
            lines.append(f"  {name:22}{number(figures['median']):>9}{number(figures['min']):>9}{number(figures['max']):>9}"
                         f"{ratio(unit, figures['median'], floor):>8}{ratio(unit, figures['median'], peer):>8}"
                         f"{number(figures['cpu_us']):>9}"
                         f"{number(figures['syscalls']):>8}{number(figures['switches']):>9}")
        lines.append("")
    return "\n".join(lines)


# --- bars ---

WIDTH, LABEL, BAR, GAP, TITLE = 460, 120, 13, 4, 34
COLUMNS = 2


def panel(x, y, work, pin, unit, found):
    """One work: a bar for each server, a line from minimum to maximum."""
    longest = max(figures["max"] for figures in found.values()) or 1
    room = WIDTH - LABEL - 90
    what = "more is better" if UNITS[unit] else "less is better"
    parts = [f'<text x="{x}" y="{y + 13}" class="title">{escape(work)}</text>',
             f'<text x="{x}" y="{y + 26}" class="note">{pin}, {unit}, {what}</text>']
    at = y + TITLE
    for name, figures in found.items():
        scale = room / longest
        width, low, high = (figures[key] * scale for key in ("median", "min", "max"))
        middle = at + BAR / 2
        parts += [f'<text x="{x + LABEL - 6}" y="{at + BAR - 3}" class="name">{escape(name)}</text>',
                  f'<rect x="{x + LABEL}" y="{at}" width="{width:.1f}" height="{BAR}" '
                  f'fill="{COLOURS.get(name, "#e0a458")}"/>',
                  f'<path d="M{x + LABEL + low:.1f} {middle}H{x + LABEL + high:.1f}" stroke="#333"/>',
                  f'<text x="{x + LABEL + max(width, high) + 5:.1f}" y="{at + BAR - 3}" class="note">'
                  f'{number(figures["median"])}</text>']
        at += BAR + GAP
    return parts, at - y + 14


def bars(machine, rows):
    parts, heights = [], [60] * COLUMNS
    for row in rows:
        column = heights.index(min(heights))
        drawn, height = panel(16 + column * (WIDTH + 16), heights[column], *row)
        parts += drawn
        heights[column] += height
    width, height = 16 + COLUMNS * (WIDTH + 16), max(heights) + 10
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">',
        "<style>text{font-family:sans-serif;font-size:11px;fill:#222}.title{font-weight:bold;font-size:13px}"
        ".note{fill:#666}.name{text-anchor:end}.head{font-size:18px;font-weight:bold}</style>",
        '<rect width="100%" height="100%" fill="#fff"/>',
        '<text x="16" y="26" class="head">Lacuna beside other NBD servers</text>',
        f'<text x="16" y="44" class="note">{escape(machine["date"])}, Linux {escape(machine["kernel"])}, '
        f'{machine["processors"]} x {escape(machine["processor"])}; medians of {machine["repeats"]}, '
        'lines from minimum to maximum</text>',
        *parts, "</svg>", ""])


def write(name, machine, results):
    rows = rows_of(results)
    with open(name + ".json", "w") as file:
        json.dump({"machine": machine, "works": [
            {"work": work, "pin": pin, "unit": unit, "servers": found} for work, pin, unit, found in rows]}, file, indent=1)
    with open(name + ".txt", "w") as file:
        file.write(table(machine, rows))
    with open(name + ".svg", "w") as file:
        file.write(bars(machine, rows))
    print(table(machine, rows))
