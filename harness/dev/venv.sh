#!/usr/bin/env bash
# Makes .venv what requirements-dev.lock says; does nothing when that lock is what it was made from.
set -euo pipefail
cd "$(dirname "$0")/../.."
exec </dev/null # CI may have closed stdin

lock=requirements-dev.lock
made_from=.venv/made-from.lock
cmp -s "$lock" "$made_from" && exit 0

python=${PYTHON:-$(command -v python3.11 || command -v python3 || true)}
if [ -z "$python" ] || ! "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'; then
    echo "setup: Python 3.11 is needed (PYTHON=/path/to/python3.11 names one)" >&2
    exit 1
fi

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then sudo -n "$@"; else return 1; fi
}

install_venv_support() { # Debian ships venv's ensurepip in a package of its own
    command -v apt-get >/dev/null && as_root true || {
        echo "setup: this Python cannot make a venv; install python3-venv" >&2
        exit 1
    }
    echo "setup: installing python3-venv" >&2
    as_root apt-get update -qq >/dev/null
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv >/dev/null
}

export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    "$python" -c 'import ensurepip, venv' 2>/dev/null || install_venv_support
    rm -rf .venv
    "$python" -m venv .venv
fi
echo "setup: installing $lock into .venv" >&2
# --no-compile: most of what is installed is never imported; the rest is compiled when it is.
.venv/bin/python -m pip install --quiet --no-compile --require-hashes -r "$lock" >&2
cp "$lock" "$made_from"
