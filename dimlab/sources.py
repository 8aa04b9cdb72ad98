"""What is named on a command line becomes checkpoints, images, representations and moments."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dimlab.containers import Misnamed

if TYPE_CHECKING:
    from dimlab.datasets import ImageSet
    from dimlab.interop.weights import LoadedEncoder
    from dimlab.mask import DimensionMask, MaskTrace
    from dimlab.representation import Representation
    from dimlab.training.checkpoint import Checkpoint
    from dimlab.training.distributed import World


class Unreadable(Exception):
    """A file that is there but cannot be used: a failure, not a misuse."""


@contextmanager
def reading() -> Iterator[None]:
    """Turn what a reader refuses into ``Unreadable``.

    Yields
    ------
    None

    Raises
    ------
    Unreadable
        With the sentence of the ``ValueError``.
    Misnamed
        As it was raised: a misuse.
    """
    try:
        yield
    except Misnamed:
        raise
    except ValueError as error:
        raise Unreadable(str(error)) from error


@contextmanager
def said_on_stderr() -> Iterator[None]:
    """Say warnings as sentences on stderr.

    Yields
    ------
    None
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    for each in caught:
        print(f"note: {each.message}", file=sys.stderr)


def load_data(name: str, split: str, data_dir: Path | None) -> ImageSet:
    """Load a split of a data set.

    Parameters
    ----------
    name, split : str
        As ``dimlab.datasets`` knows them.
    data_dir : Path or None
        Where to look first.

    Returns
    -------
    ImageSet
        The images.

    Raises
    ------
    ValueError
        If there is no data set of that name, or what is to be planted cannot be read.
    Unreadable
        If its files cannot be read.
    """
    from dimlab import datasets
    from dimlab.image_set import SPLITS

    # misuses, where what cannot be read is a failure
    datasets.check_name(name)
    if split not in SPLITS:
        raise ValueError(f"split must be train, validation or test; got {split!r}.")
    with reading():
        return datasets.load_images(name, split, data_dir=data_dir)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    Checkpoint
        A run.

    Raises
    ------
    FileNotFoundError
        If it is not there.
    ValueError
        If it holds features.
    Unreadable
        If it is no checkpoint.
    """
    from dimlab.interop.features import holds_features
    from dimlab.training.checkpoint import load_checkpoint

    if holds_features(path) and path.is_file():
        raise ValueError(f"checkpoint must be a file of dimlab train; got features, {path.name}.")
    with reading():
        return load_checkpoint(path)


def read_trace(paths: list[Path], *, key: str | None = None, sigmoid: bool = False) -> MaskTrace:
    """Read how a mask moved: from one checkpoint's trace, or the masks of several.

    Parameters
    ----------
    paths : list of Path
        A checkpoint or a ``.npz`` of `MaskTrace.save`; or several checkpoints of one run, dimlab's
        or, with ``key``, anyone's torch files, in the order of their steps: a file's own ``step``
        (``global_step``, ``epoch``), else the last number in its name, else its place.
    key : str, optional
        Where the mask stands in others' files, as ``state_dict.mask.weight``.
    sigmoid : bool, default=False
        Whether that holds logits.

    Returns
    -------
    MaskTrace
        At least one record.

    Raises
    ------
    FileNotFoundError
        If a file is not there.
    Unreadable
        If one cannot be read or lacks the mask, or two are of one step.
    ValueError
        If a ``.npz`` is one of several files.
    """
    from dimlab.mask import MaskTrace

    if len(paths) > 1 and any(path.suffix == ".npz" for path in paths):
        raise ValueError("files must be one .npz, or checkpoints; got a .npz among several.")
    with reading():
        if paths[0].suffix == ".npz":
            return MaskTrace.load(paths[0])
        if key is None:
            from dimlab.training.checkpoint import load_checkpoint

            checkpoints = [load_checkpoint(path) for path in paths]
            if len(checkpoints) == 1:
                return checkpoints[0].trace
            found = [(each.step, each.trace.weights[-1]) for each in checkpoints]
        else:
            found = [_foreign_mask(path, key, sigmoid, place) for place, path in enumerate(paths)]
        steps = [step for step, _ in found]
        for step in steps:
            if steps.count(step) > 1:
                raise ValueError(
                    f"files must be of different steps; got {step} more than once. Number their "
                    "names."
                )
        return MaskTrace.of_masks(dict(found))


def _foreign_mask(path: Path, key: str, sigmoid: bool, place: int) -> tuple[int, np.ndarray]:
    """Step and weights of a mask in anyone's torch file."""
    import torch

    from dimlab.training.checkpoint import read_torch_file

    tensors = dict(_flattened(read_torch_file(path)))
    mask = tensors.get(key)
    if not _is_vector(mask):
        vectors = [name for name, value in tensors.items() if _is_vector(value)]
        listed = ", ".join(vectors[:8]) + (", ..." if len(vectors) > 8 else "")
        raise ValueError(
            f"key must name a vector in {path.name}, one of {listed or 'none'}; got {key!r}."
        )
    weights = torch.as_tensor(mask).detach().double().flatten()
    numbers = re.findall(r"\d+", path.stem)
    named = [
        tensors[name]
        for name in ("step", "global_step", "epoch")
        if isinstance(tensors.get(name), int)
    ]
    step = named[0] if named else int(numbers[-1]) if numbers else place
    return step, (weights.sigmoid() if sigmoid else weights).numpy()


