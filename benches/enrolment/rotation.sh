#!/usr/bin/env bash
# Rotates every device's certificate once a minute while rounds go by, and counts what that costs: no round.
#
#   benches/enrolment/rotation.sh [MINUTES]        (default: 10)
#
# STARLING names the binary (default: target/release/starling). Certificates last for three minutes and are renewed after a third
# of that, over the open connection. It ends with exit code 1 when a round had a second attempt or lacked a device, or when a
# connection did not live through all of it.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../fleet.sh"
starling=$(realpath "${STARLING:-target/release/starling}")
minutes=${1:-10}
devices=3
folder=$(mktemp -d)
trap 'stop_started; rm -rf "$folder"' EXIT
cd "$folder"

operator() { "$starling" aggregator "$@" --config aggregator.toml; }

"$starling" certs init --dir ca >/dev/null
"$starling" certs issue aggregator --authority ca --name aggregator --out tls >/dev/null
{
    printf 'listen = "127.0.0.1:0"\nstate_dir = "state"\npath = "loopback"\n'
    tls tls
    printf '[enrolment]\nauthority = "ca"\ncertificate_s = 180\n'
} >aggregator.toml
start_aggregator aggregator.toml aggregator.log
for ((index = 0; index < devices; index++)); do
    name=device-$index
    join=$(operator device invite --name "$name" --json | sed -n 's/.*"join":"\([^"]*\)".*/\1/p')
    "$starling" client join "$join" --out "$name" --name "$name" --path loopback >/dev/null
    {
        printf '[[task]]\nname = "digits"\n[task.data]\nformat = "csv"\ntrain = "embedded:optdigits"\n'
        partition "$devices" "$index" 1
    } >>"$name/starling-client.toml"
    start_client "$name/starling-client.toml" "$name.log"
done
cat >digits.toml <<TASK
name = "digits"
kind = "classification"
[data]
format = "csv"
train = "embedded:optdigits"
shape = [1, 8, 8]
scale = "unit"
[model]
layers = ["flatten", { linear = { out = 10 } }]
[train]
epochs = 20
[federation]
devices = $devices
devices_min = $devices
quorum = 1.0
rounds = 1000000
TASK
operator run start digits.toml >/dev/null
sleep $((minutes * 60))
operator run status --json >status.json
operator audit export --out log.jsonl >/dev/null
operator audit verify >/dev/null

python3 - "$devices" "$minutes" <<'COUNT'
import collections, json, sys
devices, minutes = int(sys.argv[1]), int(sys.argv[2])
rounds = json.load(open("status.json"))["rounds"]
records = [json.loads(line) for line in open("log.jsonl")]
renewed = collections.Counter(str(r["who"]) for r in records if r.get("what") == "certificate-renewed")
connections = [sum("connected" in line and "epoch" in line for line in open(f"device-{i}.log")) for i in range(devices)]
suffered = [r["round"] for r in rounds if r["attempt"] != 1 or r["contributors"] != devices]
print(f"{minutes} minutes, {devices} devices: {len(rounds)} rounds, {len(suffered)} with a second attempt or without a device")
print(f"certificates renewed: {sorted(renewed.values())} (by holder), connections a device: {connections}")
sys.exit(bool(suffered) or connections != [1] * devices or len(rounds) == 0)
COUNT
