"""What every reader is held to: the same comes out however the bytes were cut, and nothing is raised but a refusal."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import atheris
import pyarrow as pa

from app.core.errors import Refusal
from app.core.interfaces import Stage
from app.core.page import Page
from tests.conformance.check_stage import Outcome, outcome_of, pages_of, run_stages


def cut_outcome(
    make: Callable[[], Sequence[Stage]],
    data: bytes,
    cuts: Sequence[int],
    outcome: Callable[[Sequence[Stage], Sequence[Page]], Outcome] = outcome_of,
) -> Outcome:
    """What ``data`` comes to, whole and cut; they must be the same."""
    whole = outcome(make(), pages_of(data, ()))
    cut = outcome(make(), pages_of(data, cuts))
    assert cut == whole, f"{data!r} cut before {cuts[:1]}, ...: {cut}, not {whole}"
    return whole


def printed(stages: Sequence[Stage], pages: Sequence[Page]) -> Outcome:
    """As ``outcome_of``, for values that Python has none for."""
    try:
        batches = [page.payload for page in run_stages(stages, pages)]
    except Refusal as refusal:
        return Outcome(None, (), (refusal.code, refusal.line, refusal.byte, refusal.column))
    for batch in batches:
        batch.validate(full=True)
    return Outcome(text_of(pa.Table.from_batches(batches)) if batches else "", (), None)


def text_of(table: pa.Table) -> str:
    """All values of ``table``."""
    columns = (column.combine_chunks() for column in table.columns)
    return "\n".join([str(table.schema), *(column.to_string(window=1000) for column in columns)])


def pieced(provider: atheris.FuzzedDataProvider, words: Sequence[bytes]) -> bytes:
    """Bytes that are made of ``words``, a byte each, and what else stands between them."""
    text = bytearray()
    for byte in provider.ConsumeBytes(provider.remaining_bytes()):
        text += words[byte - 128] if 128 <= byte < 128 + len(words) else bytes((byte,))
    return bytes(text)


def damaged(provider: atheris.FuzzedDataProvider, file: bytes) -> bytes:
    """``file`` with some bytes written over, left out, or put in, or cut off."""
    data = bytearray(file)
    while provider.remaining_bytes() > 4:
        position = provider.ConsumeIntInRange(0, len(data))
        kind = provider.ConsumeIntInRange(0, 9)
        patch = provider.ConsumeBytes(provider.ConsumeIntInRange(0, 8))
        if kind == 0:
            data[position:position] = patch
        elif kind == 1:
            del data[position : position + len(patch)]
        elif kind == 2:
            del data[position:]
        else:
            data[position : position + len(patch)] = patch
    return bytes(data)
