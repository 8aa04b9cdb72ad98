"""Grade dimlab's measures, and those of peers, where the truth was planted; write the page.

Run by hand: ``python tests/benchmarks/validity.py [--worlds 30] [--write]``, some three minutes
on an idle core. Peers are run where they are installed: scikit-learn's permutation importance and
mutual information, hidimstat's LOCO. What they look for is what a classifier needs.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import time
import warnings
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from scipy.stats import false_discovery_control
from sklearn.feature_selection import mutual_info_classif
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression

from dimlab import validate

PAGE = Path(__file__).resolve().parents[2] / ".docs" / "guide" / "validity.md"
BEGIN, END = "<!-- begin of the tables -->", "<!-- end of the tables -->"


def _permuted(train, test, seed):
    fitted = LogisticRegression().fit(train.features, train.labels)
    return permutation_importance(
        fitted, test.features, test.labels, n_repeats=10, random_state=seed
    )


def permutation(train, test, seed):
    """Mean importance."""
    return _permuted(train, test, seed).importances_mean


def beyond_two_deviations(train, test, seed):
    """The rule of scikit-learn's user guide."""
    found = _permuted(train, test, seed)
    return found.importances_mean - 2 * found.importances_std > 0


def mutual_information(train, test, seed):
    return mutual_info_classif(test.features, test.labels, random_state=seed)


def _loco(train, test):
    from hidimstat import LOCO
    from sklearn.metrics import log_loss

    fitted = LogisticRegression().fit(train.features, train.labels)
    loco = LOCO(fitted, method="predict_proba", loss=log_loss)
    loco.fit(train.features, train.labels)
    loco.importance(test.features, test.labels)
    return loco


def loco(train, test):
    return np.ravel(_loco(train, test).importances_)


def loco_q(train, test):
    """Its p-values, adjusted as dimlab's are."""
    return (
        false_discovery_control(np.nan_to_num(np.ravel(_loco(train, test).pvalues_), nan=1)) <= 0.05
    )


PEERS = {
    "scikit-learn permutation_importance": permutation,
    "scikit-learn permutation_importance, mean above 2 deviations": beyond_two_deviations,
    "scikit-learn mutual_info_classif": mutual_information,
}
if find_spec("hidimstat"):
    PEERS |= {"hidimstat LOCO": loco, "hidimstat LOCO, q <= 0.05": loco_q}


def table(found):
    """One row a measure, as Markdown."""
    lines = [
        "| measure | verdict | found | false claims | at most | area "
        "| reseeding | false discoveries | planted |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    frame = found.to_frame()
    shares = np.column_stack([frame["recall"], frame["recall_low"], frame["recall_high"]])
    wrong = found.false_claims
    others = frame[[f"false_discoveries{end}" for end in ("", "_low", "_high")]].to_numpy()
    for m, row in enumerate(frame.itertuples()):
        name = f"*{row.measure}*" if row.contrast else row.measure
        level = "" if np.isnan(wrong[m, 3]) else f"{100 * wrong[m, 3]:g}"
        verdict = row.verdict if row.verdict == "holds" else f"**{row.verdict}**"
        cells = [name, verdict, _written(shares[m]), _written(wrong[m, :3]), level]
        cells += [_number(row.area), _number(row.reseeding), _written(others[m]), row.planted]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _written(share):
    value, low, high = 100 * share
    return "" if np.isnan(value) else f"{value:.1f} [{low:.1f}, {high:.1f}]"


def _number(value):
    return "" if np.isnan(value) else f"{value:.3f}"


def written(ours, peers, seconds, commit):
    """The tables, and what they were measured with."""
    packages = ("scikit-learn", *(["hidimstat"] if find_spec("hidimstat") else []), "numpy")
    versions = ", ".join(f"{each} {version(each)}" for each in packages)
    return f"""## Results

`python tests/benchmarks/validity.py --write`, commit {commit}: {ours.n_worlds} planted worlds and
as many of noise for each measure, {ours.n_samples} samples a split, {ours.n_dimensions} dimensions.
dimlab's own took {seconds:.0f} s of one core ({platform.machine()}); {versions}. Shares are in per
cent, with 95 % intervals.

{table(ours)}

Measures of other packages, all of what a classifier needs:

{table(peers)}
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worlds", type=int, default=30)
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    arguments = parser.parse_args()
    started = time.process_time()
    ours = validate(n_worlds=arguments.worlds)
    seconds = time.process_time() - started
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peers = validate(PEERS, n_worlds=arguments.worlds)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    text = written(ours, peers, seconds, commit)
    print(text)
    if arguments.write:
        page = PAGE.read_text("utf-8")
        before, _, rest = page.partition(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{rest.partition(END)[2]}", "utf-8")


if __name__ == "__main__":
    main()
