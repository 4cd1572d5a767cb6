#!/usr/bin/env bash
# `make bench`: all measurements, in about ten minutes; or those named: operations instructions wire peers.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

scripts/deps.sh build dpdk lab bench
parts=("$@")
[ $# -gt 0 ] || parts=(operations instructions wire peers)

say "building"
# shellcheck disable=SC2046
cargo build --locked --release -p sluice-control -p sluice-benches --bins $(features)

for part in "${parts[@]}"; do
    case $part in
    operations)
        say "operations: time, by criterion"
        # shellcheck disable=SC2046
        cargo bench --locked -p sluice-benches $(features)
        ;;
    instructions)
        say "operations: instructions, by callgrind, against benches/instructions.tsv"
        "$TARGET/release/instructions"
        ;;
    wire)
        have_dpdk || { say "SKIPPED (needs DPDK): the wire"; continue; }
        say "the wire: sluice against testpmd's macswap over memif"
        as_root "$TARGET/release/wire" --rounds 3
        ;;
    peers)
        say "peers: sluice, nftables and HAProxy on veth"
        as_root "$TARGET/release/peers"
        ;;
    *) die "bench: no part called $part" ;;
    esac
done
