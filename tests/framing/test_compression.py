"""Codecs: round trips, other people's files, every cut, bombs, and damage."""

from __future__ import annotations

import gzip
import io
import os
import zlib
from collections.abc import Callable, Iterable

import brotli
import lz4.frame
import pytest
from backports import zstd
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.errors import Refusal
from app.core.interfaces import Stage
from app.core.page import Page
from app.framing.codecs import CODEC_ALIASES
from app.framing.compression import CONTENT_CODINGS, STEP_CODECS, Compress, Decompress
from tests.conformance.check_stage import byte_cuts, check_memory, check_stage, outcome_of, pages_of, run_stages

CODECS = sorted({*STEP_CODECS, *CONTENT_CODINGS})
MIB = 1024 * 1024
TEXT = b"".join(b"%d,%d,some words that come again\n" % (n, n * n % 97) for n in range(40))

PACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "zstd": lambda data: zstd.compress(data, options={zstd.CompressionParameter.checksum_flag: 1}),
    "br": lambda data: brotli.compress(data, quality=4),
    "lz4": lambda data: lz4.frame.compress(data, content_checksum=True),
}
UNPACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.decompress,
    "zstd": zstd.decompress,
    "br": brotli.decompress,
    "lz4": lz4.frame.decompress,
}


def unpacked(codec: str, data: bytes, *, page_bytes: int = 4096, max_expansion: float = 1e6) -> bytes:
    stage = Decompress(codec, page_bytes=page_bytes, max_expansion=max_expansion)
    return b"".join(page.payload for page in run_stages([stage], pages_of(data, ())))


def refusal_of(codec: str, data: bytes, *, max_expansion: float = 1e6, page_bytes: int = 4096) -> Refusal:
    with pytest.raises(Refusal) as caught:
        unpacked(codec, data, page_bytes=page_bytes, max_expansion=max_expansion)
    return caught.value


def packed(codec: str, pages: Iterable[Page], page_bytes: int = 4096) -> bytes:
    return b"".join(page.payload for page in run_stages([Compress(codec, page_bytes=page_bytes)], pages))


@pytest.mark.parametrize("codec", CODECS)
def test_every_cut_of_the_input_compresses_to_the_same_bytes(codec: str) -> None:
    outcome = check_stage(lambda: [Compress(codec, page_bytes=64)], byte_cuts(TEXT[:300]), page_bytes=64)
    assert UNPACK[codec](outcome.content) == TEXT[:300]


@pytest.mark.parametrize("codec", CODECS)
def test_every_cut_of_the_compressed_input_gives_the_content(codec: str) -> None:
    make = lambda: [Decompress(codec, page_bytes=100, max_expansion=100)]  # noqa: E731
    outcome = check_stage(make, byte_cuts(PACK[codec](TEXT)), page_bytes=100)
    assert outcome.content == TEXT


@pytest.mark.parametrize("codec", CODECS)
@given(data=st.binary(max_size=3000), repeat=st.integers(1, 2000), cut=st.integers(1, 4000))
@settings(max_examples=15, deadline=None)
def test_a_round_trip_gives_back_every_byte(codec: str, data: bytes, repeat: int, cut: int) -> None:
    raw = (data * repeat)[: 2 * MIB]
    pages = pages_of(raw, range(cut * 100, len(raw), cut * 100))
    stages: list[Stage] = [
        Compress(codec, page_bytes=65536),
        Decompress(codec, page_bytes=65536, max_expansion=1e6),
    ]
    out = list(run_stages(stages, pages))
    assert b"".join(page.payload for page in out) == raw
    assert [page.byte for page in out] == [sum(p.nbytes for p in out[:i]) for i in range(len(out))]
    assert all(page.nbytes <= 65536 for page in out)


@pytest.mark.parametrize("codec", CODECS)
def test_noise_larger_than_a_page_survives_and_stays_in_pages(codec: str) -> None:
    noise = os.urandom(3 * MIB + 17)
    pages = list(run_stages([Compress(codec, page_bytes=MIB)], pages_of(noise, range(MIB, len(noise), MIB))))
    assert max(page.nbytes for page in pages) <= MIB
    assert UNPACK[codec](b"".join(page.payload for page in pages)) == noise


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("pages", [[], [Page(b"", 0, first=True)]])
def test_an_empty_stream_becomes_a_valid_empty_one(codec: str, pages: list[Page]) -> None:
    blob = packed(codec, pages)
    assert UNPACK[codec](blob) == b""
    assert unpacked(codec, blob) == b""


