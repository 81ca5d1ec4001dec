"""The virtualenvs of the S3 servers, which are no dependencies of the project: ``python -m tests.object_store.install``.

Does nothing if they were made from the lock files as these are now.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import venv
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Environment:
    name: str

    @property
    def folder(self) -> Path:
        return ROOT / f".venv-{self.name}"

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def lock(self) -> Path:
        return Path(__file__).with_name(f"{self.name}.lock")

    @property
    def stamp(self) -> Path:
        return self.folder / ".installed"

    def identity(self) -> str:
        """What the virtualenv must have been made from: the lock file, and this interpreter."""
        return hashlib.sha256(sys.version.encode() + self.lock.read_bytes()).hexdigest()

    def is_installed(self) -> bool:
        return self.stamp.is_file() and self.stamp.read_text() == self.identity()

    def install(self) -> None:
        if self.is_installed():
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        venv.create(self.folder, with_pip=True, symlinks=True)
        install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"]
        subprocess.run([self.python, *install, "-r", self.lock], check=True)
        self.stamp.write_text(self.identity())


SWIFT = Environment("swift")
LOCALSTACK = Environment("localstack")

if __name__ == "__main__":
    with ThreadPoolExecutor() as pool:
        list(pool.map(Environment.install, (SWIFT, LOCALSTACK)))
