#!/usr/bin/env bash
# `make stop`: ends sluice and takes the lab down.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

as_root scripts/stop.sh
[ -x "$SLUICE" ] || die "$SLUICE is not built: nothing that make run started can be here"
as_root "$SLUICE" lab down --name "$LAB"
