"""One answer a dimension, from results."""

import numpy as np
import pytest

import dimlab
from dimlab import Representation, ablate, attribute, confirm_harmful, find_redundancy
from dimlab.answers import ANSWERS, _representative, answers_of, dimension_table
from dimlab.report import kinds_of

HUE, NOISE, COPY, SUM, DEAD, SIGNAL, MIXED = 0, 1, 2, 3, 4, 5, 6


def world(n, seed):
    """A factor, noise, copies of the signal, a sum, a constant, the signal, signal and factor."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    hue = rng.normal(size=n)
    signal = 2.5 * labels + rng.normal(size=n)
    other = rng.normal(size=n) + 2 * (labels == 1)
    noise = rng.normal(size=n)
    features = np.column_stack(
        [hue + 0.1 * rng.normal(size=n), noise, -signal, noise + other, np.ones(n), signal, other]
    )
    return Representation(features, labels=labels, factors={"hue": hue})


@pytest.fixture(scope="module")
def results():
    train, test = world(600, 0), world(600, 1)
    return {
        "ablation": ablate(train, test, reader="ridge"),
        "harmful": confirm_harmful(train, test, reader="ridge"),
        "redundancy": find_redundancy(test),
        "attribution": attribute(train, test, n_permutations=199, erased=None),
    }


def test_each_dimension_has_the_answer_that_was_planted(results):
    table = dimension_table(results)
    answers = table.to_frame()["answer"].tolist()
    assert answers[HUE] == "nuisance: hue"
    assert answers[DEAD] == "dead"
    assert {answers[COPY], answers[SIGNAL]} == {"keep, stands for 5", "redundant with 2"}
    frame = table.to_frame()
    assert list(frame) == ["dimension", "answer", "decided_by", "value"]
    found = results["attribution"]
    assert frame["value"][HUE] == found.effect[HUE, 0]
    assert frame["value"][COPY] == results["redundancy"].adjusted_r_squared[COPY]
    assert frame["value"][DEAD] == 0
    assert sum(table.summary()[f"n_{kind}"] for kind in ANSWERS) == len(table) == 7


def test_the_order_of_results_and_mappings_change_nothing(results):
    whole = dimension_table(results).to_frame()
    shuffled = dimension_table(*list(results.values())[::-1]).to_frame()
    assert whole.equals(shuffled)
    ablation, *others = results.values()
    assert whole.equals(dimension_table({"a": ablation}, *others).to_frame())


def test_what_was_not_measured_gives_no_answer(results):
    table = dimension_table(results["ablation"])
    assert set(table.kind) <= {"dead", "keep", "undecided"}
    assert table.kind[DEAD] == "dead"
    needed = np.sort(results["ablation"].needed)
    np.testing.assert_array_equal(table.dimensions_of("keep"), needed)
    undecided = table.dimensions_of("undecided")
    np.testing.assert_array_equal(table.value[undecided], results["ablation"].importance[undecided])
    alone = dimension_table(results["redundancy"])
    assert np.isnan(alone.value[alone.kind == "undecided"]).all()


def test_a_confirmed_harm_comes_before_what_a_dimension_carries():
    rng = np.random.default_rng(3)

    def split(flipped):
        labels = rng.integers(0, 2, 800)
        cue = labels if not flipped else 1 - labels
        features = np.column_stack(
            [3.0 * cue + rng.normal(size=800), 2.0 * labels + rng.normal(size=800)]
        )
        return Representation(features, labels=labels, factors={"cue": cue + rng.normal(size=800)})

    train, test = split(flipped=False), split(flipped=True)
    harmful = confirm_harmful(train, test, reader="ridge")
    table = dimension_table(harmful, ablate(train, test, reader="ridge"))
    assert table.kind.tolist() == ["harmful", "keep"]
    assert table.value[0] == harmful.q_aggregated[0] <= 0.05


def test_the_member_that_explains_a_group_best_is_kept_unless_it_has_another_answer():
    rng = np.random.default_rng(4)
    middle = rng.normal(size=500)
    features = np.column_stack(
        [middle + 0.25 * rng.normal(size=500), middle, middle + 0.25 * rng.normal(size=500),
         rng.normal(size=500)]
    )  # fmt: skip
    found = find_redundancy(Representation(features))
    assert dimension_table(found).to_frame()["answer"].tolist() == [
        "redundant with 1, 2", "keep, stands for 0, 2", "redundant with 1, 0", "undecided",
    ]  # fmt: skip
    members = np.array([0, 2])
    squares = np.corrcoef(features[:, :3].T)[members] ** 2
    best = int(members[squares.sum(axis=1).argmax()])
    assert _representative(found, members) == best


def test_a_member_that_has_another_answer_is_not_the_one_that_is_kept(results):
    """Copies of the factor: both are nuisance, and neither stands for the other."""
    train, test = (
        Representation(
            np.column_stack([each.features[:, HUE], each.features, each.features[:, HUE]]),
            labels=each.labels,
            factors=each.factors,
        )
        for each in (world(600, 5), world(600, 6))
    )
    table = dimension_table(
        attribute(train, test, n_permutations=199, erased=None), find_redundancy(test)
    )
    assert table.dimensions_of("nuisance").tolist() == [0, 1, 8]


@pytest.mark.parametrize(
    ("given", "kind", "sentence"),
    [
        ((), ValueError, "needs a result of ablate, .*; got none"),
        ((np.eye(2),), TypeError, "takes results.*; got ndarray"),
        (
            (dimlab.decompose(np.random.default_rng(0).normal(size=(30, 2))),),
            ValueError,
            "needs a result .*; got Spectrum",
        ),
    ],
)
def test_what_holds_no_answer_is_refused(given, kind, sentence):
    with pytest.raises(kind, match=sentence):
        dimension_table(*given)


def test_results_of_other_features_are_refused(results):
    other = find_redundancy(Representation(np.random.default_rng(0).normal(size=(50, 3))))
    with pytest.raises(ValueError, match=r"must be of the same dimensions; got .*Redundancy': 3"):
        dimension_table(results["ablation"], other)
    with pytest.raises(ValueError, match="one of each class; got several of Ablation"):
        dimension_table(results["ablation"], results["ablation"])
    assert answers_of({"other": other, **results}).summary()["n_dimensions"] == 7
    assert answers_of({}) is None


def test_the_table_is_saved_and_drawn(results, tmp_path):
    from matplotlib.figure import Figure

    table = dimension_table(results)
    again = dimlab.DimensionTable.load(table.save(tmp_path / "a.result.npz"))
    assert again.to_frame().equals(table.to_frame())
    ax = table.plot(ax=Figure().subplots())
    shown = [each.get_text() for each in ax.get_legend().get_texts()]
    assert shown == [
        f"{kind} ({(table.kind == kind).sum()})"
        for kind in ("keep", "redundant", "nuisance", "harmful", "dead", "undecided")
        if (table.kind == kind).any()
    ]


def test_what_a_dimension_is_needed_for_is_said_where_it_is_not_classes_alone(results):
    rng = np.random.default_rng(0)
    topics = rng.normal(size=(150, 3))

    def encoded(noise):  # three dimensions of meaning, noise, and one far from zero
        near = topics + 0.1 * rng.normal(size=topics.shape)
        return np.column_stack([near, noise, 9 + 0.1 * rng.normal(size=150)])

    corpus, queries = (encoded(0.05 * rng.normal(size=150)) for _ in range(2))
    pairs = np.column_stack([np.arange(150)] * 2)
    retrieval = dimlab.ablate_retrieval(corpus, queries, pairs, score="mrr@10", truncate=[])
    values = topics[:, 0] + 0.3 * rng.normal(size=150)
    ablation = ablate((corpus, values), (queries, values), reader="ridge")
    table = dimension_table(retrieval, ablation, dimlab.profile(corpus))
    assert table.needed_for[:3].tolist() == ["real values, retrieval", "retrieval", "retrieval"]
    answers = table.to_frame()["answer"].tolist()
    assert answers[:2] == ["keep, needed for real values, retrieval", "keep, needed for retrieval"]
    assert table.to_frame()["decided_by"][0] == "R^2 lost without it"
    summary = table.summary()
    assert (summary["needed_for_real_values"], summary["outliers"]) == ([0], [4])
    assert summary["needed_for_retrieval"][:3] == [0, 1, 2]
    said = kinds_of(table)
    assert said["outlier (1)"] == "4"
    assert said["needed for real values (1)"] == "0"
    assert dimension_table(results).needed_for is None  # classes alone
    # every dimension that varies changes the neighbours: that keeps none
    near = dimlab.ablate(corpus, queries, score="neighbourhood")
    assert len(near.needed)
    assert set(dimension_table(near).kind) == {"undecided"}
