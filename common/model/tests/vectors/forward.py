"""Forward passes of every layer in float64 numpy, written for clarity: loops over windows, positions and heads.

    python3 forward.py > forward.json

Needs numpy alone. Parameters are drawn here and listed in the order of the manifest; tests/network/vectors.rs feeds both
to the network and compares its outputs.
"""

import json
import math

import numpy as np

rng = np.random.default_rng(20260101)


class Parameters:
    """Draws tensors and remembers them flat."""

    def __init__(self):
        self.flat = []

    def draw(self, *shape, low=-0.5, high=0.5):
        values = np.round(rng.uniform(low, high, shape), 4)
        self.flat.extend(values.ravel().tolist())
        return values


def linear(x, w, b):
    return x @ w + b


def conv1d(x, w, b, stride=1, padding=0):
    """x: [channels, length]; w: [out, channels, kernel]."""
    x = np.pad(x, [(0, 0), (padding, padding)])
    k = w.shape[2]
    length = (x.shape[1] - k) // stride + 1
    y = np.zeros((w.shape[0], length))
    for o in range(w.shape[0]):
        for i in range(length):
            y[o, i] = np.sum(x[:, i * stride : i * stride + k] * w[o]) + b[o]
    return y


def conv2d(x, w, b, stride=1, padding=0, depthwise=False):
    """x: [channels, height, width]; w: [out, channels or 1, kernel, kernel]."""
    x = np.pad(x, [(0, 0), (padding, padding), (padding, padding)])
    k = w.shape[2]
    height, width = [(size - k) // stride + 1 for size in x.shape[1:]]
    y = np.zeros((w.shape[0], height, width))
    for o in range(w.shape[0]):
        for i in range(height):
            for j in range(width):
                window = x[:, i * stride : i * stride + k, j * stride : j * stride + k]
                window = window[o : o + 1] if depthwise else window
                y[o, i, j] = np.sum(window * w[o]) + b[o]
    return y


def pool(x, size, stride, reduce):
    sides = [(side - size) // stride + 1 for side in x.shape[1:]]
    y = np.zeros((x.shape[0], *sides))
    for c in range(x.shape[0]):
        for place in np.ndindex(*sides):
            window = tuple(slice(p * stride, p * stride + size) for p in place)
            y[(c, *place)] = reduce(x[c][window])
    return y


def channels(v, x):
    return v.reshape(-1, *[1] * (x.ndim - 1))


def group_norm(x, groups, scale, shift):
    y = np.zeros_like(x)
    size = x.shape[0] // groups
    for g in range(groups):
        part = x[g * size : (g + 1) * size]
        y[g * size : (g + 1) * size] = (part - part.mean()) / np.sqrt(part.var() + 1e-5)
    return y * channels(scale, x) + channels(shift, x)


def layer_norm(x, scale, shift):
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(var + 1e-5) * scale + shift


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gelu(x):
    return np.vectorize(lambda v: v * 0.5 * (1 + math.erf(v / math.sqrt(2))))(x)


def gru(x, wi, bi, wh, bh):
    size = wh.shape[0]
    h, out = np.zeros(size), []
    for row in x:
        i, s = row @ wi + bi, h @ wh + bh
        r = sigmoid(i[:size] + s[:size])
        z = sigmoid(i[size : 2 * size] + s[size : 2 * size])
        n = np.tanh(i[2 * size :] + r * s[2 * size :])
        h = (1 - z) * n + z * h
        out.append(h)
    return np.array(out)


def attention(x, w, b, wo, bo, heads, causal):
    features = x.shape[1]
    width = features // heads
    q, k, v = np.split(x @ w + b, 3, axis=1)
    joined = np.zeros_like(x)
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        for t in range(len(x)):
            seen = range(t + 1) if causal else range(len(x))
            scores = np.array([q[t, part] @ k[s, part] / math.sqrt(width) for s in seen])
            weights = np.exp(scores - scores.max())
            weights /= weights.sum()
            joined[t, part] = sum(weight * v[s, part] for weight, s in zip(weights, seen))
    return joined @ wo + bo


cases = []


def case(name, kind, shape, layers, forward, parameters, tokens=None):
    batch = 3
    if tokens:
        x = rng.integers(0, tokens, (batch, *shape)).astype(float)
    else:
        x = np.round(rng.uniform(-1, 1, (batch, *shape)), 4)
    cases.append(
        {
            "name": name,
            "kind": kind,
            "shape": list(shape),
            "layers": layers,
            "parameters": parameters.flat,
            "inputs": x.ravel().tolist(),
            "outputs": [round(v, 9) for row in x for v in np.asarray(forward(row)).ravel().tolist()],
        }
    )


def classification(*args):
    case(args[0], "classification", *args[1:])


p = Parameters()
w1, b1, w2, b2 = p.draw(5, 7), p.draw(7), p.draw(7, 3), p.draw(3)
classification(
    "dense with a residual", (5,), [{"linear": {"out": 7}}, {"residual": {"layers": ["tanh"]}}, {"linear": {"out": 3}}],
    lambda x: linear(linear(x, w1, b1) + np.tanh(linear(x, w1, b1)), w2, b2), p)

p = Parameters()
c1, d1 = p.draw(4, 2, 3), p.draw(4)
c2, d2 = p.draw(6, 4, 2), p.draw(6)
classification(
    "conv1d", (2, 11),
    [{"conv1d": {"out": 4, "kernel": 3, "padding": "same"}}, "relu", {"max_pool1d": 2},
     {"conv1d": {"out": 6, "kernel": 2, "stride": 2}}, "gelu", {"avg_pool1d": {"size": 2, "stride": 1}}, "flatten"],
    lambda x: pool(gelu(conv1d(pool(np.maximum(conv1d(x, c1, d1, 1, 1), 0), 2, 2, np.max), c2, d2, 2)), 2, 1, np.mean), p)

p = Parameters()
e1, f1 = p.draw(4, 2, 3, 3), p.draw(4)
e2, f2 = p.draw(4, 1, 3, 3), p.draw(4)
classification(
    "conv2d, depthwise, pools", (2, 9, 8),
    [{"conv2d": {"out": 4, "kernel": 3, "padding": "same", "stride": 2}}, {"max_pool2d": {"size": 2, "stride": 1}},
     {"depthwise_conv2d": {"kernel": 3, "padding": "same"}}, "sigmoid", {"avg_pool2d": 2}, "flatten"],
    lambda x: pool(sigmoid(conv2d(pool(conv2d(x, e1, f1, 2, 1), 2, 1, np.max), e2, f2, 1, 1, True)), 2, 2, np.mean), p)

p = Parameters()
g1, h1 = p.draw(6, 1, 3, 3), p.draw(6)
s1, t1 = p.draw(6), p.draw(6)
s2, t2, m2, v2 = p.draw(6), p.draw(6), p.draw(6), p.draw(6, low=0.5, high=2)
classification(
    "group norm, batch norm, global mean", (1, 6, 6),
    [{"conv2d": {"out": 6, "kernel": 3}}, {"group_norm": {"groups": 2}}, "batch_norm", "global_avg_pool"],
    lambda x: ((group_norm(conv2d(x, g1, h1), 2, s1, t1) - channels(m2, np.zeros((6, 1, 1)))) / np.sqrt(v2.reshape(6, 1, 1) + 1e-5)
               * s2.reshape(6, 1, 1) + t2.reshape(6, 1, 1)).mean((1, 2)), p)

p = Parameters()
table, places = p.draw(11, 6), p.draw(5, 6)
ln, lb = p.draw(6), p.draw(6)
aw, ab, ow, ob = p.draw(6, 18), p.draw(18), p.draw(6, 6), p.draw(6)
lw, lc = p.draw(6, 11), p.draw(11)


def transformer(tokens):
    x = table[tokens.astype(int)] + places
    x = x + attention(layer_norm(x, ln, lb), aw, ab, ow, ob, 2, True)
    return linear(x, lw, lc)


case(
    "embedding, layer norm, causal attention", "next-token", (5,),
    [{"embedding": {"tokens": 11, "out": 6, "positions": True}},
     {"residual": {"layers": ["layer_norm", {"self_attention": {"heads": 2}}]}}, {"linear": {"out": 11}}],
    transformer, p, tokens=11)

p = Parameters()
bw, bb, bo, bc = p.draw(4, 12), p.draw(12), p.draw(4, 4), p.draw(4)
classification(
    "attention that sees everything", (3, 4), [{"self_attention": {"heads": 4, "causal": False}}, "flatten"],
    lambda x: attention(x, bw, bb, bo, bc, 4, False), p)

p = Parameters()
gi, gb, gh, gc = p.draw(3, 15), p.draw(15), p.draw(5, 15), p.draw(15)
rw, rb = p.draw(20, 1), p.draw(1)
case(
    "gru", "regression", (4, 3), [{"gru": {"out": 5}}, "flatten", {"linear": {"out": 1}}],
    lambda x: linear(gru(x, gi, gb, gh, gc).ravel(), rw, rb), p)

print(json.dumps(cases, separators=(",", ":")).replace('},{"name"', '},\n{"name"'))
