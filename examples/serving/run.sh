#!/bin/sh
# A release from training to predictions on devices that train meanwhile, on the embedded digits. The devices run and train only what two
# publishers signed.
#
#   examples/serving/run.sh [FOLDER]
#
# FOLDER     where everything goes (default: a temporary folder, removed at the end)
# STARLING   the binary (default: target/release/starling)
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
root=$(CDPATH= cd -- "$here/../.." && pwd)
starling=${STARLING:-$root/target/release/starling}
devices=3
if [ $# -gt 0 ]; then
    folder=$1
    mkdir -p "$folder"
else
    folder=$(mktemp -d)
fi
started=
stop() {
    for process in $started; do kill "$process" 2>/dev/null || true; done
    [ $# -gt 0 ] || rm -rf "$folder"
}
trap 'stop "$@"' EXIT
say() { printf '\n== %s\n' "$*"; }

# Waits until a command's output has a pattern.
until_says() {
    pattern=$1; shift
    tries=0
    until "$@" 2>/dev/null | grep -q "$pattern"; do
        tries=$((tries + 1))
        [ $tries -lt 300 ] || { echo "waited in vain for $pattern of: $*" >&2; exit 1; }
        sleep 0.1
    done
}

task=$folder/digits.toml
cat >"$task" <<TASK
name = "digits"
kind = "classification"
[data]
format = "csv"
train = "embedded:optdigits"
test = "embedded:optdigits"
shape = [64]
scale = "unit"
[model]
layers = [ { linear = { out = 64 } }, "relu", { linear = { out = 10 } } ]
[train]
optimizer = "momentum"
lr = 0.02
batch = 16
weights = "pruned"
[federation]
devices = $devices
devices_min = $devices
rounds = 10000
TASK

say "train, and compress"
"$starling" model train "$task" --set train.weights=free --set federation.rounds=10 --out "$folder/first.safetensors"
"$starling" model compress "$task" --set train.weights=free --set federation.rounds=10 --weights "$folder/first.safetensors" --out "$folder/first.release" \
    --method deep --effort quick

say "two people publish, a machine says what is newest"
for holder in alice bob robot; do "$starling" publish key --out "$folder/$holder.key"; done
"$starling" publish root --root "1:$folder/alice.pub" --freshness "1:$folder/robot.pub" \
    --publisher "digits=2:$folder/alice.pub,$folder/bob.pub" --key "$folder/alice.key" --out "$folder/root.bundle"
# Signs a file's bundle with the second key, where that lies, and names it as the newest.
second_signature() {
    "$starling" publish sign "$1" --key "$folder/bob.key" >/dev/null
    "$starling" publish freshness "$1" --roots "$folder/root.bundle" --key "$folder/robot.key" --out "$folder/fresh.bundle" >/dev/null
}
# A release's bundle lies beside it.
sign_release() {
    "$starling" publish release "$1" --roots "$folder/root.bundle" --version "$2" --key "$folder/alice.key" >/dev/null
    second_signature "$1.bundle"
    "$starling" publish verify "$1.bundle" --roots "$folder/root.bundle" --release "$1"
}
sign_release "$folder/first.release" 1

say "an aggregator and $devices devices"
"$starling" certs init --dir "$folder/ca"
"$starling" certs issue aggregator --authority "$folder/ca" --name aggregator --out "$folder/aggregator"
cat >"$folder/aggregator.toml" <<CONFIG
listen = "127.0.0.1:0"
state_dir = "aggregator-state"
path = "loopback"
[tls]
ca = "aggregator/ca.pem"
certificate = "aggregator/certificate.pem"
key = "aggregator/key.pem"
CONFIG
"$starling" aggregator run --config "$folder/aggregator.toml" >"$folder/aggregator.out" 2>"$folder/aggregator.log" &
started="$started $!"
until_says listening cat "$folder/aggregator.out"
address=$(sed -n 's/^listening //p' "$folder/aggregator.out")
index=0
while [ $index -lt $devices ]; do
    "$starling" certs issue device --authority "$folder/ca" --name "device-$index" --out "$folder/device-$index"
    cat >"$folder/device-$index.toml" <<CONFIG
aggregator = "$address"
state_dir = "device-$index-state"
path = "loopback"
[tls]
ca = "device-$index/ca.pem"
certificate = "device-$index/certificate.pem"
key = "device-$index/key.pem"
[trust]
root = "root.bundle"
[[task]]
name = "digits"
[task.data]
format = "csv"
train = "embedded:optdigits"
[task.partition]
how = "iid"
devices = $devices
index = $index
seed = 1
CONFIG
    "$starling" client run --config "$folder/device-$index.toml" >/dev/null 2>"$folder/device-$index.log" &
    started="$started $!"
    index=$((index + 1))
done
operator() { "$starling" aggregator "$@" --config "$folder/aggregator.toml"; }

say "publish version 1; every device serves it"
operator release publish "$folder/first.release" --task digits --bundle "$folder/first.release.bundle"
until_says "\"serve\":$devices" operator release list --json
operator release list

say "predictions while a run trains"
# Two digits of the set: their pixels, 0 to 16.
cat >"$folder/samples.csv" <<SAMPLES
0,1,6,15,12,1,0,0,0,7,16,6,6,10,0,0,0,8,16,2,0,11,2,0,0,5,16,3,0,5,7,0,0,7,13,3,0,8,7,0,0,4,12,0,1,13,5,0,0,0,14,9,15,9,0,0,0,0,6,14,7,1,0,0
0,0,0,8,15,1,0,0,0,0,1,14,13,1,1,0,0,0,10,15,3,15,11,0,0,7,16,7,1,16,8,0,0,9,16,13,14,16,5,0,0,1,10,15,16,14,0,0,0,0,0,1,16,10,0,0,0,0,0,10,15,4,0,0
SAMPLES
# The run begins with what the release computes: pruned weights, and the devices keep the mask. Units that pruning left without
# inputs are gone from the release, so they go from the task as well.
units=$("$starling" model inspect "$folder/first.release" | sed -n 's/^0.linear.bias *\([0-9]*\) .*/\1/p')
smaller=$folder/smaller.toml
sed "s/out = 64/out = $units/" "$task" >"$smaller"
"$starling" model export "$task" --weights "$folder/first.release" --format safetensors --out "$folder/pruned.safetensors"
"$starling" publish plan "$smaller" --seed 1 --roots "$folder/root.bundle" --version 1 --key "$folder/alice.key" --out "$folder/plan.bundle"
second_signature "$folder/plan.bundle"
operator run start "$smaller" --weights "$folder/pruned.safetensors" --seed 1 --bundle "$folder/plan.bundle"
until_says "\"round\":2" operator run status --json
"$starling" client predict --config "$folder/device-0.toml" --input "$folder/samples.csv" --repeat 2000
if command -v python3 >/dev/null; then
    python3 "$here/ask.py" "$folder/device-0-state/serve.sock" "$folder/samples.csv"
fi

say "publish version 2, which the devices have trained; they swap it in and train on"
until_says "\"round\":20" operator run status --json
operator run export 1 --out "$folder/second.safetensors"
"$starling" model compress "$smaller" --set train.weights=free --set federation.rounds=10 --weights "$folder/second.safetensors" \
    --out "$folder/second.release" --method deep --effort quick
sign_release "$folder/second.release" 2
operator release publish "$folder/second.release" --task digits --bundle "$folder/second.release.bundle"
until_says "\"version\": 2" "$starling" client status --config "$folder/device-0.toml" --json
until_says "\"serve\":$devices" operator release list --json
operator release list
"$starling" client status --config "$folder/device-0.toml"
say "what alice alone has signed is refused; the old model serves on"
"$starling" publish release "$folder/first.release" --roots "$folder/root.bundle" --version 3 --key "$folder/alice.key" >/dev/null
if operator release publish "$folder/first.release" --task digits --bundle "$folder/first.release.bundle"; then exit 1; fi
"$starling" client predict --config "$folder/device-0.toml" --input "$folder/samples.csv"
say "done"
