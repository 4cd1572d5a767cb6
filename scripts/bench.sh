#!/usr/bin/env bash
# `make bench`: measurements, about ten minutes; `scripts/bench.sh wire --flows 1000` runs one of them. See benches/README.md.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

# One of: criterion instructions allocations apply wire peers veth-instructions.
# shellcheck disable=SC2046
bench() {
    local what=$1
    shift
    say "$what"
    case $what in
    criterion) cargo bench --locked -p sluice-benches $(features) "$@" ;;
    allocations) cargo test --release --locked -p sluice-benches $(features) --test allocations -- --nocapture "$@" ;;
    instructions) "$TARGET/release/instructions" "$@" ;;
    apply) "$TARGET/release/apply" "$@" ;;
    wire) as_root timeout 600 "$TARGET/release/wire" "$@" ;;
    peers) as_root timeout 600 "$TARGET/release/peers" "$@" ;;
    veth-instructions) as_root timeout 900 "$TARGET/release/veth-instructions" "$@" ;;
    *) die "one of: criterion instructions allocations apply wire peers veth-instructions" ;;
    esac
}

scripts/deps.sh build dpdk lab bench
# shellcheck disable=SC2046
cargo build --release --locked -p sluice-control -p sluice-benches $(features)
if [ $# -gt 0 ]; then
    bench "$@"
    exit
fi
status=0
bench criterion --quiet || status=1
bench instructions || status=1
bench allocations || status=1
bench apply || status=1
if have_dpdk; then
    bench wire || status=1
    bench wire --workers 2 --rounds 3 || status=1
    bench wire flood || status=1
    bench wire new-flows || status=1
    bench wire apply || status=1
else
    say "no DPDK here, so no wire"
fi
bench peers || status=1
exit $status
