"""The words that tables use for rows and splits, in one spelling: every reader asks here."""

from __future__ import annotations

import re
import unicodedata
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
