#!/usr/bin/env python3
"""What two declined methods would give on LeNet-300-100: asymmetric integer weights, and hashed weights.

    declined.py WEIGHTS DATA asymmetric          float weights as `starling model train` writes them, and their test accuracy in integers
    declined.py WEIGHTS DATA hashed BYTES [SEED] trains a HashedNet of so many bytes of 16-bit weights and tests it

DATA is the folder of one set of IDX files (.gz). It needs numpy alone, and runs on one core with OPENBLAS_NUM_THREADS=1.
Decisions 5 and 14 quote its figures.
"""
import gzip
import json
import pathlib
import struct
import sys

import numpy as np

CLIPS = np.arange(1.0, 0.34, -0.05)


def read_idx(path: pathlib.Path) -> np.ndarray:
    data = gzip.decompress(path.read_bytes())
    axes = struct.unpack(f">{data[3]}I", data[4 : 4 + 4 * data[3]])
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(axes)


def read_weights(path: pathlib.Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """The layers of a perceptron, each a matrix [in, out] and a bias."""
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    head = json.loads(data[8 : 8 + length])
    tensors = {}
    for name, entry in head.items():
        if name != "__metadata__":
            begin, end = (8 + length + offset for offset in entry["data_offsets"])
            tensors[name] = np.frombuffer(data[begin:end], "<f4").reshape(entry["shape"])
    names = sorted((name for name in tensors if name.endswith(".weight")), key=lambda name: int(name.split(".")[0]))
    return [(tensors[name], tensors[name.replace(".weight", ".bias")]) for name in names]


def forward(layers, x):
    for index, (weight, bias) in enumerate(layers):
        x = x @ weight + bias
        x = np.maximum(x, 0) if index + 1 < len(layers) else x
    return x


def accuracy(layers, images, labels) -> float:
    return 100 * float((forward(layers, images).argmax(1) == labels).mean())


def symmetric(w: np.ndarray, bits: int) -> np.ndarray:
    """w = level · scale, the scale of least squared error among clipped ones, a row of `w` at a time."""
    top = 2 ** (bits - 1) - 1
    largest = np.abs(w).max(1, keepdims=True)
    return best(w, [(-clip * largest, clip * largest, -top, top) for clip in (CLIPS if bits < 8 else [1.0])])


def asymmetric(w: np.ndarray, bits: int) -> np.ndarray:
    """w = (level − zero) · scale with levels from 0, over the row's own range with 0 in it; both ends are clipped alike."""
    low, high = np.minimum(w.min(1, keepdims=True), 0), np.maximum(w.max(1, keepdims=True), 0)
    return best(w, [(clip * low, clip * high, 0, 2**bits - 1) for clip in (CLIPS if bits < 8 else [1.0])])


def best(w, ranges):
    found, error = None, None
    for low, high, first, last in ranges:
        scale = np.maximum((high - low) / (last - first), 1e-12)
        zero = np.round(first - low / scale)
        value = (np.clip(np.round(w / scale) + zero, first, last) - zero) * scale
        new = ((value - w) ** 2).sum(1, keepdims=True)
        if found is None:
            found, error = value, new
        found, error = np.where(new < error, value, found), np.minimum(new, error)
    return found.astype(np.float32)


def compare_integers(layers, images, labels) -> None:
    print(f"float {accuracy(layers, images, labels):.2f} %")
    print("| bits | scales | symmetric, % | asymmetric, % | squared error, asymmetric of symmetric |")
    print("| ---: | --- | ---: | ---: | ---: |")
    for bits in (8, 4, 3):
        for scales in ("channel", "tensor"):
            rows = (lambda w: w.T) if scales == "channel" else (lambda w: w.reshape(1, -1))
            back = (lambda w, shape: w.T) if scales == "channel" else (lambda w, shape: w.reshape(shape))
            forms, errors = [], []
            for quantise in (symmetric, asymmetric):
                quantised = [(back(quantise(rows(w), bits), w.shape), bias) for w, bias in layers]
                forms.append(accuracy(quantised, images, labels))
                errors.append(sum(float(((q - w) ** 2).sum()) for (q, _), (w, _) in zip(quantised, layers)))
            print(f"| {bits} | {scales} | {forms[0]:.2f} | {forms[1]:.2f} | {errors[1] / errors[0]:.2f} |")


def train_hashed(shapes, size_bytes, images, labels, seed, epochs=10, batch=64):
    """HashedNets (Chen et al. 2015): each virtual weight is ±one of K real ones, as a hash of its place says. Adam, cosine."""
    random = np.random.default_rng(seed)
    weights = sum(rows * columns for rows, columns in shapes)
    budget = size_bytes // 2 - sum(columns for _, columns in shapes)
    real, places, signs, biases = [], [], [], []
    for rows, columns in shapes:
        count = max(1, round(budget * rows * columns / weights))
        real.append(random.normal(0, np.sqrt(2 / rows), count).astype(np.float32))
        places.append(random.integers(0, count, (rows, columns)))
        signs.append(random.choice(np.array([-1, 1], np.float32), (rows, columns)))
        biases.append(np.zeros(columns, np.float32))
    values = real + biases
    moments = [(np.zeros_like(value), np.zeros_like(value)) for value in values]
    steps_all, step, depth = epochs * (len(images) // batch), 0, len(shapes)
    for _ in range(epochs):
        order = random.permutation(len(images))
        for start in range(0, len(order) - batch + 1, batch):
            rows = order[start : start + batch]
            inputs, matrices = [images[rows]], []
            for index in range(depth):
                matrices.append(real[index][places[index]] * signs[index])
                y = inputs[-1] @ matrices[-1] + biases[index]
                inputs.append(np.maximum(y, 0) if index + 1 < depth else y)
            slope = np.exp(inputs[-1] - inputs[-1].max(1, keepdims=True))
            slope /= slope.sum(1, keepdims=True)
            slope[np.arange(batch), labels[rows]] -= 1
            slope /= batch
            gradients = [None] * (2 * depth)
            for index in reversed(range(depth)):
                virtual = (inputs[index].T @ slope) * signs[index]
                gradients[index] = np.bincount(places[index].ravel(), virtual.ravel(), len(real[index])).astype(np.float32)
                gradients[depth + index] = slope.sum(0)
                if index:
                    slope = (slope @ matrices[index].T) * (inputs[index] > 0)
            step += 1
            rate = 2e-3 * 0.5 * (1 + np.cos(np.pi * step / steps_all))
            for value, gradient, (mean, square) in zip(values, gradients, moments):
                mean += 0.1 * (gradient - mean)
                square += 0.001 * (gradient * gradient - square)
                value -= rate * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
    stored = sum(value.size for value in values) * 2
    half = [value.astype(np.float16).astype(np.float32) for value in values]
    return [(half[i][places[i]] * signs[i], half[depth + i]) for i in range(depth)], stored


def main() -> None:
    weights, data, what, *rest = sys.argv[1:]
    folder = pathlib.Path(data)
    layers = read_weights(pathlib.Path(weights))
    images = {part: read_idx(folder / f"{part}-images-idx3-ubyte.gz").reshape(-1, 784).astype(np.float32) / 255 for part in ("train", "t10k")}
    labels = {part: read_idx(folder / f"{part}-labels-idx1-ubyte.gz").astype(np.int64) for part in ("train", "t10k")}
    if what == "asymmetric":
        compare_integers(layers, images["t10k"], labels["t10k"])
    elif what == "hashed":
        seed = int(rest[1]) if len(rest) > 1 else 1
        shapes = [weight.shape for weight, _ in layers]
        hashed, stored = train_hashed(shapes, int(rest[0]), images["train"], labels["train"], seed)
        print(f"{stored} bytes of 16-bit values: {accuracy(hashed, images['t10k'], labels['t10k']):.2f} % (seed {seed}); float {accuracy(layers, images['t10k'], labels['t10k']):.2f} %")
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
