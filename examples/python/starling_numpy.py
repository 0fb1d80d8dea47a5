"""The forward pass of a Starling network in numpy, from its layers and its weights.

A reference to check others against, written for clarity: float64, one function a layer, nothing shared with Starling's own code.
`layers` is the list of a task file (`[model] layers = …`, or the plan's JSON in a file's metadata); `weights` maps the names of the
layout `starling` to arrays. Shapes leave out the batch: `[channels, height, width]`, `[channels, length]`, `[positions, features]`.
"""

import math

import numpy as np

EPSILON = 1e-5


def forward(layers, weights, x):
    """The outputs of the network of `layers` for the batch `x`."""
    return sequence(layers, weights, np.asarray(x, dtype=np.float64), "")


def sequence(layers, weights, x, prefix):
    for position, layer in enumerate(layers):
        key, settings = (layer, {}) if isinstance(layer, str) else next(iter(layer.items()))
        place = f"{prefix}{position}"
        if key == "residual":
            x = x + sequence(settings["layers"], weights, x, f"{place}.")
        else:
            named = f"{place}.{key}."
            own = {name[len(named):]: np.asarray(value, dtype=np.float64)
                   for name, value in weights.items() if name.startswith(named)}
            x = LAYERS[key](x, settings, own)
    return x


def linear(x, settings, own):
    weight = own["weight"]
    if settings.get("binary"):
        weight = np.abs(weight).mean(axis=0) * np.where(weight >= 0, 1.0, -1.0)
    return x @ weight + own.get("bias", 0.0)


def convolution(x, settings, own, groups=1):
    weight = own["weight"]
    axes = tuple(range(1, weight.ndim))
    if settings.get("binary"):
        weight = np.abs(weight).mean(axis=axes, keepdims=True) * np.where(weight >= 0, 1.0, -1.0)
    side = (weight.shape[-1] - 1) // 2 if settings.get("padding", "valid") == "same" else 0
    x = np.pad(x, [(0, 0), (0, 0)] + [(side, side)] * (x.ndim - 2))
    cut = windows(x, weight.shape[-1], settings.get("stride", 1))
    inputs, outputs = x.shape[1] // groups, weight.shape[0] // groups
    parts = []
    for group in range(groups):
        part, kernel = cut[:, group * inputs:(group + 1) * inputs], weight[group * outputs:(group + 1) * outputs]
        signal = "bclk,ock->bol" if x.ndim == 3 else "bchwij,ocij->bohw"
        parts.append(np.einsum(signal, part, kernel))
    y = np.concatenate(parts, axis=1)
    return y + per_channel(own["bias"], y) if "bias" in own else y


def windows(x, size, stride):
    """All windows over the axes after the channels: `[batch, channels, places …, size …]`."""
    axes = tuple(range(2, x.ndim))
    cut = np.lib.stride_tricks.sliding_window_view(x, (size,) * len(axes), axis=axes)
    return cut[(slice(None), slice(None)) + (slice(None, None, stride),) * len(axes)]


def pool(of):
    def layer(x, settings, _own):
        size = settings if isinstance(settings, int) else settings["size"]
        stride = size if isinstance(settings, int) else settings.get("stride", size)
        return of(windows(x, size, stride), axis=tuple(range(x.ndim, 2 * x.ndim - 2)))
    return layer


def per_channel(values, like):
    return values.reshape((1, -1) + (1,) * (like.ndim - 2))


def batch_norm(x, _settings, own):
    scale = own["scale"] / np.sqrt(np.maximum(own["variance"], 0.0) + EPSILON)
    return (x - per_channel(own["mean"], x)) * per_channel(scale, x) + per_channel(own["shift"], x)


def group_norm(x, settings, own):
    grouped = x.reshape(len(x), settings["groups"], -1)
    normal = normalised(grouped).reshape(x.shape)
    return normal * per_channel(own["scale"], x) + per_channel(own["shift"], x)


def layer_norm(x, _settings, own):
    return normalised(x) * own["scale"] + own["shift"]


def normalised(x):
    return (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + EPSILON)


def gelu(x, _settings, _own):
    return x * (1.0 + np.vectorize(math.erf)(x / math.sqrt(2.0))) / 2.0


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def embedding(x, _settings, own):
    return own["table"][x.astype(np.int64)] + own.get("positions", 0.0)


def gru(x, _settings, own):
    """Thirds in the order reset, update, candidate; the reset gate acts after the product (PyTorch's and cuDNN's form)."""
    size = own["state_weight"].shape[0]
    state, states = np.zeros((len(x), size)), []
    for position in range(x.shape[1]):
        given = x[:, position] @ own["input_weight"] + own["input_bias"]
        held = state @ own["state_weight"] + own["state_bias"]
        reset = sigmoid(given[:, :size] + held[:, :size])
        update = sigmoid(given[:, size:2 * size] + held[:, size:2 * size])
        candidate = np.tanh(given[:, 2 * size:] + reset * held[:, 2 * size:])
        state = (1.0 - update) * candidate + update * state
        states.append(state)
    return np.stack(states, axis=1)


def self_attention(x, settings, own):
    batch, positions, features = x.shape
    heads, width = settings["heads"], features // settings["heads"]
    thirds = np.split(x @ own["weight"] + own["bias"], 3, axis=-1)
    query, key, value = (part.reshape(batch, positions, heads, width).swapaxes(1, 2) for part in thirds)
    scores = query @ key.swapaxes(2, 3) / math.sqrt(width)
    if settings.get("causal", True):
        scores = np.where(np.tri(positions, dtype=bool), scores, -np.inf)
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    seen = shares / shares.sum(axis=-1, keepdims=True) @ value
    joined = seen.swapaxes(1, 2).reshape(batch, positions, features)
    return joined @ own["out_weight"] + own["out_bias"]


LAYERS = {
    "linear": linear,
    "conv1d": convolution,
    "conv2d": convolution,
    "depthwise_conv2d": lambda x, settings, own: convolution(x, settings, own, groups=x.shape[1]),
    "max_pool1d": pool(np.max),
    "max_pool2d": pool(np.max),
    "avg_pool1d": pool(np.mean),
    "avg_pool2d": pool(np.mean),
    "global_avg_pool": lambda x, _settings, _own: x.mean(axis=tuple(range(2, x.ndim))),
    "batch_norm": batch_norm,
    "group_norm": group_norm,
    "layer_norm": layer_norm,
    "relu": lambda x, _settings, _own: np.maximum(x, 0.0),
    "gelu": gelu,
    "tanh": lambda x, _settings, _own: np.tanh(x),
    "sigmoid": lambda x, _settings, _own: sigmoid(x),
    "sign": lambda x, _settings, _own: np.where(x >= 0, 1.0, -1.0),
    "dropout": lambda x, _settings, _own: x,
    "flatten": lambda x, _settings, _own: x.reshape(len(x), -1),
    "embedding": embedding,
    "gru": gru,
    "self_attention": self_attention,
}
