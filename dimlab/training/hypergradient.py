r"""The hypergradient of the mask: what one step of the network makes of it.

With s the mask logits, theta the weights and a trial step on the inner loss,

    theta'(s) = theta - lr * (grad_theta L_in(theta, s) + drift),

where the drift (momentum, weight decay; zero for a plain step) does not depend on s, the mask
descends along

    d L_out(theta'(s), s) / ds = direct + second order,
    direct       = d_s L_out(theta', s)              at theta' held fixed,
    second order = - lr * d_s <grad_theta L_in(theta, s), v>,    v = grad_theta L_out(theta', s).

The modes differ in how they take the second-order part:

- `exact_hypergradient`: the inner product is the derivative of L_in in the direction v
  (Pearlmutter, Neural Computation 1994). It is taken in forward mode through the encoder, which
  replays the activations of the inner forward pass, and then differentiated in s through the
  projectors alone. The mask enters behind the encoder, so no convolution is ever differentiated
  twice. At a ReLU kink the result is the one-sided derivative that autograd takes.
- `finite_difference_hypergradient`: a central difference of d_s L_in at theta +- radius v / |v|.
  On ReLU networks most of its error comes from ReLUs of the contrastive projector that change sign
  between the two points; it is the same in float64, so it is not rounding. At a smaller radius
  fewer of them change sign, but the jump that each leaves in the gradient is divided by the radius:
  the error vanishes only where no ReLU changes sign.
- `first_order_hypergradient`: leaves it out.
- `lookahead_hypergradient`: exact, but the trial step is the step t that was really taken, judged
  by the next batch.

For the last, SGD with momentum mu and weight decay wd takes the step

    b_t = mu b_{t-1} + g(theta_t, s_t) + wd theta_t,     theta_{t+1} = theta_t - lr b_t,

with g = grad_theta of the *regular* loss of batch t. The buffer b_{t-1} depends on earlier masks
only. Held constant (a truncation after one step), it leaves theta_{t+1} with the derivative
- lr d_s g(theta_t, s). Nesterov's step is theta_t - lr (g' + mu b_t), with g' = g + wd theta_t, in
which g occurs 1 + mu times. By the chain rule,

    d L_out(theta_{t+1}(s), s; batch t+1) / ds
        = direct - lr c d_s <g(theta_t, s; batch t), v>,   c = 1 or, for Nesterov, 1 + mu.

Here v and direct are the gradients of L_out at theta_{t+1} and batch t + 1, which the regular step
t + 1 computes anyway, under the mask in force then. The inner product is differentiated at s_t, the
logits that the real step used.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dimlab.refusals import Refusal
from dimlab.training.objective import HeadGradient, Objective, Pass, Views, Weights


@dataclass(frozen=True, eq=False)
class Hypergradient:
    """The two parts of the mask's gradient, each of shape (D,)."""

    direct: Tensor
    second_order: Tensor

    @property
    def total(self) -> Tensor:
        """Return the gradient of the outer loss in the mask logits, shape (D,)."""
        return self.direct + self.second_order

    @property
    def cosine(self) -> float:
        """Return the cosine of the angle between the two parts; 0 where one of them is zero."""
        norms = self.direct.norm() * self.second_order.norm()
        return (self.direct @ self.second_order / norms).item() if norms > 0 else 0.0


@dataclass(frozen=True, eq=False)
class Trial:
    """One trial step of the network, which the mask is to make better; nothing in it is changed."""

    objective: Objective
    weights: Weights  # theta
    mask_logits: Tensor  # s, (D,)
    inner_views: Views  # two views of the batch that is stepped on, (B, C, H, W) each
    outer_views: Views  # two views of the batch that judges the step
    learning_rate: float
    inner_loss: str = "contrastive"  # or "total"
    outer_loss: str = "contrastive"
    drift: Weights | None = None  # of the weights that have one
    # the forward pass of the inner views at theta and the gradient of L_in, where they are at hand
    passed: Pass | None = None
    gradient: Weights | None = None
    moves_statistics: bool = False  # of BatchNorm, in the inner forward pass (official code)

    def __post_init__(self) -> None:
        if not self.learning_rate >= 0:
            raise Refusal(f"learning_rate must be >= 0; got {self.learning_rate}.")


