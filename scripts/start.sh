#!/usr/bin/env bash
# The part of `make run` that needs root: lab up, sluice started in its namespace, requests sent.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

alive() { curl -sf --max-time 1 --unix-socket "$SOCKET" http://sluice/v1/live >/dev/null; }

scripts/stop.sh
say "lab: two servers, a client, and a namespace for sluice"
"$SLUICE" lab up --name "$LAB"

say "sluice in AF_PACKET mode, with docs/example.yaml"
mkdir -p "$(dirname "$SOCKET")"
! alive || die "a sluice that make run did not start is running on $SOCKET; end it first"
log=$STATE/sluice.log
setsid ip netns exec "$LAB-sluice" "$SLUICE" run -c docs/example.yaml --socket "$SOCKET" >"$log" 2>&1 </dev/null &
pid=$!
echo "$pid" >"$STATE/sluice.pid"

deadline=$((SECONDS + 15))
until curl -sf --max-time 1 --unix-socket "$SOCKET" http://sluice/v1/ready >/dev/null; do
    if ! kill -0 "$pid" 2>/dev/null || [ "$SECONDS" -ge "$deadline" ]; then
        cat "$log" >&2
        die "sluice did not become ready; its log is above"
    fi
    sleep 0.02
done
note "ready, pid $pid, log $log"

ask() { # URL: which member answered each of twenty requests
    local answers
    answers=$(for _ in $(seq 20); do
        ip netns exec "$LAB-client" curl -sS --max-time 5 "$1" || echo "no answer"
    done)
    printf '    %-28s' "$1"
    sort <<<"$answers" | uniq -c | awk '{printf "  %s x %s", $1, substr($0, index($0, $2))}'
    echo
    ! grep -q 'no answer' <<<"$answers"
}

say "twenty requests each over IPv4, over IPv6 and through the full proxy, from the client's namespace with curl"
answered=0
ask http://192.0.2.100/ || answered=1
ask 'http://[2001:db8:1::100]/' || answered=1
ask http://192.0.2.100:8080/ || answered=1
if [ $answered != 0 ]; then
    tail -n 30 "$log" >&2
    die "some requests got no answer; the log's end is above"
fi

say "sluice show virtual-servers"
"$SLUICE" show virtual-servers --socket "$SOCKET"

cat <<TXT

Sluice runs on. Look around with
    $SLUICE show pools                      also: members flows snat neighbors routes ports workers drops
    $SLUICE diff docs/example.yaml          edit the file, then: $SLUICE apply docs/example.yaml
    ip netns exec $LAB-client curl -v http://192.0.2.100/whoami
    ip netns exec $LAB-client curl -vL http://192.0.2.100:8080/old
    curl --unix-socket $SOCKET http://sluice/v1/virtual-servers
and end it with
    make stop
TXT
