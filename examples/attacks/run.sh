#!/bin/sh
# Attacks on real updates, and what stops them: a table, and a page with the pictures that opens from the disk.
#
#   examples/attacks/run.sh [--data DIR] [--out FILE] [--seed N]
#
# DIR holds the four files of MNIST or Fashion-MNIST; without it the digits that every build carries.
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
root=$(CDPATH= cd -- "$here/../.." && pwd)
# Of the whole workspace, so that burn is not built again with other features.
(cd "$root" && cargo build --release --workspace --bin starling-attacks)
exec "${CARGO_TARGET_DIR:-$root/target}/release/starling-attacks" "$@"
