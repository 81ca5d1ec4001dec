"""Steps of one's own for Weir: over rows, over lines, with an argument, and in a process of its own."""

from __future__ import annotations

import re
from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

from app.stages.user import step


@step(takes="rows", stateless=True)
def with_total(batch: pa.RecordBatch) -> pa.RecordBatch:
    """A column ``total``: price times qty."""
    return batch.append_column("total", pc.multiply(batch["price"], batch["qty"]))


@step(takes="rows", argument=True)
def mask(column: str) -> Callable[[pa.RecordBatch], pa.RecordBatch]:
    """``mask=COLUMN``: its texts become stars."""
    if not column:
        raise ValueError("say which column: mask=COLUMN")

    def masked(batch: pa.RecordBatch) -> pa.RecordBatch:
        stars = pc.replace_substring_regex(batch[column], ".", "*")
        return batch.set_column(batch.schema.get_field_index(column), column, stars)

    return masked


@step(takes="lines")
def shout(lines: bytes) -> bytes:
    """Every line ends with an exclamation mark."""
    return lines.replace(b"\n", b"!\n")


@step(takes="rows", process=True, timeout_s=10)
def slug(batch: pa.RecordBatch) -> pa.RecordBatch:
    """A column ``slug`` by plain Python, which is slow: so it has a process, and a GIL, of its own."""
    slugs = [re.sub(r"[^a-z0-9]+", "-", str(name).lower()).strip("-") for name in batch["item"].to_pylist()]
    return batch.append_column("slug", pa.array(slugs, pa.string()))
