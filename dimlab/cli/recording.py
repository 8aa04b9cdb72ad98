"""A record of what a command read and measured, kept beside its results."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dimlab.cli.inputs import Inputs
from dimlab.io.files import replacing
from dimlab.refusals import Refusal
from dimlab.text import json_text, visible

Record = Callable[[], dict[str, Any]]


def recording(
    inputs: Inputs,
    paths: Sequence[Path],
    splits: Mapping[str, Any] | None = None,
    *,
    beside: Sequence[str | Path | None] = (),
    split: str = "test",
) -> Record:
    """Return what records where a result is from; nothing is hashed until it is called."""
    # `splits`: what was measured, by name; `beside`: what else options named, files or not;
    # `split`: the one whose labels stand for `--data`

    def record() -> dict[str, Any]:
        from dimlab.report.provenance import provenance_of
        from dimlab.representation import Representation

        return provenance_of(
            {path: inputs.digest(path) for path in files_of(inputs, paths, beside)},
            {n: each for n, each in (splits or {}).items() if isinstance(each, Representation)},
            seed=inputs.seed,
            device=inputs.device,
            data=_data_of(inputs, paths, split),
            images={key: each.images_hash for key, each in inputs.encoded.items()},
        )

    return record


def files_of(
    inputs: Inputs, paths: Sequence[Path], beside: Sequence[str | Path | None] = ()
) -> list[Path]:
    """List the files that a command reads, each once."""
    others = [inputs.train, inputs.labels, *beside]
    return list(dict.fromkeys([*paths, *(file for each in others for file in _files_in(each))]))


def _files_in(option: str | Path | None) -> list[Path]:
    """Return the file that an option names, if it names one; labels may name an array."""
    if option is None:
        return []
    named = [Path(option), Path(str(option).rpartition(":")[0] or ".")]
    return [each for each in named if each.is_file()][:1]


def _data_of(inputs: Inputs, paths: Sequence[Path], split: str) -> dict[str, dict[str, Any]]:
    """Name the data, and the versions that trained them, of the checkpoints among the files."""
    found = {}
    different = list(dict.fromkeys(paths))
    for name, path in zip(names_of(different), different, strict=True):
        source = inputs.opened.get(path)
        if source is None or source.kind not in ("checkpoint", "weights"):
            continue
        own: dict[str, Any] = {}
        versions: dict[str, str] = {}
        if source.kind == "checkpoint":
            own, versions = dict(source.value.data), source.value.versions
        if inputs.data is not None:
            labels = inputs.data_set(inputs.data, split, inputs.data_dir).labels_hash
            own = {"name": inputs.data, "split": split, "folder": "", "labels_hash": labels}
        if own and inputs.data_dir is not None:
            own["folder"] = str(inputs.data_dir)
        if own:
            found[name] = {"data": own, "versions": versions}
    return found


def keep_record(record: Mapping[str, Any], path: Path) -> None:
    """Write where a file is from beside it, as ``<stem>.provenance.json``, with its hash."""
    from dimlab.report.provenance import RECORD, hash_of_file

    whole = {**record, "written": {path.name: hash_of_file(path)}}
    with replacing(path.with_name(f"{path.stem}{RECORD}")) as temporary:
        temporary.write_text(json_text(whole), encoding="utf-8")


def names_of(paths: Sequence[Path]) -> list[str]:
    """Name different files in short: the folder of a ``checkpoint.pt``, else the stem.

    Examples
    --------
    >>> names_of([Path("runs/a/checkpoint.pt"), Path("features.safetensors")])
    ['a', 'features']
    """
    short = [
        visible(each.resolve().parent.name if each.name == "checkpoint.pt" else each.stem, keep="")
        for each in paths
    ]
    names = short if len(set(short)) == len(short) else [visible(str(e), keep="") for e in paths]
    for name in names:
        if names.count(name) > 1:
            raise Refusal(f"files must differ; got {name} twice.")
    return names


def stems_of(names: list[str]) -> list[str]:
    """Turn different names into different stems of files, without folders and short enough.

    Examples
    --------
    >>> stems_of(["../a/x.npz", "b/x.npz"]), stems_of(["a/x", "a-x"])
    (['a-x.npz', 'b-x.npz'], ['1-a-x', '2-a-x'])
    """
    stems = [re.sub(r"[/\\:]+", "-", name).strip(".-")[:50] for name in names]
    if len(set(stems)) == len(stems) and all(stems):
        return stems
    return [f"{place}-{stem}" for place, stem in enumerate(stems, 1)]
