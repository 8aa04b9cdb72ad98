"""What one of several processes computes for test_distributed.py: run in a process of its own."""

import os
from datetime import timedelta
from unittest import mock

import torch
import torch.distributed as dist

from dimlab.processes import World, current_world
from dimlab.training import distributed
from dimlab.training.distributed import all_gather, all_reduce
from dimlab.training.losses import nt_xent_loss, vicreg_loss
from dimlab.training.step import Stepper
from tests.training.test_hypergradient import World as Setting

N_SAMPLES = 7  # cut into unequal parts by two and by three
CASES = {
    "exact": {},
    "exact, before": {"meta_position": "before", "trial_loss": "total", "outer_loss": "total"},
    "exact, held out": {"meta_batch": "held-out", "trial_step": "optimiser", "clip_norm": 0.5},
    "lookahead": {"hypergradient": "lookahead"},
    "finite_difference": {"hypergradient": "finite_difference", "barlow_statistics": "unbiased"},
    "joint": {"hypergradient": "joint", "meta_moves_statistics": False},
    "official statistics": {"meta_moves_statistics": True},
    "vicreg": {"contrastive": vicreg_loss, "learning_rate": 0.01},
}


def three_steps(changes, world):
    """Three steps on this rank's part of three batches: everything that moved, and the records."""
    setting = Setting(0, **{"learning_rate": 0.2, **changes})
    distributed.make_statistics_global(setting.network, world)
    logits = setting.s.clone()
    stepper = Stepper(setting.network, logits, setting.config, world)
    rows = world.rows(N_SAMPLES)
    parts = [tuple(view[rows] for view in batch) for batch in setting.batches]
    found = {}
    for step in range(3):
        record = stepper.take(parts[step], lambda step=step: parts[step + 1], traced=step == 2)
        found |= {
            f"{step} {name}": torch.as_tensor(record[name])
            for name in ("loss", "contrastive", "direct_norm", "second_order_norm")
            if name in record
        }
        if logits.grad is not None:
            found[f"{step} mask gradient"] = logits.grad.clone()
    found |= {name: value.clone() for name, value in setting.network.state_dict().items()}
    return found | {"mask": logits, "gradient share": record["gradient_share"]}


def derivatives(world):
    """Every order of differentiation through the collectives, of a loss of normalised rows."""
    generator = torch.Generator().manual_seed(0)
    x, w, dw, s, ds = (
        torch.randn(shape, dtype=torch.float64, generator=generator)
        for shape in ((2, N_SAMPLES, 4), (4, 3), (4, 3), (4,), (4,))
    )
    rows = world.rows(N_SAMPLES)

    def share(w, s):
        z = [torch.tanh(each[rows] * s) @ w for each in x]
        z = [each - all_reduce(each.sum(0), world) / N_SAMPLES for each in z]
        whole = [all_gather(each, N_SAMPLES, world) for each in z]
        return nt_xent_loss(*whole, temperature=0.5) / world.size

    def summed(value):
        return all_reduce(value.detach(), world)

    jvp, grad = torch.func.jvp, torch.func.grad
    w_leaf, s_leaf = w.clone().requires_grad_(), s.clone().requires_grad_()
    first = torch.autograd.grad(share(w_leaf, s_leaf), w_leaf, create_graph=True)[0]
    with torch.autograd.forward_ad.dual_level():
        dual = share(torch.autograd.forward_ad.make_dual(w, dw), s)
        forward = torch.autograd.forward_ad.unpack_dual(dual).tangent
    return {
        "value": summed(share(w, s)),
        "gradient": summed(first),
        "double backward": summed(torch.autograd.grad((first * dw).sum(), s_leaf)[0]),
        "forward": summed(forward),
        "jvp": summed(jvp(lambda w: share(w, s), (w,), (dw,))[1]),
        "forward over reverse": summed(jvp(lambda w: grad(share, argnums=1)(w, s), (w,), (dw,))[1]),
        "reverse over forward": summed(
            grad(lambda s: jvp(lambda w: share(w, s), (w,), (dw,))[1])(s)
        ),
        "nested": summed(jvp(lambda s: jvp(lambda w: share(w, s), (w,), (dw,))[1], (s,), (ds,))[1]),
    }


def everything(world):
    """All results of one world."""
    found = {name: three_steps(changes, world) for name, changes in CASES.items()}
    found["derivatives"] = derivatives(world)
    # the classic error: tangents that do not cross the collective
    with mock.patch.object(distributed._AllReduce, "jvp", staticmethod(lambda _, tangent: tangent)):
        found["broken jvp"] = three_steps({}, world)
    return found


def run(rank, size, folder):
    """Be one process: compute everything and save it."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size,
        timeout=timedelta(seconds=60),
    )  # fmt: skip
    try:
        assert current_world() == World(rank, size)
        torch.save(everything(current_world()), os.path.join(folder, f"{rank}.pt"))
    finally:
        dist.destroy_process_group()
