"""The library in C as it is built for this processor, and for those that have less."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.framing import csv_kernel, csv_write, ends, json_text, ndjson_kernel, row_text
from app.framing.native import LIBRARIES
from app.stages import sql_kernel

_USERS = (csv_kernel, csv_write, ends, json_text, ndjson_kernel, row_text, sql_kernel)


@pytest.fixture(scope="module", autouse=True, params=LIBRARIES, ids=lambda library: Path(library._name).name)
def each_build(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test of a module that imports this runs with each build."""
    with pytest.MonkeyPatch.context() as patch:
        for module in _USERS:
            patch.setattr(module, "LIBRARY", request.param)
        yield
