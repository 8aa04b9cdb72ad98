"""A meta-learned mask makes better features than the same network without it.

Claim: the tables of MetaMask (NeurIPS 2022), which say that it beats SimCLR, Barlow Twins and
others; the tables were not available. The official code reports the best epoch on the *test* split;
here the last step counts, hyper-parameters are chosen on validation, and test is read once.

Measured: accuracy of kNN (k = 5, cosine; masked features where the network was trained under a mask
that varies, as in the official code), of ridge and of logistic regression (unmasked: they relearn
any scale; logistic is fitted on 10,000 training images).

Effect: kNN accuracy of the best MetaMask (first-order, exact or lookahead) less that of the best
baseline (SimCLR, Barlow Twins, both, frozen mask, random mask, jointly trained mask), each chosen
on validation, on the test split, at equal steps, paired by seed. Smallest effect of interest,
stated beforehand: 0.01. Refuted by: an interval below 0.01.
(SimCLR + Barlow Twins and the frozen mask tie exactly on validation at the medium size; the first
in the list above counts. Rounding had chosen the frozen mask before, with -0.0004 for -0.0003.)
Controls: the learned mask against its own weights permuted; unmasked features; the mask frozen,
drawn at random (logits as spread as those of exact's choice), or trained jointly. Equal seconds:
steps by the seconds a step, measured side by side; all get the seconds of SimCLR + Barlow Twins,
with the hyper-parameters that were chosen for equal steps. Seconds within a tenth of each other
count as equal.

Hyper-parameters: `--search` gave every family with knobs eight configurations on validation, of
which the first is the default; `results/search.json` has all of them.

Departures from the paper: Fashion-MNIST and a small convnet (D = 128), 1,000 steps of 128 images.
The search is coarse: eight configurations, whether a family has two knobs or six, one seed, and a
binomial standard error of 0.005. The official finite difference is not among the families (see
`second_order_matters.py`); exact stands in its place. Not searched: the trial step, which is the
plain one, and the weight of the contrastive loss, whose ratio to the redundancy weight and the
learning rate are. The official trial step, with momentum and weight decay, was tried afterwards on
validation (`--vary trial_step`), where first-order was 0.5 points higher with it in three seeds,
which is undecided, and is asked for that family (those five rows were made on an Intel Xeon, all
others on an AMD EPYC).
The official protocol, the best epoch on test, is not reported beside the last step's: no run was
read on test along its way.
"""

import numpy as np

from dimlab import DimensionMask, encode, evaluate
from study import Study, best_of, check_whole, judged, main, paired

CLAIM = "MetaMask's features, masked, are read better by kNN than those of the best baseline."
SMALLEST = 0.01
UNIT = "accuracy"
BASELINES = ("simclr", "barlow-twins", "both", "frozen mask", "random mask", "joint")
METAMASKS = ("first-order", "exact", "lookahead")
OFFICIAL = "official trial step"
SMALL, MEDIUM = Study.small(), Study.medium()
NATURAL, PAPER = Study.natural(), Study.paper()


def measure(checkpoint, images, device):
    """Accuracy of the readers, masked and not, and how far the mask moved."""
    train, validation, test = (
        encode(checkpoint, images(split), device=device)
        for split in ("train", "validation", "test")
    )

    def knn(split, mask=None):
        sides = (train, split) if mask is None else (train.masked(mask), split.masked(mask))
        return float(evaluate(*sides, readers=("knn",), device=device).accuracy[0])

    has_mask = checkpoint.has_mask and np.ptp(checkpoint.mask.weights) > 0
    mask = checkpoint.mask if has_mask else None
    few = train.take(np.random.default_rng(0).permutation(len(train.features))[:10_000])
    row = {
        "validation": knn(validation, mask), "knn_unmasked": knn(test),
        "ridge": float(evaluate(train, test, readers=("ridge",), device=device).accuracy[0]),
        "logistic": float(evaluate(few, test, readers=("logistic",), device=device).accuracy[0]),
        "mask_std": float(np.std(checkpoint.mask.weights)) if has_mask else 0.0,
    }  # fmt: skip
    row["knn"] = row["knn_permuted"] = row["knn_unmasked"]
    if mask is not None:
        permuted = np.random.default_rng(checkpoint.config.seed).permutation(mask.weights)
        row["knn"] = knn(test, mask)
        row["knn_permuted"] = knn(test, DimensionMask(permuted))
    return row


