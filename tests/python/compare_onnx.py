"""Does onnxruntime predict what Starling predicts? For tests and for people.

    compare_onnx.py MODEL.onnx PREDICTIONS --csv FILE  [--label -1] [--divide 16]  [--least 1.0] [--json]
    compare_onnx.py MODEL.onnx PREDICTIONS --idx FILE               [--divide 255] [--least 1.0] [--json]

MODEL.onnx is from `starling model export --format onnx`, PREDICTIONS from `starling model evaluate --predictions` on the test set that FILE
holds (.gz too): a class a line, or a value a line for a regression. --divide is what the task's `scale = "unit"` divides features by.

A class may differ only where both score the same to --tie; a value by --tolerance, relative. Exits with 1 when less than --least of the
lines agree.
"""

import argparse
import gzip
import json
import math
import sys

import numpy as np
import onnxruntime


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("predictions")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--csv", help="numbers, without a head")
    source.add_argument("--idx", help="images")
    parser.add_argument("--label", type=int, default=-1, help="the column of the label in a CSV file")
    parser.add_argument("--divide", type=float, default=1.0)
    parser.add_argument("--least", type=float, default=1.0)
    parser.add_argument("--tie", type=float, default=1e-4)
    parser.add_argument("--tolerance", type=float, default=1e-3)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()

    features = csv(args.csv, args.label) if args.csv else idx(args.idx)
    session = onnxruntime.InferenceSession(args.model, providers=["CPUExecutionProvider"])
    given = session.get_inputs()[0]
    shape = given.shape[1:]
    if features.shape[1] != math.prod(shape):
        sys.exit(f"{args.model} takes {shape}; the file has {features.shape[1]} features a row")
    features = features.reshape(-1, *shape)
    if given.type == "tensor(int64)":
        features = features.astype(np.int64)
    else:
        features = (features / np.float32(args.divide)).astype(np.float32)
    batches = (features[start:start + args.batch] for start in range(0, len(features), args.batch))
    scores = np.concatenate([session.run(None, {given.name: batch})[0] for batch in batches])
    scores = scores.reshape(-1, scores.shape[-1])

    predicted = np.loadtxt(args.predictions, dtype=np.float64, ndmin=1)
    if len(predicted) != len(scores):
        sys.exit(f"{args.predictions} has {len(predicted)} lines; onnxruntime gives {len(scores)} predictions")
    if scores.shape[1] == 1:
        same = np.abs(scores[:, 0] - predicted) <= args.tolerance * np.maximum(1.0, np.abs(predicted))
    else:
        best = scores.max(axis=1)
        same = scores[np.arange(len(scores)), predicted.astype(np.int64)] >= best - args.tie
    found = {"model": args.model, "rows": len(same), "differing": int((~same).sum()), "agreement": float(same.mean())}
    print(json.dumps(found) if args.json else f"{found['rows']} rows, {found['differing']} differ")
    if found["agreement"] < args.least:
        sys.exit(f"expected an agreement of at least {args.least}, first at row {int(np.argmin(same))}")


def opened(path):
    return gzip.open(path, "rb") if path.endswith(".gz") else open(path, "rb")


def csv(path, label):
    with opened(path) as file:
        rows = np.loadtxt(file, delimiter=",", dtype=np.float32, ndmin=2)
    return np.delete(rows, label, axis=1)


def idx(path):
    with opened(path) as file:
        data = file.read()
    if data[:3] != b"\0\0\x08":
        sys.exit(f"{path} is no IDX file of bytes")
    axes = data[3]
    sizes = np.frombuffer(data, ">u4", axes, 4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(sizes[0], -1).astype(np.float32)


main()
