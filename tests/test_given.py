"""Arrays, tensors, tables, pairs and data sets in the place of a representation."""

import numpy as np
import pandas as pd
import pytest
import torch

import dimlab
from dimlab import Moments, Representation
from dimlab.given import as_representation, as_representations

NAMES = np.array(["bird", "cat", "dog"])


@pytest.fixture(scope="module")
def splits():
    """Two splits of three classes, as arrays (features, ids)."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, size=(2, 60))
    features = rng.normal(size=(2, 60, 4)).astype(np.float32)
    features[..., 0] += 3 * labels
    return tuple(zip(features, labels, strict=True))


def features_of(kind, features):
    return {
        "array": lambda: features,
        "tensor": lambda: torch.from_numpy(features).requires_grad_(),
        "frame": lambda: pd.DataFrame(features, columns=list("abcd")),
        "lists": lambda: features.tolist(),
    }[kind]()


def labels_of(kind, labels):
    return {
        "array": lambda: labels,
        "tensor": lambda: torch.from_numpy(labels),
        "series": lambda: pd.Series(labels),
        "names": lambda: NAMES[labels],
        "objects": lambda: NAMES[labels].astype(object),
        "categories": lambda: pd.Series(NAMES[labels]).astype("category"),
        "list": lambda: NAMES[labels].tolist(),
    }[kind]()


@pytest.mark.parametrize("of_features", ["array", "tensor", "frame", "lists"])
@pytest.mark.parametrize(
    "of_labels", ["array", "tensor", "series", "names", "objects", "categories", "list"]
)
def test_pairs_of_any_kind_are_the_same_representation(splits, of_features, of_labels):
    (features, labels), _ = splits
    made = as_representation((features_of(of_features, features), labels_of(of_labels, labels)))
    np.testing.assert_array_equal(made.features, features)
    np.testing.assert_array_equal(made.labels, labels)
    named = of_labels in ("names", "objects", "categories", "list")
    assert made.meta.get("class_names") == (NAMES.tolist() if named else None)


def test_a_class_has_one_id_in_all_splits_of_a_call(splits):
    (features, labels), (others, _) = splits
    without_cats = np.where(labels == 1, 2, labels)
    train, test = as_representations(
        train=(features, NAMES[labels]), test=(others, NAMES[without_cats])
    ).values()
    np.testing.assert_array_equal(test.labels, without_cats)
    np.testing.assert_array_equal(train.labels, labels)
    with pytest.raises(ValueError, match="class names in all splits, or class ids in all"):
        as_representations(train=(features, NAMES[labels]), test=(others, labels))


def numbers(result):
    """Every number of a result, without what it says of where features come from."""
    return {
        name: value for name, value in result.summary().items() if isinstance(value, (int, float))
    }


PROBES_OF_READERS = (
    "evaluate", "ablate", "ablate_cumulatively", "random_masks", "confirm_harmful",
)  # fmt: skip


@pytest.mark.parametrize("name", PROBES_OF_READERS)
@pytest.mark.parametrize("named", [True, False])
def test_probes_of_readers_take_pairs(splits, name, named):
    probe, ((features, labels), (others, truth)) = getattr(dimlab, name), splits
    settings = {"order": [3, 1, 2, 0]} if name == "ablate_cumulatively" else {}
    right = probe(
        Representation(features, labels=labels), Representation(others, labels=truth), **settings
    )
    given = (NAMES[labels], NAMES[truth]) if named else (labels, truth)
    found = probe((features, given[0]), (torch.from_numpy(others), given[1]), **settings)
    assert numbers(found) == numbers(right)


@pytest.mark.parametrize("name", ["correlate", "decompose", "find_redundancy"])
def test_probes_of_rows_take_arrays_and_moments(splits, name):
    probe, features = getattr(dimlab, name), splits[0][0]
    right = numbers(probe(Representation(features)))
    for given in (features, torch.from_numpy(features), pd.DataFrame(features)):
        assert numbers(probe(given)) == right
    assert probe(Moments.of([features])).n_dimensions == 4


def test_compare_fit_basis_attribute_and_erase_take_arrays():
    rng = np.random.default_rng(1)
    train, test = (
        Representation(rng.normal(size=(300, 6)), labels=rng.integers(0, 2, 300)) for _ in range(2)
    )
    names = {"a": train.features, "b": train.features[:, :2]}
    assert numbers(dimlab.compare(names)) == numbers(
        dimlab.compare({name: Representation(each) for name, each in names.items()})
    )
    basis = dimlab.fit_basis(train.features, "pca")
    np.testing.assert_array_equal(basis.apply(test.features).features, basis.apply(test).features)
    columns = [
        {
            "embedding": each.features,
            "label": each.labels,
            "kind": each.features[:, 0] > 0,
        }
        for each in (train, test)
    ]
    found = dimlab.attribute(*columns, n_permutations=20, erased=None)
    right = dimlab.attribute(
        *(Representation(each["embedding"], labels=each["label"], factors={"kind": each["kind"]})
          for each in columns),
        n_permutations=20, erased=None,
    )  # fmt: skip
    assert numbers(found) == numbers(right)


def test_examine_and_its_answers_take_pairs(splits):
    (features, labels), (others, truth) = splits
    found = dimlab.examine((features, NAMES[labels]), (others, NAMES[truth]))
    right = dimlab.examine(
        Representation(features, labels=labels), Representation(others, labels=truth)
    )
    assert list(found) == list(right)
    answers = dimlab.dimension_table(found).to_frame()
    assert answers.equals(dimlab.dimension_table(right).to_frame())


class OfHuggingFace:
    """What a data set of the package datasets answers to."""

    def __init__(self, columns):
        self.columns, self.column_names = columns, list(columns)

    def with_format(self, kind):
        assert kind == "numpy"
        return self

    def __getitem__(self, rows):
        return {name: each[rows] for name, each in self.columns.items()}


def test_a_data_set_is_its_columns():
    vectors = np.empty(3, dtype=object)
    vectors[:] = list(np.eye(3))
    given = OfHuggingFace(
        {"Embedding": vectors, "label": np.array([0, 1, 1]), "site": np.array(list("aab"))}
    )
    made = as_representation(given)
    np.testing.assert_array_equal(made.features, np.eye(3))
    assert made.labels.tolist() == [0, 1, 1]
    assert made.factors["site"].tolist() == ["a", "a", "b"]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ((np.eye(2), [0, 1], 3), r"^train must be a pair of features .*; got 3 parts\.$"),
        ((np.eye(2), [0.5, np.inf]), "labels must be finite; got inf in row 1"),
        ((np.eye(2), ["a"]), r"labels must have shape \(2,\)"),
        (np.eye(2, dtype=int), "features must be floating"),
        (pd.DataFrame({"a": [1.0], "b": ["x"]}), "features must be floating"),
        ({"a": np.eye(2), "b": np.eye(2)}, "one column of features .*'a', 'b'.*Pass a pair"),
        ({"a": np.ones(2)}, "of which none could be"),
        (Moments.of([np.eye(3)]), "train must hold rows of features; got Moments"),
        ("features.npz", "features must have shape"),
    ],
)
def test_what_is_no_representation_is_one_sentence(given, sentence):
    with pytest.raises((ValueError, TypeError), match=sentence) as error:
        as_representation(given, "train")
    assert str(error.value).count("\n") == 0


def test_tensors_of_bfloat16_keep_their_precision():
    tensor = torch.linspace(-1, 1, 60).reshape(20, 3).bfloat16()
    made = as_representation(tensor)
    assert (made.features.dtype, made.precision) == (np.float32, "bfloat16")
    np.testing.assert_array_equal(made.features, tensor.float().numpy())