def run(study):
    """One row a family, budget and seed."""
    runs = []
    for family in (*BASELINES, *METAMASKS):
        runs += study.runs(family, labels={"budget": "steps"})
        n_steps = study.steps_at_equal_seconds(family)
        if n_steps is not None:  # without a search no step was timed
            runs += study.runs(family, labels={"budget": "seconds"}, steps=n_steps, epochs=0)
    runs += study.runs("first-order", labels={"budget": OFFICIAL}, trial_step="optimiser")
    return study.table(runs, measure)


def judge(table):
    """Compare the best MetaMask with the best baseline, both chosen on validation."""
    timed = "budget" in table and bool((table["budget"] == "seconds").any())
    kinds = [
        (budget, family)
        for budget in ("steps", "seconds")[: 1 + timed]
        for family in (*BASELINES, *METAMASKS)
    ]
    measured = ["validation", "knn", "knn_unmasked", "knn_permuted"]
    measured += ["ridge", "logistic", "mask_std"]
    check_whole(
        table, "budget", "family", kinds=[*kinds, (OFFICIAL, "first-order")], measured=measured
    )

    def best(rows, families):
        return best_of(rows, "validation", families)[0]

    def against(claim, column="knn", budget="steps", better=None, worse=None):
        rows = table[table["budget"] == budget]
        better = better or best(rows, METAMASKS)
        worse = worse or best(rows, BASELINES)
        return judged(
            claim, paired(rows, column, better, worse), smallest_effect=SMALLEST, unit=UNIT,
            because=f"{better} against {worse}.",
        )  # fmt: skip

    at_steps = table[table["budget"] == "steps"]
    learned, baseline = best(at_steps, METAMASKS), best(at_steps, BASELINES)

    def by_seed(family):
        return at_steps[at_steps["family"] == family].set_index("seed")

    chosen = by_seed(learned)
    parts = [
        *([against("At equal seconds", budget="seconds")] if timed else []),
        against("Read by ridge", column="ridge"),
        against("Read by logistic regression", column="logistic"),
        against("kNN of unmasked features", column="knn_unmasked"),
        against("MetaMask against the same losses without a mask", worse="both"),
        against("MetaMask against a jointly trained mask", worse="joint"),
        judged("MetaMask against a random mask, read without it (asked afterwards)",
               by_seed(learned)["knn"] - by_seed("random mask")["knn_unmasked"],
               smallest_effect=SMALLEST, unit=UNIT),
        judged("The learned mask reads better than its weights permuted",
               chosen["knn"] - chosen["knn_permuted"], smallest_effect=SMALLEST, unit=UNIT),
        judged("Masking helps kNN: the learned mask against none on the same features",
               chosen["knn"] - chosen["knn_unmasked"], smallest_effect=SMALLEST, unit=UNIT),
        judged("First-order with the official trial step against the same losses without a mask "
               "(asked afterwards)",
               table[table["budget"] == OFFICIAL].set_index("seed")["knn"] - by_seed("both")["knn"],
               smallest_effect=SMALLEST, unit=UNIT),
    ]  # fmt: skip
    means = table.groupby(["budget", "family"], sort=False)["knn"].mean()
    return judged(
        CLAIM, paired(at_steps, "knn", learned, baseline), smallest_effect=SMALLEST, unit=UNIT,
        parts=parts,
        because="Chosen on validation: "
        + " and ".join(
            f"{name} ({best_of(at_steps, 'validation', families)[1]})"
            for name, families in ((learned, METAMASKS), (baseline, BASELINES))
        )
        + ". kNN on test"
        + ";".join(
            f" at equal {budget}: "
            + ", ".join(f"{family} {mean:.4f}" for family, mean in means[budget].items())
            for budget in ("steps", "seconds")[: 1 + timed]
        )
        + f". Standard deviation of {learned}'s mask weights: {chosen['mask_std'].mean():.3f}.",
    )  # fmt: skip


if __name__ == "__main__":
    main(CLAIM, run, judge, SMALL, MEDIUM, NATURAL, PAPER)