@pytest.mark.parametrize("codec", CODECS)
def test_the_end_missing_at_any_byte_is_truncated_input(codec: str) -> None:
    blob = PACK[codec](TEXT)
    for length in range(len(blob)):
        refusal = refusal_of(codec, blob[:length])
        assert (refusal.code, refusal.byte) == ("truncated_input", length)


@pytest.mark.parametrize("codec", ["gzip", "zstd", "lz4"])
def test_a_changed_byte_is_never_taken_for_data(codec: str) -> None:
    blob = PACK[codec](TEXT)
    for position in range(len(blob)):
        damaged = bytearray(blob)
        damaged[position] ^= 0x55
        outcome = outcome_of([Decompress(codec, page_bytes=512, max_expansion=1e6)], pages_of(bytes(damaged), ()))
        # Some bytes of a header mean nothing (a time, an operating system): then the content is what it was.
        assert outcome.refusal is not None or outcome.content == TEXT


@pytest.mark.parametrize("codec", CODECS)
def test_garbage_behind_the_end_is_corrupt_at_every_cut(codec: str) -> None:
    blob = PACK[codec](TEXT)
    make = lambda: [Decompress(codec, page_bytes=4096, max_expansion=100)]  # noqa: E731
    outcome = check_stage(make, byte_cuts(blob + b"XYZZY"))
    # Brotli's decoder does not tell where its stream ended: the block is named.
    assert outcome.refusal == ("corrupt_input", None, 0 if codec == "br" else len(blob), None)


@pytest.mark.parametrize("codec", ["gzip", "zstd", "lz4"])
def test_a_file_of_another_kind_is_corrupt_at_its_first_byte(codec: str) -> None:
    outcome = check_stage(lambda: [Decompress(codec, page_bytes=4096, max_expansion=100)], byte_cuts(b"id,name\n1,a\n"))
    assert outcome.refusal == ("corrupt_input", None, 0, None)


@pytest.mark.parametrize("codec", CODECS)
def test_damage_far_into_the_input_is_located_by_its_block(codec: str) -> None:
    noise = os.urandom(300_000)
    blob = bytearray(PACK[codec](noise + TEXT))
    begin = 200_000
    blob[begin : begin + 40] = bytes(40) if codec != "br" else b"\xff" * 40
    del blob[-3:]
    refusal = refusal_of(codec, bytes(blob))
    if refusal.code == "corrupt_input":  # in a stored block only the checksum can tell, and that is cut off
        assert refusal.byte is not None
        assert refusal.byte >= begin - 16384
    else:
        assert refusal.code == "truncated_input"


@pytest.mark.parametrize("codec", ["gzip", "zstd", "lz4"])
def test_members_may_follow_each_other_and_may_be_empty(codec: str) -> None:
    blob = PACK[codec](TEXT) + PACK[codec](b"") + PACK[codec](b"tail\n")
    make = lambda: [Decompress(codec, page_bytes=4096, max_expansion=100)]  # noqa: E731
    assert check_stage(make, byte_cuts(blob)).content == TEXT + b"tail\n"


def test_zeros_may_follow_the_last_member_of_a_gzip_file_but_not_come_first() -> None:
    blob = PACK["gzip"](b"abc") + bytes(700)
    make = lambda: [Decompress("gzip", page_bytes=4096, max_expansion=100)]  # noqa: E731
    assert check_stage(make, byte_cuts(blob)).content == b"abc"
    assert refusal_of("gzip", bytes(10)).code == "corrupt_input"
    assert refusal_of("gzip", blob + b"x").byte == len(blob)


def test_gzip_headers_with_every_field_are_read() -> None:
    deflated = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = deflated.compress(TEXT) + deflated.flush()
    header = b"\x1f\x8b\x08\x1e\0\0\0\0\0\x03" + b"\x04\0ab\0\0" + b"name.csv\0" + b"a comment\0"
    header += (zlib.crc32(header) & 0xFFFF).to_bytes(2, "little")
    blob = header + body + zlib.crc32(TEXT).to_bytes(4, "little") + len(TEXT).to_bytes(4, "little")
    make = lambda: [Decompress("gzip", page_bytes=4096, max_expansion=100)]  # noqa: E731
    assert check_stage(make, byte_cuts(blob)).content == TEXT