def exact_hypergradient(trial: Trial) -> Hypergradient:
    """Return the exact hypergradient through one trial step."""
    objective = trial.objective
    passed, heads, direct, v = _trial_step(trial, keep_graph=True)
    if heads is None:
        heads = objective.head_gradient(
            trial.weights, passed.features, trial.mask_logits, trial.inner_loss
        )
    slope = objective.slope(passed, heads, v)
    return Hypergradient(direct, -trial.learning_rate * slope)


def finite_difference_hypergradient(trial: Trial, *, radius: float) -> Hypergradient:
    """Return the hypergradient with its second-order part by a central difference."""
    # radius: length of the step along v / |v|; 0.01 in the official code
    if not radius > 0:
        raise Refusal(f"radius must be > 0; got {radius}.")
    _, _, direct, v = _trial_step(trial)
    norm = torch.cat([each.flatten() for each in v.values()]).norm()
    if norm == 0:
        return Hypergradient(direct, torch.zeros_like(direct))
    step = radius / norm
    sides = [_mask_gradient(trial, _moved(trial.weights, v, sign * step)) for sign in (1, -1)]
    slope = (sides[0] - sides[1]) / (2 * step)
    return Hypergradient(direct, -trial.learning_rate * slope)


def first_order_hypergradient(trial: Trial) -> Hypergradient:
    """Return the direct part alone: the trial step's dependence on s is left out."""
    _, _, direct, _ = _trial_step(trial)
    return Hypergradient(direct, torch.zeros_like(direct))


def lookahead_hypergradient(
    objective: Objective,
    passed: Pass,  # of the regular step t, as are the next two
    weights: Weights,
    mask_logits: Tensor,
    v: Weights,  # of the regular step t + 1, as is the direct part (D,)
    direct: Tensor,
    *,
    learning_rate: float,  # lr c of step t
) -> Hypergradient:
    """Return the hypergradient through the step really taken, judged by the next batch."""
    heads = objective.head_gradient(weights, passed.features, mask_logits, "total")
    slope = objective.slope(passed, heads, v)
    return Hypergradient(direct, -learning_rate * slope)


def _trial_step(
    trial: Trial, *, keep_graph: bool = False
) -> tuple[Pass, HeadGradient | None, Tensor, Weights]:
    """Return the inner pass, its heads, and the gradients of L_out behind it in s and theta'."""
    objective = trial.objective
    passed, gradient, heads = trial.passed, trial.gradient, None
    if passed is None or gradient is None:
        leaves = leaves_of(trial.weights)
        moving = trial.moves_statistics
        passed = objective.forward(leaves, trial.inner_views, update_statistics=moving)
        heads = objective.head_gradient(
            leaves, passed.features, trial.mask_logits, trial.inner_loss,
            update_statistics=moving, keep_graph=keep_graph,
        )  # fmt: skip
        gradient = objective.through_encoder(heads, passed, leaves)
        # the tape is kept, the encoder's graph is not: two graphs at once would cost memory
        passed = passed.detached()
        del leaves
    if trial.drift is not None:
        gradient = {name: each + trial.drift[name] for name, each in gradient.items()}
    moved = leaves_of(_moved(trial.weights, gradient, -trial.learning_rate))
    del gradient
    s = trial.mask_logits.detach().requires_grad_()
    features = objective.forward(moved, trial.outer_views, remember=False).features
    v, direct = objective.gradients(objective.loss(moved, features, s, trial.outer_loss), moved, s)
    return passed, heads, direct, v


def _mask_gradient(trial: Trial, weights: Weights) -> Tensor:
    objective = trial.objective
    s = trial.mask_logits.detach().requires_grad_()
    with torch.no_grad():
        features = objective.forward(weights, trial.inner_views, remember=False).features
    loss = objective.loss(weights, features, s, trial.inner_loss)
    return objective.gradients(loss, {}, s)[1]


def _moved(weights: Weights, direction: Weights, step: float | Tensor) -> Weights:
    """Return weights moved along a direction; those without one stay."""
    # a clone keeps its strides, a sum need not: with one input channel channels-last would be lost,
    # and every layer behind such a convolution would run on a slow layout
    return {
        name: weight.detach().clone().add_(step * direction[name])
        if name in direction
        else weight.detach()
        for name, weight in weights.items()
    }


def leaves_of(weights: Weights) -> Weights:
    """Return the weights as leaves of new graphs, on the same memory."""
    return {name: weight.detach().requires_grad_() for name, weight in weights.items()}
