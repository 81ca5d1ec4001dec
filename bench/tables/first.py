"""How much of an upload was sent when the first window of the answer came: a client that sends slowly and looks."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from urllib.parse import urlsplit

from bench import targets
from bench.client import Failed
from bench.kinds import KINDS
from bench.servers import Server, running
from bench.tables.works import TableWork, weir_path

WORKS = ("tumbling", "sliding")
_BYTES_PER_S = 20_000_000
_PIECE_BYTES = 64 * 1024
_MOST = 0.05
_PATIENCE_S = 60.0


def table(works: list[TableWork]) -> tuple[str, bool]:
    """The figures as a Markdown table, and whether a window came of each before the upload's end."""
    lines, well = [], True
    for work in works:
        try:
            with running(KINDS["weir"]) as server:
                share = _share_sent(work, server)
        except (Failed, RuntimeError, OSError) as failure:
            well = False
            lines.append(f"| {work.title} | | <= {_MOST:.0%} | | FAILED: {failure} |")
            continue
        lines.append(targets.line(work.title, "", f"<= {_MOST:.0%}", f"{share:.2%}", share <= _MOST))
    title = f"The upload's part that was sent, at {_BYTES_PER_S / 1e6:.0f} MB/s, when the first window came"
    return targets.table(title, lines), well


def _share_sent(work: TableWork, server: Server) -> float:
    """As NDJSON: of CSV the header may come before any window."""
    place = urlsplit(server.url)
    with socket.create_connection((place.hostname, place.port), _PATIENCE_S) as connection:
        head = f"POST {weir_path(work.row, 'ndjson')} HTTP/1.1\r\nHost: {place.netloc}\r\nConnection: close\r\n"
        connection.sendall(f"{head}Content-Length: {work.nbytes}\r\n\r\n".encode())
        sender = _Sender(connection, work)
        sender.start()
        try:
            response = http.client.HTTPResponse(connection)
            response.begin()
            if response.status != 200:
                raise Failed(f"status {response.status}")
            first = response.read(1)
            sent = sender.sent_bytes
        finally:
            sender.stopped.set()
            sender.join()
    if not first:
        raise Failed("no window came")
    return sent / work.nbytes


class _Sender(threading.Thread):
    """Sends the file at that rate until it is told to stop."""

    def __init__(self, connection: socket.socket, work: TableWork) -> None:
        super().__init__(daemon=True)
        self._connection = connection
        self._work = work
        self.sent_bytes = 0
        self.stopped = threading.Event()

    def run(self) -> None:
        began = time.monotonic()
        with self._work.source.path.open("rb") as file:
            while not self.stopped.is_set() and (piece := file.read(_PIECE_BYTES)):
                try:
                    self._connection.sendall(piece)
                except OSError:  # whoever reads the answer tells why
                    return
                self.sent_bytes += len(piece)
                self.stopped.wait(max(0.0, began + self.sent_bytes / _BYTES_PER_S - time.monotonic()))
