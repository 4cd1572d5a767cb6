#!/usr/bin/env bash
# `make lab`: the namespaces, links and servers, without sluice.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

scripts/deps.sh build lab
scripts/deps.sh dpdk || note "DPDK's headers could not be installed"
build_for_lab
as_root "$SLUICE" lab up --name "$LAB"
