# Sourced by benches that run real daemons on loopback: how they are started, waited for and stopped. `starling` names the binary.

started=()

stop_started() {
    ((${#started[@]})) && kill "${started[@]}" 2>/dev/null
    wait
    started=()
}

# until_says SECONDS PATTERN COMMAND …: waits until the command's output has the pattern.
until_says() {
    local tries=$(($1 * 10)) pattern=$2
    shift 2
    until "$@" 2>/dev/null | grep -q "$pattern"; do
        ((tries-- > 0)) || { echo "waited in vain for $pattern of: $*" >&2; exit 1; }
        sleep 0.1
    done
}

# tls FOLDER: a configuration's section about the certificate there.
tls() {
    printf '[tls]\nca = "%s/ca.pem"\ncertificate = "%s/certificate.pem"\nkey = "%s/key.pem"\n' "$1" "$1" "$1"
}

# partition DEVICES INDEX SEED: a task's section about a device's equal part of the data.
partition() {
    printf '[task.partition]\nhow = "iid"\ndevices = %d\nindex = %d\nseed = %d\n' "$1" "$2" "$3"
}

# start_aggregator CONFIG LOG: it runs, and `address` is where it listens.
start_aggregator() {
    local listening
    listening=$(mktemp)
    "$starling" aggregator run --config "$1" >"$listening" 2>"$2" &
    started+=($!)
    until_says 60 listening cat "$listening"
    address=$(sed -n 's/^listening //p' "$listening")
    rm -f "$listening"
}

# start_client CONFIG LOG
start_client() {
    "$starling" client run --config "$1" >/dev/null 2>"$2" &
    started+=($!)
}
