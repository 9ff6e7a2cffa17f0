"""What is measured: the same for every engine.

prefill  `tokens` of prompt until the first token is there
decode   `generate` tokens of one sequence, after a prompt of `depth` tokens
batch    `sequences` requests at once, each `tokens` of prompt and `generate` tokens

Rates are tokens per second: of the prompt, generated, or both.
"""

import dataclasses
import random


@dataclasses.dataclass(frozen=True)
class Workload:
    name: str
    kind: str  # prefill, decode or batch
    tokens: int = 0
    depth: int = 1
    generate: int = 1
    sequences: int = 1
    kv: str = "default"  # "16": two bytes per number of the cache, "8": one, or as the engine likes
    repeat: int = 3  # measurements in one turn of an engine, at most 3

    def prompts(self, vocabulary, seed):
        """Of each sequence: random tokens, others for every seed."""
        length = self.depth if self.kind == "decode" else self.tokens
        return [random_prompt(seed * 100 + i, vocabulary, length) for i in range(self.sequences)]


def _batch(sequences):
    return Workload(
        f"batch-{sequences}", "batch", tokens=128, generate=64, sequences=sequences,
        repeat=3 if sequences < 16 else 1,
    )


WORKLOADS = [
    Workload("prefill-512", "prefill", tokens=512),
    Workload("prefill-2048", "prefill", tokens=2048, repeat=2),
    Workload("decode-128", "decode", generate=128),
    Workload("decode-64-at-4096-kv16", "decode", depth=4096, generate=64, kv="16"),
    Workload("decode-64-at-4096-kv8", "decode", depth=4096, generate=64, kv="8"),
    *[_batch(sequences) for sequences in (1, 4, 16, 64)],
]


def select(names):
    """The workloads whose names begin with one of `names`; all when there is none."""
    return [w for w in WORKLOADS if not names or any(w.name.startswith(name) for name in names)]


def random_prompt(seed, vocabulary, count):
    """Token ids from the middle of the vocabulary, where no special tokens are."""
    draw = random.Random(seed)
    return [draw.randrange(vocabulary // 10, vocabulary * 9 // 10) for _ in range(count)]