@pytest.mark.parametrize("codec", ["zstd", "lz4"])
def test_skippable_frames_are_skipped(codec: str) -> None:
    skippable = b"\x53\x2a\x4d\x18\x05\0\0\0abcde"
    assert unpacked(codec, skippable + PACK[codec](TEXT) + skippable) == TEXT


@pytest.mark.parametrize("codec", CODECS)
def test_a_bomb_is_refused_while_little_came_out(codec: str) -> None:
    blob = PACK[codec](bytes(40 * MIB))
    stage = Decompress(codec, page_bytes=65536, max_expansion=20)
    out: list[Page] = []
    with pytest.raises(Refusal, match="expansion_too_large"):
        out.extend(run_stages([stage], pages_of(blob, ())))
    assert sum(page.nbytes for page in out) <= max(MIB, 20 * len(blob))


@pytest.mark.parametrize("codec", CODECS)
def test_what_expands_by_less_than_the_ratio_passes(codec: str) -> None:
    raw = b"".join(b"%d,%d\n" % (n, n * n) for n in range(200_000))
    assert unpacked(codec, PACK[codec](raw), page_bytes=65536, max_expansion=20) == raw


def test_a_small_input_may_expand_by_any_ratio_up_to_a_mebibyte() -> None:
    assert unpacked("gzip", PACK["gzip"](bytes(MIB)), max_expansion=2) == bytes(MIB)
    assert refusal_of("gzip", PACK["gzip"](bytes(MIB + 1)), max_expansion=2).code == "expansion_too_large"


def test_the_verdict_on_a_bomb_does_not_depend_on_the_cuts() -> None:
    blob = PACK["gzip"](bytes(3 * MIB))
    streams = [pages_of(blob, cuts) for cuts in ((), (1,), range(7, len(blob), 7))]
    make = lambda: [Decompress("gzip", page_bytes=65536, max_expansion=100)]  # noqa: E731
    outcome = check_stage(make, streams)
    assert outcome.refusal == ("expansion_too_large", None, 0, None)


def test_a_zstd_window_is_taken_up_to_8_mib_and_refused_beyond() -> None:
    raw = os.urandom(1000) * 20_000
    for window_log, code in ((23, None), (24, "page_too_large")):
        writer = io.BytesIO()
        option = zstd.CompressionParameter
        with zstd.ZstdFile(writer, "w", options={option.window_log: window_log, option.compression_level: 1}) as file:
            for start in range(0, len(raw), MIB):
                file.write(raw[start : start + MIB])
        if code is None:
            assert unpacked("zstd", writer.getvalue(), page_bytes=MIB) == raw
        else:
            refusal = refusal_of("zstd", writer.getvalue())
            assert (refusal.code, refusal.byte) == (code, 0)
            assert "8 MiB" in refusal.detail


@pytest.mark.parametrize("codec", CODECS)
def test_memory_stays_within_what_is_declared(codec: str) -> None:
    noise = os.urandom(MIB // 2) + TEXT * (3 * MIB // len(TEXT))
    make: Callable[[], list[Compress]] = lambda: [Compress(codec, page_bytes=MIB // 4)]  # noqa: E731
    check_memory(make, pages_of(noise, range(MIB // 4, len(noise), MIB // 4)))
    blob = PACK[codec](noise)
    check_memory(
        lambda: [Decompress(codec, page_bytes=MIB // 4, max_expansion=1e6)],
        pages_of(blob, range(MIB // 4, len(blob), MIB // 4)),
    )


def test_http_names_gzip_twice_and_an_unknown_codec_is_refused() -> None:
    assert CODEC_ALIASES == {"x-gzip": "gzip"}
    assert unpacked("x-gzip", PACK["gzip"](TEXT)) == TEXT
    with pytest.raises(Refusal, match=r"bad_argument: 'rar'.*gzip, zstd, br, lz4"):
        Compress("rar", page_bytes=1024)
    with pytest.raises(Refusal, match="bad_argument"):
        Decompress("deflate", page_bytes=1024, max_expansion=10)
