#!/usr/bin/env bash
# Installs what is missing for the named sets, and says what and why: scripts/deps.sh build dpdk lab test bench
# What is there already is left alone.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

packages=()
want() { # PACKAGE REASON PROBE...
    local package=$1 reason=$2
    shift 2
    "$@" >/dev/null 2>&1 && return
    packages+=("$package")
    note "$package: $reason"
}
has() { command -v "$1" || [ -x "/usr/sbin/$1" ] || [ -x "/sbin/$1" ]; }
has_stream_module() { [ -e /usr/lib/nginx/modules/ngx_stream_module.so ]; }

for set in "$@"; do
    case $set in
    build)
        command -v cargo >/dev/null || die "cargo is not here; sluice needs a stable Rust toolchain (https://rustup.rs)"
        want gcc "links the binary" has cc
        ;;
    dpdk)
        want pkg-config "finds DPDK" has pkg-config
        want dpdk-dev "DPDK's headers and libraries, for ports with driver: dpdk" pkg-config --exists libdpdk
        want libclang-dev "reads those headers while building" have_libclang
        ;;
    lab)
        want iproute2 "makes the lab's namespaces and links" has ip
        want nginx "the lab's web servers" has nginx
        want curl "the lab's client" has curl
        ;;
    test)
        want iputils-ping "pings self IPs and virtual addresses" has ping
        want traceroute "shows the hop" has traceroute
        want ethtool "turns offloads off on the kernel peers of DPDK's ports" has ethtool
        want python3 "runs the tests' origin" test -x /usr/bin/python3
        want python3-websockets "speaks WebSocket through the proxy" /usr/bin/python3 -c 'import websockets'
        want wrk "makes HTTP load" has wrk
        want apache2-utils "makes HTTP load, with ab" has ab
        want nghttp2-client "makes HTTP load, with h2load" has h2load
        want qemu-system-x86 "emulates a machine whose NICs hash" has qemu-system-x86_64
        want busybox-static "all other programs in that machine" has busybox
        ;;
    bench)
        want dpdk "testpmd, the ceiling that the fast path is held against" has dpdk-testpmd
        want linux-perf "counts instructions and cycles" has perf
        want valgrind "counts instructions where perf cannot" has valgrind
        want haproxy "a peer to measure against" has haproxy
        want libnginx-mod-stream "nginx as a peer for connections without HTTP" has_stream_module
        want nftables "a peer to measure against" has nft
        want wrk "makes HTTP load" has wrk
        want qemu-system-x86 "emulates a machine whose instructions are counted" has qemu-system-x86_64
        want busybox-static "all other programs in that machine" has busybox
        ;;
    *) die "scripts/deps.sh: no set called $set" ;;
    esac
done

[ ${#packages[@]} -gt 0 ] || exit 0
command -v apt-get >/dev/null || die "this is not Debian: install the above yourself, then run this again"

say "installing ${packages[*]}"
# A package must not start its service: the lab runs its own nginx, in its own namespaces.
if [ ! -e /usr/sbin/policy-rc.d ]; then
    printf '#!/bin/sh\nexit 101\n' | as_root tee /usr/sbin/policy-rc.d >/dev/null
    trap 'as_root rm -f /usr/sbin/policy-rc.d' EXIT
    as_root chmod 755 /usr/sbin/policy-rc.d
fi
log=$(mktemp)
as_root apt-get update -qq >"$log" 2>&1 || note "apt-get update complained; going on with the lists that are here"
if ! as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" \
    >>"$log" 2>&1 </dev/null; then
    tail -n 20 "$log" >&2
    die "apt-get could not install ${packages[*]}; all it said is in $log"
fi
rm -f "$log"
