"""What the machine is called, and how much of it was here."""

import pathlib


def read_cpu():
    fields = {}
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    keys = {"name": "model name", "family": "cpu family", "model": "model"}
    return {name: fields.get(key, "unknown") for name, key in keys.items()}


def describe_cpu(cpu):
    return f"{cpu['name']} (family {cpu['family']}, model {cpu['model']})"


class StolenTime:
    """Share of the processors that other guests of the same host had, from proc(5)."""

    def __init__(self):
        self._last = self._read()

    def percent(self):
        """Since the last call."""
        now = self._read()
        stolen, passed = (after - before for before, after in zip(self._last, now))
        self._last = now
        return round(100 * stolen / passed, 1) if passed else 0.0

    @staticmethod
    def _read():
        fields = pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
        return int(fields[7]), sum(map(int, fields))
