"""Installs packages of steps where a server finds them: a folder for PYTHONPATH, as pip would leave it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

EXAMPLE = Path(__file__).parent / "example_steps"


def install(folder: Path, name: str, source: Path | str, entries: Mapping[str, str]) -> None:
    """A package ``name`` with its entry points."""
    if isinstance(source, Path):
        shutil.copytree(source, folder / name)
    else:
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.py").write_text(source)
    about = folder / f"{name}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [f"{step} = {name}:{function}" for step, function in entries.items()]
    (about / "entry_points.txt").write_text("[weir.stages]\n" + "\n".join(lines) + "\n")
