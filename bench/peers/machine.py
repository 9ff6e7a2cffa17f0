"""What the machine is called."""

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
