#!/usr/bin/env bash
# Builds the plugins, the examples and the tests' guests: target/{plugins,examples,guests}/NAME.wasm.
#
# These are core modules that carry their WIT; the host makes components of them when it loads them. The
# compiler for wasm32-unknown-unknown is the first of these that can be had:
#
#   1. the installed toolchain, if it has the target;
#   2. Debian's own compiler, if its packages are installed: it builds std from source;
#   3. the installed toolchain, after `rustup target add`;
#   4. Debian's compiler, after `apt-get install`.
#
# GRISTMILL_WASM=rustup or GRISTMILL_WASM=debian allows only that one. Never asks anything. Exits 69 when
# there is no compiler, after saying what to install.
set -euo pipefail
cd "$(dirname "$0")/.."

target=wasm32-unknown-unknown
debian_packages=(rustc-web cargo-web rust-web-src rust-web-llvm lld-22)
only=${GRISTMILL_WASM:-}

say() { printf 'plugins: %s\n' "$*" >&2; }

toolchain_has_target() {
    local lib
    lib=$(rustc --print target-libdir --target "$target" 2>/dev/null) && compgen -G "$lib/libstd-*.rlib" >/dev/null
}

# Bounded, as an unreachable server may neither answer nor refuse.
add_target() {
    command -v rustup >/dev/null || return 1
    say "adding the target $target to the Rust toolchain"
    local bounded=(env)
    if command -v timeout >/dev/null; then
        bounded=(timeout 120)
    fi
    "${bounded[@]}" rustup --quiet target add "$target" </dev/null && toolchain_has_target
}

debian_is_ready() {
    command -v dpkg-query >/dev/null || return 1
    # One line of status for each package; an unknown one makes the whole query fail.
    local status
    status=$(dpkg-query --show --showformat='${db:Status-Status}\n' "${debian_packages[@]}" 2>/dev/null) &&
        ! grep --quiet --invert-match --line-regexp installed <<<"$status"
}

install_debian() {
    command -v apt-get >/dev/null || return 1
    local as_root=(env)
    if [ "$(id -u)" != 0 ]; then
        sudo -n true 2>/dev/null || return 1
        as_root=(sudo -n env)
    fi
    say "installing Debian's compiler for WASM: ${debian_packages[*]}"
    local apt=("${as_root[@]}" DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300)
    local log=target/apt.log
    mkdir -p target
    if ! { "${apt[@]}" update && "${apt[@]}" install -y --no-install-recommends "${debian_packages[@]}"; } \
        </dev/null >"$log" 2>&1; then
        say "that failed, see $log; its last lines:"
        tail -n 5 "$log" >&2
        return 1
    fi
    debian_is_ready
}

choose_compiler() {
    case $only in
    '' | rustup | debian) ;;
    *) say "GRISTMILL_WASM is '$only', it can be 'rustup' or 'debian'" && exit 64 ;;
    esac
    if [ "$only" != debian ] && toolchain_has_target; then
        compiler=installed
    elif [ "$only" != rustup ] && debian_is_ready; then
        compiler=debian
    elif [ "$only" != debian ] && add_target; then
        compiler=installed
    elif [ "$only" != rustup ] && install_debian; then
        compiler=debian
    else
        say "no Rust compiler here can build for $target. Install one of:"
        say "  with rustup:   rustup target add $target"
        say "  on Debian 12:  apt-get update && apt-get install --no-install-recommends ${debian_packages[*]}"
        exit 69
    fi
}

compile() {
    local cargo=(cargo build --profile plugin --target "$target" --target-dir target/wasm)
    # SIMD is part of every WASM engine there is. One RUSTFLAGS, whatever the caller has for the host.
    local environment=(env -u CARGO_ENCODED_RUSTFLAGS "RUSTFLAGS=-C target-feature=+simd128")
    if [ "$compiler" = debian ]; then
        # A stable compiler builds std only when told that it may use what is not stable yet.
        environment+=("PATH=/usr/bin:$PATH" RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1)
        cargo+=('-Zbuild-std=std,panic_abort')
    fi
    local name
    for name in "${plugins[@]}" "${examples[@]}" guests; do
        cargo+=(--package "$name")
    done
    "${environment[@]}" "${cargo[@]}" --lib --examples
}

# Puts BUILT into FOLDER as NAME.wasm, in one step, and leaves an equal file alone: it keeps its time, and
# nobody who watches it starts to work.
put() {
    local built=$1 folder=$2 name=$3
    local file=$folder/$name.wasm
    cmp -s "$built" "$file" && return
    cp "$built" "$file.$$" && mv "$file.$$" "$file"
}

# Removes what an earlier version of the sources left in FOLDER; the names to keep follow.
prune() {
    local folder=$1 file
    shift
    for file in "$folder"/*.wasm; do
        [[ " $* " == *" $(basename "$file" .wasm) "* ]] || rm -f "$file"
    done
}

plugins=()
for manifest in plugins/*/Cargo.toml; do
    plugins+=("$(basename "$(dirname "$manifest")")")
done
# The examples that are plugins; others have no library.
examples=()
for source in examples/*/src/lib.rs; do
    examples+=("$(basename "$(dirname "$(dirname "$source")")")")
done
# The guests are the examples that tests/guests/Cargo.toml names.
guests=()
while read -r name; do
    guests+=("$name")
done < <(sed -n '/^\[\[example\]\]/,/^$/ s/^name = "\(.*\)"$/\1/p' tests/guests/Cargo.toml)

choose_compiler
compile

built=target/wasm/$target/plugin
mkdir -p target/plugins target/guests target/examples
for name in "${plugins[@]}"; do
    put "$built/${name//-/_}.wasm" target/plugins "$name"
done
for name in "${examples[@]}"; do
    put "$built/${name//-/_}.wasm" target/examples "$name"
done
for name in "${guests[@]}"; do
    put "$built/examples/${name//-/_}.wasm" target/guests "$name"
done
prune target/plugins "${plugins[@]}"
prune target/examples "${examples[@]}"
prune target/guests "${guests[@]}"