def _is_vector(value: Any) -> bool:
    """Whether a leaf is a floating tensor with one side longer than 1, or one number."""
    import torch

    return (
        isinstance(value, torch.Tensor)
        and value.is_floating_point()
        and value.numel() > 0
        and value.numel() == max(value.shape, default=0)
    )


def _flattened(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of nested mappings with their dotted names."""
    if isinstance(tree, Mapping):
        for name, value in tree.items():
            yield from _flattened(value, f"{prefix}.{name}" if prefix else str(name))
    else:
        yield prefix, tree


def check_drawn(name: str, count: int | None) -> None:
    """Refuse to draw nothing.

    Parameters
    ----------
    name : str
        The option's.
    count : int or None
        Its value; None: all.

    Raises
    ------
    ValueError
        If it is < 1.
    """
    if count is not None and count < 1:
        raise ValueError(f"{name} must be >= 1; got {count}.")


def mask_of(representation: Representation) -> DimensionMask | None:
    """Give the mask that the features' checkpoint learned.

    Parameters
    ----------
    representation : Representation
        From `encode`, or from a file of it.

    Returns
    -------
    DimensionMask or None
        None where none was learned.
    """
    from dimlab.mask import DimensionMask

    weights = representation.meta.get("mask")
    return None if weights is None else DimensionMask(np.array(weights))


def names_of(sources: list[Path]) -> list[str]:
    """Name files in short: the folder of a ``checkpoint.pt``, else the stem; paths if equal.

    Parameters
    ----------
    sources : list of Path
        Different files.

    Returns
    -------
    list of str
        Different names.

    Raises
    ------
    ValueError
        If a file is named twice.

    Examples
    --------
    >>> names_of([Path("runs/a/checkpoint.pt"), Path("features.safetensors")])
    ['a', 'features']
    """
    short = [
        each.resolve().parent.name if each.name == "checkpoint.pt" else each.stem
        for each in sources
    ]
    names = short if len(set(short)) == len(short) else [str(each) for each in sources]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"files must differ; got {name} twice.")
    return names


def is_own(source: Path) -> bool:
    """Say whether a file is a checkpoint that dimlab wrote, not another tool.

    Parameters
    ----------
    source : Path
        Any file.

    Returns
    -------
    bool
        True also for a file that is not there or cannot be read: whoever reads it says so.
    """
    from dimlab.training.checkpoint import has_format, read_torch_file

    if source.suffix == ".safetensors" or str(source).startswith("timm:"):
        return False
    try:
        return has_format(read_torch_file(source))
    except FileNotFoundError:
        return True
    except ValueError:
        return False


def encode_with(
    loaded: LoadedEncoder,
    images: ImageSet,
    *,
    views: int = 0,
    normalisation: str | None = None,
    seed: int = 0,
    device: str = "cpu",
    quiet: bool = False,
) -> Representation:
    """Encode images with another tool's encoder.

    Parameters
    ----------
    loaded : LoadedEncoder
        From `load_encoder`.
    images : ImageSet
        N images; grey ones are given to three channels alike.
    views : int, default=0
        Augmented views.
    normalisation : {"none", "imagenet"}, optional
        As in `encode`.
    seed : int, default=0
        Of the views.
    device : str, default="cpu"
        Where to encode.
    quiet : bool, default=False
        No progress.

    Returns
    -------
    Representation
        Unmasked; ``meta`` says which file, layout and prefix.
    """
    from dimlab.encode import encode
    from dimlab.terminal import progress

    channels = _channels(loaded)
    if channels == 3 and images.images.shape[1] == 1:
        images = replace(images, images=np.repeat(images.images, 3, axis=1))
    if images.images.shape[1] != channels:
        raise ValueError(
            f"data must have images of {channels} channels, as the encoder has; got "
            f"{images.images.shape[1]}."
        )
    with progress(f"encoding {images.split or images.name}", quiet=quiet) as advance:
        return encode(
            loaded, images, n_views=views, seed=seed, device=device, normalisation=normalisation,
            progress=advance,
        )  # fmt: skip


def normalisation_note(loaded: LoadedEncoder, source: Path, chosen: str | None) -> str | None:
    """Say that nobody said how an encoder's pixels are normalised, where nobody did.

    Parameters
    ----------
    loaded : LoadedEncoder
        From `load_encoder`.
    source : Path
        As it was named.
    chosen : str or None
        What the user chose.

    Returns
    -------
    str or None
        One line; None where it is recorded or chosen, and for an encoder of other than three
        channels, which ImageNet has no normalisation for.
    """
    known = chosen is not None or loaded.inspection.facts.get("normalisation") is not None
    if known or _channels(loaded) != 3:
        return None
    return (
        f"note: {source.name} does not record how pixels were normalised; they go in as they are, "
        "from 0 to 1 (none). For weights trained on ImageNet's normalised pixels: dimlab encode "
        f"{source} --normalisation imagenet."
    )


def _channels(loaded: LoadedEncoder) -> int:
    return next(each.shape[1] for each in loaded.module.parameters() if each.ndim == 4)


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
        from dimlab.interop.weights import load_encoder

        with reading(), said_on_stderr():
            loaded = load_encoder(source)
        if self.data is None:
            raise ValueError(
                f"data must name what {source.name} shall encode, as only dimlab's own checkpoints "
                "know it; got nothing. Pass --data."
            )
        note = normalisation_note(loaded, source, None)
        if note is not None and note not in self.said and not self.quiet:
            print(note, file=sys.stderr)
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
        from dimlab.kernels.moments import Moments

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
        if train is None:
            train, test = self.halves(test)
            print(
                f"{source.name} names no split: {len(train)} of its {len(train) + len(test)} "
                f"samples are train, the others test (seed {self.seed}; --train names another "
                "file).",
                file=sys.stderr,
            )
        if labelled and (train.labels is None or test.labels is None):
            file = self.train if test.labels is not None and self.train else source
            vectors = ", ".join((test if file == source else train).factors)
            raise ValueError(
                f"labels must stand in {file.name} or be named; got none. Pass --labels FILE, or "
                f"the name of an array there ({vectors or 'it has none of one value a sample'})."
            )
        train, test = aligned(train, test)
        train, test = self.sampled_train(train, self.sampled(test, max_queries), max_train)
        train, test = self.in_basis(train, [train, test])
        return train, test

    def sampled(self, test: Representation, max_queries: int | None) -> Representation:
        """Draw test samples, and note in ``meta["sample"]`` that they are not all.

        Parameters
        ----------
        test : Representation
            All of test.
        max_queries : int or None
            How many are wanted, at most; None: all.

        Returns
        -------
        Representation
            In the order of test.

        Raises
        ------
        ValueError
            If ``max_queries`` < 1.
        """
        check_drawn("max-queries", max_queries)
        if max_queries is None or max_queries >= len(test):
            return test
        note = f"{max_queries} of {len(test)} test samples, drawn with seed {self.seed}"
        test = test.take(self.drawn(len(test), max_queries))
        return replace(test, meta={**test.meta, "sample": note})

    def sampled_train(
        self, train: Representation, test: Representation, max_train: int | None
    ) -> tuple[Representation, Representation]:
        """Draw train samples, and note in ``meta["sample"]`` of test that they are not all.

        Parameters
        ----------
        train, test : Representation
            All of train; test, whose results carry the note.
        max_train : int or None
            How many are wanted, at most; None: all.

        Returns
        -------
        tuple of Representation
            Train, in its order and with every class's share; test.

        Raises
        ------
        ValueError
            If ``max_train`` < 1.
        """
        check_drawn("max-train", max_train)
        if max_train is None or max_train >= len(train):
            return train, test
        note = f"{max_train} of {len(train)} train samples, drawn with seed {self.seed}"
        known = test.meta.get("sample")
        test = replace(test, meta={**test.meta, "sample": f"{known}; {note}" if known else note})
        return train.take(self.drawn(len(train), max_train, train.labels)), test

    def drawn(self, n_samples: int, count: int, labels: np.ndarray | None = None) -> np.ndarray:
        """Draw rows without replacement, of every class its share where labels are given.

        Parameters
        ----------
        n_samples : int
            N, how many there are.
        count : int
            How many are wanted, from 1 to N.
        labels : ndarray of shape (N,), optional
            Class ids.

        Returns
        -------
        ndarray of shape (count,), int
            Rows in ascending order.

        Examples
        --------
        >>> labels = np.repeat([0, 1], [60, 30])
        >>> np.bincount(labels[Loading(seed=1).drawn(90, 9, labels)]).tolist()
        [6, 3]
        """
        rng = np.random.default_rng(self.seed)
        if labels is None:
            return np.sort(rng.choice(n_samples, count, replace=False))
        shuffled = rng.permutation(n_samples)
        shuffled = shuffled[np.argsort(labels[shuffled], kind="stable")]
        every = (np.arange(count) * n_samples + n_samples // 2) // count  # evenly spaced
        return np.sort(shuffled[every])

    def halves(self, whole: Representation) -> tuple[Representation, Representation]:
        """Cut a representation in two, class by class, and note in ``meta["sample"]`` that it is.

        Parameters
        ----------
        whole : Representation
            At least two samples.

        Returns
        -------
        tuple of Representation
            Train and test, each in the order of the whole.

        Raises
        ------
        ValueError
            If there are fewer than two samples.
        """
        if len(whole) < 2:
            raise ValueError(f"features must have at least 2 samples; got {len(whole)}.")
        shuffled = np.random.default_rng(self.seed).permutation(len(whole))
        if whole.labels is not None:  # a class gives every other of its samples to train
            shuffled = shuffled[np.argsort(whole.labels[shuffled], kind="stable")]
        note = f"half of {len(whole)} samples, the others are train (seed {self.seed})"
        test = whole.take(np.sort(shuffled[1::2]))
        return (
            whole.take(np.sort(shuffled[::2])),
            replace(test, meta={**test.meta, "sample": note}),
        )

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
        print(
            f"basis {self.basis}: {words['n_directions']} directions ({words['n_dropped']} "
            f"dropped, {words['n_stable']} stable); {words['in_words']}.",
            file=sys.stderr,
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
        from dimlab.kernels.moments import Moments
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
                print(f"wrote {state.save(save_moments)}", file=sys.stderr)
            yield measured, world.rank == 0

    def _moments(self, parts: list[Representation], pairs: bool, world: World) -> Any:
        """Accumulate parts of a representation; a process takes its share of each part's rows."""
        from dimlab.kernels.moments import N_BLOCKS, Moments
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
