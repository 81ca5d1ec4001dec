"""The environment, read once at the door: ``WEIR_`` and the name in capitals; each is also a flag of ``weir serve``."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.core.units import parse_seconds, parse_size

_MIB = 1024 * 1024
_LEAST_QUERY_BYTES = 8 * _MIB


def _size(value: Any) -> Any:
    return parse_size(value) if isinstance(value, str) else value


def _seconds(value: Any) -> Any:
    return parse_seconds(value) if isinstance(value, str) else value


def _words(value: Any) -> Any:
    return tuple(word.strip() for word in value.split(",") if word.strip()) if isinstance(value, str) else value


def _named(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    pairs = [word.partition("=") for word in _words(value)]
    wrong = [name for name, equals, place in pairs if not equals or not name.isidentifier() or not place]
    if wrong:
        raise ValueError(f"NAME=s3://BUCKET/PREFIX or NAME=/DIRECTORY, with commas between, not {wrong[0]!r}")
    return {name: place for name, _, place in pairs}


Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words), PlainSerializer(",".join)]
Named = Annotated[
    dict[str, str],
    NoDecode,
    BeforeValidator(_named),
    PlainSerializer(lambda named: ",".join(f"{name}={place}" for name, place in named.items())),
]
Size = Annotated[int, BeforeValidator(_size), Field(ge=0)]
Seconds = Annotated[float, BeforeValidator(_seconds), Field(ge=0)]


class Settings(BaseSettings):
    """Every setting with its default. Sizes and times take units (``256MiB``, ``30s``). Frozen once read."""

    model_config = SettingsConfigDict(env_prefix="WEIR_", frozen=True, extra="ignore")

    memory_budget: Annotated[Size, Field(description="bytes that all runs together may hold at their worst")] = (
        256 * _MIB
    )
    page_bytes: Annotated[
        Size, Field(ge=4096, description="size of the pages that flow: 1MiB, less in small budgets")
    ] = Field(default_factory=lambda read: max(64 * 1024, min(_MIB, read.get("memory_budget", 0) // 256)))
    high_water_bytes: Annotated[
        Size, Field(ge=4096, description="bytes one edge between stages may hold: two pages by default")
    ] = Field(default_factory=lambda read: 2 * read.get("page_bytes", _MIB))
    query_memory: Annotated[
        Size,
        Field(
            description="what a step that needs all rows (aggregate, distinct, sql) may hold before it writes to disk,"
            " 8MiB at least; 0: half the budget, or less where that leaves room for larger pages",
        ),
    ] = 0
    max_flows: Annotated[int, Field(ge=1, description="runs at a time, whatever the budget would carry")] = 64
    worker_threads: Annotated[int, Field(ge=1, description="threads for stages")] = Field(
        default_factory=lambda: len(os.sched_getaffinity(0))
    )
    workers: Annotated[
        int, Field(ge=1, le=255, description="processes that share the port, the budget and the spool")
    ] = 1
    admit_timeout: Annotated[Seconds, Field(description="how long a run waits for the budget before a 503")] = 30.0
    spool_dir: Annotated[Path, Field(description="directory of the disk spool")] = Field(
        default_factory=lambda: Path(tempfile.gettempdir()) / f"weir-spool-{os.getuid()}"
    )
    spool_limit: Annotated[Size, Field(description="bytes the spool may take on disk")] = 64 * 1024 * _MIB
    max_body: Annotated[Size, Field(description="largest request body, as sent")] = 1024 * 1024 * _MIB
    max_line: Annotated[Size, Field(ge=1024, description="longest line or record")] = _MIB
    max_expansion: Annotated[float, Field(gt=1, description="largest ratio of decompressed to compressed bytes")] = (
        200.0
    )
    idle_timeout: Annotated[Seconds, Field(gt=0, description="how long a client may send, or take, nothing")] = 60.0
    header_timeout: Annotated[Seconds, Field(gt=0, description="how long the head of a request may take")] = 30.0
    keep_alive_timeout: Annotated[
        Seconds, Field(gt=0, description="how long a connection may rest between requests")
    ] = 75.0
    min_rate: Annotated[
        Size, Field(description="bytes a second that a client must send, or take, when it is its turn")
    ] = 0
    request_timeout: Annotated[Seconds, Field(description="how long one request may take in all; 0 is for ever")] = 0.0
    drain_timeout: Annotated[Seconds, Field(description="how long running requests may finish after SIGTERM")] = 30.0
    result_ttl: Annotated[Seconds, Field(description="how long runs and their rejects are kept")] = 3600.0
    run_attempts: Annotated[
        int, Field(ge=1, description="how often a run is begun whose server goes down while it is going on")
    ] = 3
    state: Annotated[
        str, Field(description="where runs are written down: a database URL; by default SQLite beside the spool")
    ] = ""
    results: Annotated[
        str | None, Field(description="s3://BUCKET/PREFIX where results are kept; by default beside the spool")
    ] = None
    s3_endpoint_url: Annotated[str | None, Field(description="an S3 server other than AWS")] = None
    s3_addressing: Annotated[
        Literal["auto", "path", "virtual"], Field(description="buckets in the path, or in the host's name")
    ] = "auto"
    s3_allow: Annotated[
        Words, Field(description="prefixes that users may read and write, s3://BUCKET/…, with commas between")
    ] = ()
    s3_part_bytes: Annotated[
        Size,
        Field(ge=5 * _MIB, le=5 * 1024 * _MIB, description="size of the first parts of an upload, and of ranges read"),
    ] = 8 * _MIB
    s3_parts_in_flight: Annotated[
        int, Field(ge=1, le=64, description="parts of one run that are sent, or ranges that are fetched, at a time")
    ] = 3
    s3_equal_parts: Annotated[
        bool, Field(description="the store wants all parts of an upload to be of one size, as R2 does")
    ] = False
    stores: Annotated[
        Named, Field(description="stores by name, for store:NAME/KEY: NAME=s3://BUCKET/PREFIX or NAME=/DIRECTORY, …")
    ] = Field(default_factory=dict)
    pipelines_dir: Annotated[Path | None, Field(description="directory of stored pipelines, NAME.yaml or .json")] = None
    lookups_dir: Annotated[
        str | None,
        Field(
            description="directory, or s3://BUCKET/PREFIX, of lookup tables, NAME.csv, .tsv, .ndjson, .parquet, .arrow"
        ),
    ] = None
    wire: Annotated[
        Literal["pages", "stock"],
        Field(description="pages: our own HTTP protocol; stock: uvicorn's, slower, without limits"),
    ] = "pages"
    socket_bytes: Annotated[
        Size,
        Field(description="what the kernel may buffer of a connection, each way; 0 leaves it to the kernel (32 MiB)"),
    ] = _MIB
    host: Annotated[str, Field(description="address to listen on")] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535, description="port to listen on; 0 picks a free one")] = 8080
    log_format: Annotated[Literal["text", "json"], Field(description="log lines for people or for machines")] = "text"

    @property
    def query_bytes(self) -> int:
        """QUERY_MEMORY, or what stands for it."""
        return self.query_memory or max(_LEAST_QUERY_BYTES, self.memory_budget // 2)

    @property
    def lanes(self) -> int:
        """See ``FlowOptions``."""
        return self.worker_threads + 1

    @model_validator(mode="after")
    def _fit(self) -> Settings:
        if self.max_line > self.page_bytes * 16:
            raise ValueError("MAX_LINE may be 16 times PAGE_BYTES at the most: a line is held whole")
        if 0 < self.query_memory < _LEAST_QUERY_BYTES:
            raise ValueError("QUERY_MEMORY is 8MiB at least, or 0")
        return self
