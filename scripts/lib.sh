# shellcheck shell=bash
# Sourced by the other scripts: where things are, and how they speak.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

LAB=sluice-lab
STATE=/run/sluice-lab/$LAB
SOCKET=/run/sluice/sluice.sock
TARGET=${CARGO_TARGET_DIR:-target}
SLUICE=$TARGET/lab/sluice

say() { printf '\033[1m==> %s\033[0m\n' "$*"; }
note() { printf '    %s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# Empty as root; sudo for everybody else who has it.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo --preserve-env=CARGO_TARGET_DIR -- "$@"
    else
        die "this needs root, and there is no sudo: run it as root ($*)"
    fi
}

# DPDK's headers and the libclang that reads them: both, or the binary is built without DPDK.
have_dpdk() {
    pkg-config --exists libdpdk 2>/dev/null && have_libclang
}

have_libclang() {
    [ -n "${LIBCLANG_PATH:-}" ] || ldconfig -p 2>/dev/null | grep -q 'libclang[-.]' ||
        compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' >/dev/null
}

# Cargo's feature flags for this machine.
features() {
    have_dpdk || echo --no-default-features
}

build_for_lab() {
    have_dpdk || say "building without DPDK, whose headers are not here: af_packet ports work, dpdk ports are refused"
    # shellcheck disable=SC2046
    cargo build --profile lab --locked -p sluice-control --bin sluice $(features)
}
