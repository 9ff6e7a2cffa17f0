"""Rounds of measurements in which engines, or servers, take turns. Each has a name, variants
for a workload and measure(workload, variant, seed), whose answer has "tok_s", a list, or "error".
"""

import sys

import machine


def turns(chosen, rounds, running):
    """Everything that is measured, in order: the engines alternate within a round."""
    for workload in chosen:
        for round_number in range(rounds):
            first = round_number % len(running)
            for engine in running[first:] + running[:first]:
                for variant in engine.variants(workload):
                    yield workload, round_number, engine, variant


def measure(chosen, rounds, running, write):
    lines = []
    stolen = machine.StolenTime()
    for workload, round_number, engine, variant in turns(chosen, rounds, running):
        label = f"{workload.name}, round {round_number + 1}, {engine.name} {variant}"
        print(label, end=": ", flush=True, file=sys.stderr)
        line = {
            "workload": workload.name,
            "engine": engine.name,
            "variant": variant,
            "round": round_number,
            **engine.measure(workload, variant, round_number + 1),
            "steal_pct": stolen.percent(),
        }
        rates = [f"{rate:.1f}" for rate in line.get("tok_s", [])]
        print(line.get("error") or f"{' '.join(rates)} tok/s", file=sys.stderr)
        write(line)
        lines.append(line)
    return lines
