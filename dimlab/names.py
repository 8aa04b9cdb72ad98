"""What tables call rows, splits and categories, in one spelling: every reader asks here."""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections.abc import Callable

import numpy as np

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
SPLIT_WORDS = dict.fromkeys(("train", "training"), "train")
SPLIT_WORDS |= dict.fromkeys(("val", "valid", "validation", "eval", "evaluation"), "validation")
SPLIT_WORDS |= dict.fromkeys(("test", "testing"), "test")


def word_of(name: str) -> str:
    """Return the last part of a dotted name in small letters and digits alone.

    Parameters
    ----------
    name : str
        Of an array or column.

    Returns
    -------
    str
        Without spaces and signs.

    Examples
    --------
    >>> word_of("File Name"), word_of("data.image_id"), word_of("Unnamed: 0")
    ('filename', 'imageid', 'unnamed0')
    """
    return re.sub(r"[^a-z0-9]", "", name.rsplit(".", 1)[-1].lower())


def tidied(text: str) -> str:
    r"""Return text in one spelling: composed letters (NFC), no blanks around it.

    Parameters
    ----------
    text : str
        A class, a category or the name of a row.

    Returns
    -------
    str
        Equal for texts that look alike.

    Examples
    --------
    >>> tidied("e\u0301te ") == tidied("\u00e9te")
    True
    """
    return unicodedata.normalize("NFC", text).strip()


def without_zeros(text: str) -> str:
    """Return a whole number without the zeros before it, and other text tidied.

    Parameters
    ----------
    text : str
        The name of a row.

    Returns
    -------
    str
        Equal for the names of one number.

    Examples
    --------
    >>> without_zeros("0042"), without_zeros("000"), without_zeros("a01")
    ('42', '0', 'a01')
    """
    text = tidied(text)
    return text.lstrip("0") or "0" if text.isascii() and text.isdigit() else text


def spelled(names: np.ndarray, spell: Callable[[str], str] = tidied) -> np.ndarray:
    """Return names as text, each different one spelled once.

    Parameters
    ----------
    names : ndarray of shape (N,), text or integer
        Of rows or categories.
    spell : callable, default=tidied
        Takes and returns one text.

    Returns
    -------
    ndarray of shape (N,), text
        In the same order.
    """
    different, place = np.unique(names, return_inverse=True)
    text = [spell(str(each)) for each in different.tolist()]
    return np.array(text, dtype=np.str_)[place]


def one_spelling(values: np.ndarray, name: str) -> np.ndarray:
    """Give categories one spelling, and say where several spellings become one, or look like one.

    Parameters
    ----------
    values : ndarray of shape (N,)
        Text; other arrays are returned as they are.
    name : str
        Of the column.

    Returns
    -------
    ndarray of shape (N,)
        Tidied.

    Warns
    -----
    UserWarning
        If values that differ become one, or some categories differ in case, width or blanks alone.

    Examples
    --------
    >>> one_spelling(np.array(["cat ", "dog "]), "label").tolist()
    ['cat', 'dog']
    """
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
    """Return the split that a word means.

    Parameters
    ----------
    word : str
        In letters of any size.

    Returns
    -------
    str
        ``train``, ``validation`` (also for ``val``, ``valid``, ``eval``, ``evaluation``) or
        ``test``; another word as it is.

    Examples
    --------
    >>> [split_of(word) for word in ("TRAINING", "val", "Test ", "fold 3")]
    ['train', 'validation', 'test', 'fold 3']
    """
    return SPLIT_WORDS.get(tidied(word).lower(), tidied(word))


def splits_of_rows(values: np.ndarray, name: str) -> np.ndarray:
    """Return the split of each row, in one vocabulary.

    Parameters
    ----------
    values : ndarray of shape (N,), text
        Words for splits.
    name : str
        Of the column.

    Returns
    -------
    ndarray of shape (N,), text
        As `split_of` says.

    Raises
    ------
    ValueError
        If it is no text, as numbers do not say which split they mean; or two words mean one split.

    Examples
    --------
    >>> splits_of_rows(np.array(["Train", "val"]), "split").tolist()
    ['train', 'validation']
    """
    if values.ndim != 1 or values.dtype.kind != "U":
        raise ValueError(
            f"{name} must say train, validation or test for each row; got {values.dtype} "
            f"{values.shape}. Rename it if it is something else."
        )
    words: dict[str, str] = {}
    for word in np.unique(values).tolist():
        first = words.setdefault(split_of(word), word)
        if tidied(first).lower() != tidied(word).lower():
            raise ValueError(
                f"{name} must have one word for each split; got {first!r} and {word!r}, which "
                f"both mean {split_of(word)}. Rename one."
            )
    return spelled(values, split_of)


def places_among(wanted: np.ndarray, names: np.ndarray) -> np.ndarray | None:
    """Find each wanted name among others: as it is spelled, else as a whole number by its value.

    Parameters
    ----------
    wanted : ndarray of shape (N,), text or integer
        Names that are looked for.
    names : ndarray of shape (M,), text or integer
        Names of M rows.

    Returns
    -------
    ndarray of shape (N,), int, or None
        Rows; None unless each name is found, once. Values count only where ``01`` and ``1`` are
        not two names of one side.

    Examples
    --------
    >>> places_among(np.array([2, 1]), np.array(["01", "02"])).tolist()
    [1, 0]
    >>> places_among(np.array(["1"]), np.array(["01", "1"])).tolist()
    [1]
    """
    for spell in (tidied, without_zeros):
        ours, theirs = spelled(wanted, spell), spelled(names, spell)
        ordered, first = np.unique(theirs, return_index=True)
        if len(ordered) < len(names) or len(np.unique(ours)) < len(np.unique(wanted)):
            continue
        place = np.searchsorted(ordered, ours).clip(max=len(ordered) - 1)
        if (ordered[place] == ours).all():
            return first[place]
    return None
