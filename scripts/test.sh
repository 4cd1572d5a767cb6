#!/usr/bin/env bash
# `make test`: every test there is. As root the namespace tests run too, with real clients and servers.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

scripts/deps.sh build lab test
scripts/deps.sh dpdk || note "DPDK's headers could not be installed"
flags=$(features)
[ "$(id -u)" = 0 ] || say "not root: the namespace tests will say SKIPPED (needs root)"

say "building"
# The tests find the binary beside their own executables.
# shellcheck disable=SC2086
cargo build --locked --workspace --bins $flags

say "tests"
# shellcheck disable=SC2086
cargo test --locked --workspace --no-fail-fast $flags

say "full proxies on the other TCP engine"
cargo test --locked -p sluice-dataplane --features smoltcp-engine --test proxy --test http_table

if have_dpdk; then
    say "a binary without DPDK"
    cargo build --locked -p sluice-control --bin sluice --no-default-features --target-dir "$TARGET/plain"
    SLUICE_BINARY=$(realpath "$TARGET/plain/debug/sluice") cargo test --locked --workspace --test dpdk a_binary_without
fi
