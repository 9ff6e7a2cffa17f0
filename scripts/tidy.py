#!/usr/bin/env python3
"""Checks the house rules that no compiler checks.

    scripts/tidy.py [ROOT]      prints "path:line: rule: what, and what to do"; exits 1 if any

layers      include edges of src/ and apps/ against src/LAYERS
function    no function longer than 70 lines
parameters  no function with more than 5
file        no source file longer than 600 lines (.inc tables are free)
line        no line wider than 100 columns
banned      words with a better replacement in this project
blob        no file over 1 MB
test        every *_test.cc is built
docs        every path named in the documentation exists
"""
import os
import re
import sys
from pathlib import Path
from typing import Iterator, NamedTuple

FUNCTION_LINES_MAX = 70
PARAMETERS_MAX = 5
FILE_LINES_MAX = 600
COLUMNS_MAX = 100
BLOB_BYTES_MAX = 1 << 20

# From the root; the folders that .gitignore names.
SKIPPED_FOLDERS = re.compile(r"\.git|build[^/]*|models|rust/[^/]+/target|"
                             r"(.*/)?(__pycache__|\.cache|\.\w+_cache)")
CODE_FOLDERS = ("src", "apps", "tests", "scripts", "cmake", "rust", "bench", ".ci")
CPP = (".cc", ".h", ".inc")
MEASURED = (".cc", ".h", ".py", ".rs")


class Finding(NamedTuple):
    path: str
    line: int
    rule: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.rule}: {self.text}"


class Source(NamedTuple):
    path: str   # from the root, with forward slashes
    raw: str
    code: str   # for C++: comments and the insides of literals blanked, lines kept


# ---- reading ------------------------------------------------------------------------------------

# Comments, raw strings, strings and characters; a quote after a digit is a digit separator.
LITERALS = re.compile(
    r"""//(?:\\\n|[^\n])*|/\*.*?\*/|R"(?P<mark>[^()\s"]*)\(.*?\)(?P=mark)"|"(?:\\.|[^"\\\n])*"|"""
    r"""(?<![0-9a-fA-F])'(?:\\.|[^'\\\n])+'""", re.DOTALL)
INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"', re.MULTILINE)


def blank_literals(text: str) -> str:
    def blank(match: re.Match) -> str:
        kept = match.group(0)
        quotes = '""' if '"' in kept[:2] and kept[0] in 'R"' else "''" if kept[0] == "'" else " "
        return quotes + "\n" * kept.count("\n")
    return LITERALS.sub(blank, text)


