#!/bin/sh
# What the Makefile needs of the system: Python 3.11 with venv, curl, a C compiler, and the programs that are named behind
# the first argument (nginx and haproxy, which the tests put in front, and postgres). Asks apt for what is missing; starts
# no service.
set -eu
python=${1:-python3}
[ $# = 0 ] || shift
PATH=$PATH:/usr/sbin:$(echo /usr/lib/postgresql/*/bin | tr ' ' ':')
missing=
command -v "$python" >/dev/null 2>&1 || missing="$missing python3"
"$python" -c 'import ensurepip' >/dev/null 2>&1 || missing="$missing python3-venv"
command -v curl >/dev/null 2>&1 || missing="$missing curl"
command -v cc >/dev/null 2>&1 || missing="$missing gcc libc6-dev"
for program in "$@"; do
  command -v "$program" >/dev/null 2>&1 || missing="$missing $(echo "$program" | sed 's/^nginx$/nginx-light/; s/^postgres$/postgresql/')"
done
if [ -n "$missing" ]; then
  echo "installing$missing"
  as_root=$([ "$(id -u)" = 0 ] || echo sudo)
  export DEBIAN_FRONTEND=noninteractive
  $as_root apt-get update -qq
  # Debian starts a daemon that it installs, unless this file says that it may not.
  policy=/usr/sbin/policy-rc.d
  if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' | $as_root tee $policy >/dev/null
    $as_root chmod +x $policy
    trap '$as_root rm -f $policy' EXIT
  fi
  # shellcheck disable=SC2086
  $as_root apt-get install -y -qq --no-install-recommends ca-certificates $missing >/dev/null
fi
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "Weir needs Python 3.11 or later; $("$python" --version) is here. Say: make PYTHON=python3.12" >&2
  exit 1
}
