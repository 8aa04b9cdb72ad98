"""Names of rows, splits and categories in tables, in one spelling."""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from dimlab.refusals import Refusal

ROW, FILE, SPLIT = "row", "file", "split"
FILES = (
    FILE, "files", "filename", "filenames", "filepath", "filepaths", "path", "paths", "image",
    "images", "imagepath", "imagepaths", "imagename", "imagenames", "imagefile", "imagefiles",
    "img", "imgs", "imgpath", "imgpaths", "imgname", "imgfile",
)  # fmt: skip
NAMES = (
    "imageid", "imageids", "imgid", "imgids", "name", "names", "id", "ids", "key", "keys", "sample",
    "sampleid", "sampleids", "samplename", "uid", "uuid",
)  # fmt: skip
COUNTS = (ROW, "index", "idx", "unnamed0")
FEATURES = (
    "features", "feature", "feats", "feat", "embeddings", "embedding", "emb", "representations",
    "representation", "latents", "latent", "activations", "hidden", "x", "h", "z",
)  # fmt: skip
LABELS = ("labels", "label", "targets", "target", "y", "classes", "class", "class_id")
SPLIT_WORDS = dict.fromkeys(("train", "training"), "train")
SPLIT_WORDS |= dict.fromkeys(("val", "valid", "validation", "eval", "evaluation"), "validation")
SPLIT_WORDS |= dict.fromkeys(("test", "testing"), "test")


def class_names_of(meta: Mapping[str, Any], classes: np.ndarray) -> np.ndarray:
    """Names (K,) of class ids, where a representation knows them; else the ids as text."""
    known = meta.get("class_names") or ()
    return np.array([known[each] if each < len(known) else str(each) for each in classes], np.str_)


def word_of(name: str) -> str:
    """Last part of a dotted name in small letters and digits alone: ``data.image_id``, imageid."""
    return re.sub(r"[^a-z0-9]", "", name.rsplit(".", 1)[-1].lower())


def tidied(text: str) -> str:
    """Text in one spelling: composed letters (NFC), no blanks around it."""
    return unicodedata.normalize("NFC", text).strip()


def without_zeros(text: str) -> str:
    """Take the zeros before a whole number off, and tidy other text."""
    text = tidied(text)
    return text.lstrip("0") or "0" if text.isascii() and text.isdigit() else text


def spelled(names: np.ndarray, spell: Callable[[str], str] = tidied) -> np.ndarray:
    """Names (N,) as text, each different one spelled once."""
    different, place = np.unique(names, return_inverse=True)
    text = [spell(str(each)) for each in different.tolist()]
    return np.array(text, dtype=np.str_)[place]


def one_spelling(values: np.ndarray, name: str) -> np.ndarray:
    """Tidy categories (N,), and warn where several spellings become one, or look like one."""
    if values.dtype.kind != "U":
        return values
    different = np.unique(values).tolist()
    seen: dict[str, str] = {}
    for each in different:
        first = seen.setdefault(tidied(each), each)
        if first != each:
            _warn(f"{name!r} holds {first!r} and {each!r}, which are taken as one.")
            break
    alike: dict[str, str] = {}
    for each in seen if 2 * len(seen) <= len(values) else ():  # names of rows are no categories
        key = "".join(c for c in each if unicodedata.category(c) != "Cf")  # of no width
        key = " ".join(unicodedata.normalize("NFKC", key).casefold().split())
        first = alike.setdefault(key, each)
        if first != each:
            _warn(
                f"{name!r} holds {first!r} and {each!r}, which are taken as two. Write them alike "
                "if they are one."
            )
            break
    return spelled(values)


def _warn(sentence: str) -> None:
    warnings.warn(sentence, UserWarning, stacklevel=3)


def split_of(word: str) -> str:
    """Split that a word means: train, validation (also val, valid, eval), test, or the word."""
    return SPLIT_WORDS.get(tidied(word).lower(), tidied(word))


def splits_of_rows(values: np.ndarray, name: str) -> np.ndarray:
    """Split of each row (N,), in one vocabulary."""
    if values.ndim != 1 or values.dtype.kind != "U":
        raise Refusal(
            f"{name} must say train, validation or test for each row; got {values.dtype} "
            f"{values.shape}. Rename it if it is something else."
        )
    words: dict[str, str] = {}
    for word in np.unique(values).tolist():
        first = words.setdefault(split_of(word), word)
        if tidied(first).lower() != tidied(word).lower():
            raise Refusal(
                f"{name} must have one word for each split; got {first!r} and {word!r}, which "
                f"both mean {split_of(word)}. Rename one."
            )
    return spelled(values, split_of)


def places_among(wanted: np.ndarray, names: np.ndarray) -> np.ndarray | None:
    """Row (N,) of each wanted name among others; None unless each is found, once."""
    # As names are spelled, else as whole numbers by their value, which counts only where 01 and 1
    # are not two names of one side.
    for spell in (tidied, without_zeros):
        ours, theirs = spelled(wanted, spell), spelled(names, spell)
        ordered, first = np.unique(theirs, return_index=True)
        if len(ordered) < len(names) or len(np.unique(ours)) < len(np.unique(wanted)):
            continue
        place = np.searchsorted(ordered, ours).clip(max=len(ordered) - 1)
        if (ordered[place] == ours).all():
            return first[place]
    return None
