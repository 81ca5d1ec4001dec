"""Those who send an object and fetch it: Weir, boto3, AWS's C client under boto3, and the AWS CLI with the same client."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import venv
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import httpx

from bench.client import Failed
from bench.compiler import Absent
from bench.inputs import cache_folder
from bench.kinds import PEERS
from bench.memory import peak_mib
from tests.object_store.server import ObjectStoreServer
from tests.server import Server, serving

CRT = "boto3[crt]==1.42.97"
_WAIT_S = 60
_LEFT_BYTES = 1 << 30
_ANOTHER_DISK = "/dev/shm"


@dataclass(frozen=True, slots=True)
class Spent:
    """One transfer. ``idle_mib`` was resident before it; ``feeder_s`` is the CPU time of the curl that feeds Weir."""

    seconds: float
    cpu_s: float
    peak_mib: float
    idle_mib: float = 0.0
    feeder_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Scene:
    """A bucket with the object ``in``, the file that it is, and a folder for what is fetched."""

    store: ObjectStoreServer
    bucket: str
    source: Path
    folder: Path

    @property
    def out(self) -> Path:
        """Where a download goes."""
        return self.folder / "out" / "fetched"


Client = Callable[[Scene], Spent]


def touch_memory() -> None:
    """Have all free memory mapped by the host. A virtual machine gives back what is free, and then the first write to
    it, be it a buffer's or the page cache's, takes up to ten times as long: by luck, and by whose turn it is."""
    free = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemFree"))
    nbytes = int(free.split()[1]) * 1024 - _LEFT_BYTES
    if nbytes > 0:
        flags = "mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE"
        subprocess.run([sys.executable, "-c", f"import mmap; mmap.mmap(-1, {nbytes}, flags={flags})"], check=False)


def cpu_of(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def weir(work: Callable[[Scene, Server], float]) -> Client:
    """A server of its own for each transfer, that has done a small one before.

    Its state is not on the disk that the store writes to. Weir notes durably what it is about to do, and a disk says so only
    once it has all that others wrote to it: for a store's 2 GiB that took four seconds, of which no S3 service knows.
    """

    def transfer(scene: Scene) -> Spent:
        options = {"s3_endpoint_url": scene.store.endpoint_url, "s3_addressing": "path"}
        allowed = {"s3_allow": f"s3://{scene.bucket}/", "stores": f"out={scene.out.parent}"}
        with (
            tempfile.TemporaryDirectory(dir=_ANOTHER_DISK) as state,
            serving(Path(state) / "spool", **options, **allowed) as server,
        ):
            idle = peak_mib(server.pid)
            small = f"{server.transform}?sink=s3://{scene.bucket}/small"
            subprocess.run(["curl", "-sS", "-f", "-T", "-", small], input=b"small", check=True, capture_output=True)
            before, began = cpu_of(server.pid), time.perf_counter()
            feeder_s = work(scene, server)
            seconds = time.perf_counter() - began
            return Spent(seconds, cpu_of(server.pid) - before, peak_mib(server.pid), idle, feeder_s)

    return transfer


def weir_up(scene: Scene, server: Server) -> float:
    url = f"{server.transform}?sink=s3://{scene.bucket}/made"
    return _run(["curl", "-sS", "--fail-with-body", "-T", scene.source, url], {})[1].cpu_s


def weir_down(scene: Scene, server: Server) -> float:
    return _weir_run(server, {"source": f"s3://{scene.bucket}/in", "sink": "store:out/fetched"}, scene)


def weir_drop(scene: Scene, server: Server) -> float:
    """Read all of it and write none of it."""
    steps = [{"offset": 1 << 40}]
    asked = {"source": f"s3://{scene.bucket}/in", "from": "lines", "steps": steps, "sink": "store:out/nothing"}
    return _weir_run(server, asked, scene)


def _weir_run(server: Server, document: Mapping[str, object], scene: Scene) -> float:
    run = httpx.post(f"{server.url}/v1/runs", json=document, timeout=30)
    record = run.json()
    while record["state"] in ("accepted", "running"):
        place = server.url + run.headers["location"]
        record = httpx.get(place, params={"wait": _WAIT_S}, timeout=2 * _WAIT_S).json()
    if record["state"] != "succeeded" or record["input_bytes"] != scene.source.stat().st_size:
        raise Failed(str(record))
    return 0.0


def boto3(work: str, client: str) -> Client:
    def transfer(scene: Scene) -> Spent:
        python = crt_folder() / "bin" / "python" if client == "crt" else Path(sys.executable)
        key, path = ("made", scene.source) if work == "up" else ("in", scene.out)
        command: list[str | Path] = [python, PEERS / "s3.py", work, client, scene.bucket, key, path]
        return Spent(**json.loads(_run(command, scene.store.environment())[0]))

    return transfer


def aws_cli(work: str) -> Client:
    """The whole process is timed, with its start."""

    def transfer(scene: Scene) -> Spent:
        config = scene.folder / "aws-config"
        config.write_text("[default]\ns3 =\n  preferred_transfer_client = crt\n  addressing_style = path\n")
        environment = scene.store.environment() | {"AWS_CONFIG_FILE": str(config), "PYTHONPATH": str(_awscrt())}
        url = f"s3://{scene.bucket}/{'made' if work == 'up' else 'in'}"
        places: list[str | Path] = [scene.source, url] if work == "up" else [url, scene.out]
        copy: list[str | Path] = ["s3", "cp", "--no-progress", *places]
        return _run([aws_program(), "--endpoint-url", scene.store.endpoint_url, *copy], environment)[1]

    return transfer


def aws_program() -> Path:
    """The AWS CLI; the first version has no C client."""
    for folder in os.get_exec_path():
        if (program := shutil.which("aws", path=folder)) is not None:
            version = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
            if version.startswith("aws-cli/2"):
                return Path(program)
    raise Absent("the AWS CLI 2 is not installed (Debian: awscli)")


def crt_folder() -> Path:
    """A virtualenv with AWS's C client. Beside our own boto3 it would take the place of its signer."""
    folder = cache_folder() / CRT.replace("[crt]==", "-crt-")
    if not (folder / ".installed").exists():
        venv.create(folder, with_pip=True, clear=True)
        install = ["-m", "pip", "install", "-q", "--disable-pip-version-check", CRT]
        subprocess.run([folder / "bin" / "python", *install], check=True)
        (folder / ".installed").touch()
    return folder


