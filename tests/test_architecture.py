"""Who may import whom: the table of the tour in ``app/__init__.py``, walked."""

from __future__ import annotations

import ast
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
APP = ROOT / "app"
MAY_IMPORT: dict[str, set[str]] = {
    "core": set(),
    "framing": {"core"},
    "stages": {"core", "framing"},
    "stores": {"core"},
    "sources": {"core", "framing", "stores"},
    "sinks": {"core", "framing", "stores"},
    "pipeline": {"core"},
    "plan": {"core", "framing", "stages"},
    "runs": {"core", "pipeline", "stores"},
    "orders": {"core", "framing", "stages", "pipeline", "plan", "runs", "sources", "sinks", "stores"},
    "metrics": {"core"},
    "observer": {"metrics", "runs"},
    "web": {"core", "orders", "pipeline", "plan", "runs", "sources", "sinks", "stores"},
    "settings": {"core"},
    "allocator": set(),
}
EVERYBODY = {"main", "user_steps", "cli", "run_once", "server", "workers"}
NO_ASYNCIO = ("framing", "stages")
DEPENDENCIES = {
    "aiofiles", "backports.zstd", "boto3", "brotli", "duckdb", "fastapi", "httptools", "httpx", "isal", "lz4", "orjson",
    "prometheus-client", "psycopg", "pyarrow", "pydantic-settings", "python-multipart", "pyyaml", "sqlalchemy", "tqdm",
    "uvicorn", "uvloop",
}  # fmt: skip
FILES = sorted(APP.rglob("*.py"))


def room(path: Path) -> str:
    relative = path.relative_to(APP)
    return relative.parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(APP)))
def test_a_room_imports_only_what_it_may(path: Path) -> None:
    here = room(path)
    if here in EVERYBODY or here == "__init__":
        return
    rooms = {name.split(".")[1] for name in imports(path) if name.startswith("app.") and name.count(".") >= 1}
    assert rooms - {here} <= MAY_IMPORT[here], f"{here} imports {rooms - {here} - MAY_IMPORT[here]}"


def test_core_stands_on_the_standard_library() -> None:
    for path in FILES:
        if room(path) == "core":
            outside = {name.split(".")[0] for name in imports(path)} - sys.stdlib_module_names - {"app", "__future__"}
            assert not outside, f"{path.name}: {outside}"


@pytest.mark.parametrize("name", NO_ASYNCIO)
def test_stages_know_no_asyncio(name: str) -> None:
    for path in (APP / name).rglob("*.py"):
        assert "asyncio" not in imports(path), path


def test_settings_are_read_at_the_door_only() -> None:
    for path in FILES:
        if room(path) not in EVERYBODY | {"settings"}:
            assert not any("os.environ" in line or "getenv" in line for line in path.read_text().splitlines()), path
            assert "app.settings" not in imports(path), path


def test_no_middleware_that_re_streams_the_body() -> None:
    for path in FILES:
        text = path.read_text()
        assert "BaseHTTPMiddleware" not in text, path
        assert ".middleware(" not in text, path


def test_the_tour_names_every_room() -> None:
    tour = (APP / "__init__.py").read_text()
    for name in {room(path) for path in FILES} - {"__init__"}:
        assert f"\n{name}" in tour or f"{name}," in tour or f", {name}" in tour, name


def test_no_room_is_empty() -> None:
    for folder in (path for path in APP.iterdir() if path.is_dir() and path.name != "__pycache__"):
        assert len(list(folder.glob("*.py"))) > 1, folder


def test_dependencies_are_the_listed_ones() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {line.split(";")[0].split(">")[0].split("<")[0].split("[")[0].strip() for line in project["dependencies"]}
    assert names == DEPENDENCIES
    locked = (ROOT / "requirements.lock").read_text()
    for name in names:
        assert f"\n{name.replace('.', '-')}" in "\n" + locked, f"{name} is not locked"
