"""The command ``weir``: serve, run, version."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import uvloop
from pydantic import ValidationError

from app.allocator import tune_allocator
from app.core.errors import Refusal
from app.core.units import as_size
from app.plan import STEPS, WORDS, Plan, plan_of_query, plan_of_text
from app.run_once import run_once
from app.server import Place, serve_on
from app.settings import Settings
from app.user_steps import install_user_steps
from app.workers import BACKLOG, listeners, supervise, work


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status is 0 only if all went well, 2 for wrong usage."""
    install_user_steps()
    asked = _parser().parse_args(arguments)
    try:
        status: int = asked.command(asked)
    except Refusal as refusal:
        print(f"weir: {refusal.code}: {refusal.detail}", file=sys.stderr)
        return 1
    except ValidationError as error:
        for wrong in error.errors():
            name = str(wrong["loc"][0]).upper() if wrong["loc"] else "settings"
            print(f"weir: WEIR_{name}: {wrong['msg']} (it is {wrong['input']!r})", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return status


def serve(asked: argparse.Namespace) -> int:
    """Serve HTTP until SIGTERM or SIGINT; running requests may finish within DRAIN_TIMEOUT."""
    settings = _settings(asked)
    _log(settings.log_format)
    tune_allocator()
    if asked.as_worker:
        number, count, directory, fd, parent = asked.as_worker
        work(settings, Place(int(number), int(count), Path(directory)), int(fd), int(parent))
        return 0
    try:
        bound = listeners(settings.host, settings.port, settings.workers)
    except OSError as error:
        raise Refusal("bad_argument", f"cannot listen on {settings.host}:{settings.port}: {error.strerror}") from error
    host, port = bound[0].getsockname()[:2]
    several = f"{settings.workers} workers, " if settings.workers > 1 else ""
    ready = (
        f"weir listening on http://{host}:{port} ({several}memory budget {as_size(settings.memory_budget)},"
        f" spool {settings.spool_dir})"
    )
    if settings.workers > 1:
        supervise(settings, bound, ready)
        return 0
    bound[0].listen(BACKLOG)
    print(ready, flush=True)
    serve_on(bound[0], settings)
    return 0


def run(asked: argparse.Namespace) -> int:
    """Run one pipeline over a file, with the very engine that the server uses."""
    settings = _settings(asked)
    tune_allocator()
    plan = _read_document(Path(asked.pipeline_file)) if asked.pipeline_file else plan_of_query(asked.words or [])
    if asked.pipeline_file and asked.words:
        raise Refusal("bad_pipeline", "-p names all the steps: give either it or steps, not both")
    if plan.on_error == "quarantine" and not asked.rejects:
        raise Refusal("bad_argument", "--on-error quarantine needs --rejects FILE to keep the rejects in")
    uvloop.run(run_once(plan, asked.source, asked.sink, asked.rejects and Path(asked.rejects), settings))
    return 0


def show_version(_: argparse.Namespace) -> int:
    """Print the version."""
    print(f"weir {version('weir')}")
    return 0


def _read_document(path: Path) -> Plan:
    try:
        return plan_of_text(path.read_text(encoding="utf-8"), path.name)
    except (OSError, UnicodeDecodeError) as error:
        raise Refusal("bad_pipeline", f"the pipeline {path} cannot be read: {error}") from error


def _settings(asked: argparse.Namespace) -> Settings:
    given = {name: value for name in Settings.model_fields if (value := getattr(asked, name, None)) is not None}
    return Settings(**given)


_OF_RUN = (
    "memory_budget", "query_memory", "page_bytes", "worker_threads", "spool_dir", "max_line", "max_expansion",
    "s3_endpoint_url", "s3_addressing", "s3_part_bytes", "s3_parts_in_flight", "s3_equal_parts", "stores", "lookups_dir",
)  # fmt: skip


class _Word(argparse.Action):
    """Collects steps and parameters in the order in which they stand on the command line."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        words = list(getattr(namespace, "words", None) or [])
        # Where an argument may be left out and is, argparse gives the constant itself.
        words.append((self.const, values if isinstance(values, str) and values is not self.const else ""))
        namespace.words = words


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="weir", description="Stream files through pipelines in bounded memory.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serving = commands.add_parser("serve", help="serve HTTP", description=serve.__doc__)
    _add_settings(serving, Settings.model_fields)
    serving.add_argument("--as-worker", nargs=5, help=argparse.SUPPRESS)
    serving.set_defaults(command=serve)

    running = commands.add_parser("run", help="run one pipeline over a file", description=run.__doc__)
    running.add_argument(
        "source", metavar="SOURCE", help="a file, - for standard input, s3://BUCKET/KEY or store:NAME/KEY"
    )
    running.add_argument(
        "sink", metavar="SINK", help="a file, - for standard output, s3://BUCKET/KEY or store:NAME/KEY"
    )
    running.add_argument(
        "-p", dest="pipeline_file", metavar="FILE", help="a pipeline as YAML or JSON, instead of steps"
    )
    running.add_argument("--rejects", metavar="FILE", help="where --on-error quarantine keeps rejected rows, as NDJSON")
    for word in WORDS:
        if word not in ("pipeline", "deliver", "sink"):
            running.add_argument(f"--{word.replace('_', '-')}", action=_Word, const=word, metavar=word.upper())
    for step in STEPS.values():
        nargs = 0 if step.argument is None else "?" if step.argument.startswith("[") else None
        flag, does = f"--{step.name.replace('_', '-')}", f"step: {step.does}"
        running.add_argument(flag, action=_Word, const=step.name, nargs=nargs, metavar="ARG", help=does)
    _add_settings(running, _OF_RUN)
    running.set_defaults(command=run, words=None)

    shown = commands.add_parser("version", help="print the version")
    shown.set_defaults(command=show_version)
    return parser


def _add_settings(parser: argparse.ArgumentParser, names: Any) -> None:
    group = parser.add_argument_group("settings", "each is also an environment variable, WEIR_ and the name")
    for name in names:
        described = Settings.model_fields[name]
        note = next(
            (m.description for m in described.metadata if getattr(m, "description", None)), described.description
        )
        group.add_argument(f"--{name.replace('_', '-')}", dest=name, metavar="X", help=str(note).replace("%", "%%"))


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        document = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            document["exception"] = self.formatException(record.exc_info)
        return json.dumps(document, ensure_ascii=False)


def _log(log_format: str) -> None:
    handler = logging.StreamHandler()
    text = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(_JsonLines() if log_format == "json" else text)
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    # An answer that is left incomplete on purpose tells a failure after the first byte; the run's own line says why.
    logging.getLogger("uvicorn.error").addFilter(
        lambda record: "without completing response" not in record.getMessage()
    )


if __name__ == "__main__":
    sys.exit(main())
