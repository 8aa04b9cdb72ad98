"""All settings of a training run, in one frozen value."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any

from dimlab.refusals import Refusal

METHODS = ("metamask", "simclr+barlow-twins", "simclr", "barlow-twins")
HYPERGRADIENTS = ("exact", "lookahead", "finite_difference", "first_order", "joint", "none")
CUSTOM = "custom:"  # how a loss that dimlab does not ship stands in JSON


@dataclass(frozen=True)
class TrainConfig:
    """Configuration of a training run; change one field with ``dataclasses.replace``.

    Every field has its docstring beneath it, with its range; what is said of the official code is
    of that of [1]_. Rates and weights have no unit; lengths are in steps, epochs or images.

    Raises
    ------
    ValueError
        If a field is of another type, or outside the range that its docstring gives.

    References
    ----------
    .. [1] Li et al., "MetaMask: Revisiting Dimensional Confounder for Self-Supervised Learning",
       NeurIPS 2022, and its code.

    Examples
    --------
    >>> from dataclasses import replace
    >>> short = replace(TrainConfig.small(), steps=10)
    >>> short.steps, TrainConfig.medium() == TrainConfig(), TrainConfig.official().temperature
    (10, True, 0.07)
    >>> TrainConfig.from_dict(short.to_dict()) == short
    True
    """

    method: str = "metamask"
    """``metamask`` (both losses and the learned mask), ``simclr+barlow-twins`` (both, no mask),
    ``simclr``, ``barlow-twins``."""
    encoder: str = "convnet"
    """``convnet``, ``resnet18``, ``resnet34``, ``resnet50``, or a vision transformer, ``vit_tiny``
    or ``vit_small``."""
    stem: str = "cifar"
    """First layers of a ResNet: ``cifar`` (3x3, stride 1, no max-pooling) or ``imagenet``. Patches
    of a ViT: 4 x 4 pixels, or with ``imagenet`` 16 x 16."""
    stem_relu: bool = True
    """Whether a ResNet's stem ends in its ReLU. The official code loses it: its ``Sequential`` is
    made of children, and that ReLU is a function call."""
    initialisation: str = "kaiming"
    """How a ResNet's convolutions are drawn: ``kaiming`` (normal, by the outputs, as torchvision
    does) or ``torch`` (uniform, the default of ``nn.Conv2d``: official code). The convnet and the
    projectors always have torch's defaults."""
    n_dimensions: int = 128
    """D of the convnet, a multiple of 4. The others ignore it: a ResNet has 512 or 2048, a ViT 192
    (tiny) or 384 (small)."""
    hidden: int = 256
    """Width of the projectors' hidden layers."""
    contrastive_width: int = 128
    """P of the contrastive projector (two layers)."""
    redundancy_width: int = 256
    """P of the redundancy-reduction projector (three layers)."""
    steps: int = 1000
    """Training steps, >= 0; 0 sets no limit: `epochs` must. Where both are set, the run ends at
    the first of the two."""
    epochs: int = 0
    """Epochs of the training images, >= 0; 0 sets no limit. An epoch has as many steps as there are
    whole batches (`n_steps`)."""
    batch_size: int = 256
    """Images of a step (B), >= 2 and at most the number of training images."""
    contrastive: str | Callable[..., Any] = "nt_xent_loss"
    """The contrastive loss: a name in ``dimlab.training.losses.__all__``, or any function
    ``loss(z_a, z_b) -> scalar`` of two batches of projections. One that takes ``temperature`` is
    given it."""
    temperature: float = 0.2
    """Temperature of NT-Xent, > 0. The official code has 0.07 whatever its flag says."""
    contrastive_weight: float = 1.0
    """Weight of NT-Xent in the regular loss (alpha), >= 0. The official code has 10, at a learning
    rate of 1e-3."""
    redundancy_weight: float = 0.01
    """Weight of the Barlow Twins loss in the regular loss, >= 0. That loss is a sum over
    projection dimensions: with a weight of 1 it drowns NT-Xent (measured on Fashion-MNIST, 400
    steps)."""
    off_diagonal_weight: float = 5e-3
    """Weight of the off-diagonal part within the Barlow Twins loss (lambda), >= 0."""
    barlow_statistics: str = "biased"
    """``biased`` (BatchNorm's deviations, identical views correlate to 1) or ``unbiased`` (official
    code: unbiased deviations, then divided by B, so that no correlation passes (B - 1) / B)."""
    optimiser: str = "sgd"
    """``sgd`` or ``adamw``, of encoder and projectors. With ``adamw`` every trial step is a plain
    SGD step."""
    learning_rate: float = 0.15
    """Peak learning rate of encoder and projectors, > 0; cosine to 0 over the run."""
    momentum: float = 0.9
    """Momentum of SGD, in [0, 1)."""
    nesterov: bool = False
    """Whether SGD's momentum is Nesterov's."""
    weight_decay: float = 5e-4
    """Weight decay of encoder and projectors, >= 0."""
    clip_norm: float = 0.0
    """Largest norm of the whole gradient; a longer one is scaled down to it; 0 never clips."""
    warmup_steps: int = 0
    """Steps of linear warm-up of both learning rates, >= 0 and fewer than the run has."""
    schedule: str = "step"
    """When the cosine moves: every ``step``, or every ``epoch`` (official code)."""
    hypergradient: str = "exact"
    """How the mask's gradient is taken: ``exact`` (through one trial step), ``lookahead`` (through
    the real step, judged by the next batch), ``finite_difference`` (official code),
    ``first_order`` (the second-order part left out), ``joint`` (the regular loss: the control),
    ``none`` (frozen mask)."""
    finite_difference_radius: float = 0.01
    """Length of the step of ``finite_difference``, > 0. The official code has 0.01, across which
    ReLUs of the projector change sign: `dimlab.training.second_order` measures the error."""
    trial_loss: str = "contrastive"
    """Loss that the trial step descends: ``contrastive`` (unweighted, official code) or ``total``
    (the regular loss)."""
    outer_loss: str = "contrastive"
    """Loss that the mask is to lower after the trial step: ``contrastive`` or ``total``."""
    trial_step: str = "plain"
    """``plain`` SGD, or ``optimiser``: with momentum and weight decay as SGD would step (official
    code)."""
    meta_position: str = "after"
    """Weights that the trial step starts from: ``after`` the regular update (official code), or
    ``before`` it, which shares the regular step's forward pass."""
    meta_batch: str = "same"
    """Batch of the outer loss: the ``same`` two views (official code), or ``held-out``: the next
    batch. ``lookahead`` always takes the next batch."""
    meta_every: int = 1
    """Steps from one move of the mask to the next, >= 1; the steps between cost what they cost
    without a mask. ``lookahead`` judges the step just before each move."""
    masked_heads: str = "both"
    """Projectors that see masked features: ``both`` (official code) or ``contrastive``."""
    meta_moves_statistics: bool = False
    """Whether the trial step's first forward moves BatchNorm's running statistics, both projectors'
    too (official code: four updates a step instead of two)."""
    mask: str = "sigmoid"
    """``sigmoid`` of logits that start at 0 (all weights 0.5), or ``raw`` weights that start at
    1."""
    mask_learning_rate: float = 5.0
    """Learning rate of the mask (SGD), >= 0, on the same schedule. The official code has 1e-3,
    with which the mask hardly moves in a short run; only ratios of weights matter."""
    mask_momentum: float = 0.9
    """Momentum of the mask's SGD, in [0, 1)."""
    mask_weight_decay: float = 0.0
    """Weight decay of the mask, >= 0. On logits it pulls every weight to 0.5 (the official code
    has 5e-4)."""
    crop_scale: float = 0.4
    """Smallest share of the image's area that a random crop keeps, in (0, 1]."""
    flip: float = 0.5
    """Probability of a horizontal flip."""
    jitter: float = 0.8
    """Probability of colour jitter (brightness and contrast; for colour images also saturation and
    hue)."""
    jitter_strength: float = 0.2
    """Brightness, contrast and saturation are multiplied by 1 +- this, hue moves by +- a quarter
    of it; in [0, 1]."""
    grey: float = 0.2
    """Probability of turning a colour image grey."""
    normalisation: str = "none"
    """Of the pixels in [0, 1], behind the augmentation: ``none``, or ``imagenet`` means and
    deviations (official code; colour images only)."""
    precision: str = "float32"
    """``float32``, ``bfloat16`` (autocast in the encoder: weights, projectors, losses, mask and the
    features' mean over pixels stay float32) or ``float64``. The mask's gradient against float64,
    measured on a CPU with the convnet, 28 px, batches of 128 and 256: float32 is off by at most
    0.2 % on an untrained network and 0.02 % after 60 steps; bfloat16 by 28-80 % on an untrained
    one, whose second-order part any rounding changes, and 5-15 % after 15-60 steps. An untrained
    ResNet-18 amplifies rounding: float32 was off by 45 % there and bfloat16 by more than the
    gradient's own size; after 8 steps by 0.1 % and 14 %."""
    trace_every: int = 10
    """Record mask and losses every so many steps (and at the first and the last), >= 1."""
    validate_every: int = 0
    """Epochs between kNN evaluations of the validation images; 0 never evaluates."""
    validation_bank: int = 10_000
    """How many training images vote in these evaluations, drawn once, >= 0; 0: all of them
    (official code). A class that was not drawn keeps one image."""
    checkpoint_every: int = 100
    """Steps between checkpoints of a run that has a folder, >= 1; also written at the end."""
    keep_checkpoints: bool = False
    """Keep each of them as ``checkpoint-<step>.pt`` too, to be compared with each other."""
    seed: int = 0
    """Seed of weights, data order and augmentation, >= 0."""

    def __post_init__(self) -> None:
        from dimlab.training.encoders import NAMES

        for name, known in {**_CHOICES, "encoder": NAMES}.items():
            _one_of(name, getattr(self, name), known)
        _check_loss(self.contrastive)
        for name, kind in TrainConfig.__annotations__.items():
            value = getattr(self, name)
            if name == "contrastive":
                continue
            wanted = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,)}[kind]
            if isinstance(value, bool) != (kind == "bool") or not isinstance(value, wanted):
                raise Refusal(f"{name} must be {kind}; got {value!r}.")
            if not isinstance(value, str) and not abs(value) < float("inf"):
                raise Refusal(f"{name} must be finite; got {value}.")
        for name, (low, high, low_open, high_open) in _RANGES.items():
            value = getattr(self, name)
            above = value > low if low_open else value >= low
            below = value < high if high_open else value <= high
            if not (above and below):
                raise Refusal(f"{name} must {_range_in_words(*_RANGES[name])}; got {value}.")
        if self.n_dimensions % 4:
            raise Refusal(f"n_dimensions must be a multiple of 4; got {self.n_dimensions}.")
        if not (self.steps or self.epochs):
            raise Refusal("steps must be >= 1; got 0. With steps=0, epochs must be >= 1.")
        if self.steps and not self.warmup_steps < self.steps:
            raise Refusal(f"warmup_steps must be < steps ({self.steps}); got {self.warmup_steps}.")
        if self.nesterov and not self.momentum > 0:
            raise Refusal("nesterov must have a momentum > 0; got momentum 0.")
        if self.meta_moves_statistics and self.meta_position == "before":
            raise Refusal(
                "meta_moves_statistics must be False with meta_position='before', which has no "
                "forward pass of its own; got True."
            )
        if self.hypergradient == "lookahead" and self.optimiser != "sgd":
            raise Refusal(
                "hypergradient='lookahead' must have optimiser='sgd', whose step it unrolls; "
                f"got {self.optimiser!r}. Use 'exact'."
            )

    @classmethod
    def small(cls) -> TrainConfig:
        """Return the configuration of the demo: digits, 300 steps, half a minute on 2 cores.

        Returns
        -------
        TrainConfig
            No flips (a mirrored digit is another shape). The mask rate is chosen so that the
            standard deviation of the weights passes 0.05 within the run.
        """
        return cls(
            n_dimensions=64,
            hidden=128,
            contrastive_width=64,
            redundancy_width=128,
            steps=300,
            batch_size=128,
            flip=0.0,
            mask_learning_rate=1.0,
            trace_every=5,
        )

    @classmethod
    def medium(cls) -> TrainConfig:
        """Return the configuration for Fashion-MNIST and the convnet on 2 CPU cores.

        Returns
        -------
        TrainConfig
            1,000 steps of 256 images, some minutes.
        """
        return cls()

    @classmethod
    def official(cls) -> TrainConfig:
        """Return the official code's hyper-parameters and every one of its switches.

        Returns
        -------
        TrainConfig
            For CIFAR-10: ResNet-18, 800 epochs of the images at hand; days on a CPU, hours on one
            GPU.

        Notes
        -----
        One step from given weights and views equals the official step (tested). These differences
        remain:

        - Images. The official code trains on all 50,000 training images (97 steps an epoch) and
          evaluates on test. Here a stratified 10 % of them is the validation split, so that 45,000
          are trained on (87 steps an epoch), and test is read by no training.
        - Evaluation. Its kNN (k = 5, temperature 1, the whole training split votes, here too)
          compares queries with features of the epoch before; here both are of the same weights. It
          reports the best epoch on test; here every evaluation is recorded and the last step
          counts.
        - Random numbers. The seed is its seed, but weights, order of the images and augmentation
          are drawn by other generators, so that the numbers differ.
        - Augmentation. It works on 8-bit images and rounds after each operation; here on
          floating-point ones. It draws the order of the four colour operations for each image; here
          it is drawn once for each view of a batch.
        - Network. It has two prediction heads that no loss uses; here they are left out.
        - Arithmetic. It subtracts 1e9 from the logits of the pairs that NT-Xent leaves out; here
          they are minus infinity, which is the same in float32.
        - ``n_dimensions`` is not used: ResNet-18 has 512. ``trace_every``,
          ``checkpoint_every`` and ``keep_checkpoints`` say what is recorded, and change no number.
        """
        return cls(
            encoder="resnet18",
            stem_relu=False,
            initialisation="torch",
            hidden=2048,
            contrastive_width=256,
            redundancy_width=2048,
            steps=0,
            epochs=800,
            batch_size=512,
            temperature=0.07,
            contrastive_weight=10.0,
            redundancy_weight=1.0,
            barlow_statistics="unbiased",
            learning_rate=1e-3,
            schedule="epoch",
            hypergradient="finite_difference",
            trial_step="optimiser",
            meta_moves_statistics=True,
            mask_learning_rate=1e-3,
            mask_weight_decay=5e-4,
            crop_scale=0.08,
            jitter_strength=0.4,
            normalisation="imagenet",
            trace_every=100,
            validate_every=1,
            validation_bank=0,
            checkpoint_every=1000,
            seed=1,
        )

    def n_steps(self, n_images: int) -> int:
        """Return how many steps a run on so many images takes.

        Parameters
        ----------
        n_images : int
            Training images.

        Returns
        -------
        int
            ``steps``, or the whole batches of ``epochs`` epochs, whichever is fewer and set.

        Examples
        --------
        >>> TrainConfig(steps=0, epochs=3, batch_size=64).n_steps(200)  # three batches an epoch
        9
        >>> TrainConfig.official().n_steps(50_000), TrainConfig(steps=400).n_steps(50_000)
        (77600, 400)
        """
        limits = [self.steps] if self.steps else []
        if self.epochs:
            limits.append(self.epochs * (n_images // self.batch_size))
        return min(limits)

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as plain values; a loss of your own is named, not kept.

        Returns
        -------
        dict
            One entry a field, in their order: str, int, float or bool.
        """
        values = asdict(self)
        if callable(self.contrastive):
            values["contrastive"] = _name_of(self.contrastive)
        return values

    def to_json(self) -> str:
        """Return the configuration as JSON, one key a field.

        Returns
        -------
        str
            One line.

        Examples
        --------
        >>> TrainConfig(steps=10, method="simclr").to_json()[:46]
        '{"method": "simclr", "encoder": "convnet", "st'
        """
        return json.dumps(self.to_dict())

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainConfig:
        """Build a configuration from a mapping, as read from JSON or TOML.

        Parameters
        ----------
        values : dict
            Field names and values; fields that are left out have their defaults.

        Returns
        -------
        TrainConfig
            Validated.

        Raises
        ------
        ValueError
            If a key is no field, or a value is of another type or out of range.

        Examples
        --------
        >>> TrainConfig.from_dict({"method": "simclr", "steps": 10}).batch_size  # the default
        256
        """
        known = {each.name for each in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise Refusal(f"config must have only the fields of TrainConfig; got {unknown[0]!r}.")
        return cls(**values)


_CHOICES: dict[str, tuple[str, ...]] = {
    "method": METHODS,
    "stem": ("cifar", "imagenet"),
    "initialisation": ("kaiming", "torch"),
    "barlow_statistics": ("biased", "unbiased"),
    "optimiser": ("sgd", "adamw"),
    "schedule": ("step", "epoch"),
    "hypergradient": HYPERGRADIENTS,
    "trial_loss": ("contrastive", "total"),
    "outer_loss": ("contrastive", "total"),
    "trial_step": ("plain", "optimiser"),
    "meta_position": ("after", "before"),
    "meta_batch": ("same", "held-out"),
    "masked_heads": ("both", "contrastive"),
    "mask": ("sigmoid", "raw"),
    "normalisation": ("none", "imagenet"),
    "precision": ("float32", "bfloat16", "float64"),
}
_INFINITY = float("inf")
_RANGES: dict[str, tuple[float, float, bool, bool]] = {  # low, high, low is open, high is open
    "n_dimensions": (4, _INFINITY, False, False),
    "hidden": (1, _INFINITY, False, False),
    "contrastive_width": (1, _INFINITY, False, False),
    "redundancy_width": (2, _INFINITY, False, False),
    "steps": (0, _INFINITY, False, False),
    "epochs": (0, _INFINITY, False, False),
    "batch_size": (2, _INFINITY, False, False),
    "temperature": (0, _INFINITY, True, False),
    "contrastive_weight": (0, _INFINITY, False, False),
    "redundancy_weight": (0, _INFINITY, False, False),
    "off_diagonal_weight": (0, _INFINITY, False, False),
    "learning_rate": (0, _INFINITY, True, False),
    "momentum": (0, 1, False, True),
    "weight_decay": (0, _INFINITY, False, False),
    "warmup_steps": (0, _INFINITY, False, False),
    "clip_norm": (0, _INFINITY, False, False),
    "finite_difference_radius": (0, _INFINITY, True, False),
    "mask_learning_rate": (0, _INFINITY, False, False),
    "mask_momentum": (0, 1, False, True),
    "mask_weight_decay": (0, _INFINITY, False, False),
    "crop_scale": (0, 1, True, False),
    "flip": (0, 1, False, False),
    "jitter": (0, 1, False, False),
    "jitter_strength": (0, 1, False, False),
    "grey": (0, 1, False, False),
    "meta_every": (1, _INFINITY, False, False),
    "trace_every": (1, _INFINITY, False, False),
    "validate_every": (0, _INFINITY, False, False),
    "validation_bank": (0, _INFINITY, False, False),
    "checkpoint_every": (1, _INFINITY, False, False),
    "seed": (0, 2**63 - 1, False, False),
}


def _range_in_words(low: float, high: float, low_open: bool, high_open: bool) -> str:
    if high == _INFINITY:
        return f"be {'>' if low_open else '>='} {low:g}"
    return f"lie in {'(' if low_open else '['}{low:g}, {high:g}{')' if high_open else ']'}"


def _one_of(name: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        raise Refusal(f"{name} must be one of {', '.join(known)}; got {value!r}.")


def _check_loss(loss: str | Callable[..., Any]) -> None:
    if callable(loss) or (isinstance(loss, str) and loss.startswith(CUSTOM)):
        return
    from dimlab.training import losses

    known = tuple(name for name in losses.__all__ if name.endswith("_loss"))
    if loss not in known:
        raise Refusal(f"contrastive must be a function or one of {', '.join(known)}; got {loss!r}.")


def _name_of(loss: Callable[..., Any]) -> str:
    from dimlab.training import losses

    name = getattr(loss, "__name__", type(loss).__name__)
    if getattr(losses, name, None) is loss:
        return name
    return f"{CUSTOM}{getattr(loss, '__module__', '')}.{name}"
