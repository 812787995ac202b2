#!/bin/sh
# Compiles the CNI plugin, statically: it has to run in any node's file system.
set -eu
cd "$(dirname "$0")/.."
mkdir -p build
if [ ! -x build/weir-cni ] || [ src/programs/cni/weir-cni.c -nt build/weir-cni ]; then
  echo 'gcc src/programs/cni/weir-cni.c'
  gcc -Os -Wall -Wextra -Werror -static -o build/weir-cni.tmp src/programs/cni/weir-cni.c
  mv build/weir-cni.tmp build/weir-cni
fi