def _awscrt() -> Path:
    """A folder with the C client alone: the one that Debian's AWS CLI comes with goes to port 80, whatever is asked."""
    folder = crt_folder() / "awscrt-alone"
    folder.mkdir(exist_ok=True)
    for found in crt_folder().glob("lib/python*/site-packages/*awscrt*"):
        with suppress(FileExistsError):
            (folder / found.name).symlink_to(found)
    return folder


def to_disk(client: Client) -> Client:
    """A download with what it takes until it is on disk: Weir says that it is there only once it is."""

    def transfer(scene: Scene) -> Spent:
        spent, began, cpu_began = client(scene), time.perf_counter(), time.thread_time()
        with scene.out.open("rb") as file:
            os.fsync(file.fileno())
        seconds, cpu_s = time.perf_counter() - began, time.thread_time() - cpu_began
        return replace(spent, seconds=spent.seconds + seconds, cpu_s=spent.cpu_s + cpu_s)

    return transfer


def _run(command: Sequence[str | Path], environment: dict[str, str]) -> tuple[bytes, Spent]:
    """What the process printed, and what it took. Its peak is looked up while it runs: the kernel's own account of a
    child counts what its parent had when it was forked."""
    peak, began = 0.0, time.perf_counter()
    process = subprocess.Popen(
        command,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )

    def watch() -> None:
        nonlocal peak
        with suppress(OSError, StopIteration):
            while True:
                peak = max(peak, peak_mib(process.pid))
                time.sleep(0.05)

    threading.Thread(target=watch, daemon=True).start()
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.stdout.close()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise Failed((said.decode(errors="replace").strip().splitlines() or ["no word"])[-1][:200])
    return said, Spent(seconds, usage.ru_utime + usage.ru_stime, peak)


WORKS: dict[str, list[tuple[str, Client]]] = {
    "upload": [
        ("Weir", weir(weir_up)),
        ("boto3 upload_file", boto3("up", "classic")),
        ("boto3 upload_file, CRT", boto3("up", "crt")),
        ("AWS CLI 2, CRT", aws_cli("up")),
    ],
    "download": [
        ("Weir", weir(weir_down)),
        ("boto3 download_file", to_disk(boto3("down", "classic"))),
        ("boto3 download_file, CRT", to_disk(boto3("down", "crt"))),
        ("AWS CLI 2, CRT", to_disk(aws_cli("down"))),
    ],
    "read": [
        ("Weir", weir(weir_drop)),
        ("boto3 get_object", boto3("get", "classic")),
    ],
}
