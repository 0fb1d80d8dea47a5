#!/bin/sh
# The walk-through of README.md from end to end: PyTorch → safetensors → Starling → a release → PyTorch and ONNX, checked at each step.
#
#   examples/python/walkthrough.sh [FOLDER]
#
# FOLDER     where the files go (default: a temporary folder, removed at the end)
# STARLING   the binary (default: target/release/starling)
# PYTHON     an interpreter with numpy and safetensors, and if possible torch and onnxruntime (default: python3 if it has them, else a
#            virtual environment under target/, without torch)
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
root=$(CDPATH= cd -- "$here/../.." && pwd)
starling=${STARLING:-$root/target/release/starling}
python=${PYTHON:-python3}
export PYTHONDONTWRITEBYTECODE=1

if [ -z "${PYTHON:-}" ] && ! python3 -c 'import numpy, safetensors' 2>/dev/null; then
    python=$("$root/tests/python/environment.sh" "$root/target/python")
fi
if [ $# -gt 0 ]; then
    folder=$1
    mkdir -p "$folder"
else
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
fi
task=$here/digits.toml

say() { printf '\n== %s\n' "$*"; }

say "train in Python"
"$python" "$here/train.py" --out "$folder/pytorch.safetensors"

say "import, and predict the same"
"$starling" model import "$task" --weights "$folder/pytorch.safetensors" --layout torch --out "$folder/digits.safetensors"
"$starling" model evaluate "$task" --model "$folder/digits.safetensors" --predictions "$folder/imported.txt"
"$python" "$here/check.py" pytorch "$folder/pytorch.safetensors" --predictions "$folder/imported.txt"

say "compress within one point of accuracy"
"$starling" model compress "$task" --weights "$folder/digits.safetensors" --out "$folder/digits.release" --max-accuracy-loss 1.0 --effort quick
"$starling" model inspect "$folder/digits.release"
"$starling" model evaluate "$task" --model "$folder/digits.release" --predictions "$folder/release.txt"

say "back to PyTorch, and on to ONNX"
for format in safetensors safetensors-torch onnx; do
    "$starling" model export "$task" --weights "$folder/digits.release" --format "$format" --out "$folder/back.$format"
done
# The release may compute in integers where the export has floats.
"$python" "$here/check.py" pytorch "$folder/back.safetensors-torch" --own "$folder/back.safetensors" \
    --predictions "$folder/release.txt" --least 0.99
if "$python" -c 'import onnxruntime' 2>/dev/null; then
    "$python" "$here/check.py" onnx "$folder/back.onnx" --predictions "$folder/release.txt" --least 0.99
else
    echo "onnxruntime is not installed: the ONNX file was not run" >&2
fi
say "done"
