"""The environment, read once at the door: ``WEIR_`` and the name in capitals; each is also a flag of ``weir serve``."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.core.units import parse_seconds, parse_size

_MIB = 1024 * 1024


def _size(value: Any) -> Any:
    return parse_size(value) if isinstance(value, str) else value


def _seconds(value: Any) -> Any:
    return parse_seconds(value) if isinstance(value, str) else value


Size = Annotated[int, BeforeValidator(_size), Field(ge=0)]
Seconds = Annotated[float, BeforeValidator(_seconds), Field(ge=0)]


class Settings(BaseSettings):
    """Every setting with its default. Sizes and times take units (``256MiB``, ``30s``). Frozen once read."""

    model_config = SettingsConfigDict(env_prefix="WEIR_", frozen=True, extra="ignore")

    memory_budget: Annotated[Size, Field(description="bytes that all runs together may hold at their worst")] = (
        256 * _MIB
    )
    page_bytes: Annotated[Size, Field(ge=4096, description="size of the pages that flow")] = _MIB
    high_water_bytes: Annotated[Size, Field(ge=4096, description="bytes one edge between stages may hold")] = 2 * _MIB
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
    pipelines_dir: Annotated[Path | None, Field(description="directory of stored pipelines, NAME.yaml or .json")] = None
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

    @model_validator(mode="after")
    def _fit(self) -> Settings:
        if self.max_line > self.page_bytes * 16:
            raise ValueError("MAX_LINE may be 16 times PAGE_BYTES at the most: a line is held whole")
        return self
