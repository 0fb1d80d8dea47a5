"""Runs Starling, NVFlare and Flower with the same shape, one after the other, and prints one Markdown table.

N clients receive P float32 parameters, add small noise and send them back; the server averages and commits; R rounds. All processes
of a side share one core. With --secure the server sees sums only: Starling's secure sums beside Flower's SecAgg+. Called by compare.sh,
which makes the virtual environments.
"""

import argparse
import json
import os
import platform
import socket
import struct
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

import flower_peer
import nvflare_peer
from measure import loopback_bytes

COLUMNS = [
    ("round, s (median)", "round_s_median", "{:.2f}"),
    ("updates/s", "updates_per_s", "{:.2f}"),
    ("nothing → first round, s", "nothing_to_first_round_s", "{:.1f}"),
    ("server CPU, s/round", "server_cpu_s_per_round", "{:.2f}"),
    ("client CPU, s/client-round", "client_cpu_s_per_client_round", "{:.3f}"),
    ("peak RSS server, MB", "peak_rss_server_mb", "{:.0f}"),
    ("peak RSS of one client, MB", "peak_rss_client_mb", "{:.0f}"),
    ("up, MB/client-round", "bytes_up_per_client_round", "{:.2f}"),
    ("down, MB/client-round", "bytes_down_per_client_round", "{:.2f}"),
    ("all loopback traffic, MB/client-round", "loopback_bytes_per_client_round", "{:.2f}"),
    ("idle client RSS, MB", "idle_rss_client_mb", "{:.0f}"),
]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=4)
    parser.add_argument("--params", type=int, default=1_660_000)
    parser.add_argument("--rounds", type=int, default=10, help="for Starling; the peers run --peer-rounds")
    parser.add_argument("--peer-rounds", type=int, default=3)
    parser.add_argument("--core", default="1")
    parser.add_argument("--nice", type=int, default=0)
    parser.add_argument("--timeout", type=float, default=300.0, help="for each peer, seconds")
    parser.add_argument("--venv", required=True, help="folder with the environments flower/ and nvflare/")
    parser.add_argument("--starling", default="", help="the starling binary; empty: leave it out")
    parser.add_argument("--peers", default="nvflare,flower")
    parser.add_argument("--secure", action="store_true", help="secure sums; of the peers, Flower has them")
    parser.add_argument("--json", default="")
    args = parser.parse_args()

    loopback_up()
    prefix = ["nice", "-n", str(args.nice), "taskset", "-c", args.core]
    rows = {}
    with tempfile.TemporaryDirectory(prefix="peers-") as folder:
        if args.starling:
            for codec in ("q16", "q8") if args.secure else ("f32", "q8"):
                attempt(rows, f"Starling, {codec}", lambda codec=codec: starling(args, prefix, codec, folder))
        for name in ["flower"] if args.secure else filter(None, args.peers.split(",")):
            module = {"nvflare": nvflare_peer, "flower": flower_peer}[name]
            venv = Path(args.venv) / name
            attempt(rows, title(name, venv), lambda: peer(module, venv, Path(folder) / name, prefix, args))

    print(f"{args.devices} clients × {args.params:,} parameters; {sys.platform}, {processor()}; core {args.core}\n")
    print("| | " + " | ".join(column[0] for column in COLUMNS) + " |")
    print("| --- |" + " ---: |" * len(COLUMNS))
    for name, row in rows.items():
        print(f"| {name} | " + " | ".join(cell(row, field, form) for _, field, form in COLUMNS) + " |")
    print(
        "\nFor the peers, up and down are the payload (4 bytes a parameter); what they really move is in the loopback column,"
        "\nwhich also holds the traffic between the processes of one client or server; Starling's also holds its handshakes."
    )
    if args.json:
        Path(args.json).write_text(json.dumps(rows, indent=2) + "\n")


def attempt(rows, name, measure):
    print(f"running {name} …", file=sys.stderr, flush=True)
    try:
        rows[name] = measure()
    except Exception:  # one side that fails must not take the others' figures with it
        traceback.print_exc()
        rows[name] = {}


def peer(module, venv, work, prefix, args):
    try:
        secure = {"secure": True} if args.secure else {}
        row = module.run(venv, work, prefix, args.devices, args.params, args.peer_rounds, args.timeout, **secure)
    except Exception:
        for log in sorted(Path(work).glob("*.log")):
            print(f"--- {log.name}", log.read_text(errors="replace")[-3000:], sep="\n", file=sys.stderr)
        raise
    row["idle_rss_client_mb"] = module.idle_rss_mb(venv, Path(f"{work}-idle"), prefix)
    return row


def starling(args, prefix, codec, folder):
    figures = Path(folder) / f"starling-{codec}.json"
    command = [
        *prefix, args.starling, "bench", "runtime", "--devices", str(args.devices), "--params", str(args.params),
        "--rounds", str(args.rounds), "--codec", codec, "--json", str(figures), *(["--secure"] if args.secure else []),
    ]
    before = loopback_bytes()
    subprocess.run(command, stdout=sys.stderr, timeout=args.timeout, check=True)
    row = json.loads(figures.read_text())
    row["updates_per_s"] = args.devices / row["round_s_median"]  # as for the peers; the bench's own counts the whole run
    row["loopback_bytes_per_client_round"] = (loopback_bytes() - before) / args.rounds / args.devices
    return row


def cell(row, field, form):
    value = row.get(field)
    if value is None:
        return "–"
    return form.format(value / 1e6 if "bytes_" in field else value)


def title(name, venv):
    package = {"flower": "flwr", "nvflare": "nvflare"}[name]
    code = f"import importlib.metadata as m; print(m.version('{package}'))"
    version = subprocess.run([str(venv / "bin/python"), "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    return {"flower": f"Flower {version}", "nvflare": f"NVFlare {version}"}[name]


def processor():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def loopback_up():
    """In a network namespace of our own the loopback is down at first."""
    try:
        import fcntl

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
            request = struct.pack("16sh", b"lo", 0)
            flags = struct.unpack("16sh", fcntl.ioctl(handle, 0x8913, request))[1]  # SIOCGIFFLAGS
            if not flags & 1:  # IFF_UP
                fcntl.ioctl(handle, 0x8914, struct.pack("16sh", b"lo", flags | 1))  # SIOCSIFFLAGS
    except OSError as error:
        print(f"the loopback interface is down and cannot be brought up: {error}", file=sys.stderr)


if __name__ == "__main__":
    main()
