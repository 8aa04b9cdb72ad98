"""Relevance judgements: files of pairs of a query and a document, joined to rows of features."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from dimlab.given import RepresentationLike, as_representation
from dimlab.io.files import json_of
from dimlab.io.tables import ending_of
from dimlab.names import tidied, word_of
from dimlab.pairing import row_names
from dimlab.refusals import Refusal
from dimlab.representation import Representation

ENDINGS = (".tsv", ".csv", ".txt", ".qrels", ".trec", ".jsonl", ".ndjson")
_QUERY = ("queryid", "queryids", "qid", "qids", "query")
_ROW = ("corpusid", "corpusids", "docid", "docids", "did", "pid", "passageid", "document", "doc")
_GRADE = ("score", "relevance", "rel", "grade", "label", "judgment", "judgement")
_SHOWN = 5

Pair = tuple[str, str, int]  # ids of query and document, grade
Judged = list[Pair]


def load_relevance(
    path: str | os.PathLike[str], corpus: RepresentationLike, queries: RepresentationLike
) -> np.ndarray:
    r"""Read relevance judgements, and join them to the rows of corpus and queries.

    Parameters
    ----------
    path : path
        TREC qrels (query, iteration, document and grade, separated by blanks or tabs); a table
        ``.tsv`` or ``.csv`` of query, document and perhaps grade, with or without a row of names on
        top; or ``.jsonl`` of objects with ``query-id``, ``corpus-id`` and perhaps ``score``.
    corpus, queries : Representation, or array
        Features (N, D) and (Q, D). Ids are looked up among the names of their rows: a factor such
        as ``id``, ``doc_id`` or ``query_id``. Without such names ids are row numbers from 0.

    Returns
    -------
    ndarray of shape (n, 3), int64
        Query row, corpus row and grade, as `ablate_retrieval` takes them.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no such file, a grade is no whole number, no pair is of these queries and this
        corpus, or ids are neither names of rows nor row numbers.

    Warns
    -----
    UserWarning
        If pairs are left out, as their query or document is not among the rows.

    Examples
    --------
    >>> import tempfile
    >>> corpus = Representation(np.eye(3), factors={"doc_id": np.array(["d7", "d8", "d9"])})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "qrels.txt"
    ...     written = path.write_text("0 0 d9 2\n1 0 d7 1\n")
    ...     load_relevance(path, corpus, np.eye(3)[:2]).tolist()
    [[0, 2, 2], [1, 0, 1]]
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"relevance must be a file; got {path}, which is not there.")
    with path.open("rb") as file:
        judged = read_relevance(path, file)
    return rows_of_ids(
        judged, as_representation(corpus, "corpus"), as_representation(queries, "queries"), path
    )


def read_relevance(path: Path, file: BinaryIO) -> Judged:
    """Read the judged pairs of a file."""
    if ending_of(path) not in ENDINGS:
        raise Refusal(f"relevance must be a file of {', '.join(ENDINGS)}; got {path.name!r}.")
    try:
        lines = file.read().decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise Refusal(f"{path} must be text in UTF-8; got another encoding.") from error
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if ending_of(path) in (".jsonl", ".ndjson"):
        return [_of_object(path, number, line) for number, line in numbered]
    return list(_of_lines(path, numbered))


def _of_lines(path: Path, numbered: list[tuple[int, str]]) -> Iterator[Pair]:
    """Read lines of two to four fields; the first may hold names."""
    separator = "," if ending_of(path) == ".csv" else None
    names: list[str] = []
    for place, (number, line) in enumerate(numbered):
        tabbed = "\t" if "\t" in line else separator
        fields = [tidied(each).strip('"') for each in line.split(tabbed)]
        if place == 0 and _column(fields, _QUERY) is not None and _column(fields, _ROW) is not None:
            names = fields
            continue
        if names and len(fields) == len(names):
            columns = [_column(names, each) for each in (_QUERY, _ROW, _GRADE)]
            query, row, grade = ("1" if each is None else fields[each] for each in columns)
        elif not names and 2 <= len(fields) <= 4:
            query, row = fields[0], fields[1 if len(fields) < 4 else 2]  # 4: of TREC
            grade = fields[-1] if len(fields) > 2 else "1"
        else:
            expected = f"{len(names)} fields" if names else "2 to 4 fields"
            raise Refusal(
                f"{path.name} must have {expected} a line, query, document and grade; got "
                f"{len(fields)} in line {number}."
            )
        yield query, row, _grade(path, number, grade)


