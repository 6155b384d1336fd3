"""Epsilon of DP-SGD's steps, by the Rényi accountant: what Opacus' ``RDPAccountant`` computes.

- The sampled Gaussian mechanism's Rényi divergence: I. Mironov, K. Talwar, L. Zhang, "Rényi
  Differential Privacy of the Sampled Gaussian Mechanism", arXiv:1908.10530, section 3.3: a sum for
  whole orders, two series for the others.
- Its composition over steps, by addition: I. Mironov, "Rényi Differential Privacy", CSF 2017,
  arXiv:1702.07476.
- From it to (epsilon, delta): B. Balle et al., "Hypothesis Testing Interpretations and Rényi
  Differential Privacy", AISTATS 2020, arXiv:1905.09982, theorem 21.

The orders are those that Opacus 1.x tries: 1.1 to 10.9 by tenths, and 12 to 63.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Final

from provenance.errors import TooLargeError

ORDERS: Final = (*(1 + tenth / 10.0 for tenth in range(1, 100)), *map(float, range(12, 64)))
MAX_TERMS: Final = 400_000
"""Terms of all sums together: a second or so."""
_NEGLIGIBLE: Final = -30.0

Steps = tuple[float, float, int]
"""Noise multiplier from 0, sample rate from 0 to 1, and how many such steps."""


class RenyiAccountant:
    """Epsilons of histories of steps; the divergences of equal steps are worked out once.

    Args:
        max_terms: How much it computes, of histories that others wrote.
    """

    def __init__(self, max_terms: int = MAX_TERMS) -> None:
        self._left = max_terms
        self._divergences: dict[tuple[float, float, float], float] = {}

    def epsilon(self, history: Iterable[Steps], delta: float) -> float:
        """The least epsilon over the orders, not below 0; infinite where there is no noise.

        Args:
            delta: Above 0 and below 1.

        Raises:
            TooLargeError: That takes more than ``max_terms``.
        """
        counts: Counter[tuple[float, float]] = Counter()
        for noise, rate, steps in history:
            counts[noise, rate] += steps
        if not any(counts.values()):
            return 0.0
        best, totals = math.inf, dict[float, float]()
        # Whole orders are cheap, and an order's divergence is no less than that of a lower one.
        for order in sorted(ORDERS, key=lambda order: (not order.is_integer(), order)):
            spent = (math.log(delta) + math.log(order)) / (order - 1) - math.log1p(-1 / order)
            if totals.get(math.floor(order), 0.0) - spent < best:
                total = math.fsum(n * self._known(*step, order) for step, n in counts.items())
                totals[order] = total
                best = min(best, total - spent)
        return max(0.0, best)

    def _known(self, noise: float, rate: float, order: float) -> float:
        self._spend(1)
        key = (noise, rate, order)
        if key not in self._divergences:
            self._divergences[key] = self._divergence(*key)
        return self._divergences[key]

    def _divergence(self, noise: float, rate: float, order: float) -> float:
        if rate == 0:
            return 0.0
        if noise < 1e-100:
            return math.inf
        if noise > 1e100:
            return 0.0
        if rate == 1:
            return order / (2 * noise**2)
        moment = self._whole if order.is_integer() else self._fractional
        return moment(noise, rate, order) / (order - 1)

    def _whole(self, noise: float, rate: float, order: float) -> float:
        """log A(order), by the binomial sum."""
        size = int(order)
        self._spend(size)
        return _log_sum(
            [
                (1.0, math.log(math.comb(size, k)) + _log_mix(rate, order, k)
                 + (k * k - k) / (2 * noise**2))
                for k in range(size + 1)
            ]
        )  # fmt: skip

    def _fractional(self, noise: float, rate: float, order: float) -> float:
        """log A(order), by the series on both sides of z0, whose terms change sign behind the
        order."""
        z0 = noise**2 * math.log(1 / rate - 1) + 0.5
        width = math.sqrt(2) * noise
        terms: list[tuple[float, float]] = []
        sign, log_binomial, k = 1.0, 0.0, 0
        while True:
            self._spend(2)
            rest = order - k
            below = (
                log_binomial + _log_mix(rate, order, k) + (k * k - k) / (2 * noise**2)
                + _log_erfc((k - z0) / width)
            )  # fmt: skip
            above = (
                log_binomial + _log_mix(rate, order, rest) + (rest * rest - rest) / (2 * noise**2)
                + _log_erfc((z0 - rest) / width)
            )  # fmt: skip
            terms += [(sign, below), (sign, above)]
            if max(below, above) < _NEGLIGIBLE:  # beside A, which is 1 or more
                return _log_sum(terms) - math.log(2)
            factor = rest / (k + 1)
            sign = math.copysign(1.0, factor) * sign
            log_binomial += math.log(abs(factor))
            k += 1

    def _spend(self, terms: int) -> None:
        self._left -= terms
        if self._left < 0:
            raise TooLargeError("the steps take too long to account for")


def _log_mix(rate: float, order: float, power: float) -> float:
    """log of ``rate^power (1 - rate)^(order - power)``."""
    return power * math.log(rate) + (order - power) * math.log1p(-rate)


def _log_sum(terms: list[tuple[float, float]]) -> float:
    """log of a sum of signed terms, each given by sign and logarithm."""
    top = max(log for _, log in terms)
    if math.isinf(top):
        return top
    total = math.fsum(sign * math.exp(log - top) for sign, log in terms)
    return top + math.log(total) if total > 0 else math.nan


def _log_erfc(x: float) -> float:
    """log(erfc(x)); where erfc leaves the range of floats, by its asymptotic series (Abramowitz and
    Stegun 7.1.23), whose next term there is below 1e-12."""
    if x < 25:
        return math.log(math.erfc(x))
    y = 1 / (2 * x * x)
    series = 1 - y + 3 * y**2 - 15 * y**3
    return -x * x - math.log(x * math.sqrt(math.pi)) + math.log(series)
