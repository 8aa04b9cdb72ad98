import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dimlab.training.losses import (
    barlow_twins_loss,
    barlow_twins_terms,
    cross_correlation,
    nt_xent_loss,
    vicreg_loss,
)
from tests import references


def draw(seed, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_barlow_twins_by_hand():
    # two orthogonal standardised columns, the second view swaps them: C = [[0, 1], [1, 0]]
    z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
    invariance, redundancy = barlow_twins_terms(z, z.flip(1))
    assert invariance.item() == pytest.approx(2, abs=1e-4)
    assert redundancy.item() == pytest.approx(2, abs=1e-4)
    loss = barlow_twins_loss(z, z.flip(1), off_diagonal_weight=0.25)
    assert loss.item() == pytest.approx(2.5, abs=1e-4)


@pytest.mark.parametrize("n_pairs", [2, 3, 8])
@pytest.mark.parametrize("temperature", [0.07, 0.5, 1.0])
def test_nt_xent_of_orthogonal_pairs(n_pairs, temperature):
    z = torch.eye(n_pairs, dtype=torch.float64)
    e = math.exp(1 / temperature)
    expected = -math.log(e / (e + 2 * (n_pairs - 1)))
    assert nt_xent_loss(z, z, temperature=temperature).item() == pytest.approx(expected, rel=1e-9)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(2, 9), p=st.integers(1, 5))
def test_losses_equal_the_textbook_loops(seed, n, p):
    z_a, z_b = draw(seed, n, p), draw(seed + 1, n, p)
    torch.testing.assert_close(
        nt_xent_loss(z_a, z_b, temperature=0.3).item(),
        references.nt_xent(z_a.numpy(), z_b.numpy(), 0.3),
    )
    torch.testing.assert_close(
        barlow_twins_loss(z_a, z_b).item(), references.barlow_twins(z_a.numpy(), z_b.numpy(), 5e-3)
    )


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.floats(0.1, 100), shift=st.floats(-10, 10))
def test_barlow_twins_is_invariant_to_affine_maps_of_a_dimension(seed, scale, shift):
    z_a, z_b = draw(seed, 32, 4), draw(seed + 1, 32, 4)
    moved = z_a * scale + shift
    # the eps under the root is the only thing that sees the scale
    torch.testing.assert_close(
        barlow_twins_loss(moved, z_b), barlow_twins_loss(z_a, z_b), rtol=5e-3, atol=1e-3
    )


def test_identical_views_correlate_to_one_up_to_eps():
    z = draw(0, 64, 6)
    expected = z.var(0, correction=0) / (z.var(0, correction=0) + 1e-5)
    torch.testing.assert_close(cross_correlation(z, z).diagonal(), expected)


def test_a_collapsed_projection_correlates_to_zero():
    z = draw(0, 16, 3)
    z[:, 1] = 4.0
    assert cross_correlation(z, z)[1].abs().max().item() == 0.0


def test_nt_xent_does_not_see_the_scale_of_a_row_or_the_order_of_views():
    z_a, z_b = draw(1, 10, 4), draw(2, 10, 4)
    loss = nt_xent_loss(z_a, z_b, temperature=0.2)
    torch.testing.assert_close(nt_xent_loss(z_b, z_a, temperature=0.2), loss)
    torch.testing.assert_close(nt_xent_loss(z_a * 7, z_b / 3, temperature=0.2), loss)


@pytest.mark.parametrize(
    "loss", [barlow_twins_loss, lambda a, b: nt_xent_loss(a, b, temperature=0.5)]
)
def test_losses_pass_gradcheck(loss):
    z_a, z_b = draw(3, 5, 3).requires_grad_(), draw(4, 5, 3).requires_grad_()
    assert torch.autograd.gradcheck(loss, (z_a, z_b))


@pytest.mark.parametrize("shapes", [((4, 3), (4, 2)), ((1, 3), (1, 3)), ((4,), (4,))])
def test_pairs_of_other_shapes_are_refused(shapes):
    z_a, z_b = torch.zeros(shapes[0]), torch.zeros(shapes[1])
    with pytest.raises(ValueError, match=r"z_a and z_b must both have shape \(B, P\)"):
        barlow_twins_loss(z_a, z_b)
    with pytest.raises(ValueError, match=r"z_a and z_b must both have shape \(B, P\)"):
        nt_xent_loss(z_a, z_b, temperature=1)


