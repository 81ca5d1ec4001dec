"""Builds the library in C that the package has, with whatever C compiler is there. Without one Weir works, slower."""

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
BUILDS = {
    # By the processor: the first of its builds runs on all that are so called, and tells whether this one runs the next.
    "x86_64": {"libweir.so": ["-mpopcnt"], "libweir-v3.so": ["-mpopcnt", "-mavx2", "-mbmi", "-mbmi2", "-mpclmul"]},
}
ELSEWHERE: dict[str, list[str]] = {"libweir.so": []}


class NativeBuildHook(BuildHookInterface[Any]):
    """Called by hatchling for wheels and editable installs."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and say that the wheel is for this platform."""
        compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        folder = Path(self.root) / FOLDER
        builds = BUILDS.get(platform.machine(), ELSEWHERE) if compiler else {}
        for library in folder.glob("*.so"):
            if library.name not in builds:
                library.unlink()
        if compiler is None:
            self.app.display_warning("no C compiler: pyarrow alone will parse CSV and NDJSON, at a third of the speed")
            return
        sources = sorted(map(str, folder.glob("*.c")))
        for name, options in builds.items():
            made = folder / f"{name}.new"
            subprocess.run([compiler, *OPTIONS, *options, "-o", str(made), *sources, "-lm"], check=True)
            made.replace(folder / name)  # a server may have the old one open
            build_data["artifacts"].append(str(FOLDER / name))
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
