#!/usr/bin/env bash
# Prints the path of the Python that `.venv` is made with, and on stderr why this one.
# Order: PYTHON, if it is set. Otherwise the interpreters in PATH, in /usr/bin and of pyenv, of which an optimised build
# (PGO) goes first and then the newest. An unoptimised build runs the services about 18 % slower.
# Exit status 1: no interpreter works. stderr then has the command to type.
# The script runs with Bash 3.2, which macOS has.
set -euo pipefail

oldest=11 newest=14 # 3.11 to 3.14: requirements*.lock pins wheels for these
system_bin=${SYSTEM_BIN:-/usr/bin}
pyenv_versions=${PYENV_ROOT:-${HOME:-/nonexistent}/.pyenv}/versions

# Prints two lines. The first has the kind, the version, 1 if the build is optimised, 1 if it can make a venv, and the
# path. The second is the path without symlinks. Debian builds with PGO, but its interpreters do not record the option.
describe='
import os, sys, sysconfig
from importlib.util import find_spec
cpython = sys.implementation.name == "cpython" and not sysconfig.get_config_var("Py_GIL_DISABLED")
from_debian = sys.base_prefix == "/usr" and os.path.exists("/etc/debian_version")
optimised = from_debian or "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "")
venv = find_spec("venv") is not None and find_spec("ensurepip") is not None
print("cpython" if cpython else "other", *sys.version_info[:3], int(optimised), int(venv), sys.executable)
print(os.path.realpath(sys.executable))
'

may_install() {
    command -v apt-get >/dev/null && { [ "$(id -u)" = 0 ] || { command -v sudo >/dev/null && sudo -n true 2>/dev/null; }; }
}

# A named interpreter is taken without a choice. A version newer than those tested is allowed here.
if [ -n "${PYTHON:-}" ]; then
    if ! line=$("$PYTHON" -c "$describe" 2>/dev/null); then
        echo "setup: PYTHON=$PYTHON does not run; name the full path of a Python 3.$oldest or newer" >&2
        exit 1
    fi
    read -r kind major minor micro _ venv path <<<"$line"
    if [ "$kind" != cpython ] || [ "$major" != 3 ] || [ "$minor" -lt $oldest ]; then
        echo "setup: PYTHON=$PYTHON is $kind $major.$minor.$micro; a CPython 3.$oldest or newer is needed" >&2
        exit 1
    fi
    [ "$minor" -le $newest ] || echo "setup: Python 3.$minor is newer than the tested versions (3.$oldest to 3.$newest)" >&2
    echo "setup: Python 3.$minor.$micro ($path), because PYTHON names it" >&2
    echo "$path"
    exit 0
fi

candidates() {
    local minor name
    for minor in 14 13 12 11 ""; do
        name=python3${minor:+.$minor}
        type -aP "$name" || true
        echo "$system_bin/$name"
    done
    ls -d "$pyenv_versions"/3.*/bin/python3 2>/dev/null || true
}

# Interpreters that work, the best first: optimised, minor version, micro version, path.
working() {
    local python kind major minor micro optimised venv path real seen=$'\n'
    while read -r python; do
        [ -x "$python" ] || continue
        { read -r kind major minor micro optimised venv path && read -r real; } < <("$python" -c "$describe" 2>/dev/null) || continue
        [ "$kind" = cpython ] && [ "$major" = 3 ] && [ "$minor" -ge $oldest ] && [ "$minor" -le $newest ] || continue
        # Debian ships ensurepip in a package of its own, which only root may install.
        [ "$venv" = 1 ] || may_install || continue
        case $seen in *$'\n'"$real"$'\n'*) continue ;; esac
        seen+=$real$'\n'
        echo "$optimised $minor $micro $path"
    done | sort -s -k1,1nr -k2,2nr -k3,3nr
}

found=$(candidates | awk '!seen[$0]++' | working)
if [ -z "$found" ]; then
    echo "setup: no Python 3.$oldest to 3.$newest that can make a venv was found in PATH, $system_bin or $pyenv_versions." >&2
    if command -v apt-get >/dev/null; then
        echo "setup: type: sudo apt-get install python3-venv    (Ubuntu 22.04: python3.11-venv)" >&2
    else
        echo "setup: install one (macOS: brew install python@3.13), or name one: PYTHON=/path/to/python3.13 make setup" >&2
    fi
    exit 1
fi

read -r optimised minor micro path <<<"$found"
count=$(wc -l <<<"$found" | tr -d ' ')
if [ "$optimised" = 1 ]; then
    reason="the newest of the optimised builds (PGO)"
else
    reason="the newest; no optimised build (PGO) was found, so everything runs about 18 % slower"
fi
echo "setup: Python 3.$minor.$micro ($path) of $count that work: $reason" >&2
echo "$path"
