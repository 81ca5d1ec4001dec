"""Builds the one library in C that the package has, with whatever C compiler is there. Without one Weir works, slower."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = Path("app/framing/native")
OPTIONS = ["-O3", "-std=gnu11", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror"]


class NativeBuildHook(BuildHookInterface[Any]):
    """Called by hatchling for wheels and editable installs."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and say that the wheel is for this platform."""
        compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        folder = Path(self.root) / FOLDER
        library = folder / "libweir.so"
        if compiler is None:
            self.app.display_warning("no C compiler: pyarrow alone will parse CSV and NDJSON, at a third of the speed")
            library.unlink(missing_ok=True)
            return
        portable = ["-mpopcnt"] if platform.machine() == "x86_64" else []  # every one since 2008 has it
        made = library.with_suffix(".new")
        subprocess.run(
            [compiler, *OPTIONS, *portable, "-o", str(made), *map(str, sorted(folder.glob("*.c"))), "-lm"], check=True
        )
        made.replace(library)  # a server may have the old one open
        build_data["artifacts"].append(str(FOLDER / library.name))
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
