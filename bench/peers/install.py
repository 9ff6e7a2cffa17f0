"""Installs the peers into bench/peers/.cache/venv, with the versions and settings named here."""

import os
import shlex
import subprocess
import sys

from engines import HERE

CACHE = HERE / ".cache"
PYTHON = CACHE / "venv" / "bin" / "python"
STAMP = CACHE / "installed"
PACKAGES = ["llama-cpp-python==0.3.36", "openvino-genai==2026.4.1.0", "gguf==0.19.0", "numpy"]
# llama.cpp is built for this processor, without its image models; two compilers at once fit into
# small machines. The header works around a compiler's bug; see there.
CMAKE_ARGS = [
    "-DGGML_NATIVE=ON",
    "-DLLAVA_BUILD=OFF",
    f"-DCMAKE_CXX_FLAGS=-include '{HERE / 'amx_config.h'}'",
]
BUILD = {"CMAKE_ARGS": shlex.join(CMAKE_ARGS), "CMAKE_BUILD_PARALLEL_LEVEL": "2"}


def install(find_links=None):
    """The Python that has the peers. `find_links`: a folder with packages already downloaded."""
    settings = [f"{key}={value}" for key, value in BUILD.items()]
    wanted = "\n".join([*PACKAGES, *settings, (HERE / "amx_config.h").read_text()])
    if STAMP.exists() and STAMP.read_text() == wanted:
        return PYTHON
    if not PYTHON.exists():
        subprocess.run([sys.executable, "-m", "venv", str(CACHE / "venv")], check=True)
    # Without pip's cache: a wheel in there may have been built with other settings.
    command = [str(PYTHON), "-m", "pip", "install", "--quiet", "--no-cache-dir"]
    command += ["--force-reinstall", *PACKAGES]
    if find_links:
        command += ["--find-links", find_links]
    print("installing the peers; compiling llama.cpp takes a while", file=sys.stderr)
    subprocess.run(command, check=True, env={**os.environ, **BUILD})
    STAMP.write_text(wanted)
    return PYTHON
