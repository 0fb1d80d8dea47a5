"""PyTorch's cost of the presets that common/model/benches/presets.rs measures: one thread, SGD, 28x28 noise, ten classes.

    python3 benches/peers/torch_presets.py [part of a preset's name]

A figure is the best of several windows of the process's CPU time, as on our side.
"""

import sys
import time

import torch
from torch import nn

WINDOW_S = 0.7
WINDOWS = 3
REPEATS = 4


def dense(first, second):
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, first), nn.ReLU(), nn.Linear(first, second), nn.ReLU(), nn.Linear(second, 10)
    )


PRESETS = {
    "fedavg-2nn": lambda: dense(200, 200),
    "lenet-300-100": lambda: dense(300, 100),
    "lenet-5": lambda: nn.Sequential(
        nn.Conv2d(1, 20, 5), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, 10),
    ),
    "fedavg-cnn": lambda: nn.Sequential(
        nn.Conv2d(1, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(3136, 512), nn.ReLU(), nn.Linear(512, 10),
    ),
}


def best(units, work):
    """The shortest CPU time that `work` took a unit, when it does `units` of them at a time."""
    work()
    least = float("inf")
    for _ in range(WINDOWS):
        start, rounds, spent = time.process_time(), 0, 0.0
        while spent < WINDOW_S:
            for _ in range(REPEATS):
                work()
            rounds += REPEATS
            spent = time.process_time() - start
        least = min(least, spent / (rounds * units))
    return least


def training(make, batch):
    torch.manual_seed(1)
    net, loss = make(), nn.CrossEntropyLoss()
    optimiser = torch.optim.SGD(net.parameters(), lr=0.01)
    batches = [(torch.rand(batch, 1, 28, 28), torch.arange(batch) % 10) for _ in range(4)]

    def work():
        for x, y in batches:
            optimiser.zero_grad()
            loss(net(x), y).backward()
            optimiser.step()

    return 1 / best(4 * batch, work)


def inference(make, batch):
    net, x = make().eval(), torch.rand(batch, 1, 28, 28)

    def work():
        with torch.inference_mode():
            net(x)

    return 1e6 * best(1, work)


torch.set_num_threads(1)
torch.set_num_interop_threads(1)
wanted = sys.argv[1] if len(sys.argv) > 1 else ""
print(f"torch {torch.__version__}")
print(f"{'preset':14} {'train b10 /s':>14} {'train b32 /s':>14} {'infer1 us':>12} {'infer64 us':>12}")
for name, make in PRESETS.items():
    if wanted in name:
        figures = (training(make, 10), training(make, 32), inference(make, 1), inference(make, 64))
        print(f"{name:14} {figures[0]:14.0f} {figures[1]:14.0f} {figures[2]:12.0f} {figures[3]:12.0f}")
