"""What a command read and measured, as it is recorded beside its results."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dimlab.io.files import replacing
from dimlab.sources import Loading, is_own, load_data, names_of, read_checkpoint

Record = Callable[[], dict[str, Any]]


def recording(
    loading: Loading,
    sources: Sequence[Path],
    splits: Mapping[str, Any] | None = None,
    *,
    beside: Sequence[str | Path | None] = (),
    split: str = "test",
) -> Record:
    """Say how to record where a result is from; nothing is hashed until that is asked for.

    Parameters
    ----------
    loading : Loading
        How the sources were loaded.
    sources : sequence of Path
        What was named to be measured; the data that checkpoints among them encode is recorded too.
    splits : mapping of str to object, optional
        What was measured, by name; what is no representation is left out.
    beside : sequence of str or Path
        What else options named, files or not.
    split : str, default="test"
        Whose labels stand for ``--data``, of which a checkpoint says nothing.

    Returns
    -------
    callable
        Gives what `provenance_of` does.
    """

    def record() -> dict[str, Any]:
        from dimlab.report.provenance import provenance_of
        from dimlab.representation import Representation

        measured = {
            name: each for name, each in (splits or {}).items() if isinstance(each, Representation)
        }
        others = [loading.train, loading.labels, *beside]
        return provenance_of(
            [*sources, *(file for each in others for file in _files_in(each))],
            measured,
            seed=loading.seed,
            device=loading.device,
            data=_data_of(sources, loading, split),
            images=_images_of(loading),
        )

    return record


def _files_in(option: str | Path | None) -> list[Path]:
    """File that an option names; labels may be those of a column, or of no file at all."""
    if option is None:
        return []
    named = [Path(option), Path(str(option).rpartition(":")[0] or ".")]
    return [each for each in named if each.is_file()][:1]


def keep_record(record: Mapping[str, Any], path: Path) -> None:
    """Write where a file is from beside it, as ``<stem>.provenance.json``.

    Parameters
    ----------
    record : mapping
        Ready for JSON.
    path : Path
        The file, whose hash is recorded too.
    """
    from dimlab.report.provenance import RECORD, hash_of_file

    whole = {**record, "written": {path.name: hash_of_file(path)}}
    content = json.dumps(whole, indent=2, allow_nan=False)
    with replacing(path.with_name(f"{path.stem}{RECORD}")) as temporary:
        temporary.write_text(content, encoding="utf-8")


def _images_of(loading: Loading) -> dict[tuple[str, str], str]:
    """Hash the images that were encoded: once more read, as none are kept for it."""
    return {
        (name, split): load_data(name, split, Path(folder) if folder else None).images_hash
        for (name, split), folder in loading.encoded.items()
    }


def _data_of(sources: Sequence[Path], loading: Loading, split: str) -> dict[str, dict[str, Any]]:
    """Name the data, and the versions that trained them, of the checkpoints among the sources."""
    from dimlab.interop.features import holds_features
    from dimlab.moments import Moments

    found = {}
    different = list(dict.fromkeys(sources))
    for name, source in zip(names_of(different), different, strict=True):
        if not source.is_file() or holds_features(source) or Moments.is_state(source):
            continue
        own: dict[str, Any] = {}
        versions: dict[str, str] = {}
        if is_own(source):
            checkpoint = read_checkpoint(source)
            own, versions = dict(checkpoint.data), checkpoint.versions
        if loading.data is not None:
            own = {"name": loading.data, "split": split, "folder": ""}
            own["labels_hash"] = load_data(loading.data, split, loading.data_dir).labels_hash
        if own and loading.data_dir is not None:
            own["folder"] = str(loading.data_dir)
        if own:
            found[name] = {"data": own, "versions": versions}
    return found
