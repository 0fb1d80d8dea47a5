"""A Starling network as a `torch.nn.Sequential`: one module a layer, so that `load_state_dict` takes what
`starling model export --format safetensors-torch` writes, and `starling model import --layout torch` reads what it saves.

`layers` is the list of a task file and `shape` a sample's. Binary layers become ordinary ones: the export holds the values that
they compute with.
"""

import torch
from torch import nn


class GlobalAvgPool(nn.Module):
    def forward(self, x):
        return x.flatten(2).mean(dim=2)


class Sign(nn.Module):
    def forward(self, x):
        return torch.where(x >= 0, 1.0, -1.0)


class Embedding(nn.Embedding):
    """With a learnt vector of each position where the layer says so."""

    def __init__(self, tokens, features, positions=None):
        super().__init__(tokens, features)
        self.positions = None if positions is None else nn.Parameter(torch.zeros(positions, features))

    def forward(self, tokens):
        rows = super().forward(tokens.long())
        return rows if self.positions is None else rows + self.positions


class Gru(nn.GRU):
    """The states, without the last one beside them."""

    def forward(self, x):
        return super().forward(x)[0]


class SelfAttention(nn.MultiheadAttention):
    def __init__(self, features, heads, causal):
        super().__init__(features, heads, batch_first=True)
        self.causal = causal

    def forward(self, x):
        mask = None
        if self.causal:
            mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1], device=x.device, dtype=x.dtype)
        return super().forward(x, x, x, attn_mask=mask, need_weights=False)[0]


class Residual(nn.Sequential):
    def forward(self, x):
        return x + super().forward(x)


def build(layers, shape):
    """The network of `layers` for samples of `shape`, in evaluation mode."""
    shape, modules = list(shape), []
    for layer in layers:
        key, settings = (layer, {}) if isinstance(layer, str) else next(iter(layer.items()))
        module = one(key, settings, shape)
        with torch.no_grad():
            shape = list(module.eval()(torch.zeros(2, *shape)).shape[1:])
        modules.append(module)
    return nn.Sequential(*modules).eval()


def one(key, settings, shape):
    """The module of one layer whose input has `shape`."""
    channels = shape[0]
    if key == "linear":
        return nn.Linear(shape[-1], settings["out"], bias=settings.get("bias", True))
    if key in ("conv1d", "conv2d", "depthwise_conv2d"):
        kernel = settings["kernel"]
        side = (kernel - 1) // 2 if settings.get("padding", "valid") == "same" else 0
        depthwise = key == "depthwise_conv2d"
        kind = nn.Conv1d if key == "conv1d" else nn.Conv2d
        return kind(channels, channels if depthwise else settings["out"], kernel, stride=settings.get("stride", 1),
                    padding=side, groups=channels if depthwise else 1, bias=settings.get("bias", True))
    if key in ("max_pool1d", "max_pool2d", "avg_pool1d", "avg_pool2d"):
        size = settings if isinstance(settings, int) else settings["size"]
        stride = size if isinstance(settings, int) else settings.get("stride", size)
        kinds = {"max_pool1d": nn.MaxPool1d, "max_pool2d": nn.MaxPool2d,
                 "avg_pool1d": nn.AvgPool1d, "avg_pool2d": nn.AvgPool2d}
        return kinds[key](size, stride)
    if key == "batch_norm":
        return (nn.BatchNorm2d if len(shape) == 3 else nn.BatchNorm1d)(channels)
    if key == "embedding":
        return Embedding(settings["tokens"], settings["out"], shape[0] if settings.get("positions") else None)
    simple = {
        "global_avg_pool": GlobalAvgPool,
        "group_norm": lambda: nn.GroupNorm(settings["groups"], channels),
        "layer_norm": lambda: nn.LayerNorm(shape[-1]),
        "relu": nn.ReLU,
        "gelu": nn.GELU,
        "tanh": nn.Tanh,
        "sigmoid": nn.Sigmoid,
        "sign": Sign,
        "dropout": lambda: nn.Dropout(settings),
        "flatten": nn.Flatten,
        "gru": lambda: Gru(shape[-1], settings["out"], batch_first=True),
        "self_attention": lambda: SelfAttention(shape[-1], settings["heads"], settings.get("causal", True)),
        "residual": lambda: Residual(*build(settings["layers"], shape)),
    }
    return simple[key]()
