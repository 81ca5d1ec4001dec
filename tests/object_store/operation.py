"""What a request asks of S3, told from its first line; buckets are in the path."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

OF_KEY = {
    "PUT": {"uploadId": "UploadPart", "": "PutObject"},
    "POST": {"uploads": "CreateMultipartUpload", "uploadId": "CompleteMultipartUpload"},
    "GET": {"uploadId": "ListParts", "": "GetObject"},
    "HEAD": {"": "HeadObject"},
    "DELETE": {"uploadId": "AbortMultipartUpload", "": "DeleteObject"},
}
OF_BUCKET = {
    "PUT": {"": "CreateBucket"},
    "POST": {"delete": "DeleteObjects"},
    "GET": {"uploads": "ListMultipartUploads", "list-type": "ListObjectsV2", "": "ListObjects"},
    "HEAD": {"": "HeadBucket"},
    "DELETE": {"": "DeleteBucket"},
}


def operation_of(method: str, target: str) -> str:
    """The name that AWS gives it, or the method if it is none of those that the tests use."""
    parts = urlsplit(target)
    _, _, key = parts.path.lstrip("/").partition("/")
    names = (OF_KEY if key else OF_BUCKET).get(method, {})
    asked = parse_qs(parts.query, keep_blank_values=True)
    return next((name for sign, name in names.items() if sign in asked), names.get("", method))
