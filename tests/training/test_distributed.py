"""Several processes equal one: the same two views cut into parts, in float64."""

import pytest
import torch
import torch.multiprocessing
from torch import nn

from dimlab.processes import World, current_world, joined
from dimlab.training.distributed import (
    Batch,
    GlobalBatchNorm,
    all_gather,
    make_statistics_global,
    sum_over_ranks,
)
from dimlab.training.losses import barlow_twins_terms, nt_xent_share
from tests.training import ranks

SIZES = [pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.long)]


@pytest.fixture(scope="module")
def alone():
    return ranks.everything(World())


@pytest.fixture(scope="module", params=SIZES)
def together(request, tmp_path_factory):
    """Results of every rank; the processes start once."""
    folder = tmp_path_factory.mktemp(f"ranks{request.param}")
    torch.multiprocessing.spawn(
        ranks.run, args=(request.param, str(folder)), nprocs=request.param, join=True
    )
    return [torch.load(folder / f"{rank}.pt") for rank in range(request.param)]


@pytest.mark.parametrize("case", ranks.CASES)
def test_steps_equal_those_of_one_process(case, alone, together):
    expected = alone[case]
    assert expected["2 mask gradient"].abs().max() > 1e-6
    for rank in together:
        assert rank[case].keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(
                rank[case][name], value, rtol=1e-9, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}"
            )


def test_every_kind_of_derivative_crosses_the_collectives(alone, together):
    for rank in together:
        for name, value in alone["derivatives"].items():
            torch.testing.assert_close(
                rank["derivatives"][name], value, rtol=1e-9, atol=1e-12,
                msg=lambda m, n=name: f"{n}: {m}",
            )  # fmt: skip


def test_without_the_sum_in_jvp_the_hypergradient_is_wrong(alone, together):
    right = alone["exact"]["0 mask gradient"]
    torch.testing.assert_close(alone["broken jvp"]["0 mask gradient"], right)  # alone it is unseen
    for rank in together:
        wrong = rank["broken jvp"]["0 mask gradient"]
        assert (wrong - right).norm() > 1e-3 * right.norm()
        torch.testing.assert_close(rank["exact"]["0 mask gradient"], right, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("n_samples", "size"), [(7, 2), (7, 3), (6, 3), (2, 3)])
def test_rows_cut_a_batch_as_tensor_split_does(n_samples, size):
    whole = torch.arange(n_samples)
    parts = [whole[World(rank, size).rows(n_samples)] for rank in range(size)]
    for part, expected in zip(parts, whole.tensor_split(size), strict=True):
        torch.testing.assert_close(part, expected, rtol=0, atol=0)


def test_one_process_needs_no_collective():
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    assert current_world() == World()
    assert all_gather(x, 4, World()) is x
    sum_over_ranks([x], World())
    network = nn.Sequential(nn.BatchNorm1d(3))
    make_statistics_global(network, World())
    assert type(network[0]) is nn.BatchNorm1d
    with joined("cpu") as (world, device):
        assert (world, device) == (World(), "cpu")


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize(
    ("layer", "shape"), [(nn.BatchNorm1d, (6, 5)), (nn.BatchNorm2d, (4, 5, 3, 3))]
)
def test_global_statistics_of_one_process_are_batchnorms(layer, shape, momentum):
    generator = torch.Generator().manual_seed(0)
    plain = layer(5, momentum=momentum).double()
    plain.weight.data.uniform_(0.5, 1.5, generator=generator)
    other = layer(5, momentum=momentum).double()
    other.load_state_dict(plain.state_dict())
    ours = GlobalBatchNorm(other, World())
    assert ours.state_dict().keys() == plain.state_dict().keys()
    for offset in (0.0, 1000.0):
        x = torch.randn(shape, dtype=torch.float64, generator=generator) + offset
        torch.testing.assert_close(ours(x), plain(x), rtol=1e-9, atol=1e-9)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value)
    torch.testing.assert_close(ours.eval()(x), plain.eval()(x))


def test_no_digits_are_lost_far_from_zero():
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0)) + 3000
    y = GlobalBatchNorm(nn.BatchNorm1d(3), World())(x)
    expected = nn.BatchNorm1d(3).double()(x.double())
    torch.testing.assert_close(y.double(), expected, rtol=1e-3, atol=1e-3)


def test_bad_shares_are_refused():
    z = torch.zeros(3, 2)
    with pytest.raises(
        ValueError, match=r"must both have shape \(4 of B = 7, P\) with B >= 2; got"
    ):
        nt_xent_share(z, z, 0.5, Batch(7, World(0, 2)))
    with pytest.raises(ValueError, match=r"must both have shape \(3 of B = 5, P\)"):
        barlow_twins_terms(z, z[:2], batch=Batch(5, World(0, 2)))
    with pytest.raises(ValueError, match=r"must both have shape \(1 of B = 1, P\) with B >= 2"):
        nt_xent_share(z[:1], z[:1], 0.5, Batch(1, World(0, 2)))
    with pytest.raises(ValueError, match="batch must have more than one value per channel"):
        GlobalBatchNorm(nn.BatchNorm1d(3), World())(torch.zeros(1, 3))
    with pytest.raises(ValueError, match="x must have at least two axes"):
        GlobalBatchNorm(nn.BatchNorm1d(3), World())(torch.zeros(3))
