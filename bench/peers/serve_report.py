"""The table and the latency plot of bench/peers/serve, from its JSON lines."""

import statistics

import machine
import report
from report import plot_bench

FIGURES = ("ttft_ms_p50", "ttft_ms_p95", "itl_ms_p50", "itl_ms_p95")


def median(group, key):
    return statistics.median(line[key] for line in group)


def markdown(head, lines):
    text = [
        f"{head['model']}, {head['threads']} threads, {head['rounds']} rounds, servers in turn, on "
        f"{machine.describe_cpu(head['cpu'])}, {head['date']}. Medians over the rounds; tokens per "
        "second (prompt and generated) with minimum and maximum; milliseconds.",
        "",
        "| workload | server | tok/s | TTFT p50 | p95 | ITL p50 | p95 | server CPU | client CPU |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for workload, engines in report.best_groups(lines).items():
        for engine, group in engines.items():
            rates = report.rates(group)
            figures = [f"{median(group, key):,.0f}" for key in FIGURES]
            shares = [f"{median(group, key):.0f} %" for key in ("server_cpu_pct", "client_cpu_pct")]
            rate = f"{statistics.median(rates):,.0f} ({min(rates):,.0f}–{max(rates):,.0f})"
            text.append(f"| {' | '.join([workload, engine, rate, *figures, *shares])} |")
    text.append("")
    for engine in head["engines"]:
        text.append(f"- {engine['engine']} {engine['version']}")
        for workload, engines in report.best_groups(lines).items():
            group = engines.get(engine["engine"])
            if group and group[0]["settings"]["flags"]:
                text.append(f"  - {workload}: `{group[0]['settings']['flags']}`")
    failed = {(e["workload"], e["engine"], e["variant"], e["error"]) for e in lines if "error" in e}
    text += [f"- failed: {', '.join(error)}" for error in sorted(failed)]
    return "\n".join(text) + "\n"


def plot_latency(head, lines, path):
    """Bars: the median time to the first token; marks: 95 of 100 streams have it by then."""
    best = report.best_groups(lines)
    times = [
        median(group, f"ttft_ms_{part}")
        for engines in best.values() for group in engines.values() for part in ("p50", "p95")
    ]
    if not times:
        return
    names = [engine["engine"] for engine in head["engines"]]
    svg = plot_bench.Svg(
        f"Time to first token, {head['model']}", "workload", "ms, p50 (bar), p95 (mark), log scale"
    )
    bottom = plot_bench.HEIGHT - plot_bench.BOTTOM
    axis = plot_bench.axis_over([*times, max(times) * 4], bottom, plot_bench.TOP, log=True)
    svg.y_axis(axis)
    slot = (plot_bench.WIDTH - plot_bench.LEFT - plot_bench.RIGHT) / len(best)
    width = slot * 0.8 / len(names)
    for i, (workload, engines) in enumerate(best.items()):
        left = plot_bench.LEFT + slot * (i + 0.1)
        for engine, group in engines.items():
            index = names.index(engine)
            x, y = left + width * index, axis.px(median(group, "ttft_ms_p50"))
            report.bar(svg, (x, y), (width, bottom - y), plot_bench.COLOURS[index])
            mark = axis.px(median(group, "ttft_ms_p95"))
            svg.line([(x, mark), (x + width, mark)], "#222222", 2)
        svg.x_tick(left + slot * 0.4, workload)
    svg.legend(names)
    svg.save(path)
