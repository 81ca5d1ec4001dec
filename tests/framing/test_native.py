"""Which build of the library in C is loaded."""

from __future__ import annotations

import platform
import re
from pathlib import Path

from app.framing.native import LIBRARIES, LIBRARY


def test_the_fastest_that_the_processor_runs_is_loaded() -> None:
    names = ["libweir.so"]
    if platform.machine() == "x86_64":
        flags = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        assert flags is not None
        if {"avx2", "bmi1", "bmi2", "pclmulqdq", "popcnt"} <= set(flags[1].split()):
            names.append("libweir-v3.so")
    assert [Path(library._name).name for library in LIBRARIES] == names
    assert LIBRARY is LIBRARIES[-1]
