#!/bin/sh
# What the Makefile needs of the system: Python 3.11 with venv, and curl. Asks apt for what is missing.
set -eu
python=${1:-python3}
missing=
command -v "$python" >/dev/null 2>&1 || missing="$missing python3"
"$python" -c 'import ensurepip' >/dev/null 2>&1 || missing="$missing python3-venv"
command -v curl >/dev/null 2>&1 || missing="$missing curl"
if [ -n "$missing" ]; then
  echo "installing$missing"
  as_root=$([ "$(id -u)" = 0 ] || echo sudo)
  export DEBIAN_FRONTEND=noninteractive
  $as_root apt-get update -qq
  # shellcheck disable=SC2086
  $as_root apt-get install -y -qq --no-install-recommends ca-certificates $missing >/dev/null
fi
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "Weir needs Python 3.11 or later; $("$python" --version) is here. Say: make PYTHON=python3.12" >&2
  exit 1
}
