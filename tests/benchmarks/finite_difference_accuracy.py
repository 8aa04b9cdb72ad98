"""Finite difference against the exact second-order part along a real run.

Run by hand: ``python tests/benchmarks/finite_difference_accuracy.py``. Trains the convnet on
Fashion-MNIST with the exact hypergradient; every 20 steps all radii are measured at the same
weights, mask and views.
"""

import copy
from dataclasses import replace

import torch

from dimlab import TrainConfig, datasets
from dimlab.training import step as stepping
from dimlab.training.hypergradient import exact_hypergradient, finite_difference_hypergradient
from dimlab.training.loop import train

RADII = (1e-1, 1e-2, 1e-3, 1e-4)
STEPS, EVERY = 200, 20


def main():
    taken = []
    counter = iter(range(STEPS))

    def watched(trial):
        found = exact_hypergradient(trial)
        step = next(counter) + 1
        if step % EVERY == 0 or step == 1:
            exact = found.second_order.double()
            row = {"step": step, "share": float(exact.norm() / found.direct.double().norm())}
            for radius in RADII:
                other = finite_difference_hypergradient(copy.copy(trial), radius=radius)
                approximate = other.second_order.double()
                row[radius] = (
                    float((approximate - exact).norm() / exact.norm()),
                    float(torch.nn.functional.cosine_similarity(approximate, exact, dim=0)),
                )
            taken.append(row)
        return found

    stepping.exact_hypergradient = watched
    train(replace(TrainConfig.medium(), steps=STEPS), datasets.fashion_mnist("train"))
    print("| step | second-order / direct | " + " | ".join(f"r = {r:g}" for r in RADII) + " |")
    for row in taken:
        cells = [f"{row[r][0]:.3f}, {row[r][1]:.4f}" for r in RADII]
        print(f"| {row['step']} | {row['share']:.3f} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
