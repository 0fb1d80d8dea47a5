"""Makes accountant.json: what Google's dp-accounting says of sampled Gaussian mechanisms (pip install dp-accounting==0.6.0)."""

import json
import pathlib

from dp_accounting import dp_event
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant

CASES = [
    (1.0, 4.530877117, 1, 1e-6), (1.0, 1.0, 1, 1e-5), (0.01, 4.0, 10_000, 1e-5), (256 / 60_000, 1.1, 14_062, 1e-5),
    (250 / 60_000, 1.3, 3_600, 1e-5), (250 / 60_000, 0.7, 10_800, 1e-5), (0.1, 1.0, 100, 1e-4), (0.1, 2.0, 100, 1e-4),
    (0.1, 4.0, 100, 1e-4), (0.1, 1.0, 50, 1e-3), (1.0, 4.0, 20, 1e-3), (1.0, 8.0, 50, 1e-2), (5_000 / 763_430, 1.0, 4_120, 1e-9),
    (0.5, 0.8, 30, 1e-6), (0.9, 3.0, 7, 1e-5), (0.001, 0.6, 1_000, 1e-7),
]


def epsilon(accountant, parts, delta):
    for rate, noise, steps in parts:
        event = dp_event.GaussianDpEvent(noise)
        if rate < 1:
            event = dp_event.PoissonSampledDpEvent(rate, event)
        accountant.compose(dp_event.SelfComposedDpEvent(event, steps))
    return accountant.get_epsilon(delta)


def case(parts, delta):
    return {
        "parts": [{"rate": rate, "noise": noise, "steps": steps} for rate, noise, steps in parts],
        "delta": delta,
        "rdp": epsilon(RdpAccountant(), parts, delta),
        "pld": epsilon(PLDAccountant(), parts, delta),
    }


cases = [case([(rate, noise, steps)], delta) for rate, noise, steps, delta in CASES]
cases.append(case([(0.1, 1.5, 40), (0.02, 1.0, 500), (1.0, 20.0, 3)], 1e-5))
pathlib.Path(__file__).with_suffix(".json").write_text(json.dumps(cases, indent=1) + "\n")
