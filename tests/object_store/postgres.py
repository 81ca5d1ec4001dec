"""A PostgreSQL server for a while, of the binaries that Debian's package ``postgresql`` has; its data goes with it."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, make_url

DEBIAN = Path("/usr/lib/postgresql")
USER = "weir"
DATABASE = "postgres"


@contextmanager
def postgres(directory: Path, **settings: str) -> Iterator[str]:
    """The URL, for SQLAlchemy, of an empty database on a UNIX socket. Nothing is synced to the disk.

    ``settings`` are PostgreSQL's own, such as ``max_connections="20"``. The log is ``directory / "postgres.log"``.
    """
    directory.mkdir(parents=True, exist_ok=True)
    programs = find_programs()
    account = unprivileged()
    # Not in ``directory``: the path of a socket is short, and pytest's folders are closed to other users.
    home = Path(tempfile.mkdtemp(prefix="weir-postgres-"))
    try:
        if account:
            os.chown(home, account.pw_uid, account.pw_gid)
        data = home / "data"
        with (directory / "postgres.log").open("ab") as log:
            run: dict[str, Any] = {"cwd": home, "stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
            if account:
                run |= {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": ()}
            initdb = [f"{programs}/initdb", f"--pgdata={data}", "--no-sync", "--no-locale", "--encoding=UTF8"]
            subprocess.run([*initdb, "--auth=trust", f"--username={USER}"], check=True, **run)
            settings = {
                "listen_addresses": "",
                "unix_socket_directories": str(home),
                "fsync": "off",
                "synchronous_commit": "off",
                "full_page_writes": "off",
            } | settings
            options = [option for name, value in settings.items() for option in ("-c", f"{name}={value}")]
            process = subprocess.Popen([f"{programs}/postgres", "-D", str(data), *options], **run)
        try:
            wait_until_ready(programs, home, process)
            yield f"postgresql+psycopg://{USER}@/{DATABASE}?host={home}"
        finally:
            process.send_signal(signal.SIGINT)  # an end at once, whoever is connected
            process.wait(30)
    finally:
        shutil.rmtree(home)


def fresh_database(server_url: str) -> str:
    """The URL of an empty database of its own on a server that runs."""
    name = f"weir_{secrets.token_hex(6)}"
    engine = create_engine(server_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    engine.dispose()
    return make_url(server_url).set(database=name).render_as_string(hide_password=False)


def find_programs() -> Path:
    """The newest version's."""
    found = sorted(DEBIAN.glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if not found:
        raise RuntimeError("PostgreSQL is not installed: apt-get install postgresql")
    return found[-1].parent


def unprivileged() -> pwd.struct_passwd | None:
    """Whom the server runs as, since it refuses to run as root; None if we are not root."""
    if os.getuid():
        return None
    names = {account.pw_name for account in pwd.getpwall()}
    return pwd.getpwnam("postgres" if "postgres" in names else "nobody")


def wait_until_ready(programs: Path, home: Path, process: subprocess.Popen[bytes], within_s: float = 30.0) -> None:
    deadline = time.monotonic() + within_s
    ask = [f"{programs}/pg_isready", "--quiet", f"--host={home}"]
    while subprocess.run(ask, check=False).returncode:
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("PostgreSQL did not come up; see postgres.log")
        time.sleep(0.02)
