#!/bin/sh
# Batch-1 latency of Starling's engine beside onnxruntime and burn, in one call: installs onnxruntime into a virtual environment (once),
# exports the networks, runs everything on one core and prints one Markdown table.
#
#   benches/inference/compare.sh [--data FOLDER] [--models FOLDER [--make]] [--runs 10000] [--core 1] [--json FILE]
#
# STARLING   the binary (default: target/release/starling)
# PYTHON     an interpreter with the packages of tests/python/requirements.txt (default: a virtual environment under target/)
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
root=$(CDPATH= cd -- "$here/../.." && pwd)
python=${PYTHON:-$("$root/tests/python/environment.sh" "$root/target/python")}
export PYTHONDONTWRITEBYTECODE=1
exec "$python" "$here/compare.py" --starling "${STARLING:-$root/target/release/starling}" "$@"
