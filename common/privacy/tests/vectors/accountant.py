"""Makes accountant.json: what Google's dp-accounting says of sampled Gaussian mechanisms.

    pip install dp-accounting==0.6.0 && python accountant.py

`rdp` is RdpAccountant's answer. `pld` is PLDAccountant's own pessimistic estimate ("connect the dots", grid 1e-4);
`pld_optimistic` is that library's lower estimate ("privacy buckets" rounded down, on a finer grid, so that it lies close).
The true epsilon lies between the two.
"""

import importlib.metadata
import json
import pathlib

from dp_accounting import dp_event
from dp_accounting.pld import PLDAccountant
from dp_accounting.pld import privacy_loss_distribution as pld
from dp_accounting.rdp import RdpAccountant

OPTIMISTIC_GRID = 1e-5

# Sampling rate, noise multiplier, steps, delta.
CASES = [
    (1.0, 4.530877117, 1, 1e-6), (1.0, 1.0, 1, 1e-5), (0.01, 4.0, 10_000, 1e-5), (256 / 60_000, 1.1, 14_062, 1e-5),
    (250 / 60_000, 1.3, 3_600, 1e-5), (250 / 60_000, 0.7, 10_800, 1e-5), (0.1, 1.0, 100, 1e-4), (0.1, 2.0, 100, 1e-4),
    (0.1, 4.0, 100, 1e-4), (0.1, 1.0, 50, 1e-3), (1.0, 4.0, 20, 1e-3), (1.0, 8.0, 50, 1e-2), (5_000 / 763_430, 1.0, 4_120, 1e-9),
    (0.5, 0.8, 30, 1e-6), (0.9, 3.0, 7, 1e-5), (0.001, 0.6, 1_000, 1e-7),
    # The corners of what is asked: little noise, much noise, one step, many steps, small and large delta.
    (0.001, 0.5, 1, 1e-5), (0.001, 0.5, 15_000, 1e-5), (0.001, 1.0, 15_000, 1e-9), (0.001, 20.0, 15_000, 1e-7),
    (0.003, 0.8, 15_000, 1e-6), (0.01, 0.5, 200, 1e-6), (0.01, 1.0, 1_000, 1e-2), (0.01, 1.5, 2_500, 1e-8),
    (0.02, 0.9, 600, 1e-5), (0.02, 6.0, 15_000, 1e-6), (0.03, 3.0, 1_500, 1e-9), (0.05, 0.7, 40, 1e-4),
    (0.05, 2.0, 400, 1e-3), (0.05, 10.0, 15_000, 1e-5), (0.1, 0.6, 10, 1e-5), (0.1, 6.0, 1_000, 1e-9),
    (0.1, 20.0, 15_000, 1e-5), (0.2, 1.2, 25, 1e-4), (0.2, 5.0, 300, 1e-6), (0.3, 2.5, 1, 1e-3),
    (0.3, 12.0, 2_000, 1e-5), (0.5, 0.5, 1, 1e-5), (0.5, 2.0, 10, 1e-2), (0.5, 15.0, 500, 1e-9),
    (0.8, 1.0, 5, 1e-4), (0.95, 6.0, 60, 1e-6), (1.0, 0.5, 1, 1e-9), (1.0, 2.0, 1, 1e-2), (1.0, 20.0, 400, 1e-9),
]


def event(rate, noise, steps):
    one = dp_event.GaussianDpEvent(noise)
    if rate < 1:
        one = dp_event.PoissonSampledDpEvent(rate, one)
    return dp_event.SelfComposedDpEvent(one, steps)


def epsilon(accountant, events, delta):
    for one in events:
        accountant.compose(one)
    return accountant.get_epsilon(delta)


def optimistic(parts, delta):
    composed = None
    for rate, noise, steps in parts:
        # Full steps are one of less noise: exact, and easier to hold.
        noise, steps = (noise / steps**0.5, 1) if rate == 1 else (noise, steps)
        one = pld.from_gaussian_mechanism(
            noise, pessimistic_estimate=False, value_discretization_interval=OPTIMISTIC_GRID, sampling_prob=rate,
            use_connect_dots=False,
        ).self_compose(steps)
        composed = one if composed is None else composed.compose(one)
    return composed.get_epsilon_for_delta(delta)


def case(parts, delta):
    events = [event(*part) for part in parts]
    answer = {
        "parts": [{"rate": rate, "noise": noise, "steps": steps} for rate, noise, steps in parts],
        "delta": delta,
        "rdp": epsilon(RdpAccountant(), events, delta),
        "pld": epsilon(PLDAccountant(), events, delta),
        "pld_optimistic": optimistic(parts, delta),
    }
    print(answer, flush=True)
    return answer


cases = [case([(rate, noise, steps)], delta) for rate, noise, steps, delta in CASES]
cases.append(case([(0.1, 1.5, 40), (0.02, 1.0, 500), (1.0, 20.0, 3)], 1e-5))
vectors = {
    "generator": f"accountant.py, dp-accounting {importlib.metadata.version('dp-accounting')}",
    "cases": cases,
}
pathlib.Path(__file__).with_suffix(".json").write_text(json.dumps(vectors, indent=1) + "\n")
