#!/usr/bin/env bash
# `make bench`: measurements; see benches/.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

scripts/deps.sh build dpdk lab bench
# shellcheck disable=SC2046
cargo bench --locked -p sluice-benches $(features) "$@"
