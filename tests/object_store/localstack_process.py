"""The S3 of LocalStack and nothing else of it, for tests: ``python localstack_process.py PORT``.

Runs in a virtualenv that has LocalStack and not this project. Its own start reads the descriptions of three hundred
services in order to tell which of them a request is for; here each is for S3.
"""

from __future__ import annotations

import sys
from typing import Any

from localstack.aws.app import LocalstackAwsGateway
from localstack.aws.serving.hypercorn import serve
from localstack.aws.spec import load_service
from localstack.services.plugins import SERVICE_PLUGINS
from localstack.utils.aws import aws_stack

HOST = "127.0.0.1"


def main() -> None:
    aws_stack.CACHE_S3_HOSTNAME_DNS_STATUS = False  # else it asks a name server for its own name
    s3 = load_service("s3")

    def is_for_s3(_chain: Any, context: Any, _response: Any) -> None:
        context.service = s3

    gateway = LocalstackAwsGateway(SERVICE_PLUGINS)
    gateway.request_handlers.insert(0, is_for_s3)
    serve(gateway, HOST, int(sys.argv[1]), use_reloader=False)


if __name__ == "__main__":
    main()
