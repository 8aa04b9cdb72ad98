r"""The hypergradient of the mask: what one step of the network makes of it.

With s the mask logits, theta the weights and a trial step on the inner loss,

    theta'(s) = theta - lr * (grad_theta L_in(theta, s) + drift),

where the drift (momentum, weight decay; zero for a plain step) does not depend on s, the mask
descends along

    d L_out(theta'(s), s) / ds = direct + second order,
    direct       = d_s L_out(theta', s)              at theta' held fixed,
    second order = - lr * d_s <grad_theta L_in(theta, s), v>,    v = grad_theta L_out(theta', s).

The modes differ in how they take the second-order part:

- `exact_hypergradient`: the inner product is the derivative of L_in in the direction v. It is taken
  in forward mode through the encoder, which replays the activations of the inner forward pass, and
  then differentiated in s through the projectors alone. The mask enters behind the encoder, so no
  convolution is ever differentiated twice.
- `finite_difference_hypergradient`: a central difference of d_s L_in at theta +- radius v / |v|.
- `first_order_hypergradient`: leaves it out.
- `lookahead_hypergradient`: exact, but the trial step is the step that was really taken.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dimlab.training.objective import HeadGradient, Objective, Pass, Views, Weights


@dataclass(frozen=True, eq=False)
class Hypergradient:
    """The two parts of the mask's gradient, each of shape (D,)."""

    direct: Tensor
    second_order: Tensor

    @property
    def total(self) -> Tensor:
        """Gradient of the outer loss with respect to the mask logits, shape (D,)."""
        return self.direct + self.second_order

    @property
    def cosine(self) -> float:
        """Cosine of the angle between the two parts; 0 where one of them is zero."""
        norms = self.direct.norm() * self.second_order.norm()
        return (self.direct @ self.second_order / norms).item() if norms > 0 else 0.0


@dataclass(frozen=True, eq=False)
class Trial:
    """One trial step of the network, which the mask is to make better.

    Parameters
    ----------
    objective : Objective
        The losses.
    weights : dict of str to Tensor
        theta. Never changed.
    mask_logits : Tensor of shape (D,)
        s. Never changed.
    inner_views, outer_views : tuple of Tensor of shape (B, C, H, W)
        Two views of the batch that is stepped on, and of the batch that judges the step.
    learning_rate : float
        lr, >= 0.
    inner_loss, outer_loss : {"contrastive", "total"}
        L_in and L_out.
    drift : dict of str to Tensor, optional
        What the step adds to the gradient of the weights that have one.
    passed, gradient : Pass and dict of str to Tensor, optional
        The forward pass of the inner views at theta, and the gradient of L_in there, where they are
        at hand already.
    moves_statistics : bool, default=False
        Whether the inner forward pass moves BatchNorm's running statistics, as the official one.

    Raises
    ------
    ValueError
        If the learning rate is negative.
    """

    objective: Objective
    weights: Weights
    mask_logits: Tensor
    inner_views: Views
    outer_views: Views
    learning_rate: float
    inner_loss: str = "contrastive"
    outer_loss: str = "contrastive"
    drift: Weights | None = None
    passed: Pass | None = None
    gradient: Weights | None = None
    moves_statistics: bool = False

    def __post_init__(self) -> None:
        if not self.learning_rate >= 0:
            raise ValueError(f"learning_rate must be >= 0; got {self.learning_rate}.")


def exact_hypergradient(trial: Trial) -> Hypergradient:
    """Hypergradient through one trial step, exactly.

    Parameters
    ----------
    trial : Trial
        The step.

    Returns
    -------
    Hypergradient
        Direct and second-order part.

    Notes
    -----
    Costs a backward pass at theta (and the forward pass, unless ``trial.passed`` has it), a forward
    and backward pass at theta', and a tangent pass. Exact for any smooth network; at a ReLU kink it
    is the one-sided derivative that autograd takes.

    References
    ----------
    .. [1] Li et al., "MetaMask", NeurIPS 2022. The official code takes the second-order part by a
    finite difference.
    .. [2] Pearlmutter, "Fast exact multiplication by the Hessian", Neural Computation 1994.
    """
    objective = trial.objective
    passed, heads, direct, v = _trial_step(trial, keep_graph=True)
    if heads is None:
        heads = objective.head_gradient(
            trial.weights, passed.features, trial.mask_logits, trial.inner_loss
        )
    slope = objective.slope(passed, heads, v)
    return Hypergradient(direct, -trial.learning_rate * slope)


def finite_difference_hypergradient(trial: Trial, *, radius: float) -> Hypergradient:
    """Hypergradient with the second-order part by a central difference: the official recipe.

    Parameters
    ----------
    trial : Trial
        The step.
    radius : float
        Length of the step along v / |v|, > 0. The official code has 0.01.

    Returns
    -------
    Hypergradient
        Direct part (exact) and second-order part (approximate).

    Raises
    ------
    ValueError
        If the radius is not positive.

    Notes
    -----
    On ReLU networks most of its error comes from ReLUs of the contrastive projector that change
    sign between the two points, and is the same in float64: it is no rounding. At a smaller radius
    fewer of them change sign, but the jump that each leaves in the gradient is divided by the
    radius, so that the error vanishes only where none does.
    """
    if not radius > 0:
        raise ValueError(f"radius must be > 0; got {radius}.")
    _, _, direct, v = _trial_step(trial)
    norm = torch.cat([each.flatten() for each in v.values()]).norm()
    if norm == 0:
        return Hypergradient(direct, torch.zeros_like(direct))
    step = radius / norm
    sides = [_mask_gradient(trial, _moved(trial.weights, v, sign * step)) for sign in (1, -1)]
    slope = (sides[0] - sides[1]) / (2 * step)
    return Hypergradient(direct, -trial.learning_rate * slope)


