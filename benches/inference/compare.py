"""Batch-1 latency on one thread: Starling's engine, onnxruntime and burn, on the same networks and the same inputs.

For each network of --networks, in the folder --models:

    NAME.safetensors         the float weights (made with `starling model init` where there are none: latency does not depend on values)
    NAME.int8.release, NAME.pruned.release, NAME.binary.release
                             releases; each that is there is timed. --make trains the weights and makes the missing releases first,
                             which takes minutes and needs --data.

onnxruntime runs what `starling model export --format onnx` writes, as it is and statically quantised (QDQ, per channel, calibrated on
the inputs), with its inputs and outputs bound in place. It is called from Python; what one such call costs is measured with a
network that computes nothing and is stated beside it. Inputs are training rows of --data (folders mnist/ and fashion-mnist/ of IDX
files), else noise. Called by compare.sh.
"""

import argparse
import gc
import gzip
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnxruntime import quantization

# Network → the folder of its data.
NETWORKS = {"lenet-300-100": "fashion-mnist", "lenet-5": "mnist", "fedavg-cnn": "mnist"}

# Release → the method that makes it.
RELEASES = {"int8": "int8", "pruned": "deep", "binary": "binary"}

# Samples that the runs go through in turn; `starling model bench` takes as many.
SAMPLES = 256
WARM_UP = 500
SHAPE = [1, 28, 28]

