"""A run's Markdown table and plot, from its JSON lines."""

import pathlib
import statistics
import sys

import machine

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "scripts"))
import plot_bench  # noqa: E402: the project's own plotting, found by the line above

OURS = "kvasir"


def rates(group):
    return [rate for line in group for rate in line["tok_s"]]


def best_groups(lines):
    """{workload: {engine: lines}} of each engine's fastest variant by median."""
    groups = {}
    for line in lines:
        if line.get("tok_s"):
            variants = groups.setdefault(line["workload"], {}).setdefault(line["engine"], {})
            variants.setdefault(line["variant"], []).append(line)
    return {
        workload: {
            engine: max(variants.values(), key=lambda group: statistics.median(rates(group)))
            for engine, variants in engines.items()
        }
        for workload, engines in groups.items()
    }


def best_variants(lines):
    """{workload: {engine: (rates, settings)}} of these groups; None for an engine that failed."""
    groups = best_groups(lines)
    best = {}
    for line in lines:
        workload, engine = line["workload"], line["engine"]
        group = groups.get(workload, {}).get(engine)
        settings = {k: v for one in group or [] for k, v in one.get("settings", {}).items()}
        best.setdefault(workload, {})[engine] = (rates(group), settings) if group else None
    return best


def ratio_to_best_peer(engines):
    """Ours over the best peer, by medians; None where one of them is missing."""
    peers = [statistics.median(e[0]) for name, e in engines.items() if e and name != OURS]
    if not peers or not engines.get(OURS):
        return None
    return statistics.median(engines[OURS][0]) / max(peers)


def cell(measured):
    if not measured:
        return "failed"
    rates = measured[0]
    return f"{statistics.median(rates):,.1f} ({min(rates):,.1f}–{max(rates):,.1f})"


def settings_text(settings):
    return ", ".join(f"{key} {value}" for key, value in sorted(settings.items()))


def markdown(head, lines):
    best = best_variants(lines)
    names = [engine["engine"] for engine in head["engines"]]
    text = [
        f"{head['model']}, {head['threads']} threads, {head['rounds']} rounds, engines in turn, "
        f"on {machine.describe_cpu(head['cpu'])}, {head['date']}. Tokens per second, median "
        "(minimum to maximum).",
        "",
        f"| workload | {' | '.join(names)} | ours ÷ best peer |",
        "|---" * (len(names) + 2) + "|",
    ]
    for workload, engines in best.items():
        ratio = ratio_to_best_peer(engines)
        cells = [cell(engines.get(name)) for name in names]
        text.append(f"| {workload} | {' | '.join(cells)} | {f'{ratio:.2f}' if ratio else '-'} |")
    text.append("")
    for engine in head["engines"]:
        name, version = engine["engine"], engine["version"]
        text.append(f"- {name} {version}: {settings_text(engine['settings'])}")
        for workload, engines in best.items():
            measured = engines.get(name)
            if measured:
                text.append(f"  - {workload}: {settings_text(measured[1])}")
    errors = {(e["workload"], e["engine"], e["variant"], e["error"]) for e in lines if "error" in e}
    text += [f"- failed: {', '.join(error)}" for error in sorted(errors)]
    return "\n".join(text) + "\n"


def bar(svg, corner, size, colour):
    svg.parts.append(
        f'<rect x="{corner[0]:.1f}" y="{corner[1]:.1f}" width="{size[0]:.1f}" '
        f'height="{size[1]:.1f}" fill="{colour}"/>'
    )


def plot(head, lines, path, title="Speed"):
    """Bars beside each other: every engine's rate in multiples of the best peer's."""
    best = best_variants(lines)
    names = [engine["engine"] for engine in head["engines"]]
    bars = {}  # workload -> [(engine index, ratio)]
    for workload, engines in best.items():
        rates = {n: statistics.median(e[0]) for n, e in engines.items() if e}
        unit = max((rate for n, rate in rates.items() if n != OURS), default=None)
        if unit:
            bars[workload] = [(names.index(n), rate / unit) for n, rate in rates.items()]
    if not bars:
        return
    svg = plot_bench.Svg(f"{title}, {head['model']}", "workload", "multiples of the best peer")
    bottom = plot_bench.HEIGHT - plot_bench.BOTTOM
    # One more row of the scale than needed, for the legend.
    highest = max(ratio for group in bars.values() for _, ratio in group)
    axis = plot_bench.axis_over([highest * 1.35], bottom, plot_bench.TOP)
    svg.y_axis(axis)
    slot = (plot_bench.WIDTH - plot_bench.LEFT - plot_bench.RIGHT) / len(bars)
    width = slot * 0.8 / len(names)
    for i, (workload, group) in enumerate(bars.items()):
        left = plot_bench.LEFT + slot * (i + 0.1)
        for index, ratio in group:
            x, y = left + width * index, axis.px(ratio)
            bar(svg, (x, y), (width, bottom - y), plot_bench.COLOURS[index])
        # Names are longer than their slots: every other one stands lower.
        svg.text(left + slot * 0.4, bottom + (14 if i % 2 == 0 else 28), workload, size=9)
    svg.legend(names)
    svg.save(path)
