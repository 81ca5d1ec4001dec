"""Builds the peers that are written in C and Go; what was built is kept for as long as its source stays as it is."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

from bench.inputs import cache_folder


class Absent(Exception):
    """This cannot run here; the text says what is missing."""


def on_path(name: str) -> Path:
    """The program of that name, or ``Absent``."""
    found = shutil.which(name)
    if found is None:
        raise Absent(f"{name} is not installed")
    return Path(found)


def c_program(source: Path) -> Path:
    """``source``, which may include what stands beside it, compiled."""
    seen = hashlib.sha256()
    for file in sorted(source.parent.glob("*.[ch]")):
        seen.update(file.read_bytes())
    binary = cache_folder() / f"{source.stem}-{seen.hexdigest()[:12]}"
    if not binary.exists():
        partial = binary.with_suffix(".partial")
        _build([on_path("cc"), "-O2", "-Wall", "-Wextra", "-pthread", source, "-o", partial], source.parent)
        partial.rename(binary)
    return binary


def go_program(folder: Path) -> Path:
    """The Go module in ``folder``, built; Go itself knows what is still as it was."""
    binary = cache_folder() / "go-peer"
    _build([on_path("go"), "build", "-o", binary, "."], folder)
    return binary


def _build(command: list[str | Path], folder: Path) -> None:
    build = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if build.returncode:
        lines = build.stderr.strip().splitlines() or ["no word"]
        raise Absent(f"{Path(command[0]).name}: {lines[-1]}")
