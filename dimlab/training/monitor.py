"""How good the features are while they are trained: kNN and effective rank on validation images."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from torch import nn

from dimlab.cuts import keep_every_class
from dimlab.decoding import Slices, batches
from dimlab.images import ImageSet, labels_in
from dimlab.kernels.spectra import entropy_rank
from dimlab.readers import KNN
from dimlab.refusals import Refusal
from dimlab.training.augment import derived_seed, normalised
from dimlab.training.config import TrainConfig

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
        labels = labels_in(images, "for validate_every")
        self._labels = labels_in(validation, "for validate_every")
        chosen = keep_every_class(labels, order[:size], order[size:])
        self._config, self._validation = config, validation
        self._bank, self._bank_labels = images.take(np.sort(chosen)), labels[np.sort(chosen)]
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
            bank, rows_of_bank = self._encode(encoder, self._bank)
            queries, rows = self._encode(encoder, self._validation)
        finally:
            encoder.train()
        record = {}
        for name, mask in (("knn_accuracy", None), ("knn_accuracy_masked", weights)):
            kept = [each if mask is None else each * mask for each in (bank, queries)]
            reader = KNN(min(_NEIGHBOURS, len(bank))).fit(kept[0], self._bank_labels[rows_of_bank])
            record[name] = float((reader.classify(kept[1]) == self._labels[rows]).mean())
        values = np.linalg.svd(queries.astype(np.float64), compute_uv=False)  # not centred
        if values.any():
            record["effective_rank"] = entropy_rank(values)
        record["validation_seconds"] = time.perf_counter() - started
        return record

    def _encode(self, encoder: nn.Module, images: ImageSet) -> tuple[np.ndarray, np.ndarray]:
        """Return features and the rows that they are of: those that could be read."""
        parameter = next(encoder.parameters())
        blocks, read = [], []
        rows_at = Slices(0, len(images), _BATCH)
        for rows, pixels, _ in batches(
            images.images, rows_at, range(len(rows_at)), replace_bad=True
        ):
            batch = pixels.to(parameter.device, parameter.dtype) / 255
            with torch.inference_mode():
                features = encoder(normalised(batch, self._config.normalisation))
            blocks.append(features.float().cpu().numpy())
            read.append(rows)
        return np.concatenate(blocks), np.concatenate(read)
