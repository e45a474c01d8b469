#!/usr/bin/env bash
# Makes .venv from requirements-dev.lock, and prints each step. Does nothing if .venv was made from the same lock.
# PYTHON=/path/to/python3.13 names the interpreter. Without it, choose_python.sh chooses one.
# The script runs with Bash 3.2, which macOS has.
set -euo pipefail
cd "$(dirname "$0")/../.."
exec </dev/null # CI may have closed stdin

lock=requirements-dev.lock
made_from=.venv/made-from.lock # a copy of the lock, written last

is_named_python() { # without PYTHON, every interpreter is the right one
    [ -n "${PYTHON:-}" ] || return 0
    [ "$("$PYTHON" -c 'import os, sys; print(os.path.realpath(sys.executable))' 2>/dev/null)" = \
        "$(.venv/bin/python -c 'import os, sys; print(os.path.realpath(sys.executable))' 2>/dev/null)" ]
}

cmp -s "$lock" "$made_from" && is_named_python && exit 0

started=$SECONDS
say() { echo "setup: $*" >&2; }
[ -w . ] || {
    say "$PWD cannot be written, and .venv belongs there; clone the repository to another folder"
    exit 1
}

log=$(mktemp "${TMPDIR:-/tmp}/ticketremaster-setup.XXXXXX")
ticker=
trap '[ -z "$ticker" ] || kill "$ticker" 2>/dev/null || true; rm -f "$log"' EXIT

step() { # step TEXT COMMAND...: runs the command, and every 3 s prints the time and the last line of its output
    local text=$1 began=$SECONDS
    shift
    say "$text"
    (while sleep 3; do say "  $((SECONDS - began)) s: $(tail -n 1 "$log" | cut -c1-100)"; done) >/dev/null &
    ticker=$!
    if "$@" >"$log" 2>&1; then
        kill "$ticker" && ticker=
    else
        tail -n 20 "$log" >&2
        say "failed: $*"
        exit 1
    fi
}

may_install() { command -v apt-get >/dev/null && { [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; }; }

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }

install_one_of() { # the first of these Debian packages that exists
    may_install || {
        say "this Python cannot make a venv; type: sudo apt-get install $1"
        exit 1
    }
    step "apt-get update" as_root apt-get update -qq
    for package in "$@"; do
        apt-cache show "$package" >/dev/null 2>&1 || continue
        step "apt-get install $package" \
            as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$package"
        return
    done
    say "apt has none of these packages: $*"
    exit 1
}

choose() {
    if harness/dev/choose_python.sh 2>"$log"; then
        cat "$log" >&2
        return
    fi
    [ -z "${PYTHON:-}" ] && may_install || {
        cat "$log" >&2
        exit 1
    }
    say "no Python 3.11 to 3.14 is installed"
    install_one_of python3.13-venv python3.12-venv python3.11-venv
    harness/dev/choose_python.sh
}

export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
if ! .venv/bin/python -m pip --version >/dev/null 2>&1 || ! is_named_python; then
    python=$(choose)
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then # Debian ships it in a package of its own
        install_one_of "$("$python" -c 'import sys; print("python3.%d-venv" % sys.version_info[1])')"
    fi
    rm -rf .venv
    step "making .venv" "$python" -m venv .venv
fi
# --no-compile, because most modules are never imported. Python compiles each of the others at its first import.
step "installing the $(grep -c '^[a-z].*==' "$lock") packages of $lock into .venv" \
    .venv/bin/python -m pip install --no-compile --progress-bar off --require-hashes -r "$lock"
cp "$lock" "$made_from"
say ".venv is ready ($((SECONDS - started)) s)"
