#!/usr/bin/env bash
# Ends the sluice that scripts/start.sh started, known by its pid file and its command line. Leaves the lab up.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

[ -r "$STATE/sluice.pid" ] || exit 0
pid=$(cat "$STATE/sluice.pid")
ours() { # A process that has ended has no command line, even before its parent has looked.
    tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -qF "run -c docs/example.yaml --socket $SOCKET"
}
if ours; then
    say "ending the sluice of before (pid $pid)"
    # SIGINT: at once, without waiting for open connections as SIGTERM does.
    kill -INT "$pid"
    deadline=$((SECONDS + 10))
    while ours; do
        [ "$SECONDS" -lt "$deadline" ] || die "sluice (pid $pid) does not end"
        sleep 0.05
    done
fi
rm -f "$STATE/sluice.pid"
