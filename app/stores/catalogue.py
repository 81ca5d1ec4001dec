"""Where runs may read and write: names that users write, and the stores that they stand for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from app.core.errors import Refusal, known
from app.stores.directory import DirectoryStore
from app.stores.metered import Metered, PartMeter
from app.stores.objects import ObjectStore, TransientReason
from app.stores.retried import Others, Patience, Retried
from app.stores.s3 import S3Bucket, S3Client

_S3 = "s3://"
_NAMED = "store:"


@dataclass(frozen=True, slots=True)
class Located:
    """An object, or where one is to be. ``key`` is empty, or ends with a slash, where a name is still to be chosen."""

    store: ObjectStore
    key: str

    @property
    def url(self) -> str:
        """Its name for people and for records."""
        return self.store.url(self.key)

    def named(self, name: str) -> Located:
        """Itself, or with ``name`` below it where a name is still to be chosen."""
        return Located(self.store, self.key + name) if not self.key or self.key.endswith("/") else self


class Stores:
    """``allow`` are the prefixes of S3 that users may name (``s3://bucket/…``; none by default); ``named`` are what the
    operator gave a name: a directory or such a prefix, which need not be allowed once more.

    Every store from here tries again and is metered; both in this one place.
    """

    def __init__(
        self,
        s3: S3Client,
        *,
        allow: Sequence[str] = (),
        named: Mapping[str, str] | None = None,
        patience: Patience,
        meter: PartMeter,
        on_retry: Callable[[TransientReason], object],
        others: Others = lambda url, token: set(),
    ) -> None:
        self._s3 = s3
        self._allow = [prefix if prefix.count("/") > 2 else f"{prefix}/" for prefix in allow]
        self._named = dict(named or {})
        self._patience = patience
        self._meter = meter
        self._on_retry = on_retry
        self._others = others

    def find(self, url: str, stop: threading.Event) -> Located:
        """What ``url`` (``s3://bucket/key``, ``store:NAME/key``) stands for. Calls to its store end soon after ``stop``
        was set. Raises ``bad_argument`` and ``forbidden``."""
        if url.startswith(_NAMED):
            name, _, key = url.removeprefix(_NAMED).partition("/")
            if name not in self._named:
                raise Refusal(
                    "bad_argument", f"there is no store {name[:80]!r}; known are {known(self._named) or 'none'}"
                )
            return self._located(self._named[name], name, key, stop)
        if not url.startswith(_S3) or not url.removeprefix(_S3).partition("/")[0]:
            raise Refusal("bad_argument", f"{url[:200]!r} is neither s3://BUCKET/KEY nor store:NAME/KEY")
        if not any(url.startswith(prefix) for prefix in self._allow):
            allowed = known(self._allow) or "nothing"
            raise Refusal("forbidden", f"{url[:200]} is outside of what S3_ALLOW names: {allowed}")
        return self._located(url, "", "", stop)

    def reopen(self, url: str, stop: threading.Event) -> Located:
        """What a record of ours calls ``url``, whatever is allowed now."""
        return self.find(url, stop) if url.startswith(_NAMED) else self._located(url, "", "", stop)

    def close(self) -> None:
        """Close the connections."""
        self._s3.close()

    def _located(self, root: str, name: str, key: str, stop: threading.Event) -> Located:
        store: ObjectStore
        if root.startswith(_S3):
            bucket, _, prefix = root.removeprefix(_S3).partition("/")
            prefix += "/" if name and prefix and not prefix.endswith("/") else ""
            store, key = S3Bucket(self._s3, bucket), prefix + key
        else:
            store = DirectoryStore(Path(root), name)
        return Located(Retried(Metered(store, self._meter), self._patience, self._on_retry, stop, self._others), key)
