#!/usr/bin/env bash
# Walks README's commands of enrolment as they are written there, from two empty folders to a device in a committed round, and says how long it took.
#
#   examples/newcomer/walk.sh
#
# STARLING names the binary (default: target/release/starling); it stands for `starling-aggregator` and `starling-client`, too. The commands are read
# from README.md, behind the marks `<!-- walk: operator -->`, `<!-- walk: device -->` and `<!-- walk: round -->`. What a person would do differently
# is all that is changed: the address is one of this machine, the join string is the one that was printed, `examples/` is this repository's, and
# daemons run in the background.
set -euo pipefail
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
source "$repository/benches/fleet.sh"
starling=$(realpath "${STARLING:-$repository/target/release/starling}")
folder=$(mktemp -d)
trap 'stop_started; rm -rf "$folder"' EXIT
mkdir "$folder/operator" "$folder/device"
starling() { "$starling" "$@"; }
starling-aggregator() { "$starling" aggregator "$@"; }
starling-client() { "$starling" client "$@"; }

# The README's 4433 may be taken; below those that the system gives away.
port=$((20000 + RANDOM % 12000))

# commands PART: the block behind its mark, without its fence. What a command prints is left out: it begins neither with `$ ` nor stands in a here-document.
commands() {
    awk -v mark="<!-- walk: $1 -->" '
        $0 == mark { found = 1; next }
        found && /^```/ { if (inside) exit; inside = 1; next }
        !inside { next }
        /^\$ / { sub(/^\$ /, ""); document = /<<.END./; print; next }
        document { print; if ($0 == "END") document = 0 }
    ' "$repository/README.md" | sed -e "s/192\.0\.2\.10:4433/127.0.0.1:$port/g" -e "s/starling1:[^ ]*/\$(cat \"\$join\")/" -e "s|examples/|$repository/examples/|"
}

join=$folder/join
count=0
# follow FOLDER PART: the part's commands, one after another, in that folder.
follow() {
    local line block=''
    cd "$folder/$1"
    while IFS= read -r line || [[ -n $line ]]; do
        block+=$line$'\n'
        # A here-document is one command.
        [[ $block == *"<<'END'"* && $line != END ]] && continue
        count=$((count + 1))
        case $block in
        *' run --config '*)
            echo "  $1\$ ${block%%#*}" >&2
            (
                # The daemon takes the subshell's place, so that it is the one that is stopped.
                starling-aggregator() { exec "$starling" aggregator "$@"; }
                starling-client() { exec "$starling" client "$@"; }
                eval "${block%%#*} >run.out 2>run.err"
            ) &
            started+=($!)
            ;;
        *' device invite '*)
            echo "  $1\$ ${block%%#*}" >&2
            until_says 60 listening cat run.out
            eval "$block" >"$join"
            ;;
        *)
            echo "  $1\$ ${block%%#*}" >&2
            eval "$block" >&2
            ;;
        esac
        block=''
    done
}

commands operator >"$folder/operator.commands"
commands device >"$folder/device.commands"
commands round >"$folder/round.commands"
for part in operator device round; do
    [[ -s $folder/$part.commands ]] || { echo "README.md has no commands behind <!-- walk: $part -->" >&2; exit 1; }
done
began=$(date +%s%3N)
follow operator <"$folder/operator.commands"
follow device <"$folder/device.commands"
follow operator <"$folder/round.commands"
cd "$folder/operator"
# A line of the table of rounds: round 1, with one update of a cohort of one.
until_says 60 '^ *1  *1/1 ' starling-aggregator run status --config starling-aggregator.toml
took=$(($(date +%s%3N) - began))
starling-aggregator device list --config starling-aggregator.toml >&2
echo "$count commands, from two empty folders to a device in a committed round: $((took / 1000)).$(printf %03d $((took % 1000))) s of the machine's time"
