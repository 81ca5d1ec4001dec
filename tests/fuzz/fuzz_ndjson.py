"""A coverage-guided fuzzer of the NDJSON reader: ``make fuzz``.

Every line is a row or a reject, and a row holds what Python's own parser finds in its line.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import atheris

with atheris.instrument_imports(include=["app.framing"]):
    from app.framing.ndjson import reader, surveyor
    from app.framing.survey import Survey

import pyarrow as pa

from app.core.errors import Refusal
from tests.conformance.check_stage import outcome_of, pages_of, run_stages
from tests.fuzz.cuts import cut_outcome, pieced

PAGE, MAX_LINE = 256, 128
WORDS = [
    *(b'{"a":', b'"b":', b"}\n", b"}\r\n", b"{", b"}", b"[", b"]", b",", b":", b"null", b"true", b"false", b"1", b"-0"),
    *(b"1e400", b"1E5", b"01", b"9223372036854775808", b"9007199254740993", b"1" * 39, b"1.5", b"NaN", b"-Infinity"),
    *(b'"2020-01-31"', b'"2020-01-31T10:00:00Z"', b'"x"', b'"\\ud800"', b'"\\ud83d\\ude00"', b'"\\u0000"', b'"\xff"'),
    *(
        b'"\xc3\xbc"',
        b"\xef\xbb\xbf",
        b"\n",
        b"[" * 40,
        b'{"a":1,"a":2}\n',
        b'{"c":{"d":1}}\n',
        b'"' + b"y" * 150,
        b"\0",
    ),
    *(b'{"a":1}\n', b'{"a":"x"}\n', b'{"a":1.5}\n', b'{"a":[1]}\n'),
]


def one_input(data: bytes) -> None:
    provider = atheris.FuzzedDataProvider(data)
    kind = provider.ConsumeIntInRange(0, 2)
    sizes = {"page_bytes": provider.PickValueInList([16, 64, PAGE]), "max_line_bytes": MAX_LINE}
    cuts = provider.ConsumeIntInRange(0, 40)
    text = pieced(provider, WORDS)
    steps = list(range(cuts, len(text), cuts)) if cuts else []
    if kind == 0:
        cut_outcome(lambda: reader(types={}, **sizes), text, steps)
    elif kind == 1:
        compare(text)
    else:
        check_survey(text)


def compare(text: bytes) -> None:
    sizes = {"page_bytes": 1 << 16, "max_line_bytes": 1 << 16}
    try:
        pages = list(run_stages(reader(types={}, **sizes), pages_of(text, ())))
    except Refusal:
        return
    rejected = {reject.line for page in pages for reject in page.rejects}
    rows = pa.Table.from_batches([page.payload for page in pages]).to_pylist()
    lines = text.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    good = [line for number, line in enumerate(lines, 1) if number not in rejected and line.strip(b" \t\r")]
    assert len(rows) == len(good), (text, rejected)
    for row, line in zip(rows, good, strict=True):
        expected = json.loads(line)
        for name, value in row.items():
            assert alike(value, expected.get(name)), (line, name, value)
        assert not set(expected) - set(row), line


def alike(found: Any, said: Any) -> bool:
    """What was read is what was said, as far as their types are the same."""
    if isinstance(found, str | bool | int) or found is None:
        return type(found) is not type(said) or bool(found == said)
    return said is not None


def check_survey(text: bytes) -> None:
    """With the types of all rows, no field is unexpected."""
    sizes = {"page_bytes": PAGE, "max_line_bytes": MAX_LINE}
    stages = surveyor(**sizes)
    survey = stages[-1]
    assert isinstance(survey, Survey)
    try:
        list(run_stages(stages, pages_of(text, ())))
    except Refusal:
        return
    read = outcome_of(reader(types={}, survey=survey, **sizes), pages_of(text, ()))
    for reject in read.rejects:
        if reject.code == "unexpected_field":
            # Only what is in a line that is bad otherwise was not seen.
            assert not is_plain(reject.text), (text, reject)


def is_plain(line: str) -> bool:
    """It is a row of a table that has only this line."""
    alone = outcome_of(reader(types={}, page_bytes=1 << 16, max_line_bytes=1 << 16), pages_of(line.encode(), ()))
    return alone.refusal is None and not alone.rejects


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
