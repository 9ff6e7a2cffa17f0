"""The frame of an engine's process: one JSON object per line in, one per line out.

In:  {"workload": {...}, "variant": NAME, "seed": N}
Out: first {"engine": ..., "version": ..., "settings": {...}}, then for each request
     {"tok_s": [...], "settings": {...}} or {"error": TEXT}
"""

import argparse
import json
import os
import sys

from workloads import Workload


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--vocabulary", type=int, required=True)
    return parser.parse_args()


def serve(create):
    """`create(arguments)` gives an object with hello() and measure(workload, variant, seed)."""
    # What libraries print must not get among the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    engine = create(arguments())
    print(json.dumps(engine.hello()), file=answers)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            workload = Workload(**request["workload"])
            answer = engine.measure(workload, request["variant"], request["seed"])
        except Exception as error:  # one workload that fails must not end the others
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers)
