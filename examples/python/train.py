"""Trains a small network on the digits in PyTorch and keeps its `state_dict` as safetensors.

    train.py --out weights.safetensors

Where torch is not installed the same network is trained in numpy and saved under the same names, so that the rest of the
walk-through can be tried without it.
"""

import argparse

import numpy as np
import safetensors.numpy

import digits

try:
    import torch
    from torch import nn
except ImportError:
    torch = None

SIZES = [64, 128, 64, 10]
EPOCHS, BATCH, LR, MOMENTUM = 30, 32, 0.05, 0.9


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    state = train_torch() if torch else train_numpy()
    # What `safetensors.torch.save_file(net.state_dict(), …)` writes.
    safetensors.numpy.save_file(state, args.out)
    features, labels = digits.test()
    right = forward(state, features).argmax(axis=1) == labels
    print(f"{'torch' if torch else 'numpy'}: test accuracy {100 * right.mean():.2f} %, kept in {args.out}")


def forward(state, x):
    for name in ("fc1", "fc2"):
        x = np.maximum(x @ state[f"{name}.weight"].T + state[f"{name}.bias"], 0)
    return x @ state["fc3.weight"].T + state["fc3.bias"]


def train_torch():
    class Net(nn.Module):
        """As people write it: modules with names, the order in `forward`."""

        def __init__(self):
            super().__init__()
            self.fc1 = nn.Linear(SIZES[0], SIZES[1])
            self.fc2 = nn.Linear(SIZES[1], SIZES[2])
            self.fc3 = nn.Linear(SIZES[2], SIZES[3])

        def forward(self, x):
            return self.fc3(torch.relu(self.fc2(torch.relu(self.fc1(x)))))

    torch.manual_seed(1)
    features, labels = map(torch.from_numpy, digits.training())
    net = Net()
    optimiser = torch.optim.SGD(net.parameters(), lr=LR, momentum=MOMENTUM)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(labels)).split(BATCH):
            optimiser.zero_grad()
            nn.functional.cross_entropy(net(features[rows]), labels[rows]).backward()
            optimiser.step()
    return {name: value.numpy() for name, value in net.state_dict().items()}


def train_numpy():
    random = np.random.default_rng(1)
    features, labels = digits.training()
    state, speed = {}, {}
    for layer, (inputs, outputs) in enumerate(zip(SIZES, SIZES[1:]), start=1):
        bound = inputs ** -0.5
        state[f"fc{layer}.weight"] = random.uniform(-bound, bound, (outputs, inputs)).astype(np.float32)
        state[f"fc{layer}.bias"] = np.zeros(outputs, np.float32)
    for _ in range(EPOCHS):
        order = random.permutation(len(labels))
        for start in range(0, len(order), BATCH):
            rows = order[start:start + BATCH]
            for name, gradient in gradients(state, features[rows], labels[rows]).items():
                speed[name] = MOMENTUM * speed.get(name, 0.0) + gradient
                state[name] -= np.float32(LR) * speed[name].astype(np.float32)
    return state


def gradients(state, x, labels):
    """Of the mean cross-entropy, by back-propagation."""
    inputs = [x]
    for name in ("fc1", "fc2"):
        inputs.append(np.maximum(inputs[-1] @ state[f"{name}.weight"].T + state[f"{name}.bias"], 0))
    logits = inputs[-1] @ state["fc3.weight"].T + state["fc3.bias"]
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    error = shares / shares.sum(axis=1, keepdims=True)
    error[np.arange(len(labels)), labels] -= 1.0
    error /= len(labels)
    found = {}
    for layer in (3, 2, 1):
        found[f"fc{layer}.weight"] = error.T @ inputs[layer - 1]
        found[f"fc{layer}.bias"] = error.sum(axis=0)
        if layer > 1:
            error = (error @ state[f"fc{layer}.weight"]) * (inputs[layer - 1] > 0)
    return found


main()
