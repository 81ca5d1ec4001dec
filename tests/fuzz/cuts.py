"""What every reader is held to: the same comes out however the bytes were cut, and nothing is raised but a refusal."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import atheris

from app.core.interfaces import Stage
from tests.conformance.check_stage import Outcome, outcome_of, pages_of


def cut_outcome(make: Callable[[], Sequence[Stage]], data: bytes, cuts: Sequence[int]) -> Outcome:
    """What ``data`` comes to, whole and cut; they must be the same."""
    whole = outcome_of(make(), pages_of(data, ()))
    cut = outcome_of(make(), pages_of(data, cuts))
    assert cut == whole, f"{data!r} cut before {cuts[:1]}, ...: {cut}, not {whole}"
    return whole


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
