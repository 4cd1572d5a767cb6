#!/usr/bin/env bash
# `make run`: from a fresh machine to a lab with sluice in the middle and real requests through it.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

say "looking for what is missing"
scripts/deps.sh build lab
scripts/deps.sh dpdk || note "DPDK's headers could not be installed"

say "building sluice (a few minutes the first time)"
build_for_lab

as_root scripts/start.sh
