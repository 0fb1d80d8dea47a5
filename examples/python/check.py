"""Does another tool predict on the digits' test set what Starling predicted?

    check.py pytorch FILE  --predictions P [--own FILE] [--least SHARE]
    check.py onnx FILE     --predictions P [--least SHARE]

`pytorch` takes a `state_dict` as train.py or `starling model export --format safetensors-torch` writes it, and runs it in PyTorch, or in
numpy where torch is not installed. A release may have other layers than the task; `--own` names an export of it in Starling's own
layout, whose metadata hold them. `onnx` runs in onnxruntime.

P is what `starling model evaluate --predictions P` wrote, one class a line. At least SHARE of the lines must be the same; a line may
also differ where the two classes score the same to 1e-4. Exits with 1 otherwise.
"""

import argparse
import json
import sys

import numpy as np
import safetensors
import safetensors.numpy

import digits
import starling_numpy

try:
    import starling_torch
    import torch
except ImportError:
    torch = None

# The task's own layers, in digits.toml.
LAYERS = [{"linear": {"out": 128}}, "relu", {"linear": {"out": 64}}, "relu", {"linear": {"out": 10}}]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tool", choices=["pytorch", "onnx"])
    parser.add_argument("file")
    parser.add_argument("--predictions", required=True)
    parser.add_argument("--own")
    parser.add_argument("--least", type=float, default=1.0)
    args = parser.parse_args()
    features, labels = digits.test()
    if args.tool == "onnx":
        import onnxruntime
        session = onnxruntime.InferenceSession(args.file, providers=["CPUExecutionProvider"])
        scores, tool = session.run(None, {"input": features})[0], "onnxruntime"
    else:
        scores, tool = pytorch(args.file, layers_of(args.own) if args.own else LAYERS, features)
    predicted = np.loadtxt(args.predictions, dtype=np.int64)
    if len(predicted) != len(labels):
        sys.exit(f"{args.predictions} has {len(predicted)} lines for {len(labels)} test rows")
    rows = np.arange(len(labels))
    same = scores[rows, predicted] >= scores.max(axis=1) - 1e-4
    right = 100 * (scores.argmax(axis=1) == labels).mean()
    print(f"{args.file}: {tool} gives {100 * same.mean():.2f} % of Starling's predictions, test accuracy {right:.2f} %")
    if same.mean() < args.least:
        sys.exit(f"expected at least {100 * args.least:.2f} %")


def layers_of(path):
    """The layers of the plan that Starling keeps in a file's metadata."""
    with safetensors.safe_open(path, "numpy") as file:
        return json.loads(file.metadata()["starling.plan"])["layers"]


def pytorch(path, layers, features):
    state = safetensors.numpy.load_file(path)
    if any(name.startswith("fc") for name in state):
        # train.py's own names, in the order of its layers.
        state = {f"{2 * (int(name[2]) - 1)}{name[3:]}": value for name, value in state.items()}
    if not torch:
        weights = {}
        for position, layer in enumerate(layers):
            if isinstance(layer, dict):
                (key, _), = layer.items()
                assert key == "linear", f"without torch only linear layers are read here, not {key}"
                weights[f"{position}.linear.weight"] = state[f"{position}.weight"].T
                if f"{position}.bias" in state:
                    weights[f"{position}.linear.bias"] = state[f"{position}.bias"]
        # The values are those that the layers compute with: no layer is binary any more.
        plain = [layer if isinstance(layer, str) else {"linear": {}} for layer in layers]
        return starling_numpy.forward(plain, weights, features), "numpy"
    net = starling_torch.build(layers, features.shape[1:])
    net.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
    with torch.no_grad():
        return net(torch.from_numpy(features)).numpy(), "torch"


main()
