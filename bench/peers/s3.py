"""One transfer by boto3, as its users write it: ``python s3.py WORK CLIENT BUCKET KEY PATH``.

Prints seconds, CPU seconds and the peak in MiB as JSON: of the transfer, without the imports before it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config


def without_tls() -> None:
    """boto3 has AWS's C client speak TLS to whatever the endpoint is, and the server hangs up: say what it is."""
    import boto3.crt

    made = boto3.crt.create_s3_crt_client
    boto3.crt.create_s3_crt_client = lambda **settings: made(**{**settings, "use_ssl": False})


def transfer(s3: Any, work: str, client: str, bucket: str, key: str, path: str) -> None:
    config = TransferConfig(preferred_transfer_client=client)
    if work == "up":
        s3.upload_file(path, bucket, key, Config=config)
    elif work == "down":
        s3.download_file(bucket, key, path, Config=config)
    else:
        body = s3.get_object(Bucket=bucket, Key=key)["Body"]
        while body.read(1 << 20):
            pass


def main() -> None:
    if sys.argv[2] == "crt":
        without_tls()
    s3 = boto3.client("s3", config=Config(s3={"addressing_style": "path"}))
    began, before = time.perf_counter(), os.times()
    transfer(s3, *sys.argv[1:])
    seconds, after = time.perf_counter() - began, os.times()
    cpu_s = after.user + after.system - before.user - before.system
    with open("/proc/self/status") as status:
        peak_kib = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    print(json.dumps({"seconds": seconds, "cpu_s": cpu_s, "peak_mib": peak_kib / 1024}))


if __name__ == "__main__":
    main()
