"""nginx as a file server: uploads by its DAV module, downloads by ``sendfile`` or by reading and writing. This writes its
configuration, prints the port and becomes nginx.

    nginx.py PROGRAM on|off WORK-FOLDER FILES-FOLDER
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

_CONFIGURATION = """
daemon off;
worker_processes auto;
{user}
pid {work}/nginx.pid;
error_log {work}/error.log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    sendfile {sendfile};
    tcp_nopush on;
    output_buffers 2 1m;
    client_max_body_size 0;
    client_body_buffer_size 1m;
    client_body_temp_path {work}/body;
    proxy_temp_path {work}/unused;
    fastcgi_temp_path {work}/unused;
    uwsgi_temp_path {work}/unused;
    scgi_temp_path {work}/unused;
    server {{
        listen 127.0.0.1:{port};
        location = /healthz {{ return 200 "ok\\n"; }}
        location /file/ {{ alias {files}/; }}
        location /disk/ {{ alias {files}/; dav_methods PUT; }}
    }}
}}
"""


def main() -> None:
    program, sendfile, work, files = sys.argv[1:]
    Path(work).mkdir(parents=True, exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    user = "user root;" if os.geteuid() == 0 else ""
    path = Path(work) / "nginx.conf"
    path.write_text(_CONFIGURATION.format(user=user, work=work, sendfile=sendfile, port=port, files=files))
    print(port, flush=True)
    os.execv(program, [program, "-c", str(path), "-e", f"{work}/error.log"])


if __name__ == "__main__":
    main()