def walk(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        here = Path(folder).relative_to(root)
        folders[:] = sorted(f for f in folders
                            if not SKIPPED_FOLDERS.fullmatch((here / f).as_posix()))
        for name in sorted(files):
            yield Path(folder, name)


def read_sources(root: Path) -> list[Source]:
    sources = []
    for path in walk(root):
        name = path.relative_to(root).as_posix()
        if "/" in name and name.split("/")[0] not in CODE_FOLDERS or path.suffix == ".json":
            continue
        try:
            raw = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # binary test data
        sources.append(Source(name, raw, blank_literals(raw) if path.suffix in CPP else raw))
    return sources


def line_at(text: str, offset: int) -> int:
    return text.count("\n", 0, offset) + 1


# ---- layers -------------------------------------------------------------------------------------

def read_layers(root: Path) -> tuple[dict[str, list[str]], list[Finding]]:
    """{folder: what it may include}, and what is wrong with the file itself."""
    layers: dict[str, list[str]] = {}
    findings = []
    for number, line in enumerate((root / "src/LAYERS").read_text().splitlines(), 1):
        line = line.split("#")[0].strip()
        if not line:
            continue
        folder, _, allowed = line.partition(":")
        for entry in allowed.split():
            if entry.split("/")[0] not in layers:
                findings.append(Finding("src/LAYERS", number, "layers",
                                        f"{folder} includes {entry}, which is not below it"))
        layers[folder] = allowed.split()
    return layers, findings


def check_layers(root: Path, sources: list[Source]) -> Iterator[Finding]:
    layers, findings = read_layers(root)
    yield from findings
    for source in sources:
        parts = source.path.split("/")
        if not source.path.endswith(CPP) or parts[0] not in ("src", "apps") or len(parts) < 2:
            continue
        folder = parts[1] if parts[0] == "src" else "apps"
        if folder not in layers:
            yield Finding(source.path, 1, "layers", f"folder {folder} is not in src/LAYERS")
            continue
        for match in INCLUDE.finditer(source.raw):
            included = match.group(1)
            target = included.split("/")[0]
            if folder != "apps" and (root / source.path).parent.joinpath(included).exists():
                text = f'"{included}": write it from src/, as "{folder}/{included}"'
            elif target in layers and target != folder and target not in layers[folder] \
                    and included not in layers[folder]:
                text = f'{folder} may not include "{included}" (see src/LAYERS)'
            else:
                continue
            yield Finding(source.path, line_at(source.raw, match.start()), "layers", text)


# ---- functions ----------------------------------------------------------------------------------

CONTAINER = re.compile(r"(template\s*<.*>\s*)?(\w+:\s*)*(inline\s+|typedef\s+|static\s+)*"
                       r"(namespace|class|struct|union|enum|extern\s*\"\")\b|"
                       r"extern\s*\"\"\s*$", re.DOTALL)
# `Type(int a) : member_` or `..., member_`: the brace that follows initialises a member.
MEMBER_BRACE = re.compile(r"\)\s*(noexcept\s*)?:(?!:).*[\w>]\s*$", re.DOTALL)
SPECIFIER_END = re.compile(r"\)\s*(const|noexcept|override|final|mutable|&|\s)*$")


class Function(NamedTuple):
    line: int
    lines: int
    head: str   # from the previous statement's end to the opening brace


def brace_kind(head: str) -> str:
    head = re.sub(r"alignas\s*\([^()]*\)", "", head)
    if CONTAINER.match(head):
        return "container"
    if not head or ")" not in head or head.endswith(("=", ",", "(", "return")):
        return "initialiser"
    if MEMBER_BRACE.search(head) and not SPECIFIER_END.search(head):
        return "initialiser"
    return "function"


def functions(code: str) -> Iterator[Function]:
    """Outermost functions of C++ code, found by counting braces."""
    code = re.sub(r"^[ \t]*#(?:\\\n|[^\n])*", "", code, flags=re.MULTILINE)
    stack: list[tuple[str, int]] = []   # kind of each open brace, where its head starts
    begin = 0                           # of the current head
    for match in re.finditer(r"[{};]|public:|private:|protected:", code):
        inside = bool(stack) and stack[-1][0] == "function"
        initialising = bool(stack) and stack[-1][0] == "initialiser"
        if match.group() == "{":
            head = code[begin:match.start()].strip()
            kind = stack[-1][0] if inside or initialising else brace_kind(head)
            stack.append((kind, begin))
            if kind == "container":
                begin = match.end()
        elif match.group() == "}" and stack:
            kind, start = stack.pop()
            if kind == "function" and not (stack and stack[-1][0] == "function"):
                start += len(code[start:]) - len(code[start:].lstrip())
                head = code[start:match.end()].split("{")[0]
                first, last = line_at(code, start), line_at(code, match.start())
                yield Function(first, last - first + 1, head)
            if kind != "initialiser":
                begin = match.end()
        elif not inside and not initialising:
            begin = match.end()


def parameter_count(head: str) -> int:
    """Of the first parenthesis that follows a name outside <...>; commas at its top level."""
    head = re.sub(r"template\s*<[^(){}]*>|operator\s*\(\)|(alignas|decltype|__attribute__)\s*"
                  r"\([^()]*\)|\[\[.*?\]\]", " f ", head)
    start = re.search(r"[\w>\]=+\-*/<!&|^]\s*\(", head)
    if not start:
        return 0
    depth, commas, text = 0, 0, head[start.end():]
    for index, char in enumerate(text):
        if char in "([{<":
            depth += 1
        elif char in ")]}" and depth == 0:
            return commas + 1 if text[:index].strip() not in ("", "void") else 0
        elif char in ")]}>" and text[index - 1:index] != "-":
            depth -= 1
        elif char == "," and depth == 0:
            commas += 1
    return 0


def check_functions(_: Path, sources: list[Source]) -> Iterator[Finding]:
    for source in sources:
        if not source.path.endswith((".cc", ".h")):
            continue
        for function in functions(source.code):
            if function.lines > FUNCTION_LINES_MAX:
                yield Finding(source.path, function.line, "function",
                              f"{function.lines} lines; split it (at most {FUNCTION_LINES_MAX})")
            count = parameter_count(function.head)
            if count > PARAMETERS_MAX:
                yield Finding(source.path, function.line, "parameters",
                              f"{count}; use an options struct (at most {PARAMETERS_MAX})")


# ---- sizes --------------------------------------------------------------------------------------

def check_sizes(root: Path, sources: list[Source]) -> Iterator[Finding]:
    for source in sources:
        lines = source.raw.splitlines()
        measured = source.path.endswith(MEASURED)
        if measured and len(lines) > FILE_LINES_MAX:
            yield Finding(source.path, len(lines), "file",
                          f"{len(lines)} lines; split it (at most {FILE_LINES_MAX})")
        if measured or source.path.endswith(("CMakeLists.txt", ".cmake")):
            for number, line in enumerate(lines, 1):
                if len(line) > COLUMNS_MAX:
                    yield Finding(source.path, number, "line",
                                  f"{len(line)} columns; wrap it (at most {COLUMNS_MAX})")
    for path in walk(root):
        if path.is_file() and path.stat().st_size > BLOB_BYTES_MAX:
            yield Finding(path.relative_to(root).as_posix(), 1, "blob",
                          f"{path.stat().st_size} bytes; fetch or generate it instead")


# ---- banned words -------------------------------------------------------------------------------

class Banned(NamedTuple):
    pattern: str
    instead: str
    where: str = r".*"
    not_where: str = r"(?!)"
    comments_too: bool = False


BANNED = (
    Banned(r"\b(std::)?s?rand\s*\(|\bstd::rand\b", "base/rng.h"),
    Banned(r"\b(std::|secure_)?getenv\b", "an option on the command line"),
    Banned(r"\bthrow\b", "base::Result or base::Status"),
    Banned(r"\bshared_ptr\b", "one owner and references", where=r"src/(kv|sched|model)/"),
    Banned(r"\bstd::function\b", "a template or a function pointer", where=r"src/kernels/"),
    Banned(r"\busing\s+namespace\b", "the full name or one using-declaration"),
    Banned(r"\bstd::(exp|expm1|exp2|log|log2|log10|log1p|pow|sin|cos|tan|tanh|erf)f?\s*\(|"
           r"(?<![\w:.>])(exp|log|pow|sin|cos|tanh|erf)f\s*\(",
           "base/math.h or a kernel: the C library's bits differ between machines",
           not_where=r".*_test\.cc|src/bench/|tests/"),
    Banned(r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b", "finish it, or open an issue", comments_too=True),
)


def check_banned(_: Path, sources: list[Source]) -> Iterator[Finding]:
    for source in sources:
        for banned in BANNED:
            text = source.raw if banned.comments_too else source.code
            if not banned.comments_too and not source.path.endswith(CPP):
                continue
            if not re.match(banned.where, source.path) or re.match(banned.not_where, source.path):
                continue
            for match in re.finditer(banned.pattern, text):
                yield Finding(source.path, line_at(text, match.start()), "banned",
                              f"'{match.group().strip()}'; instead: {banned.instead}")


# ---- tests and documentation --------------------------------------------------------------------

def check_tests(root: Path, sources: list[Source]) -> Iterator[Finding]:
    lists = {s.path: s.raw for s in sources if s.path.endswith("CMakeLists.txt")}
    layers = re.findall(r"^\s*kvasir_layer\((\w+)", lists.get("CMakeLists.txt", ""), re.MULTILINE)
    for source in sources:
        if not source.path.endswith("_test.cc"):
            continue
        folder, name = os.path.split(source.path)
        listed = any(name in text and path.startswith("tests/") and
                     folder.startswith(os.path.dirname(path)) for path, text in lists.items())
        if not listed and folder not in (f"src/{layer}" for layer in layers):
            yield Finding(source.path, 1, "test", "no CMakeLists.txt builds it; list it in tests/")


QUOTED = re.compile(r"`([^`\s]+)`")
LINK = re.compile(r"\]\(([^)\s#]+)(?:#[^)\s]*)?\)")
REPO_PATH = re.compile(r"(src|apps|tests|docs|scripts|cmake|rust|bench|\.ci)/[\w.*/{},-]*")


def path_exists(root: Path, path: str) -> bool:
    alternatives = re.fullmatch(r"(.*)\{(.*)\}(.*)", path)
    if alternatives:
        before, middle, after = alternatives.groups()
        return all(path_exists(root, before + m + after) for m in middle.split(","))
    if "*" in path:
        return any(root.glob(path))
    return (root / path).exists()


def check_docs(root: Path, _: list[Source]) -> Iterator[Finding]:
    for document in [p for p in walk(root) if p.suffix == ".md"]:
        text = document.read_text(encoding="utf-8")
        name = document.relative_to(root).as_posix()
        for match in QUOTED.finditer(text):
            path = re.sub(r":\d+$", "", match.group(1)).rstrip(".,")
            if REPO_PATH.fullmatch(path) and not path_exists(root, path):
                yield Finding(name, line_at(text, match.start()), "docs", f"no such path: {path}")
        for match in LINK.finditer(text):
            if ":" not in match.group(1) and not (document.parent / match.group(1)).exists():
                yield Finding(name, line_at(text, match.start()), "docs",
                              f"link to nothing: {match.group(1)}")


CHECKS = (check_layers, check_functions, check_sizes, check_banned, check_tests, check_docs)


def check(root: Path) -> list[Finding]:
    sources = read_sources(root)
    return sorted(finding for rule in CHECKS for finding in rule(root, sources))


def main() -> int:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent
    findings = check(root)
    for finding in findings:
        print(finding)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
