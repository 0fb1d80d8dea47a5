#!/usr/bin/env bash
# Trains a task's float model under several seeds, compresses each to a size, and tests both in fresh processes.
#
#   benches/compression/run.sh TASK MAX_BYTES OUT [SEED …] [-- further arguments of `starling model compress`]
#
# The search sees training data only; the test set is opened by `starling model evaluate` alone. OUT gets, a seed, the
# float weights, the release, their predictions and all JSON; `summary.py OUT SEED …` prints the table. STARLING names the
# binary (default: target/release/starling); SET holds further `--set key=value` of the task, one string.
#
# Float weights are used again where OUT has those of the same task file, SET and seed, and this is said; everything else
# that OUT holds of a seed is deleted before it is made anew.
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
    weights=$out/$seed.safetensors release=$out/$seed.release origin=$out/$seed.origin
    from="$(sha256sum <"$task") SET=${SET:-} seed=$seed"
    rm -f "$release" "$out/$seed.html" "$out/$seed.compress.json" "$out/$seed".*.predictions "$out/$seed".*.evaluate.json
    if [[ -e $weights && $(cat "$origin" 2>/dev/null) == "$from" ]]; then
        echo "$weights is of the same task, settings and seed and is used again; delete it to train anew" >&2
    else
        rm -f "$weights" "$origin" "$out/$seed.train.json"
        "$starling" model train "$task" "${set[@]}" --seed "$seed" --out "$weights" --json "$out/$seed.train.json"
        echo "$from" >"$origin"
    fi
    code=0
    "$starling" model compress "$task" "${set[@]}" --seed "$seed" --weights "$weights" --out "$release" \
        --max-bytes "$max_bytes" --report "$out/$seed.html" --json "$out/$seed.compress.json" "$@" || code=$?
    # 5: no candidate keeps within the limits. The nearest is judged all the same, and the table says its size.
    if ((code == 5)); then
        echo "seed $seed: no candidate keeps within the limits; what follows is the nearest" >&2
    elif ((code)); then
        exit "$code"
    fi
    for model in "$weights" "$release"; do
        "$starling" model evaluate "$task" "${set[@]}" --seed "$seed" --model "$model" \
            --predictions "$model.predictions" --json "$model.evaluate.json"
    done
done
python3 "$(dirname "${BASH_SOURCE[0]}")/summary.py" "$out" "${seeds[@]}"
