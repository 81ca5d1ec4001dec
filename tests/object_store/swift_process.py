"""All of OpenStack Swift in one process, for tests: ``python swift_process.py DIRECTORY PORT ACCESS_KEY SECRET_KEY``.

Runs in a virtualenv that has Swift and not this project. One replica of everything is on one device, a folder of
DIRECTORY. The rings and the settings are written anew at each start, since only PORT must stay the same; what is
stored does not depend on them.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

import eventlet
import eventlet.wsgi

eventlet.patcher.monkey_patch()

from swift.common import constraints, utils, wsgi  # noqa: E402
from swift.common.ring import RingBuilder  # noqa: E402
from swift.common.utils import logs  # noqa: E402

HOST = "127.0.0.1"
PART_POWER = 4
MAX_CONNECTIONS = 4096

PIPELINE = "catch_errors gatekeeper healthcheck listing_formats s3api tempauth copy slo dlo versioned_writes"

SWIFT_CONF = """
[swift-hash]
swift_hash_path_suffix = weir

[storage-policy:0]
name = one
default = yes

[swift-constraints]
max_file_size = 5497558138880
"""

BACKEND_CONF = """
[DEFAULT]
devices = {devices}
swift_dir = {swift_dir}
mount_check = false
disable_fallocate = true
log_level = WARNING

[pipeline:main]
pipeline = {kind}-server

[app:{kind}-server]
use = egg:swift#{kind}
"""

PROXY_CONF = """
[DEFAULT]
swift_dir = {swift_dir}
log_level = WARNING

[pipeline:main]
pipeline = {pipeline} proxy-server

[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
node_timeout = 60
recoverable_node_timeout = 60
conn_timeout = 10
# One device has no other to fall back on: it is never set aside after errors.
error_suppression_limit = 1000000

[filter:s3api]
use = egg:swift#s3api
location = us-east-1
s3_acl = false
dns_compliant_bucket_names = true
min_segment_size = 1
max_upload_part_num = 10000
max_parts_listing = 10000
max_multi_delete_objects = 1000

[filter:tempauth]
use = egg:swift#tempauth
user_{account}_{user} = {secret_key} .admin

[filter:slo]
use = egg:swift#slo
max_manifest_segments = 10000
max_manifest_size = 33554432
"""

PLAIN_FILTERS = ("catch_errors", "gatekeeper", "healthcheck", "listing_formats", "copy", "dlo", "versioned_writes")


def listen(port: int) -> Any:
    listener = eventlet.listen((HOST, port), backlog=1024)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def backend(kind: str, directory: Path) -> None:
    """Listen on a free port, make the ring that says so, and serve what is on the device."""
    listener = listen(0)
    builder = RingBuilder(PART_POWER, 1, 0)
    device = {"region": 1, "zone": 1, "ip": HOST, "port": listener.getsockname()[1], "device": "disk", "weight": 1}
    builder.add_dev(device | {"replication_ip": HOST, "replication_port": device["port"], "meta": ""})
    builder.rebalance()
    builder.get_ring().save(str(directory / f"{kind}.ring.gz"))
    settings = BACKEND_CONF.format(kind=kind, devices=directory / "devices", swift_dir=directory)
    serve(kind, directory, settings, listener)


def proxy(directory: Path, listener: Any, access_key: str, secret_key: str) -> None:
    account, user = access_key.split(":")
    settings = PROXY_CONF.format(
        pipeline=PIPELINE, swift_dir=directory, account=account, user=user, secret_key=secret_key
    )
    settings += "".join(f"\n[filter:{name}]\nuse = egg:swift#{name}\n" for name in PLAIN_FILTERS)
    serve("proxy", directory, settings, listener)


def serve(kind: str, directory: Path, settings: str, listener: Any) -> None:
    path = directory / f"{kind}-server.conf"
    path.write_text(settings)
    # Not wsgi.run_server: that takes the loop of the whole process for its own.
    eventlet.spawn(
        eventlet.wsgi.server,
        listener,
        wsgi.loadapp(str(path)),
        wsgi.NullLogger(),
        max_size=MAX_CONNECTIONS,
        protocol=wsgi.SwiftHttpProtocol,
        socket_timeout=60,
        capitalize_response_headers=False,
        url_length_limit=constraints.MAX_REQUEST_LINE,
    )


def main() -> None:
    # Who is killed loses nothing that is in the page cache, and nobody pulls the plug here.
    os.fsync = os.fdatasync = lambda fd: None
    directory, port, access_key, secret_key = Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:5]
    logs.ThreadSafeSysLogHandler = lambda **_: logging.StreamHandler(sys.stderr)
    (directory / "devices" / "disk").mkdir(parents=True, exist_ok=True)
    (directory / "swift.conf").write_text(SWIFT_CONF)
    listener = listen(port)
    utils.set_swift_dir(str(directory))
    constraints.reload_constraints()
    for kind in ("account", "container", "object"):
        backend(kind, directory)
    proxy(directory, listener, access_key, secret_key)
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    main()
