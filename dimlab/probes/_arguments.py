"""Arguments that several probes take: what they mean is written once, and shown in each of them."""

from __future__ import annotations

import inspect
import json
import re
import textwrap
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])

SHARED = {
    "train": """Representation, or pair of features and labels
    Labelled rows that the reader is fitted on: features (N_train, D) of any array type, labels
    (N_train,) of class ids or class names.""",
    "test": """Representation, or pair of features and labels
    Labelled rows of the same D dimensions, that it is scored on.""",
    "reader": """str or object
    A probe classifier: ``"knn"`` (votes of the k nearest train rows by cosine similarity),
    ``"ridge"`` (regression of one-hot classes, or of real values) or ``"logistic"`` (multinomial
    logistic regression; both standardise the features on train), an object of `dimlab.readers`, or
    a scikit-learn estimator, which is cloned, really fitted again on the features as they are, and
    slow. Where its ``random_state`` is None, the clones get ``seed``.""",
    "target_kind": """{"classes", "values", "multilabel"}, optional
    What the labels are: classes, real values, or several labels a sample. By default integers,
    booleans and text are classes, floats real values, and a matrix of 0 and 1 several labels.""",
    "groups": """sequence of index arrays, or ndarray of shape (D,) of int, optional
    Dimensions removed together, or one group id a dimension; by default each dimension alone.""",
    "k": """int
    kNN: neighbours that vote, 1 <= k <= N_train.""",
    "temperature": """float
    kNN: > 0; a vote is ``exp((s - s_max) / temperature)``.""",
    "penalty": """float
    Ridge: > 0; ``penalty * N_train * I`` is added.""",
    "clusters": """str, ndarray of shape (N_test,), or pair of ndarray, optional
    Rows that belong together: a factor's name that both splits have, one value a test row, or
    values of train and of test. By default rows are independent.""",
    "seed": """int
    Draws all that is drawn, and the rows that the logistic reader holds out.""",
    "device": """str
    Where kNN searches.""",
    "memory": """float, optional
    GB that the probe may take beside its inputs: kNN's search is blocked to what its outcomes
    leave, ridge reads blocks of rows, and what cannot be blocked and does not fit is refused. It
    changes the time, not the result.""",
    "progress": """callable, optional
    Called as ``progress(done, total)`` during the long part.""",
}


def documented(function: Function, shared: Mapping[str, str] = SHARED) -> Function:
    """Insert what shared arguments mean into a docstring that leaves them out, in their order."""
    text = inspect.cleandoc(function.__doc__ or "")
    head, mark, rest = text.partition("Parameters\n----------\n")
    own, end, tail = rest.partition("\n\nReturns\n-------")
    blocks = re.split(r"\n(?=\S)", own.rstrip())
    entries = {block.partition(" : ")[0].split(", ")[0]: block for block in blocks}
    found = []
    for name, parameter in inspect.signature(function).parameters.items():
        if name in entries:
            found.append(entries[name])
        elif name in shared:
            kind, _, meaning = shared[name].partition("\n")
            if parameter.default not in (None, inspect.Parameter.empty):
                kind += f", default={json.dumps(parameter.default)}"
            found.append(f"{name} : {kind}\n{meaning}")
    whole = head + mark + "\n".join(found) + end + tail
    function.__doc__ = textwrap.indent(whole, "    ").lstrip() + "\n    "
    return function
