#!/usr/bin/env bash
# Runs a command in an empty clone of this repository on a fresh Debian. An example:
#   harness/dev/debian_chroot.sh trixie make demo
# The first run makes a root file system with debootstrap, in DEBIAN_ROOT (default: /var/tmp/ticketremaster-SUITE).
# Later runs use it again, with what the commands have installed in it. Each run makes a new clone of HEAD.
# AS_USER=1 runs the command as an ordinary user without sudo, who cannot install RabbitMQ: run it as root before.
# The command shares the network with this machine, so the stack gets other ports if the usual ones are taken.
# OFFLINE=1 runs `make setup` before it, and then the command in a network of its own, which has only the loopback.
# The script needs Linux, root and debootstrap. Mounts and processes end with the command.
set -euo pipefail
cd "$(dirname "$0")/../.."

[ $# -ge 2 ] || {
    echo "usage: $0 SUITE COMMAND..., for example: $0 trixie make demo" >&2
    exit 2
}
[ "$(id -u)" = 0 ] || {
    echo "$0: chroot needs root; type: sudo $0 $*" >&2
    exit 1
}
suite=$1 root=${DEBIAN_ROOT:-/var/tmp/ticketremaster-$1}
shift

if [ ! -e "$root/.complete" ]; then
    command -v debootstrap >/dev/null || {
        echo "$0: debootstrap is missing; type: apt-get install debootstrap" >&2
        exit 1
    }
    echo "making Debian $suite in $root" >&2
    mkdir -p "$root"
    debootstrap --variant=minbase --include=ca-certificates,git,make "$suite" "$root" >"$root.log" || {
        tail -n 20 "$root.log" >&2
        exit 1
    }
    chroot "$root" useradd --create-home tester
    touch "$root/.complete"
fi
# A proxy with its own authority and a resolver are properties of this machine, and the root has to use both.
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
cp --dereference /etc/resolv.conf "$root/etc/resolv.conf"
[ -e "$root/etc/hosts" ] || echo "127.0.0.1 localhost" >"$root/etc/hosts" # some suites have none after debootstrap

if [ -n "${AS_USER:-}" ]; then user=tester home=/home/tester; else user=root home=/root; fi
rm -rf "$root$home/ticketremaster"
git clone --quiet --no-hardlinks . "$root$home/ticketremaster"
chroot "$root" chown -R "$user:$user" "$home/ticketremaster"

# Only the settings of the network come from this machine's environment.
settings=(PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "HOME=$home" "TERM=${TERM:-dumb}")
while IFS= read -r -d '' variable; do
    case $variable in PIP_FIND_LINKS=*) ;; PIP_* | NODE_EXTRA_CA_CERTS=* | http_proxy=* | https_proxy=* | no_proxy=* | CI=* | STACK=*) settings+=("$variable") ;; esac
done < <(env -0)

export root home user offline=${OFFLINE:-}
exec unshare --mount --pid --fork --kill-child bash -c '
    set -euo pipefail
    mount --make-rprivate /
    mount -t proc proc "$root/proc"
    mount --rbind /sys "$root/sys"
    mount --rbind /dev "$root/dev"
    mount -t tmpfs tmpfs "$root/dev/shm"
    enter=(chroot "$root" setpriv --reuid="$user" --regid="$user" --init-groups -- env -i "${@:2:$1}"
        bash -c "cd \"\$HOME/ticketremaster\" && exec \"\$@\"" --)
    if [ -n "$offline" ]; then
        "${enter[@]}" make setup
        enter=(unshare --net bash -c "ip link set lo up && exec \"\$@\"" -- "${enter[@]}")
    fi
    exec "${enter[@]}" "${@:2+$1}"
' -- "${#settings[@]}" "${settings[@]}" "$@"