@pytest.mark.parametrize("temperature", [0, -1, float("nan")])
def test_temperature_must_be_positive(temperature):
    with pytest.raises(ValueError, match="temperature must be > 0"):
        nt_xent_loss(torch.eye(2), torch.eye(2), temperature=temperature)


def test_losses_run_in_half_precision_without_overflow():
    z = draw(5, 8, 4).to(torch.bfloat16)
    assert np.isfinite(nt_xent_loss(z, z, temperature=0.07).item())


def test_vicreg_by_hand():
    # columns of deviation 1 (unbiased variance 4/3) and 0; the second view is shifted by (2, 0)
    z = torch.tensor([[1.0, 5.0], [1.0, 5.0], [-1.0, 5.0], [-1.0, 5.0]], dtype=torch.float64)
    shifted = z + torch.tensor([2.0, 0.0], dtype=torch.float64)
    assert vicreg_loss(z, shifted, variance_weight=0, covariance_weight=0).item() == 25 * 4 / 2
    variance = vicreg_loss(z, shifted, invariance_weight=0, covariance_weight=0).item()
    assert variance == pytest.approx(25 * (1 - 0.01) / 2)  # the dead column, sqrt(1e-4) = 0.01
    twice = torch.cat([z[:, :1], z[:, :1]], dim=1)  # Cov_01 = Cov_10 = 4/3, two views
    covariance = vicreg_loss(twice, twice, invariance_weight=0, variance_weight=0).item()
    assert covariance == pytest.approx(2 * 2 * (4 / 3) ** 2 / 2)


@pytest.mark.parametrize("seed", range(3))
def test_vicreg_equals_the_textbook_loops(seed):
    z_a, z_b = 0.7 * draw(seed, 9, 4), draw(seed + 9, 9, 4)
    expected = references.vicreg(z_a.numpy(), z_b.numpy(), 25.0, 25.0, 1.0)
    assert vicreg_loss(z_a, z_b).item() == pytest.approx(expected, rel=1e-12)
    assert torch.autograd.gradcheck(vicreg_loss, (z_a.requires_grad_(), z_b.requires_grad_()))


def test_vicreg_refuses_pairs_of_other_shapes():
    with pytest.raises(ValueError, match="z_a and z_b must both have shape"):
        vicreg_loss(draw(0, 3, 2), draw(0, 3, 3))


@pytest.mark.parametrize("seed", range(3))
def test_official_statistics_equal_the_official_code(seed):
    z_a, z_b = draw(seed, 8, 5), draw(seed + 9, 8, 5)
    ours = barlow_twins_loss(z_a, z_b, unbiased=True)
    torch.testing.assert_close(ours, references.official_barlow(z_a, z_b, 5e-3))
    assert abs(ours - barlow_twins_loss(z_a, z_b)) > 1e-3  # negative control
    torch.testing.assert_close(
        nt_xent_loss(z_a, z_b, temperature=0.07), references.official_nt_xent(z_a, z_b, 0.07)
    )


def test_official_statistics_have_the_floor_that_was_measured_on_the_official_code():
    # paper.md 2.10: the diagonal is (B - 1) / B, so the loss of identical views is D / B^2 = 0.0078
    z = draw(0, 512, 2048)
    invariance, _ = barlow_twins_terms(z, z, unbiased=True)
    assert invariance.item() == pytest.approx(2048 / 512**2, rel=1e-9)
    independent = barlow_twins_loss(z, draw(1, 512, 2048), unbiased=True).item()
    assert independent == pytest.approx(2083, rel=0.01)  # measured there: 2048 + 41 predicted


def test_a_collapsed_projection_is_not_a_number_in_official_statistics():
    z = draw(0, 6, 3)
    z[:, 1] = 4.0
    assert cross_correlation(z, z, unbiased=True)[1].isnan().all()
