#!/bin/sh
# The runtime beside its peers, in one call: installs Flower and NVFlare into virtual environments (once), then runs the same shape on
# each, everything of one side on one core, and prints one Markdown table.
#
#   benches/peers/compare.sh [--devices 10] [--params 1660000] [--rounds 10] [--peer-rounds 3] [--core 1] [--secure]
#                            [--starling target/release/starling] [--json FILE]
#
# PEERS_VENV   where the environments are kept (default: a folder in TMPDIR)
# PEERS_FLOWER, PEERS_NVFLARE   the packages to install (default: flwr==1.41.0, nvflare==2.9.0)
#
# Where the kernel allows it, all of it runs in a network namespace that has nothing but a loopback interface.
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
venv=${PEERS_VENV:-${TMPDIR:-/tmp}/starling-peers}
mkdir -p "$venv"

install() {
    [ -x "$venv/$1/bin/$2" ] && return
    echo "installing $3 …" >&2
    python3 -m venv "$venv/$1"
    "$venv/$1/bin/python" -m pip install --quiet "$3" numpy >&2
}
install flower flower-superlink "${PEERS_FLOWER:-flwr==1.41.0}"
case " $* " in
*" --secure "*) ;; # NVFlare has no secure sums of this kind
*) install nvflare nvflare "${PEERS_NVFLARE:-nvflare==2.9.0}" ;;
esac

binary=$here/../../target/release/starling
[ -x "$binary" ] && set -- --starling "$binary" "$@"
export PYTHONDONTWRITEBYTECODE=1
if unshare --map-root-user --net true 2>/dev/null; then
    exec unshare --map-root-user --net -- python3 "$here/compare.py" --venv "$venv" "$@"
fi
exec python3 "$here/compare.py" --venv "$venv" "$@"