def _of_object(path: Path, number: int, line: str) -> Pair:
    """Read an object of a query, a document and perhaps a grade."""
    try:
        found = json_of(line.encode())
    except ValueError as error:
        raise Refusal(
            f"{path.name} must hold one JSON object a line; got {error} in line {number}."
        ) from error
    names = list(found) if isinstance(found, Mapping) else []
    columns = [_column(names, each) for each in (_QUERY, _ROW, _GRADE)]
    if columns[0] is None or columns[1] is None:
        raise Refusal(
            f"{path.name} must name query-id and corpus-id in each object; got "
            f"{', '.join(names) or 'no object'} in line {number}."
        )
    query, row, grade = ("1" if each is None else str(found[names[each]]) for each in columns)
    return tidied(query), tidied(row), _grade(path, number, grade)


def _column(names: list[str], words: tuple[str, ...]) -> int | None:
    """Return the place of the first name that is one of these words."""
    return next((place for place, name in enumerate(names) if word_of(name) in words), None)


def _grade(path: Path, number: int, text: str) -> int:
    try:
        grade = float(text)
        if grade == int(grade):
            return int(grade)
    except (ValueError, OverflowError):
        pass
    raise Refusal(
        f"{path.name} must have whole numbers as grades; got {text[:40]!r} in line {number}."
    )


def rows_of_ids(
    judged: Judged, corpus: Representation, queries: Representation, path: Path
) -> np.ndarray:
    """Join ids (P) to rows; pairs of which one is not there are left out, with a warning."""
    found = np.empty((len(judged), 3), dtype=np.int64)
    for column, (name, side, words) in enumerate(
        (("queries", queries, _QUERY), ("corpus", corpus, _ROW))
    ):
        ids = [str(each[column]) for each in judged]
        found[:, column] = _rows(ids, side, words, name, path)
    found[:, 2] = [each[2] for each in judged]
    kept: np.ndarray = np.all(found[:, :2] >= 0, axis=1)
    if not kept.any():
        raise Refusal(
            f"{path.name} must judge pairs of these queries and this corpus; got "
            f"{len(judged)} pairs, none of both."
        )
    if not kept.all():
        warnings.warn(
            f"{path.name}: {(~kept).sum():,} of {len(kept):,} pairs are left out, as their query "
            "or document is not among the rows.",
            UserWarning,
            stacklevel=3,
        )
    return found[kept]


def _rows(
    ids: list[str], side: Representation, words: tuple[str, ...], name: str, path: Path
) -> np.ndarray:
    """Return the row of each id, -1 where there is none."""
    named = _names_of(side, words)
    if named is None:
        try:
            rows = np.array([int(each) for each in ids], dtype=np.int64)
        except ValueError:
            shown = ", ".join(map(repr, ids[:_SHOWN]))
            raise Refusal(
                f"{name} must name its rows, in an array such as 'id', or the ids of {path.name} "
                f"must be row numbers; got {shown}."
            ) from None
        return np.where((rows >= 0) & (rows < len(side)), rows, -1)
    factor, names = named
    places = {tidied(str(each)): row for row, each in enumerate(names.tolist())}
    if len(places) < len(names):
        raise Refusal(f"names of rows must differ; got some twice in {factor!r} of {name}.")
    rows = np.array([places.get(each, -1) for each in ids])
    if len(rows) and (rows < 0).all():
        shown, known = (", ".join(map(repr, each[:_SHOWN])) for each in (ids, list(places)))
        raise Refusal(
            f"ids of {path.name} must be among {factor!r} of {name} ({known}, ...); got {shown}."
        )
    return rows


def _names_of(side: Representation, words: tuple[str, ...]) -> tuple[str, Any] | None:
    """Return the factor that names the rows: by its own word, else as rows are usually named."""
    for name, values in side.factors.items():
        if word_of(name) in words and values.dtype.kind in "iuU":
            return name, values
    return next(iter(row_names(side).values()), None)
