"""Seconds and peak memory of one training step, every mode beside the plain step in one run.

Run by hand: ``pytest tests/benchmarks/training_step.py -s``. The contestants take turns, so that a
slow minute of the machine hits them all; the table gives the median of the rounds and its ratio to
the plain step.
"""

import copy
import json
import os
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from dimlab.training.checkpoint import build_network
from dimlab.training.config import TrainConfig
from dimlab.training.run import memory_format
from dimlab.training.step import Stepper
from tests.references import official_step

ROUNDS = int(os.environ.get("DIMLAB_ROUNDS", "15"))
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SIZES = {
    "convnet-28px-256": (TrainConfig.medium(), 1, 28),
    "resnet18-32px-64": (
        replace(TrainConfig.medium(), encoder="resnet18", batch_size=64, hidden=2048,
                contrastive_width=256, redundancy_width=2048),
        3,
        32,
    ),
    "vit_tiny-32px-16": (
        replace(TrainConfig.medium(), encoder="vit_tiny", batch_size=16, hidden=512), 3, 32,
    ),
}  # fmt: skip
MODES = {
    "plain": {"method": "simclr+barlow-twins"},
    "exact": {},
    "exact, before": {"meta_position": "before"},
    "exact, before, total trial loss": {"meta_position": "before", "trial_loss": "total"},
    "lookahead": {"hypergradient": "lookahead"},
    "lookahead, total outer loss": {"hypergradient": "lookahead", "outer_loss": "total"},
    "lookahead, total outer loss, every 4th step": {
        "hypergradient": "lookahead",
        "outer_loss": "total",
        "meta_every": 4,
    },
    "exact, every 4th step": {"meta_every": 4},
    "finite_difference": {"hypergradient": "finite_difference"},
    "first_order": {"hypergradient": "first_order"},
    "joint": {"hypergradient": "joint"},
    "plain, bfloat16": {"method": "simclr+barlow-twins", "precision": "bfloat16"},
    "exact, bfloat16": {"precision": "bfloat16"},
}


def views_of(config, channels, side):
    generator = torch.Generator().manual_seed(0)
    shape = (config.batch_size, channels, side, side)
    return tuple(torch.rand(shape, generator=generator).to(DEVICE) for _ in range(2))


def fresh(config, channels):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layout = memory_format(torch.device(DEVICE), config.precision)  # as in training
        network = build_network(config, channels).to(DEVICE, memory_format=layout)
        mask = torch.zeros(network["encoder"].n_dimensions, device=DEVICE)
    return network.train(), mask


def contestants(config, channels, side):
    """One callable a mode, each with a network of its own."""
    views = views_of(config, channels, side)
    found = {}
    for name, changes in MODES.items():
        changed = replace(config, **changes)
        network, mask = fresh(changed, channels)
        stepper = Stepper(network, mask, changed)
        stepper.set_rates(0.01)
        found[name] = partial(cycle, stepper, views)
    found["official step, transcribed"] = official(config, channels, views)
    return found


def cycle(stepper, views):
    """Steps from one move of the mask to the next; return how many."""
    for step in range(stepper.config.meta_every):
        stepper.take(views, lambda: views, step=step)
    return stepper.config.meta_every


def official(config, channels, views):
    network, mask = fresh(config, channels)
    state = {}
    return partial(official_step, network, mask, state, views)


def seconds(run):
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    n_steps = run() or 1
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - started) / n_steps


def in_turns(runs, rounds):
    """Median seconds of each, taken in turns."""
    for run in runs.values():
        run()
        run()
    taken = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            taken[name].append(seconds(run))
    return {name: float(np.median(each)) for name, each in taken.items()}


def peak_bytes(run):
    """Most bytes that one call holds beyond what was there before."""
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        run()
    events = [
        event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"
    ]
    held = np.cumsum([event.nbytes() for event in sorted(events, key=lambda e: e.start_ns())])
    return int(held.max())


@pytest.mark.parametrize("size", SIZES)
def test_step(size, benchmark):
    config, channels, side = SIZES[size]
    runs = contestants(config, channels, side)
    medians = in_turns(runs, ROUNDS)
    memory = {name: peak_bytes(run) for name, run in runs.items()}
    table = {
        name: {
            "seconds": medians[name],
            "times_plain": medians[name] / medians["plain"],
            "peak_mb": memory[name] / 1e6,
            "memory_times_plain": memory[name] / memory["plain"],
        }
        for name in runs
    }
    show(f"{size}, {DEVICE}, {torch.get_num_threads()} threads", table)
    benchmark.extra_info.update(table)
    benchmark.pedantic(runs["exact"], rounds=3)


@pytest.mark.parametrize("size", SIZES)
def test_parts(size):
    config, channels, side = SIZES[size]
    views = views_of(config, channels, side)
    network, mask = fresh(config, channels)
    objective = Stepper(network, mask, config).objective
    weights = dict(network.named_parameters())
    direction = {name: 1e-3 * w.detach() for name, w in weights.items()}
    encoder = {n: w for n, w in weights.items() if n.startswith("encoder.")}

    def forward():
        return objective.forward(weights, views)

    passed = forward()
    upstream = [h.detach() for h in passed.features]

    def backward():
        torch.autograd.grad(passed.features, list(encoder.values()), upstream, retain_graph=True)

    def tangent():
        along = {n.removeprefix("encoder."): d for n, d in direction.items() if n in encoder}
        for tape in passed.tapes:
            objective.encoder.tangent(tape, along)

    features = tuple(h.detach().requires_grad_() for h in passed.features)

    def heads(which):
        s = mask.clone().requires_grad_()
        loss = objective.loss(weights, features, s, which)
        torch.autograd.grad(loss, [*features, s])

    def slope():
        graph = objective.head_gradient(weights, features, mask, "contrastive")
        objective.slope(passed, graph, direction)

    runs = {
        "encoder forward, both views": forward,
        "encoder backward": backward,
        "encoder tangent": tangent,
        "heads forward and backward, contrastive": partial(heads, "contrastive"),
        "heads forward and backward, both": partial(heads, "total"),
        "tangent and heads twice": slope,
    }
    medians = in_turns(runs, ROUNDS)
    show(size, {name: {"seconds": value} for name, value in medians.items()})


def show(title, table):
    columns = list(next(iter(table.values())))
    lines = [f"\n{title}, median of {ROUNDS} rounds in turns"]
    lines.append("| | " + " | ".join(columns) + " |")
    for name, row in table.items():
        lines.append(f"| {name} | " + " | ".join(f"{row[column]:.3f}" for column in columns) + " |")
    print("\n".join(lines))
    out = os.environ.get("OUT")
    if out:
        path = Path(out) / f"{title.split(',')[0]}-{len(table)}.json"
        path.write_text(json.dumps({"title": title, "table": copy.copy(table)}, indent=2))
