"""How often planted harm is found: a power curve of single tests, q-values and confirmation.

Run by hand: ``python tests/benchmarks/power_of_confirmation.py``. Each simulation has 10,000 test
samples of 10 classes and 64 dimensions; without one of them the accuracy rises by the planted
effect, without the others it does not change. Every removal changes the outcome of 2 % of the
samples, as single dimensions of a trained convnet do at most.
"""

import numpy as np
from scipy.stats import false_discovery_control

from dimlab.kernels.paired import mcnemar
from dimlab.probes.confirm_harmful import split_and_confirm

N_TEST, N_DIMENSIONS, DISCORDANT, N_SIMULATIONS = 10_000, 64, 0.02, 200


def change(rng, effect):
    effects = np.zeros(N_DIMENSIONS)
    effects[0] = effect
    better = (DISCORDANT + effects) / 2
    u = rng.random((N_TEST, N_DIMENSIONS))
    return np.where(u < better, -1, np.where(u < DISCORDANT, 1, 0)).astype(np.int8)


def main():
    truth = np.arange(N_TEST) % 10
    print("| effect, points | q <= 0.05 of `ablate` | `confirm_harmful` | others confirmed |")
    print("|---|---|---|---|")
    for effect in (0.0, 0.003, 0.005, 0.01):
        rng = np.random.default_rng(0)
        found, confirmed, false = 0, 0, 0
        for _ in range(N_SIMULATIONS):
            outcome = change(rng, effect)
            p = mcnemar((outcome > 0).sum(axis=0), (outcome < 0).sum(axis=0))
            found += false_discovery_control(p)[0] <= 0.05
            q, _ = split_and_confirm(outcome, truth, rng, 20)
            confirmed += q[0] <= 0.05
            false += (q[1:] <= 0.05).any()
        shares = [each / N_SIMULATIONS for each in (found, confirmed, false)]
        print(f"| {100 * effect:.1f} | " + " | ".join(f"{share:.3f}" for share in shares) + " |")


if __name__ == "__main__":
    main()
