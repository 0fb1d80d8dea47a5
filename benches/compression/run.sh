#!/usr/bin/env bash
# Trains a task's float model under several seeds, compresses each to a size, and tests both in fresh processes.
#
#   benches/compression/run.sh TASK MAX_BYTES OUT [SEED …] [-- further arguments of `starling model compress`]
#
# The search sees training data only; the test set is opened by `starling model evaluate` alone. OUT gets, a seed, the
# float weights, the release, their predictions and all JSON; `summary.py OUT` prints the table. STARLING names the
# binary (default: target/release/starling); SET holds further `--set key=value` of the task, one string.
set -euo pipefail
starling=${STARLING:-target/release/starling}
task=$1 max_bytes=$2 out=$3
shift 3
seeds=()
while (($#)) && [[ $1 != -- ]]; do seeds+=("$1"); shift; done
(($#)) && shift
((${#seeds[@]})) || seeds=(1 2 3)
read -ra set <<<"${SET:-}"
mkdir -p "$out"
for seed in "${seeds[@]}"; do
    weights=$out/$seed.safetensors release=$out/$seed.release
    [[ -e $weights ]] || "$starling" model train "$task" "${set[@]}" --seed "$seed" --out "$weights" --json "$out/$seed.train.json"
    "$starling" model compress "$task" "${set[@]}" --seed "$seed" --weights "$weights" --out "$release" \
        --max-bytes "$max_bytes" --report "$out/$seed.html" --json "$out/$seed.compress.json" "$@"
    for model in "$weights" "$release"; do
        "$starling" model evaluate "$task" "${set[@]}" --seed "$seed" --model "$model" \
            --predictions "$model.predictions" --json "$model.evaluate.json"
    done
done
python3 "$(dirname "${BASH_SOURCE[0]}")/summary.py" "$out"
