"""Barlow Twins lowers the redundancy of SimCLR's features.

Claim: Fig. 1a of MetaMask (NeurIPS 2022), whose caption was read in full: on CIFAR-10 the features
of SimCLR and of the authors' method with redundancy reduction are shown as colours, and with it the
dimensions are said to be decoupled. The figure has no number; the measure is ours.

Measured: mean squared off-diagonal correlation of the test features, less what independent
dimensions would have at this sample size (`dimlab.correlate(..., within=True)`, mean of
`redundancy`; dead dimensions are left out and counted).

Effect: SimCLR less SimCLR + Barlow Twins, at SimCLR's own learning rate and temperature, so that
only the loss is added, with the weight that the search chose for both (small: kNN is what it looks
at); paired by seed. Smallest effect of interest, stated beforehand: 0.02.
Refuted by: an interval below 0.02, as where both are equally redundant.
A weight of 0.1 is asked too. It is the official code's, where the loss is a sum over 2048
dimensions, not 256 as here, so that it still pulls less than there.
Controls: the untrained network, which no loss has shaped; and the same losses with the off-diagonal
term's weight 0, than which the output of the loss's own projector, where it acts, must be less
redundant. That control shows that the term works, not that the loss does: without it the diagonal
term makes all outputs equal (0.97). So the same layer is asked against SimCLR too, whose projector
for this loss stays as it was drawn (asked afterwards).

Departures from the paper: Fashion-MNIST, a convnet of three layers with D = 128, augmentation
without blur, 1,000 steps of 128 images; its figure is of CIFAR-10 and ResNet-18. `--paper` has
these.
"""

import numpy as np

from dimlab import correlate, decompose, encode
from dimlab.training.loop import untrained
from study import Study, check_whole, judged, main, paired

CLAIM = "Adding the redundancy-reduction loss lowers the squared correlation between dimensions."
SMALLEST = 0.02
UNIT = "mean squared correlation"
TENTH = 0.1  # the official code weighs the two losses 10 to 1, at width 2048
SMALL, MEDIUM = Study.small(), Study.medium()
NATURAL, PAPER = Study.natural(), Study.paper()


def measure(checkpoint, images, device):
    """Redundancy and effective rank of the test features, trained and untrained."""
    start = untrained(checkpoint.config, images("train"))
    places = {
        "": (checkpoint, "encoder"),
        "untrained_": (start, "encoder"),
        "projector_": (checkpoint, "projector-contrastive"),
        "loss_": (checkpoint, "projector-redundancy"),
    }
    row = {}
    for name, (each, layer) in places.items():
        test = encode(each, images("test"), layer=layer, device=device)
        found = correlate(test, within=True, n_draws=2)
        row[f"{name}redundancy"] = float(np.nanmean(found.redundancy))
        row[f"{name}effective_rank"] = decompose(test, centred=True).effective_rank
        row[f"{name}n_dead"] = int(np.sum(found.dead))
    return row


def run(study):
    """One row a way of training and seed."""
    simclr = study.runs("simclr", labels={"kind": "simclr"})
    same = {name: getattr(simclr[0].config, name) for name in ("learning_rate", "temperature")}
    tenth = TENTH * study.config.contrastive_weight
    kinds = [
        simclr,
        study.runs("both", labels={"kind": "loss added"}, **same),
        study.runs("both", labels={"kind": "no off-diagonal"}, off_diagonal_weight=0.0, **same),
        study.runs("both", labels={"kind": "weight 0.1"}, redundancy_weight=tenth, **same),
        study.runs("both", labels={"kind": "both, own choice"}),
        study.runs("barlow-twins", labels={"kind": "barlow-twins"}),
    ]
    # without a search, or with the official weight, some are the same training as one before
    different = {}
    for runs in kinds:
        different.setdefault(runs[0].key, runs)
    return study.table([run for runs in different.values() for run in runs], measure)


def judge(table):
    """SimCLR less SimCLR + Barlow Twins."""
    measured = [f"{name}redundancy" for name in ("", "untrained_", "projector_", "loss_")]
    check_whole(
        table, "kind", kinds=("simclr", "loss added", "no off-diagonal", "barlow-twins"),
        measured=[*measured, "effective_rank", "n_dead"],
    )  # fmt: skip
    means = table.groupby("kind")["redundancy"].mean()
    dead = table.groupby("kind")["n_dead"].mean()
    behind = table.groupby("kind")["loss_redundancy"].mean()

    def lower(claim, kind):
        """Judge a kind, where it is a training of its own."""
        if kind not in means.index:
            return []
        differences = paired(table, "redundancy", "simclr", kind, label="kind")
        return [judged(claim, differences, smallest_effect=SMALLEST, unit=UNIT)]

    simclr = table[table["kind"] == "simclr"]
    logs = table.assign(log_rank=np.log(table["effective_rank"]))
    parts = [
        *lower("Also with hyper-parameters of its own, both losses are less redundant than SimCLR",
               "both, own choice"),
        *lower("Weighted by 0.1, the added loss lowers it (asked afterwards)", "weight 0.1"),
        *lower("Barlow Twins alone is less redundant than SimCLR", "barlow-twins"),
        judged("The added loss raises the effective rank",
               paired(logs, "log_rank", "loss added", "simclr", label="kind"),
               smallest_effect=0.05, unit="log effective rank"),
        judged("The added loss lowers it behind the contrastive projector too",
               paired(table, "projector_redundancy", "simclr", "loss added", label="kind"),
               smallest_effect=SMALLEST, unit=UNIT),
        judged("Behind its own projector its off-diagonal term does (control, asked afterwards)",
               paired(table, "loss_redundancy", "no off-diagonal", "loss added", label="kind"),
               smallest_effect=SMALLEST, unit=UNIT),
        judged("Behind its own projector, which SimCLR leaves as it was drawn, the added loss "
               "lowers it (asked afterwards)",
               paired(table, "loss_redundancy", "simclr", "loss added", label="kind"),
               smallest_effect=SMALLEST, unit=UNIT),
        judged("Training with SimCLR makes the untrained network's features more redundant",
               simclr["redundancy"] - simclr["untrained_redundancy"],
               smallest_effect=SMALLEST, unit=UNIT),
    ]  # fmt: skip
    return judged(
        CLAIM, paired(table, "redundancy", "simclr", "loss added", label="kind"),
        smallest_effect=SMALLEST, unit=UNIT, parts=parts,
        because="Test split, read once; mean redundancy: untrained "
        f"{simclr['untrained_redundancy'].mean():.4f}, "
        + ", ".join(f"{kind} {mean:.4f}" for kind, mean in means.items())
        + "; dead dimensions: "
        + ", ".join(f"{kind} {mean:.1f}" for kind, mean in dead.items())
        + "; behind the loss's own projector: "
        + ", ".join(f"{kind} {mean:.4f}" for kind, mean in behind.items())
        + ".",
    )  # fmt: skip


if __name__ == "__main__":
    main(CLAIM, run, judge, SMALL, MEDIUM, NATURAL, PAPER)
