"""What `DimensionMonitor` costs of a step of a small convnet: run by hand, one run.

``python tests/benchmarks/monitor.py [STEPS]`` trains the convnet on 256 random images a step, and
counts the seconds that are spent in the monitor.
"""

import sys
import time

import torch

from dimlab import DimensionMonitor
from dimlab.training.encoders import build_encoder

EVERY = 100


def main(steps):
    torch.manual_seed(0)
    encoder = build_encoder("convnet", in_channels=1, n_dimensions=512).train()
    optimiser = torch.optim.SGD(encoder.parameters(), lr=0.01)
    images = torch.rand(256, 1, 28, 28)
    monitor = DimensionMonitor(every=EVERY, sink=lambda report: None)
    spent = 0.0
    began = time.perf_counter()
    for _ in range(steps):
        features = encoder(images)
        started = time.perf_counter()
        monitor(features)
        spent += time.perf_counter() - started
        optimiser.zero_grad()
        features.square().mean().backward()
        optimiser.step()
    step = (time.perf_counter() - began - spent) / steps
    reports = [f"{each['seconds']:.3f}" for each in monitor.history]
    print(f"{1e3 * step:.1f} ms a step; reports of {', '.join(reports)} s, one in {EVERY} steps")
    print(f"monitor: {spent / steps / step:.2%} of a step")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2 * EVERY)
