"""How often a trend is wrong, by simulation: the two tables of docs/history.md.

python tests/stats/trend_errors.py            # a quarter of an hour
python tests/stats/trend_errors.py --quick    # two minutes, coarser
"""

import sys

import numpy as np

from trainpace.stats.changepoint import ERROR, trend

CASES = 14
NOISE = 0.02
CHANCE = np.random.default_rng(20261125)


def independent(number):
    """Normal."""
    return CHANCE.normal(0, NOISE, number)


def outliers(number):
    """One run in twenty is 10 to 30 % slower."""
    return independent(number) - (CHANCE.random(number) < 0.05) * CHANCE.uniform(0.1, 0.3, number)


def heavy(number):
    """Student's t with 3 degrees of freedom."""
    return NOISE * CHANCE.standard_t(3, number) / 3**0.5


def two_modes(number):
    """A machine that is 5 % slower in three runs of ten."""
    return CHANCE.normal(0, NOISE / 2, number) - (CHANCE.random(number) < 0.3) * 0.05


def correlated(r):
    """Each run resembles the one before."""

    def noise(number):
        values = [CHANCE.normal()]
        for fresh in CHANCE.normal(size=number - 1):
            values.append(r * values[-1] + (1 - r * r) ** 0.5 * fresh)
        return NOISE * np.array(values)

    return noise


KINDS = {
    "independent": independent,
    "1 run in 20 slower by 10-30 %": outliers,
    "heavy tails (t, 3 degrees)": heavy,
    "two modes, 5 % apart": two_modes,
    "correlated, r = 0.3": correlated(0.3),
    "correlated, r = 0.6": correlated(0.6),
}


def false_alarms(times):
    """Share of checks of CASES unchanged cases that are red, by kind of noise and length of the history."""
    lengths = (15, 30, 100)
    show(
        f"| noise of {NOISE:.0%} | {' | '.join(f'{number} runs' for number in lengths)} |\n|---|{'---|' * len(lengths)}"
    )
    for name, noise in KINDS.items():
        shares = []
        for number in lengths:
            red = [trend(np.exp(noise(number)), error=ERROR / CASES).lost for _ in range(times)]
            shares.append(1 - (1 - np.mean(red)) ** CASES)
        show(f"| {name} | {' | '.join(f'{share:.1%}' for share in shares)} |")


def detection(times):
    """Share of losses found, by noise, loss and the runs since, after forty runs; then slow creep."""
    since = (4, 5, 7, 10, 20)
    show(
        f"\n| noise | loss | {' | '.join(f'{number} runs later' for number in since)} |\n|---|---|{'---|' * len(since)}"
    )
    for noise in (0.01, 0.02, 0.04):
        for loss in (0.03, 0.05, 0.10):
            found = [np.mean([red(noise, [1] * 40 + [1 - loss] * runs) for _ in range(times)]) for runs in since]
            show(f"| {noise:.0%} | {loss:.0%} | {' | '.join(f'{share:.0%}' for share in found)} |")
    for noise in (0.005, 0.01, 0.02):
        for runs in (1, 3):
            creep = [0.99**step for step in range(1, 11) for _ in range(runs)]
            share = np.mean([red(noise, [1] * 20 + creep) for _ in range(times)])
            show(f"ten times 1 %, {runs} runs of each, noise {noise:.1%}: {share:.0%} red at the tenth")


def red(noise, levels):
    """Whether a case with these levels is red, among CASES."""
    return trend(np.array(levels) * np.exp(CHANCE.normal(0, noise, len(levels))), error=ERROR / CASES).lost


def a_year(histories):
    """Share of unchanged cases that are ever red when checked after each of 365 runs, at CASES times the error."""
    ever = []
    for _ in range(histories):
        values = np.exp(independent(365))
        ever.append(any(trend(values[:runs], error=ERROR).lost for runs in range(8, 366, 2)))
    show(f"\na year of nights, {histories} unchanged cases checked alone: {np.mean(ever):.1%} ever red")


def show(text):
    """One line."""
    print(text, flush=True)  # noqa: T201 - this is what a simulation is for


if __name__ == "__main__":
    quick = "--quick" in sys.argv
    detection(40 if quick else 200)
    a_year(10 if quick else 100)
    false_alarms(200 if quick else 1000)