def first_order_hypergradient(trial: Trial) -> Hypergradient:
    """Gradient of the outer loss after the trial step, the step's dependence on s left out.

    Parameters
    ----------
    trial : Trial
        The step.

    Returns
    -------
    Hypergradient
        Direct part; the second-order part is zero.
    """
    _, _, direct, _ = _trial_step(trial)
    return Hypergradient(direct, torch.zeros_like(direct))


def lookahead_hypergradient(
    objective: Objective,
    passed: Pass,
    weights: Weights,
    mask_logits: Tensor,
    v: Weights,
    direct: Tensor,
    *,
    learning_rate: float,
) -> Hypergradient:
    r"""Hypergradient through the step that was really taken, judged by the next batch.

    Parameters
    ----------
    objective : Objective
        The losses.
    passed, weights, mask_logits : Pass, dict of str to Tensor, Tensor of shape (D,)
        The regular step t: its forward pass, theta_t and the logits s_t that it used.
    v, direct : dict of str to Tensor, Tensor of shape (D,)
        Gradients of L_out at theta_{t+1} and batch t + 1 with respect to weights and logits: the
        regular step t + 1 computes them anyway.
    learning_rate : float
        lr of step t, times 1 (SGD, heavy ball) or 1 + momentum (Nesterov).

    Returns
    -------
    Hypergradient
        Direct and second-order part.

    Notes
    -----
    SGD with momentum mu and weight decay wd really takes the step

        b_t = mu b_{t-1} + g(theta_t, s_t) + wd theta_t,     theta_{t+1} = theta_t - lr b_t,

    with g = grad_theta of the *regular* loss of batch t. The buffer b_{t-1} depends on earlier
    masks only; held constant (a truncation after one step), theta_{t+1} has the derivative
    - lr d_s g(theta_t, s). With Nesterov's momentum the step is theta_t - lr (g' + mu b_t), with
    g' = g + wd theta_t, in which g stands 1 + mu times. So, by the chain rule,

        d L_out(theta_{t+1}(s), s; batch t+1) / ds
            = direct - lr c d_s <g(theta_t, s; batch t), v>,   c = 1 or 1 + mu.

    The inner product is differentiated at s_t, the logits that the real step used. Where the mask
    moved between step t and step t + 1, direct and v are those of the mask in force at t + 1.
    """
    heads = objective.head_gradient(weights, passed.features, mask_logits, "total")
    slope = objective.slope(passed, heads, v)
    return Hypergradient(direct, -learning_rate * slope)


def _trial_step(
    trial: Trial, *, keep_graph: bool = False
) -> tuple[Pass, HeadGradient | None, Tensor, Weights]:
    """Take the step: the inner pass, and the gradients of L_out behind it in s and theta'."""
    objective = trial.objective
    passed, gradient, heads = trial.passed, trial.gradient, None
    if passed is None or gradient is None:
        leaves = _leaves(trial.weights)
        moving = trial.moves_statistics
        passed = objective.forward(leaves, trial.inner_views, update_statistics=moving)
        heads = objective.head_gradient(
            leaves,
            passed.features,
            trial.mask_logits,
            trial.inner_loss,
            update_statistics=moving,
            keep_graph=keep_graph,
        )
        gradient = objective.through_encoder(heads, passed, leaves)
        # the tape is kept, the encoder's graph is not: two graphs at once would cost memory
        passed = Pass((passed.features[0].detach(), passed.features[1].detach()), passed.tapes)
        del leaves
    if trial.drift is not None:
        gradient = {name: each + trial.drift[name] for name, each in gradient.items()}
    moved = _leaves(_moved(trial.weights, gradient, -trial.learning_rate))
    del gradient
    s = trial.mask_logits.detach().requires_grad_()
    features = objective.forward(moved, trial.outer_views, remember=False).features
    v, direct = objective.gradients(objective.loss(moved, features, s, trial.outer_loss), moved, s)
    return passed, heads, torch.zeros_like(s) if direct is None else direct, v


def _mask_gradient(trial: Trial, weights: Weights) -> Tensor:
    objective = trial.objective
    s = trial.mask_logits.detach().requires_grad_()
    with torch.no_grad():
        features = objective.forward(weights, trial.inner_views, remember=False).features
    loss = objective.loss(weights, features, s, trial.inner_loss)
    gradient = objective.gradients(loss, {}, s)[1]
    return torch.zeros_like(s) if gradient is None else gradient


def _moved(weights: Weights, direction: Weights, step: float | Tensor) -> Weights:
    """Move the weights along the direction; those without one stay.

    A clone keeps its strides, a sum need not: with one input channel channels-last is lost, and
    every layer behind such a convolution runs on a layout that is slow.
    """
    return {
        name: weight.detach().clone().add_(step * direction[name])
        if name in direction
        else weight.detach()
        for name, weight in weights.items()
    }


def _leaves(weights: Weights) -> Weights:
    return {name: weight.detach().requires_grad_() for name, weight in weights.items()}
