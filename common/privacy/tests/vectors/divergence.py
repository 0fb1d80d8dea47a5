"""Rényi divergences of the sampled Gaussian mechanism by quadrature, for tests/accountant.rs (needs scipy)."""

import numpy
from scipy import integrate

RATE, NOISE, STEPS = 0.01, 2.5, 50

for order in (1.5, 2.0, 2.5, 5.0):
    def integrand(x):
        density = numpy.exp(-x * x / (2 * NOISE**2)) / numpy.sqrt(2 * numpy.pi) / NOISE
        return density * (1 - RATE + RATE * numpy.exp((2 * x - 1) / (2 * NOISE**2))) ** order

    value, _ = integrate.quad(integrand, -40, 80, epsabs=1e-15, epsrel=1e-13, limit=500, points=[0, 10, 20, 29])
    print(order, STEPS * numpy.log(value) / (order - 1))
