#!/usr/bin/env bash
# `make check`: what a reader could complain about without running anything.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

scripts/deps.sh build
scripts/deps.sh dpdk || note "DPDK's headers could not be installed"

say "format"
cargo fmt --all --check

say "clippy without DPDK"
cargo clippy --locked --workspace --all-targets --no-default-features -- -D warnings
if have_dpdk; then
    say "clippy with DPDK"
    cargo clippy --locked --workspace --all-targets -- -D warnings
else
    say "SKIPPED (needs dpdk-dev and libclang-dev): clippy with DPDK"
fi

say "rustdoc"
# shellcheck disable=SC2046
RUSTDOCFLAGS='-D warnings -A rustdoc::private-intra-doc-links' cargo doc --locked --workspace --no-deps --document-private-items $(features)

say "shell scripts"
bash -n scripts/*.sh .ci/run

if command -v cargo-deny >/dev/null; then
    say "cargo deny"
    cargo deny check
elif python3 -c 'import tomllib' 2>/dev/null; then
    say "licences (SKIPPED, for cargo-deny is not installed and takes minutes to build: advisories)"
    cargo metadata --locked --format-version 1 | scripts/licences.py
else
    say "SKIPPED (needs cargo-deny, or Python 3.11): licences and advisories"
fi
