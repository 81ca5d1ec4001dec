"""The wire: an HTTP/1.1 protocol class for uvicorn that keeps Python off the way of the bytes.

========== ==============================================================================================
wire       what all connections share, and the clock that looks at them
connection one client's connection: phases, reading when somebody wants to, writing without joining
head       a request's head, by llhttp, and what it says about its body
body       a body while it comes into pages; ``chunked`` undoes its framing in place
pages      the pool of pages, which come back when nothing refers to them any more
exchange   one request as ASGI sees it, with pages for whoever asks for them
reply      the head of an answer and its framing
file_sender files to the socket: sendfile, splice or copying, whichever is fastest here
pace       how long a client may take
========== ==============================================================================================

An application that knows nothing of it works unchanged. ``app/sources/request`` and ``app/sinks/response`` ask for
pages where they are offered, and serve on stock uvicorn as well (``WIRE=stock``).
"""

from app.web.protocol.connection import WireProtocol
from app.web.protocol.file_sender import FileSender, Way, fastest_way
from app.web.protocol.pace import Limits
from app.web.protocol.pages import PagePool
from app.web.protocol.wire import Wire

__all__ = ["FileSender", "Limits", "PagePool", "Way", "Wire", "WireProtocol", "fastest_way"]
