"""How good the features are while they are trained: kNN and effective rank on validation images."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from dimlab.cuts import keep_every_class
from dimlab.kernels.spectra import entropy_rank
from dimlab.readers import KNN
from dimlab.refusals import Refusal
from dimlab.training.augment import derived_seed, normalised
from dimlab.training.config import TrainConfig

if TYPE_CHECKING:
    from dimlab.images import ImageSet

_BANK = 4  # a stream of randomness
_NEIGHBOURS = 5
_BATCH = 512


class Monitor:
    """Evaluates the encoder on a validation split every few epochs; never on the test split."""

    def __init__(self, config: TrainConfig, images: ImageSet, validation: ImageSet) -> None:
        if images.images.shape[1:] != validation.images.shape[1:]:
            raise Refusal(
                f"validation must have images of shape {images.images.shape[1:]}; "
                f"got {validation.images.shape[1:]}."
            )
        rng = np.random.default_rng(derived_seed(config.seed, _BANK))
        order, size = rng.permutation(len(images)), config.validation_bank or len(images)
        chosen = keep_every_class(images.labels, order[:size], order[size:])
        self._config, self._validation = config, validation
        self._bank = images.take(np.sort(chosen))
        self._n_steps = config.n_steps(len(images))
        self._every = config.validate_every * (len(images) // config.batch_size)

    def is_due(self, step: int) -> bool:
        """Return whether to evaluate after this many steps: every few epochs, and at the end."""
        return step % self._every == 0 or step == self._n_steps

    def measure(self, network: nn.ModuleDict, weights: np.ndarray) -> dict[str, Any]:
        """Return kNN accuracies, plain and under mask weights (D,), and the effective rank."""
        started = time.perf_counter()
        encoder = network["encoder"]
        encoder.eval()
        try:
            bank, queries = (self._encode(encoder, each) for each in (self._bank, self._validation))
        finally:
            encoder.train()
        record = {}
        for name, mask in (("knn_accuracy", None), ("knn_accuracy_masked", weights)):
            kept = [each if mask is None else each * mask for each in (bank, queries)]
            reader = KNN(min(_NEIGHBOURS, len(bank))).fit(kept[0], self._bank.labels)
            record[name] = float((reader.classify(kept[1]) == self._validation.labels).mean())
        values = np.linalg.svd(queries.astype(np.float64), compute_uv=False)  # not centred
        if values.any():
            record["effective_rank"] = entropy_rank(values)
        record["validation_seconds"] = time.perf_counter() - started
        return record

    def _encode(self, encoder: nn.Module, images: ImageSet) -> np.ndarray:
        parameter = next(encoder.parameters())
        blocks = []
        for start in range(0, len(images), _BATCH):
            pixels = torch.from_numpy(np.array(images.images[start : start + _BATCH]))
            batch = pixels.to(parameter.device, parameter.dtype) / 255
            with torch.inference_mode():
                features = encoder(normalised(batch, self._config.normalisation))
            blocks.append(features.float().cpu().numpy())
        return np.concatenate(blocks)
