"""Checks the files that tests/python.rs writes with the tools that others will read them with.

    check.py FOLDER

For each NAME.json of FOLDER ({layers, shape, output}): NAME.onnx passes the checker of the onnx package and runs in onnxruntime at
several batch sizes, NAME.safetensors and NAME.torch.safetensors open in the safetensors package, and all give the outputs of the
numpy reference (examples/python/starling_numpy.py). With torch installed, NAME.torch.safetensors also goes through
`load_state_dict` and comes back as `NAME.saved.safetensors`, which the caller reads again.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import safetensors
import safetensors.numpy

sys.path.insert(0, str(Path(__file__).parents[4] / "examples" / "python"))
import starling_numpy  # noqa: E402

try:
    import starling_torch
    import torch
except ImportError:
    torch = None

# Outputs are sums of up to a few hundred f32 products of numbers around 1.
TOLERANCE = {"rtol": 2e-4, "atol": 2e-5}


def main():
    cases = sorted(Path(sys.argv[1]).glob("*.json"))
    worst = 0.0
    for case in cases:
        worst = max(worst, check(case))
    also = f" and torch {torch.__version__}" if torch else ""
    print(f"{len(cases)} networks: numpy and onnxruntime {onnxruntime.__version__}{also} agree to {worst:.1e}")


def check(case):
    about = json.loads(case.read_text())
    layers, shape = about["layers"], about["shape"]
    weights = safetensors.numpy.load_file(case.with_suffix(".safetensors"))
    with safetensors.safe_open(case.with_suffix(".safetensors"), "numpy") as file:
        assert json.loads(file.metadata()["layers"]) == layers, f"{case.stem}: metadata"

    model = onnx.load(case.with_suffix(".onnx"))
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (given,), (taken,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.shape) == ("input", ["batch", *shape]), f"{case.stem}: {given}"
    assert (taken.name, taken.shape) == ("output", ["batch", *about["output"]]), f"{case.stem}: {taken}"

    random = np.random.default_rng(7)
    worst = 0.0
    for batch in (1, 3, 8):
        if "embedding" in json.dumps(layers[0]):
            x = random.integers(0, layers[0]["embedding"]["tokens"], (batch, *shape))
        else:
            # Zeros and negative zeros are where signs and windows go wrong.
            x = random.standard_normal((batch, *shape)).astype(np.float32)
            x[random.random(x.shape) < 0.1] = 0.0
            x[random.random(x.shape) < 0.05] = -0.0
        expected = starling_numpy.forward(layers, weights, x)
        found = session.run(None, {"input": x})[0]
        worst = max(worst, compare(f"{case.stem}: onnxruntime, batch {batch}", found, expected))
        if torch:
            state = starling_torch.build(layers, shape)
            tensors = safetensors.numpy.load_file(case.with_suffix(".torch.safetensors"))
            state.load_state_dict({name: torch.from_numpy(value) for name, value in tensors.items()})
            with torch.no_grad():
                found = state(torch.from_numpy(x)).numpy()
            worst = max(worst, compare(f"{case.stem}: torch, batch {batch}", found, expected))
            saved = {name: value.numpy() for name, value in state.state_dict().items()}
            safetensors.numpy.save_file(saved, case.with_suffix(".saved.safetensors"))
    return worst


def compare(what, found, expected):
    """Fails where outputs differ; gives the largest difference, relative to the outputs' size."""
    assert found.shape == expected.shape, f"{what}: {found.shape} instead of {expected.shape}"
    assert np.isfinite(found).all(), what
    np.testing.assert_allclose(found, expected, err_msg=what, **TOLERANCE)
    return float(np.abs(found - expected).max() / max(1.0, np.abs(expected).max()))


main()
