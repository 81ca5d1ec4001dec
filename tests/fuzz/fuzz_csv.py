"""A coverage-guided fuzzer of the CSV reader, in any dialect: ``make fuzz``.

What is read as text is what Python's own reader makes of it, and every record is a row or a reject.
"""

from __future__ import annotations

import csv
import io
import sys

import atheris

with atheris.instrument_imports(include=["app.framing"]):
    from app.framing.csv import reader, surveyor
    from app.framing.dialect import CsvDialect
    from app.framing.survey import Survey

from app.core.errors import Refusal
from tests.conformance.check_stage import Outcome, outcome_of, pages_of, run_stages
from tests.fuzz.cuts import cut_outcome, pieced

PAGE, MAX_LINE = 256, 128
WORDS = [
    *(b'"', b'""', b",", b"\n", b"\r\n", b"\r", b";", b"'", b"''", b"1", b"-0", b"1e400", b"1E5", b"007", b"0x1F"),
    *(b"9223372036854775807", b"9223372036854775808", b"9007199254740993", b"1" * 39, b".5", b"nan", b"-inf", b"+1"),
    *(
        b"2020-01-31",
        b"2020-01-31 10:00:00",
        b"2020-01-31T10:00:00.123456Z",
        b"9999-12-31",
        b"10:00",
        b"true",
        b"FALSE",
    ),
    *(b"NULL", b"\xef\xbb\xbf", b"\xc3\xbc", b"\xff", b"\0", b" ", b"\t", b"x" * 100, b'"' + b"y" * 300, b"a,b\n"),
    *(b"1,2\n", b"x,y\n", b'"a","b"\n'),
]


def one_input(data: bytes) -> None:
    provider = atheris.FuzzedDataProvider(data)
    delimiter = provider.PickValueInList([b",", b";", b"\t", b"^"])
    quote = provider.PickValueInList([b'"', b"'", b""])
    nulls = provider.PickValueInList([("",), ("NULL",), ("", "NULL", "x")])
    dialect = CsvDialect(delimiter, quote, provider.ConsumeBool(), nulls)
    kind = provider.ConsumeIntInRange(0, 2)
    page_bytes = provider.PickValueInList([16, 64, PAGE])
    cuts = provider.ConsumeIntInRange(0, 40)
    text = pieced(provider, WORDS)
    steps = list(range(cuts, len(text), cuts)) if cuts else []
    if kind == 0:
        sizes = {"page_bytes": page_bytes, "max_line_bytes": MAX_LINE}
        cut_outcome(lambda: reader(dialect=dialect, types={}, **sizes), text, steps)
    elif kind == 1:
        as_text = CsvDialect(dialect.delimiter, dialect.quote, dialect.header, ("\0 never",))
        whole = cut_outcome(lambda: all_text(as_text), text, steps)
        if whole.refusal is None and not whole.rejects and not text.startswith(b"\xef\xbb\xbf\xef\xbb\xbf"):
            compare(whole, text, as_text)
    else:
        check_survey(dialect, text)


def all_text(dialect: CsvDialect) -> list[object]:
    """A reader whose columns are all texts: a survey that has seen nothing says so."""
    nothing = surveyor(dialect=dialect, page_bytes=PAGE, max_line_bytes=1 << 20)[-1]
    return reader(dialect=dialect, types={}, survey=nothing, page_bytes=PAGE, max_line_bytes=1 << 20)  # type: ignore[return-value]


def compare(whole: Outcome, text: bytes, dialect: CsvDialect) -> None:
    """Python's reader finds the same fields."""
    plain = text.removeprefix(b"\xef\xbb\xbf").lstrip(b"\r\n").decode()
    quoting = {"quotechar": dialect.quote.decode()} if dialect.quote else {"quoting": csv.QUOTE_NONE, "quotechar": None}
    lines = csv.reader(io.StringIO(plain, newline=""), delimiter=dialect.delimiter.decode(), **quoting)  # type: ignore[call-overload]
    expected = list(lines)
    width = len(expected[0])
    records = [row or [""] for row in expected if row or width == 1][dialect.header :]
    found = [list(row.values()) for row in eval(whole.content[1])]
    assert found == records, (text, dialect)


def check_survey(dialect: CsvDialect, text: bytes) -> None:
    """With the types of all rows, no value is a bad one."""
    stages = surveyor(dialect=dialect, page_bytes=PAGE, max_line_bytes=MAX_LINE)
    survey = stages[-1]
    assert isinstance(survey, Survey)
    try:
        list(run_stages(stages, pages_of(text, ())))
    except Refusal:
        return
    sizes = {"page_bytes": PAGE, "max_line_bytes": MAX_LINE}
    read = outcome_of(reader(dialect=dialect, types={}, survey=survey, **sizes), pages_of(text, ()))
    assert not [reject for reject in read.rejects if reject.code == "bad_value"], (text, read)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
