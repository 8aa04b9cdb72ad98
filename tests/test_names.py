"""Names of columns, splits and rows in one spelling."""

import numpy as np
import pytest

from dimlab import names


def test_words_texts_and_numbers_have_one_spelling():
    words = [names.word_of(each) for each in ("File Name", "data.image_id", "Unnamed: 0")]
    assert words == ["filename", "imageid", "unnamed0"]
    assert names.tidied("e\u0301te ") == names.tidied("\u00e9te")
    assert [names.without_zeros(each) for each in ("0042", "000", "a01")] == ["42", "0", "a01"]
    assert names.one_spelling(np.array(["cat ", "dog "]), "label").tolist() == ["cat", "dog"]


def test_words_for_splits_are_one_vocabulary():
    words = ["TRAINING", "val", "Test ", "fold 3"]
    assert [names.split_of(each) for each in words] == ["train", "validation", "test", "fold 3"]
    assert names.splits_of_rows(np.array(["Train", "val"]), "split").tolist() == [
        "train",
        "validation",
    ]
    with pytest.raises(ValueError, match="split must have one word for each split; got 'train'"):
        names.splits_of_rows(np.array(["train", "training"]), "split")


def test_whole_numbers_are_found_by_value_only_where_their_spelling_does_not_differ():
    assert names.places_among(np.array([2, 1]), np.array(["01", "02"])).tolist() == [1, 0]
    assert names.places_among(np.array(["1"]), np.array(["01", "1"])).tolist() == [1]
