"""How the files named on a command line become images, representations and moments."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dimlab.sources.encoders import encode_with, normalisation_note
from dimlab.sources.reading import (
    Unreadable,
    is_own,
    load_data,
    read_checkpoint,
    reading,
    said_on_stderr,
)
from dimlab.sources.samples import check_drawn, halves, sampled, sampled_train
from dimlab.text import say

if TYPE_CHECKING:
    from dimlab.datasets import ImageSet
    from dimlab.representation import Representation
    from dimlab.training.checkpoint import Checkpoint
    from dimlab.training.distributed import World


Joined = Callable[[str, "Representation"], "Representation"]


@contextmanager
def _flags_are_of_encode(source: Path) -> Iterator[None]:
    """Add to what refuses or warns with a flag that only ``dimlab encode`` has it."""
    note = (
        f"That flag is dimlab encode's: encode {source.name} with it first, and name the features."
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            yield
        except ValueError as error:
            raise type(error)(_with_note(str(error), note)) from error
    for each in caught:
        warnings.warn(_with_note(str(each.message), note), stacklevel=2)


def _with_note(sentence: str, note: str) -> str:
    return f"{sentence} {note}" if "--" in sentence else sentence


@dataclass(frozen=True)
class Loading:
    """How named files are loaded.

    Parameters
    ----------
    data : str or None
        Data set to encode; None: the checkpoint's own, known by the hash of its labels.
    data_dir : Path or None
        Folder of the data set.
    masked : bool, default=False
        Multiply features by the checkpoint's mask.
    basis : str or None
        Basis that train fits and everything is expressed in.
    train : Path or None
        Train features, where the other files hold features.
    device : str, default="cpu"
        Where to encode.
    seed : int, default=0
        Draws views, samples and the deal of moments.
    quiet : bool, default=False
        No progress.
    array : str or None
        Name of the array of features in files of other tools.
    labels : str or None
        Name of the array of labels there, or a file of them.
    said : set of str
        Notes on stderr that need not be said again.
    encoded : dict of (str, str) to str
        Folders of the data sets and splits that were encoded; ``""`` where there is none.

    Raises
    ------
    ValueError
        If the basis is unknown or the seed negative.
    """

    data: str | None = None
    data_dir: Path | None = None
    masked: bool = False
    basis: str | None = None
    train: Path | None = None
    device: str = "cpu"
    seed: int = 0
    quiet: bool = False
    array: str | None = None
    labels: str | None = None
    said: set[str] = field(default_factory=set, compare=False, repr=False)
    encoded: dict[tuple[str, str], str] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed must be >= 0; got {self.seed}.")
        if self.basis is not None:  # before anything long
            from dimlab.basis import KINDS

            if self.basis not in KINDS:
                raise ValueError(f"basis must be one of {', '.join(KINDS)}; got {self.basis!r}.")

    def images(self, checkpoint: Checkpoint, split: str) -> ImageSet:
        """Load a split of the checkpoint's own data set, or of another.

        Parameters
        ----------
        checkpoint : Checkpoint
            Knows its data.
        split : str
            ``train``, ``validation`` or ``test``.

        Returns
        -------
        ImageSet
            The images.

        Raises
        ------
        Unreadable
            If the checkpoint was trained on data with other labels.
        """
        recorded = checkpoint.data
        own = Path(recorded["folder"]) if recorded["folder"] and not self.data else None
        folder = self.data_dir or own
        images = load_data(self.data or recorded["name"], split, folder)
        if self.data is None:
            same = images
            if split != recorded["split"]:
                same = load_data(recorded["name"], recorded["split"], folder)
            if same.labels_hash != recorded["labels_hash"]:
                raise Unreadable(
                    f"{recorded['name']} must be the data that the checkpoint was trained on; got "
                    "labels with another hash. Point --data-dir to that copy, or pass --data."
                )
        self.encoded[self.data or recorded["name"], split] = str(folder or "")
        return images

    def features(self, source: Path, split: str, *, views: int = 0) -> Representation:
        """Read features from a file, or encode one split of a checkpoint's data.

        Parameters
        ----------
        source : Path
            Features, as `load_features` reads them, or a checkpoint.
        split : str
            What to encode.
        views : int, default=0
            Augmented views to encode.

        Returns
        -------
        Representation
            In the axes' own basis.

        Raises
        ------
        ValueError
            If a mask is asked of a file of features.
        """
        from dimlab.encode import encode
        from dimlab.interop.features import holds_features, part_of
        from dimlab.terminal import progress

        if holds_features(source):
            if self.masked:
                raise ValueError("masked must be left out for a file of features; got --masked.")
            with reading(), said_on_stderr():
                return part_of(source, split, features=self.array, labels=self.labels)
        if not is_own(source):
            return self._of_others(source, split, views)
        checkpoint = read_checkpoint(source)
        images = self.images(checkpoint, split)
        with progress(f"encoding {split}", quiet=self.quiet) as advance:
            representation = encode(
                checkpoint, images, n_views=views, seed=self.seed, device=self.device,
                progress=advance,
            )  # fmt: skip
        return representation.masked(checkpoint.mask) if self.masked else representation

    def _of_others(self, source: Path, split: str, views: int) -> Representation:
        """Encode with another tool's encoder, where its file is plain."""
        from dimlab.io.weights import load_encoder

        with reading(), said_on_stderr(), _flags_are_of_encode(source):
            loaded = load_encoder(source)
        if self.data is None:
            raise ValueError(
                f"data must name what {source.name} shall encode, as only dimlab's own checkpoints "
                "know it; got nothing. Pass --data."
            )
        note = normalisation_note(loaded, source, None)
        if note is not None and note not in self.said and not self.quiet:
            say(note)
            self.said.add(note)
        found = encode_with(
            loaded, load_data(self.data, split, self.data_dir), views=views, seed=self.seed,
            device=self.device, quiet=self.quiet,
        )  # fmt: skip
        self.encoded[self.data, split] = str(self.data_dir or "")
        if not self.masked:
            return found
        if loaded.mask is None:
            raise ValueError(f"masked must be left out for {source.name}, which has no mask.")
        return found.masked(loaded.mask)

    def check_data(self, sources: list[Path]) -> None:
        """Refuse a data set where there is nothing to encode.

        Parameters
        ----------
        sources : list of Path
            What is measured.

        Raises
        ------
        ValueError
            If there is one, and every source holds features or moments.
        """
        if self.data is None:
            return
        from dimlab.interop.features import holds_features
        from dimlab.moments import Moments

        if all(holds_features(each) or Moments.is_state(each) for each in sources):
            what = ", ".join(each.name for each in sources)
            raise ValueError(
                f"data must be left out for a file of features, as {what} is; got {self.data!r}."
            )

    def pair(
        self,
        source: Path,
        max_queries: int | None = None,
        *,
        max_train: int | None = None,
        views: int = 0,
        labelled: bool = True,
        joined: Joined | None = None,
    ) -> tuple[Representation, Representation]:
        """Load train and test, in the basis asked for, test cut down to the samples asked for.

        Parameters
        ----------
        source : Path
            A checkpoint, or test features.
        max_queries : int, optional
            Test samples to draw.
        max_train : int, optional
            Train samples to draw, class by class.
        views : int, default=0
            Augmented views of test that a checkpoint encodes.
        labelled : bool, default=True
            Whether both must have labels.
        joined : callable, optional
            ``joined(role, representation)`` adds what another file says of all the samples of
            ``train`` and ``test``, or of the ``whole`` that is cut in halves.

        Returns
        -------
        tuple of Representation
            Train and test.

        Raises
        ------
        ValueError
            If a number to draw is < 1, the train features are not named though the file is known
            to be a test split, labels are missing, or only one of the two has class names.

        Notes
        -----
        A file that names no split is cut in halves, class by class: one is train, one is test.
        """
        from dimlab.interop.classes import aligned

        check_drawn("max-queries", max_queries)  # before anything long
        check_drawn("max-train", max_train)
        self.check_data([source])
        test = self.features(source, "test", views=views)
        train = self._train_of(source, test)
        joined = joined or (lambda role, each: each)
        if train is not None:
            train, test = joined("train", train), joined("test", test)
        else:
            train, test = halves(joined("whole", test), seed=self.seed)
            kept = test.meta["sample"].partition("; ")[2]
            say(
                f"{source.name} names no split: {len(train)} of its {len(train) + len(test)} "
                f"samples are train, the others test (seed {self.seed}; --train names another "
                f"file)." + (f" {kept}." if kept else "")
            )
        if labelled and (train.labels is None or test.labels is None):
            file = self.train if test.labels is not None and self.train else source
            vectors = ", ".join((test if file == source else train).factors)
            raise ValueError(
                f"labels must stand in {file.name} or be named; got none. Pass --labels FILE, or "
                f"the name of an array there ({vectors or 'it has none of one value a sample'})."
            )
        train, test = aligned(train, test)
        test = sampled(test, max_queries, seed=self.seed)
        train, test = sampled_train(train, test, max_train, seed=self.seed)
        train, test = self.in_basis(train, [train, test])
        return train, test

    def _train_of(self, source: Path, test: Representation) -> Representation | None:
        """Train features: named, of a checkpoint, in the file itself; None if a half would do."""
        from dimlab.interop.features import holds_features, splits_of

        if not holds_features(source):
            return self.features(source, "train")
        if self.train is not None:
            return self.features(self.train, "train")
        if test.meta.get("split") != "test":
            return None
        if "train" not in splits_of(source):
            raise ValueError(
                "train must name the train features, as these are test; got nothing. Pass --train "
                f"train{source.suffix}."
            )
        return self.features(source, "train")

    def _basis_train(self, source: Path) -> Representation:
        """Train features for a basis: named, or of a checkpoint."""
        from dimlab.interop.features import holds_features

        if not holds_features(source):
            return self.features(source, "train")
        if self.train is None:
            raise ValueError(
                "train must name the train features; got nothing. Pass --train "
                f"train{source.suffix}."
            )
        return self.features(self.train, "train")

    def in_basis(
        self, train: Representation, representations: list[Representation]
    ) -> list[Representation]:
        """Express representations in the basis asked for, and say on stderr what it is.

        Parameters
        ----------
        train : Representation
            Fits the basis.
        representations : list of Representation
            To be expressed in it.

        Returns
        -------
        list of Representation
            The same ones where no basis is asked for.
        """
        from dimlab.basis import fit_basis

        if self.basis is None:
            return representations
        fitted = fit_basis(train, self.basis, seed=self.seed)
        words = fitted.summary()
        say(
            f"basis {self.basis}: {words['n_directions']} directions ({words['n_dropped']} "
            f"dropped, {words['n_stable']} stable); {words['in_words']}."
        )
        return [fitted.apply(each) for each in representations]

    @contextmanager
    def measured(
        self,
        sources: list[Path],
        split: str,
        *,
        views: int = 0,
        pairs: bool = False,
        stacked: bool = False,
        save_moments: Path | None = None,
    ) -> Iterator[tuple[Any, bool]]:
        """Load one representation, or the moments of several parts and processes.

        Parameters
        ----------
        sources : list of Path
            A checkpoint; files of features, or of moments, that are parts of one.
        split : str
            What a checkpoint encodes.
        views : int, default=0
            Views that a checkpoint encodes.
        pairs : bool, default=False
            Moments are of two views, where there are two.
        stacked : bool, default=False
            Take the views as samples of their own, instead of the features.
        save_moments : Path, optional
            Where the moments are kept.

        Yields
        ------
        measured : Representation or Moments
            Moments for several files or processes, or where they are to be kept.
        is_first : bool
            Whether this is the first process, which prints.

        Raises
        ------
        ValueError
            If files are of different kinds, or the train features for a basis are not named.
        """
        from dimlab.moments import Moments
        from dimlab.training.distributed import joined

        self.check_data(sources)
        states = [Moments.is_state(path) for path in sources]
        if any(states) and (not all(states) or self.basis or self.masked):
            raise ValueError(
                "files must all be moments, without --basis and --masked, or none; got both."
            )
        with joined(self.device) as (world, place):
            loading = replace(self, device=place, quiet=self.quiet or world.rank > 0)
            measured: Any
            if any(states):
                with reading():
                    measured = Moments.load(sources[0])
                    for path in sources[1:]:  # one at a time: each may take most of the memory
                        measured = measured.merge(Moments.load(path))
            else:
                parts = [loading.features(each, split, views=views) for each in sources]
                parts = [each.per_view() for each in parts] if stacked else parts
                if self.basis is not None:
                    parts = loading.in_basis(loading._basis_train(sources[0]), parts)
                alone = len(parts) == 1 and world.size == 1
                measured = parts[0] if alone else loading._moments(parts, pairs, world)
            if save_moments is not None and world.rank == 0:
                state = measured
                if not isinstance(measured, Moments):
                    state = loading._moments([measured], pairs, world)
                say(f"wrote {state.save(save_moments)}")
            yield measured, world.rank == 0

    def _moments(self, parts: list[Representation], pairs: bool, world: World) -> Any:
        """Accumulate parts of a representation; a process takes its share of each part's rows."""
        from dimlab.moments import N_BLOCKS, Moments
        from dimlab.terminal import progress

        have = [each.views is not None and len(each.views) > 1 for each in parts]
        pairs = pairs and any(have)
        if pairs and not all(have):
            raise ValueError("files must all hold two views, or none; got both.")
        meta = {"basis": self.basis} if self.basis else {}
        total: Any = None
        first_row = 0
        with progress("accumulating", quiet=self.quiet) as advance:
            for each in parts:
                rows = world.rows(len(each))
                source: Any = each.features[rows]
                if pairs and each.views is not None:
                    source = (each.views[0][rows], each.views[1][rows])
                state = Moments.empty(N_BLOCKS, 1 + pairs, each.n_dimensions)
                if rows.stop > rows.start:
                    state = Moments.of(
                        source,
                        seed=self.seed,
                        first_row=first_row + rows.start,
                        device=self.device,
                        progress=advance,
                    )
                total = state if total is None else total.merge(state)
                first_row += len(each)
        return replace(total, meta=meta).over_ranks()
