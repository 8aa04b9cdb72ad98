"""The risk bound orders methods as their risk does.

Claim: the theorem of MetaMask (NeurIPS 2022) bounds the downstream risk of masked features by the
contrastive loss and within-class variances, and argues that the mask makes the bound tighter. Its
statement was not available; the form measured here is inferred (see `dimlab.bound_risk`). Loose
bounds may hold and still say nothing of which method is better; that is what is asked here.

Effect: Kendall's tau between the upper bound (256 negatives) and the cross-entropy of the mean
classifier (less the entropy of the class shares, so that it may be negative), over nine ways of
training (masked where the mask varies), on test; one number a seed.
Smallest effect of interest, stated beforehand: 0.5. Refuted by: an interval below 0.5.
Controls: tau of the contrastive loss alone, and of the variance term alone.

The mask: is the within-class variance smaller under the learned mask than the mean under its
weights permuted, which mean nothing, and is the risk? Permuted weights are other than those the
network was trained under, learned or not; so a mask drawn at random, which never learned, is the
control, and what the learned ones have beyond it is asked too (both asked afterwards).

The lower bound: the paper is said to conclude that the masked one is larger. It is compared with
that of the same losses without a mask, another training with hyper-parameters of its own, and its
order with the risk's. Asked afterwards, with smallest effects of 0.05 (that of the variances) and
0.5.

Departures from the paper: Fashion-MNIST and a small convnet (D = 128), 1,000 steps of 128 images;
temperature 0.2. The paper compares masked features with the same ones unmasked, in their variance
within classes and in the bounds; that is not measured here, as the kept rows have no unmasked terms
of a network that has a mask.
"""

import numpy as np
from scipy.stats import kendalltau

from dimlab import bound_risk, encode
from study import FAMILIES, Study, check_whole, judged, main

CLAIM = "Methods with a smaller upper bound have a smaller risk."
SMALLEST = 0.5
UNIT = "Kendall's tau"
NEGATIVES = 256
METAMASKS = ("first-order", "exact", "lookahead")
CONTROL = ("random mask",)
SMALL, MEDIUM = Study.small(), Study.medium()
NATURAL, PAPER = Study.natural(), Study.paper()


def measure(checkpoint, images, device):
    """Terms of the bound, under the learned mask where there is one, and its controls."""
    test = encode(checkpoint, images("test"), n_views=2, device=device)
    learned = checkpoint.has_mask and np.ptp(checkpoint.mask.weights) > 0
    found = bound_risk(
        test, mask=checkpoint.mask if learned else None, n_negatives=NEGATIVES, temperature=0.2,
        n_bootstrap=20,
    )  # fmt: skip
    place = found.masks.index("learned" if learned else "none")
    row = {
        # of the sample, as those under permuted masks are
        name: float(found.of(name, found.in_sample).reshape(len(found.masks), -1)[place, 0])
        for name in ("cross_entropy", "nce", "upper", "lower", "class_variance")
    }
    row["held"] = bool(found.held[place].all())
    permuted = found.permuted_variance, found.permuted_cross_entropy
    for name, values in zip(("class_variance", "cross_entropy"), permuted, strict=True):
        row[f"permuted_{name}"] = float(np.mean(values)) if learned else row[name]
    return row


def run(study):
    """One row a family and seed."""
    return study.table([run for family in FAMILIES for run in study.runs(family)], measure)


def judge(table):
    """Kendall's tau of the upper bound and the risk over families."""
    terms = ["cross_entropy", "nce", "upper", "lower", "class_variance"]
    measured = [*terms, "held", "permuted_class_variance", "permuted_cross_entropy"]
    check_whole(table, "family", kinds=FAMILIES, measured=measured, further=False)

    def tau(rows, column):
        # where all tie, as behind a constant, there is no order
        ties = min(rows[column].nunique(), rows["cross_entropy"].nunique()) == 1
        return 0.0 if ties else float(kendalltau(rows[column], rows["cross_entropy"]).statistic)

    def taus(column):
        return [tau(rows, column) for _, rows in table.groupby("seed")]

    def mean_of(values, families):
        """One number a seed."""
        return values[table["family"].isin(families)].groupby(table["seed"]).mean()

    def below_permuted(name, families=METAMASKS):
        return mean_of(table[f"permuted_{name}"] - table[name], families)

    def contrasts(name, **judging):
        """Judge the learned mask, the random one, and what the first has beyond the second."""
        less, of = {
            "class_variance": ("less variance", " within classes"),
            "cross_entropy": ("a smaller risk", ""),
        }[name]
        learned, random = (below_permuted(name, families) for families in (METAMASKS, CONTROL))
        ways = [judged(way, below_permuted(name, (way,)), **judging) for way in METAMASKS]
        by_way = [
            f"{each.claim} {each.effect:+.4f} [{each.ci_low:+.4f}, {each.ci_high:+.4f}] "
            f"({each.answer})"
            for each in ways
        ]
        return [
            judged(f"The learned mask has {less}{of} than its weights permuted", learned,
                   because=f"By way (asked afterwards): {', '.join(by_way)}.", **judging),
            judged(f"A random mask, never learned, has {less}{of} than permuted (control, asked "
                   "afterwards)", random, **judging),
            judged(f"The learned mask has {less} than permuted by more than the random one "
                   "(asked afterwards)", learned - random, **judging),
        ]  # fmt: skip

    parts = [
        judged("The contrastive loss alone orders them so", taus("nce"),
               smallest_effect=SMALLEST, unit=UNIT),
        judged("The variance within classes alone orders them so", taus("class_variance"),
               smallest_effect=SMALLEST, unit=UNIT),
        *contrasts("class_variance", smallest_effect=0.05, unit="variance over temperature"),
        *contrasts("cross_entropy", smallest_effect=0.01, unit="nats"),
        judged("The lower bound is larger with a learned mask than with the same losses without a "
               "mask (asked afterwards)",
               mean_of(table["lower"], METAMASKS) - mean_of(table["lower"], ("both",)),
               smallest_effect=0.05, unit="nats"),
        judged("Methods with a smaller lower bound have a smaller risk (asked afterwards)",
               taus("lower"), smallest_effect=SMALLEST, unit=UNIT),
    ]  # fmt: skip
    means = table.groupby("family", sort=False)[["upper", "cross_entropy"]].mean()
    return judged(
        CLAIM, taus("upper"), smallest_effect=SMALLEST, unit=UNIT, parts=parts,
        because=f"The inferred bound held in {table['held'].sum()} of {len(table)} runs. Upper "
        "bound and risk: "
        + ", ".join(
            f"{family} {row.upper:.3f}, {row.cross_entropy:.3f}" for family, row in means.iterrows()
        )
        + ".",
    )  # fmt: skip


if __name__ == "__main__":
    main(CLAIM, run, judge, SMALL, MEDIUM, NATURAL, PAPER)
