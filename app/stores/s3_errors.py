"""What a call to S3 may fail with, told as what may pass and what stays as it is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from app.core.errors import Refusal
from app.stores.objects import NoSuchUpload, Transient, TransientReason

_MAY_PASS: dict[str, TransientReason] = {
    "SlowDown": "slow_down",
    "ServiceUnavailable": "slow_down",
    "Throttling": "slow_down",
    "ThrottlingException": "slow_down",
    "RequestLimitExceeded": "slow_down",
    "TooManyRequests": "slow_down",
    "InternalError": "server_error",
    "InternalFailure": "server_error",
    "RequestTimeout": "timeout",
    "BadDigest": "digest",
    "InvalidDigest": "digest",
    "IncompleteBody": "digest",
    "MalformedXML": "digest",  # ours is well formed: it was changed on its way
    "XAmzContentChecksumMismatch": "digest",
    "XAmzContentSHA256Mismatch": "digest",
    "ExpiredToken": "expired",
    "ExpiredTokenException": "expired",
    "TokenRefreshRequired": "expired",
    "OperationAborted": "conflict",
    "ConditionalRequestConflict": "conflict",
}
_STAYS: dict[str, str] = {
    "NoSuchKey": "not_found",
    "NoSuchBucket": "not_found",
    "NoSuchVersion": "not_found",
    "NotFound": "not_found",
    "404": "not_found",
    "AccessDenied": "forbidden",
    "InvalidAccessKeyId": "forbidden",
    "SignatureDoesNotMatch": "forbidden",
    "Forbidden": "forbidden",
    "403": "forbidden",
    "NotImplemented": "store_failed",
}
_CHANGED = ("PreconditionFailed", "412", "InvalidRange", "416")


@contextlib.contextmanager
def translated(url: str, *, changed: str) -> Iterator[None]:
    """Raise what botocore raises within as the contract of ``ObjectStore`` has it. ``changed`` is the code for a failed
    precondition; ``url`` is for the text."""
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        ConnectTimeoutError,
        HTTPClientError,
        IncompleteReadError,
        NoCredentialsError,
        PartialCredentialsError,
        ReadTimeoutError,
        ResponseStreamingError,
    )
    from urllib3.exceptions import HTTPError, ProtocolError
    from urllib3.exceptions import TimeoutError as Urllib3Timeout

    try:
        yield
    except ClientError as error:
        raise _of_answer(url, error, changed) from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise Refusal("store_failed", f"{url}: the server has no AWS credentials: {error}") from error
    except (ConnectTimeoutError, ReadTimeoutError, Urllib3Timeout) as error:
        raise Transient("timeout", f"{url}: the store does not answer in time") from error
    except (HTTPClientError, IncompleteReadError, ResponseStreamingError, HTTPError, ProtocolError, OSError) as error:
        raise Transient("reset", f"{url}: the connection to the store failed: {type(error).__name__}") from error
    except BotoCoreError as error:
        raise Refusal("store_failed", f"{url}: {error}") from error


def _of_answer(url: str, error: object, changed: str) -> Exception:
    answer = getattr(error, "response", {})
    code = str(answer.get("Error", {}).get("Code", ""))
    message = str(answer.get("Error", {}).get("Message", ""))[:300]
    status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    said = f"{url}: the store said {status} {code}: {message}"
    if code == "NoSuchUpload":
        return NoSuchUpload(said)
    if (reason := _MAY_PASS.get(code)) is not None:
        return Transient(reason, said)
    if code in _CHANGED:
        what = "changed while it was read" if changed == "object_changed" else "is there already"
        return Refusal(changed, f"{url} {what}")
    if code in _STAYS:
        return Refusal(_STAYS[code], said)
    if status in (429, 503):
        return Transient("slow_down", said)
    if status >= 500 or status == 200:  # 200: an error that came behind the head
        return Transient("server_error", said)
    return Refusal("store_failed", said)
