"""Error of the mask's gradient by precision and layout, and what each costs, in one run.

Run by hand: ``python tests/benchmarks/mask_gradient_precision.py``. The exact hypergradient of the
next step, at the same weights, mask and views, against float64: on an untrained network and after a
short training on digits. The ways take turns, so that a slow minute hits them all; times are those
of the whole trial, its views not counted, as a ratio to float32 contiguous.
"""

import copy
import statistics
import time
from dataclasses import replace

import torch

from dimlab import TrainConfig, datasets, train
from dimlab.training import run
from dimlab.training.hypergradient import exact_hypergradient
from dimlab.training.loop import trial_of, untrained

LAYOUTS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}
WAYS = [(precision, layout) for precision in ("float32", "bfloat16") for layout in LAYOUTS]
ROUNDS = 3
SIZES = {  # images, configuration, steps of the training
    "convnet, 28 px, batch 256": (
        datasets.digits("train"), TrainConfig.medium(), 60,
    ),
    "ResNet-18, 16 px, batch 32": (
        datasets.digits("train", image_size=16),
        replace(TrainConfig.medium(), encoder="resnet18", batch_size=32), 12,
    ),
}  # fmt: skip


def trial_in(checkpoint, images, precision, layout):
    config = replace(checkpoint.config, precision=precision, steps=10**6)
    run.memory_format = lambda device, precision: LAYOUTS[layout]
    return trial_of(replace(checkpoint, config=config, versions={}), images)


def measured(checkpoint, images):
    """Relative error of the whole, the direct and the second-order part, and seconds, by way."""
    exact = exact_hypergradient(trial_in(checkpoint, images, "float64", "contiguous"))
    trials = {way: trial_in(checkpoint, images, *way) for way in WAYS}
    found, seconds = {}, {way: [] for way in WAYS}
    for _ in range(ROUNDS):
        for way, trial in trials.items():
            started = time.perf_counter()
            got = exact_hypergradient(copy.copy(trial))
            seconds[way].append(time.perf_counter() - started)
            found[way] = [
                float((getattr(got, part).double() - (true := getattr(exact, part))).norm()
                      / true.norm())
                for part in ("total", "direct", "second_order")
            ]  # fmt: skip
    medians = {way: statistics.median(each) for way, each in seconds.items()}
    first = medians[WAYS[0]]
    return {way: (*found[way], medians[way] / first) for way in WAYS}


def main():
    print("| network | state | precision, layout | whole | direct | second-order | time |")
    print("|---|---|---|---|---|---|---|")
    for name, (images, config, steps) in SIZES.items():
        trained = train(replace(config, steps=steps), images)
        for state, checkpoint in (
            ("untrained", untrained(config, images)), (f"{steps} steps", trained),
        ):  # fmt: skip
            for way, (*errors, ratio) in measured(checkpoint, images).items():
                cells = " | ".join(f"{100 * each:.3g} %" for each in errors)
                print(f"| {name} | {state} | {', '.join(way)} | {cells} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
