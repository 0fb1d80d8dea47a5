#!/usr/bin/env bash
# A fleet of real processes on loopback trains a task's model and then compresses it, without a sample leaving a device.
#
#   benches/compression/live.sh TASK MAX_BYTES DATA OUT [SEED …] [-- further arguments of `starling model compress`]
#
# TASK is one whose data are IDX files under DATA; its federation.devices processes are started. The test set is opened by
# `starling model evaluate` alone, at the end. OUT gets, a seed, the run's weights, the release, their predictions and all JSON;
# `summary.py OUT` prints the table. STARLING names the binary (default: target/release/starling); SET holds further
# `--set key=value` of the task, one string.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../fleet.sh"
starling=${STARLING:-target/release/starling}
task=$1 max_bytes=$2 data=$(realpath "$3") out=$4
shift 4
seeds=()
while (($#)) && [[ $1 != -- ]]; do seeds+=("$1"); shift; done
(($#)) && shift
((${#seeds[@]})) || seeds=(1 2 3)
read -ra set <<<"${SET:-}"
set=(--set "data.root=$data" "${set[@]}")
value() { sed -n "s/^$1 *= *//p" "$task" | head -n 1; }
devices=$(value devices)
mkdir -p "$out"
out=$(realpath "$out")
if compgen -G "$out/*" >/dev/null; then
    echo "$out is not empty: figures of two measurements would be mixed; name another folder" >&2
    exit 2
fi

fleet=$(mktemp -d)
trap 'stop_started; rm -rf "$fleet"' EXIT

"$starling" certs init --dir "$fleet/ca" >/dev/null
"$starling" certs issue aggregator --authority "$fleet/ca" --name aggregator --out "$fleet/aggregator" >/dev/null
for ((index = 0; index < devices; index++)); do
    "$starling" certs issue device --authority "$fleet/ca" --name "device-$index" --out "$fleet/device-$index" >/dev/null
done

for seed in "${seeds[@]}"; do
    config=$fleet/aggregator-$seed.toml
    { printf 'listen = "127.0.0.1:0"\nstate_dir = "aggregator-%s-state"\npath = "loopback"\n' "$seed"; tls aggregator; } >"$config"
    start_aggregator "$config" "$out/$seed.aggregator.log"
    for ((index = 0; index < devices; index++)); do
        {
            printf 'aggregator = "%s"\nstate_dir = "device-%d-%s-state"\npath = "loopback"\n' "$address" "$index" "$seed"
            tls "device-$index"
            printf '[[task]]\nname = %s\n[task.data]\nformat = "idx"\nroot = "%s"\ntrain = %s\ntrain_labels = %s\n' \
                "$(value name)" "$data" "$(value train)" "$(value train_labels)"
            partition "$devices" "$index" "$seed"
        } >"$fleet/device-$index-$seed.toml"
        start_client "$fleet/device-$index-$seed.toml" /dev/null
    done
    connected() { "$starling" aggregator devices --config "$config" --json | grep -o '"device":' | wc -l; }
    until_says 60 "^$devices\$" connected

    weights=$out/$seed.safetensors release=$out/$seed.release
    "$starling" aggregator run start "$task" "${set[@]}" --set "federation.devices_min=$devices" --seed "$seed" --config "$config"
    until_says 3600 '"state":"finished"' "$starling" aggregator run status 1 --config "$config" --json
    "$starling" aggregator run status 1 --config "$config" --json >"$out/$seed.train.json"
    "$starling" aggregator run export 1 --config "$config" --out "$weights"
    "$starling" model compress "$task" "${set[@]}" --set "federation.devices_min=$devices" --federated 1 --config "$config" \
        --out "$release" --max-bytes "$max_bytes" --report "$out/$seed.html" --json "$out/$seed.compress.json" "$@"
    stop_started
    for model in "$weights" "$release"; do
        "$starling" model evaluate "$task" "${set[@]}" --seed "$seed" --model "$model" \
            --predictions "$model.predictions" --json "$model.evaluate.json"
    done
done
python3 "$(dirname "${BASH_SOURCE[0]}")/summary.py" "$out" "${seeds[@]}"
