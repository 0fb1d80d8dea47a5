"""Rényi divergences of the sampled Gaussian mechanism by quadrature, for tests/accountant.rs (pip install mpmath)."""

from mpmath import exp, log, mp, mpf, nstr, pi, quad, sqrt

mp.dps = 30

# Sampling rate, noise multiplier, steps, orders.
CASES = [
    ("0.01", "2.5", 50, ("1.5", "2", "2.5", "5")), ("0.5", "0.8", 30, ("1.3", "2.7")), ("0.1", "1", 100, ("1.2",)),
    ("0.9", "3", 7, ("4.5",)), ("0.2", "0.3", 1, ("1.5",)),
]


def divergence(rate, noise, steps, order):
    rate, noise, order = mpf(rate), mpf(noise), mpf(order)

    def integrand(x):
        density = exp(-x * x / (2 * noise**2)) / sqrt(2 * pi) / noise
        return density * (1 - rate + rate * exp((2 * x - 1) / (2 * noise**2))) ** order

    parts = [-20 * noise, -10 * noise, 0, order / 2, order, order + 5 * noise, order + 20 * noise]
    return steps * log(quad(integrand, parts)) / (order - 1)


for rate, noise, steps, orders in CASES:
    for order in orders:
        print(rate, noise, steps, order, nstr(divergence(rate, noise, steps, order), 12))