TASK = """
name = "{name}"
kind = "classification"
[data]
format = "idx"
root = "{root}"
train = "train-images-idx3-ubyte.gz"
train_labels = "train-labels-idx1-ubyte.gz"
test = "t10k-images-idx3-ubyte.gz"
test_labels = "t10k-labels-idx1-ubyte.gz"
shape = [1, 28, 28]
scale = "unit"
[model]
preset = "{name}"
[train]
optimizer = "adam"
lr = 0.001
batch = 50
[federation]
devices = 1
partition = "iid"
rounds = 1
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starling", required=True, help="the binary; empty: onnxruntime alone")
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--models", help="folder of weights and releases (default: a temporary one)")
    parser.add_argument("--make", action="store_true", help="train and compress what is missing")
    parser.add_argument("--data", help="folder with mnist/ and fashion-mnist/")
    parser.add_argument("--epochs", type=int, default=5, help="of the training that --make does")
    parser.add_argument("--effort", default="quick", help="of the compression that --make does")
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--core", type=int, default=1)
    parser.add_argument("--json", help="also write the figures here")
    args = parser.parse_args()
    if args.make and not args.data:
        parser.error("--make needs --data")
    # Everything on one core, the processes started from here included.
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {args.core} & os.sched_getaffinity(0) or os.sched_getaffinity(0))

    found = {"machine": processor(), "onnxruntime": onnxruntime.__version__, "runs": args.runs, "threads": 1, "batch": 1,
             "inputs": "training rows" if args.data else "noise", "networks": {}}
    with tempfile.TemporaryDirectory(prefix="inference-") as folder:
        models = Path(args.models or folder)
        models.mkdir(parents=True, exist_ok=True)
        for name in args.networks.split(","):
            say(f"{name} …")
            found["networks"][name] = network(args, name, models, Path(folder))
    print(table(found))
    if args.json:
        Path(args.json).write_text(json.dumps(found, indent=2) + "\n")


def network(args, name, models, folder):
    """The figures of all engines on the network `name`."""
    task, weights, graph = folder / f"{name}.toml", models / f"{name}.safetensors", folder / f"{name}.onnx"
    data = Path(args.data, NETWORKS[name]).resolve() if args.data else Path("none")
    task.write_text(TASK.format(name=name, root=data))
    if not weights.exists():
        if args.make:
            starling(args, "train", task, "--out", weights, "--epochs", args.epochs)
        else:
            starling(args, "init", task, "--out", weights)
    starling(args, "export", task, "--weights", weights, "--format", "onnx", "--out", graph)
    inputs = images(data / "train-images-idx3-ubyte.gz") if args.data else noise()

    rows = onnx_rows(graph, inputs, args.runs)
    rows["starling f32"] = bench(args, weights, task, "starling")
    for form, method in RELEASES.items():
        release = models / f"{name}.{form}.release"
        if not release.exists() and args.make:
            make(args, task, weights, release, method)
        if release.exists():
            rows[f"starling {form}"] = bench(args, release, task, "starling")
    for engine in ("burn-flex", "burn-ndarray"):
        rows[f"{engine} f32"] = bench(args, weights, task, engine)
    return {key: row for key, row in rows.items() if row}


def onnx_rows(graph, inputs, runs):
    """onnxruntime on `graph` as it is and quantised, and the cost of a call."""
    empty, integers = graph.with_suffix(".empty.onnx"), graph.with_suffix(".int8.onnx")
    identity(empty)
    quantised(graph, integers, inputs)
    agreement = np.mean(classes(graph, inputs) == classes(integers, inputs))
    rows = {
        "onnxruntime call": timed(empty, inputs, runs),
        "onnxruntime f32": timed(graph, inputs, runs) | {"bytes": graph.stat().st_size},
        "onnxruntime int8": timed(integers, inputs, runs) | {"bytes": integers.stat().st_size},
    }
    rows["onnxruntime int8"]["agreement_with_f32"] = float(agreement)
    return rows


def identity(path):
    """A network that takes the same input and computes nothing: one value of it comes out."""
    value = lambda name, shape: onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
    start = [onnx.helper.make_tensor(name, onnx.TensorProto.INT64, [4], values)
             for name, values in (("from", [0, 0, 0, 0]), ("to", [1, 1, 1, 1]))]
    node = onnx.helper.make_node("Slice", ["input", "from", "to"], ["output"])
    graph = onnx.helper.make_graph([node], "empty", [value("input", ["batch", *SHAPE])],
                                   [value("output", ["batch", 1, 1, 1])], start)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), path)


class Rows(quantization.CalibrationDataReader):
    def __init__(self, inputs):
        self.left = iter(inputs)

    def get_next(self):
        row = next(self.left, None)
        return None if row is None else {"input": row[None]}


def quantised(graph, path, inputs):
    """Static quantisation as onnxruntime's documentation recommends it: 8-bit unsigned activations and signed weights per channel,
    of 7 bits where the processor has no VNNI (sums of two products of 8 bits would saturate)."""
    prepared = path.with_suffix(".prepared.onnx")
    quantization.quant_pre_process(graph, prepared, skip_symbolic_shape=True)
    quantization.quantize_static(
        prepared, path, Rows(inputs), quant_format=quantization.QuantFormat.QDQ, per_channel=True,
        reduce_range=not {"avx_vnni", "avx512_vnni"} & flags(), activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8)


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def classes(path, inputs):
    return session(path).run(None, {"input": inputs})[0].argmax(axis=1)


def timed(path, inputs, runs):
    """Latency of one run with bound buffers; the input is put in place outside the clock."""
    ready = session(path)
    shape = [1, *ready.get_outputs()[0].shape[1:]]
    given = onnxruntime.OrtValue.ortvalue_from_numpy(inputs[:1])
    taken = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(shape, np.float32))
    binding = ready.io_binding()
    binding.bind_ortvalue_input("input", given)
    binding.bind_ortvalue_output("output", taken)
    rows = [np.ascontiguousarray(inputs[row:row + 1]) for row in range(len(inputs))]
    run, clock, latencies = ready.run_with_iobinding, time.perf_counter_ns, np.empty(runs)
    gc.disable()
    for index in range(-WARM_UP, runs):
        given.update_inplace(rows[index % len(rows)])
        begun = clock()
        run(binding)
        ended = clock()
        if index >= 0:
            latencies[index] = ended - begun
    gc.enable()
    p50, p99 = np.percentile(latencies, [50, 99]) / 1e3
    return {"latency_us_p50": float(p50), "latency_us_p99": float(p99)}


def bench(args, model, task, engine):
    """What `starling model bench` finds, or nothing when it cannot run the model."""
    rows = [task] if args.data else []
    done = starling(args, "bench", model, *rows, "--engine", engine, "--runs", args.runs, "--json", may_fail=True)
    return done and json.loads(done)


def make(args, task, weights, release, method):
    """A release, or none where the search fails; all methods here apply to all networks here."""
    say(f"making {release.name} …")
    starling(args, "compress", task, "--weights", weights, "--out", release, "--method", method, "--effort", args.effort,
             may_fail=True)


def starling(args, verb, *arguments, may_fail=False):
    if not args.starling:
        return None
    command = [args.starling, "model", verb, *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode == 0:
        return done.stdout
    say(f"{' '.join(command)}: {done.stderr.strip()}")
    return None if may_fail else sys.exit(1)


def images(path):
    with gzip.open(path) as file:
        data = file.read(16 + SAMPLES * 784)
    pixels = np.frombuffer(data, np.uint8, offset=16).reshape(SAMPLES, *SHAPE)
    return pixels.astype(np.float32) / np.float32(255)


def noise():
    return np.random.default_rng(1).random((SAMPLES, *SHAPE), np.float32)


def table(found):
    """Rows are engines, columns networks; a cell is p50 and p99 in µs."""
    networks = found["networks"]
    lines = [
        f"{found['machine']}; one thread, batch 1, {found['runs']} runs over {SAMPLES} {found['inputs']}; "
        f"onnxruntime {found['onnxruntime']} called from Python.",
        "",
        "| p50 (p99), µs | " + " | ".join(networks) + " |",
        "| --- |" + " ---: |" * len(networks),
    ]
    keys = []
    for rows in networks.values():
        keys += [key for key in rows if key not in keys]
    for key in keys:
        cells = [cell(rows.get(key)) for rows in networks.values()]
        lines.append(f"| {words(key)} | " + " | ".join(cells) + " |")
        if key in ("onnxruntime f32", "onnxruntime int8"):
            cells = [less(rows.get(key), rows.get("onnxruntime call")) for rows in networks.values()]
            lines.append(f"| {key}, less that call | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def words(key):
    return "a call of onnxruntime that computes nothing" if key == "onnxruntime call" else key


def cell(row):
    return f"{row['latency_us_p50']:.1f} ({row['latency_us_p99']:.1f})" if row else "–"


def less(row, call):
    return f"{row['latency_us_p50'] - call['latency_us_p50']:.1f}" if row and call else "–"


def processor():
    """The processor's name and the instructions that decide these figures."""
    known = sorted({"avx2", "fma", "avx512f", "avx_vnni", "avx512_vnni", "asimd", "asimddp"} & flags())
    return f"{cpuinfo('model name') or platform.machine()} ({', '.join(known)})"


def flags():
    return set((cpuinfo("flags") or cpuinfo("Features")).split())


def cpuinfo(key):
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), "")


def say(text):
    print(text, file=sys.stderr)


main()
