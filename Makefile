# One line a verb; what they do is in scripts/.
.PHONY: help run stop test check bench bench-peers bench-instructions fuzz lab deps clean
help:      ; @sed -n '/^help/d; s/^\([a-z-]*\):.*## /    make \1	/p' Makefile | expand -t 28
run:       ; @scripts/run.sh                          ## a lab with sluice in the middle, and requests through it
stop:      ; @scripts/down.sh                         ## ends what `make run` left running
test:      ; @scripts/test.sh                         ## every test; as root the namespace tests too
check:     ; @scripts/check.sh                        ## format, clippy, rustdoc
bench:     ; @scripts/bench.sh                        ## measurements
bench-peers: ; @scripts/bench.sh peers proxies        ## full proxies side by side: sluice, HAProxy, nginx
bench-instructions: ; @scripts/bench.sh veth-instructions ## instructions a request through each of them, emulated
fuzz:      ; @scripts/fuzz.sh                         ## a minute on every fuzz target (SECONDS_EACH=60)
lab:       ; @scripts/lab.sh                          ## the lab alone, without sluice
deps:      ; @scripts/deps.sh build dpdk lab test     ## installs what the above need
clean:     ; @cargo clean                             ## removes what was built
