#!/usr/bin/env bash
# What update codecs cost in accuracy and save in bytes: MNIST, fedavg-2nn, 20 devices of which half take part in a round, 60
# rounds, against f32 under the same seeds.
#
#   benches/compression/updates.sh DATA OUT [SEED …]
#
# DATA holds the folder mnist. Bytes are those of the upload, blob headers included, as the aggregator counts them.
set -euo pipefail
starling=${STARLING:-target/release/starling}
data=$1 out=$2
shift 2
seeds=("$@")
((${#seeds[@]})) || seeds=(1 2 3)
mkdir -p "$out"
codecs=(f32 q8+ec eden:1 topk:0.04)
for codec in "${codecs[@]}"; do
    for seed in "${seeds[@]}"; do
        "$starling" simulate examples/mnist-2nn-iid.toml --seed "$seed" --json "$out/$codec.$seed.json" \
            --set data.root="$data" --set federation.devices=20 --set federation.fraction=0.5 \
            --set federation.rounds=60 --set federation.target=1.0 --set update.codec="$codec" >/dev/null
    done
done
python3 - "$out" "${codecs[@]}" -- "${seeds[@]}" <<'PYTHON'
import json, pathlib, sys

out, rest = pathlib.Path(sys.argv[1]), sys.argv[2:]
codecs, seeds = rest[:rest.index("--")], rest[rest.index("--") + 1:]


def figures(codec):
    runs = [json.loads((out / f"{codec}.{seed}.json").read_text()) for seed in seeds]
    accuracy = [100 * run["final_accuracy"] for run in runs]
    upload = sum(item["bytes_up"] for run in runs for item in run["rounds"])
    return accuracy, upload


float_accuracy, float_upload = figures("f32")
print("| codec | accuracy, % | against f32, points | upload, times smaller |")
print("| --- | ---: | ---: | ---: |")
for codec in codecs:
    accuracy, upload = figures(codec)
    mean = sum(accuracy) / len(accuracy)
    difference = mean - sum(float_accuracy) / len(float_accuracy)
    print(f"| {codec} | {mean:.2f} | {difference:+.2f} | {float_upload / upload:.1f} |")
PYTHON
