#!/usr/bin/env bash
# `make fuzz`: SECONDS_EACH (60) on every target of tests/fuzz, or on those named.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

scripts/deps.sh build
[ -d tests/fuzz ] || die "there is no tests/fuzz"
if ! command -v cargo-fuzz >/dev/null; then
    say "installing cargo-fuzz: drives the fuzz targets"
    cargo install --locked cargo-fuzz
fi
# The sanitizer flags are unstable, and this lets a stable compiler take them.
export RUSTC_BOOTSTRAP=1
targets=("$@")
[ $# -gt 0 ] || mapfile -t targets < <(cargo fuzz list --fuzz-dir tests/fuzz)
for target in "${targets[@]}"; do
    say "fuzz target $target"
    # What it finds worth keeping goes under target/; tests/fuzz/corpus holds what a test runs every time.
    mkdir -p "target/fuzz/$target"
    cargo fuzz run --fuzz-dir tests/fuzz "$target" "target/fuzz/$target" "tests/fuzz/corpus/$target" -- \
        -max_total_time="${SECONDS_EACH:-60}"
done
