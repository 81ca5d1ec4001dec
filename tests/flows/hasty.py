"""The server, which says ten times as often that it is alive, and takes one for dead that was silent for 6 s. For tests
only."""

from __future__ import annotations

import sys

import app.main
from app import cli
from app.runs import owners

app.main.BEAT_S = 0.5
owners.DEAD_AFTER_S = 6.0

if __name__ == "__main__":
    sys.exit(cli.main())
