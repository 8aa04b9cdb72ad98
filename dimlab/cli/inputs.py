"""What the options of the panel "Input" name: each file is opened, each split loaded, once."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dimlab.cli.idle import refuse_given
from dimlab.cli.samples import halves, sampled, sampled_train
from dimlab.io.files import Misnamed
from dimlab.refusals import Refusal
from dimlab.text import say

if TYPE_CHECKING:
    from dimlab.images import ImageSet, Recipe
    from dimlab.io.source import Source
    from dimlab.io.weights import LoadedEncoder
    from dimlab.mask import DimensionMask
    from dimlab.processes import World
    from dimlab.representation import Representation
    from dimlab.training.checkpoint import Checkpoint

FOUND = ("depth", "image_column", "label_column", "workers", "skip_bad")  # how images are found,
PIXELS = ("image_size", "resize", "crop", *FOUND)  # and become pixels
Joined = Callable[[str, "Representation"], "Representation"]


class Unreadable(Exception):
    """A file exists but cannot be used: a failure, not a misuse."""


@contextmanager
def reading() -> Iterator[None]:
    """Turn what a reader refuses into `Unreadable`; a `Misnamed` part of a file stays a misuse."""
    try:
        yield
    except Misnamed:
        raise
    except ValueError as error:
        raise Unreadable(str(error)) from error


@contextmanager
def warnings_to(take: Callable[[str], None]) -> Iterator[None]:
    """Give the warnings of a block as sentences, once it ends."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    for each in caught:
        take(str(each.message))


@dataclass(frozen=True, eq=False, repr=False)
class Inputs:
    """What a command reads, as its options say."""

    data: str | None = None  # data set to encode; None: the checkpoint's own
    data_dir: Path | None = None
    image_size: int | None = None  # how image files become pixels; None: as the encoder's recipe
    resize: int | None = None
    crop: str | None = None
    depth: int | None = None  # how they are found; None: as recorded, else as is usual
    image_column: str | None = None
    label_column: str | None = None
    workers: int | None = None
    skip_bad: bool = False
    masked: bool = False  # multiply features by the checkpoint's mask
    basis: str | None = None  # which train fits, and everything is expressed in
    train: Path | None = None  # train features, where the other files hold features
    device: str = "cpu"
    seed: int = 0  # draws views, samples and the deal of moments
    quiet: bool = False
    array: str | None = None  # name of the array of features in files of other tools
    labels: str | None = None  # name of the array of labels there, or a file of them
    on: str | None = None  # key that a file of labels is joined by
    by_order: bool = False  # or its rows are in the order of the samples
    has_flags: bool = False  # whether the command has the flags for other tools' files
    opened: dict[Path, Source] = field(default_factory=dict)
    tables: dict[Path, tuple[Source, Any]] = field(default_factory=dict)
    loaded: dict[tuple[str, str, str], ImageSet] = field(default_factory=dict)
    encoders: dict[Path, LoadedEncoder] = field(default_factory=dict)
    encoded: dict[tuple[str, str], ImageSet] = field(default_factory=dict)
    said: set[str] = field(default_factory=set)

    # Sentences ------------------------------------------------------------------------------------

    def say(self, text: str) -> None:
        """Print a sentence on stderr, once in a command."""
        if text not in self.said:
            say(text if text.startswith(("assumed: ", "note: ")) else f"note: {text}")
        self.said.add(text)

    @contextmanager
    def reading(self, file: str = "") -> Iterator[None]:
        """Say what a reader warns of, and turn what it refuses into `Unreadable`."""

        # a flag that only `dimlab encode` has is of no use to other commands
        def noted(sentence: str) -> str:
            if self.has_flags or not file or "--" not in sentence:
                return sentence
            return (
                f"{sentence} That flag is dimlab encode's: encode {file} with it first, and name "
                "the features."
            )

        with reading(), warnings_to(lambda text: self.say(noted(text))):
            try:
                yield
            except ValueError as error:
                raise type(error)(noted(str(error))) from error

    # Files ----------------------------------------------------------------------------------------

    def source(self, path: Path, **how: bool) -> Source:
        """Open a file once, as `open_source` does."""
        from dimlab.io.source import open_source

        if path not in self.opened:
            with self.reading(path.name):
                self.opened[path] = open_source(path, as_features=self.array is not None, **how)
        return self.opened[path]

    def table(self, path: Path, read: Callable[..., Any]) -> Any:
        """Read a file of labels or factors, or one of both, which is opened once."""
        from dimlab.io.source import open_table

        if path not in self.tables:
            self.tables[path] = open_table(path, read), read
        source, known = self.tables[path]
        return source.value if read is known else read(path, BytesIO(source.content[0]))

    def digest(self, path: Path) -> str | None:
        """Return the hash of what was read from a file; None for what is no file."""
        from dimlab.report.provenance import hash_of_file

        known = self.opened.get(path) or self.tables.get(path, (None,))[0]
        if known is not None:
            return known.digest
        return hash_of_file(path) if path.is_file() else None

    def is_own(self, path: Path) -> bool:
        """Whether a file is a checkpoint that dimlab wrote."""
        return self.source(path).kind == "checkpoint"

    def checkpoint(self, path: Path) -> Checkpoint:
        """Return the checkpoint of dimlab that a file must hold."""
        source = self.source(path)
        if source.kind == "features":
            raise Refusal(f"checkpoint must be a file of dimlab train; got features, {path.name}.")
        if source.kind != "checkpoint":
            raise Unreadable(
                f"{path.name} must be a checkpoint written by dimlab train; got another kind of "
                "file."
            )
        return source.value

    def encoder(
        self, path: Path, *, normalisation: str | None = None, **known: Any
    ) -> LoadedEncoder:
        """Return the encoder of another tool's file; ``known`` is as in `load_encoder`."""
        from dimlab.io.weights import encoder_of, load_encoder

        if path not in self.encoders:
            if self.data is None:
                raise Refusal(
                    f"data must name what {path.name} shall encode, as only dimlab's own "
                    "checkpoints know it; got nothing. Pass --data."
                )
            source = self.source(path)
            known["image_size"] = self.image_size
            with self.reading(path.name):
                if source.value is None:
                    found = load_encoder(path, **known)
                else:
                    known.pop("trust_pickle", None)  # it is open
                    found = encoder_of(path, source.value, **known)
            if self.has_flags:
                say(found.inspection.facts["why"])
            if not self.quiet and normalisation is None and _lacks_normalisation(found):
                self.say(
                    f"{path.name} does not record how pixels were normalised; they go in as they "
                    "are, from 0 to 1 (none). For weights trained on ImageNet's normalised pixels: "
                    f"dimlab encode {path} --normalisation imagenet."
                )
            self.encoders[path] = found
        return self.encoders[path]

    # Images ---------------------------------------------------------------------------------------

    def asked(self, normalisation: str | None = None) -> Recipe:
        """Return what options say of the pixels."""
        from dimlab.images import Recipe

        flags = {"size": self.image_size, "resize": self.resize, "crop": self.crop}
        return Recipe.of("as asked", **flags, normalisation=normalisation)

    def data_set(
        self, name: str, split: str, folder: Path | None, recorded: Mapping[str, Any] | None = None
    ) -> ImageSet:
        """Load a split of a data set, once; a name that nobody knows is a misuse."""
        from dimlab import datasets

        key = name, split, str(folder or "")
        if key not in self.loaded:
            asked = datasets.given_of({each: getattr(self, each) for each in FOUND})
            datasets.check_name(name, asked)
            how = {**(recorded or {}), **asked}
            with self.reading():
                self.loaded[key] = datasets.load_images(name, split, data_dir=folder, **how)
        return self.loaded[key]

    def images(
        self,
        network: Checkpoint | LoadedEncoder,
        split: str,
        *,
        normalisation: str | None = None,
    ) -> ImageSet:
        """Load a split of ``--data``, or of a checkpoint's own data, as the network takes it."""
        from dimlab._encode import fitted
        from dimlab.training.checkpoint import Checkpoint

        recorded = network.data if isinstance(network, Checkpoint) else {}
        own = Path(recorded["folder"]) if recorded.get("folder") and not self.data else None
        folder, name = self.data_dir or own, self.data or recorded["name"]
        how = recorded.get("reading") if self.data is None else None
        images = self.data_set(name, split, folder, how)
        if self.data is None:
            same = self.data_set(name, recorded["split"], folder, how)
            if same.labels_hash != recorded["labels_hash"]:
                raise Unreadable(
                    f"{name} must be the data that the checkpoint was trained on; got labels with "
                    "another hash. Point --data-dir to that copy, or pass --data."
                )
        self.encoded[name, split] = images
        made, recipe = fitted(images, network, self.asked(normalisation))
        if made is not images and not self.quiet:
            self.say(f"assumed: {recipe.in_words()}")
        return made

    def encode(
        self,
        network: Checkpoint | LoadedEncoder,
        images: ImageSet,
        *,
        views: int = 0,
        **more: Any,
    ) -> Representation:
        """Encode images; a grey image fills all three channels of another tool's encoder."""
        from dimlab._encode import encode
        from dimlab.io.weights import LoadedEncoder
        from dimlab.terminal import progress

        if isinstance(network, LoadedEncoder):
            channels = _channels(network)
            if channels == 3 and images.images.shape[1] == 1:
                images = replace(images, images=np.repeat(images.images, 3, axis=1))
            if channels not in (None, images.images.shape[1]):
                raise Refusal(
                    f"data must have images of {channels} channels, as the encoder has; got "
                    f"{images.images.shape[1]}."
                )
        text = f"encoding {images.split or images.name}"
        with warnings_to(self.say), progress(text, quiet=self.quiet, unit="images") as advance:
            return encode(
                network, images, n_views=views, seed=self.seed, device=self.device,
                progress=advance, **more,
            )  # fmt: skip

    # Representations ------------------------------------------------------------------------------

    def representation(self, path: Path, split: str = "test", *, views: int = 0) -> Representation:
        """Read features (N, D) from a file, or encode one split of a checkpoint's data."""
        from dimlab.io.labels import read_labels

        source = self.source(path)
        if source.kind == "features":
            if self.masked:
                raise Refusal("masked must be left out for a file of features; got --masked.")
            with self.reading():
                return source.value.part(
                    split,
                    features=self.array,
                    labels=self.labels,
                    on=self.on,
                    read=lambda file: self.table(file, read_labels),
                    by_order=self.by_order,
                )
        if source.kind not in ("checkpoint", "weights"):
            raise Unreadable(f"{path.name} must hold features or weights; got {source.kind}.")
        network = source.value if source.kind == "checkpoint" else self.encoder(path)
        found = self.encode(network, self.images(network, split), views=views)
        if not self.masked:
            return found
        if network.mask is None:
            raise Refusal(f"masked must be left out for {path.name}, which has no mask.")
        return found.masked(network.mask)

    def check_data(self, paths: Sequence[Path], split: str = "test") -> None:
        """Refuse options that say nothing of these files; remark on lone shards."""
        from dimlab.io.arrays import remark_on_shards

        remark = remark_on_shards(paths[0]) if len(paths) == 1 else None
        if remark is not None and self.is_own(paths[0]) is False:
            self.say(remark)
        files, sources = ", ".join(each.name for each in paths), list(map(self.source, paths))
        featured = {each.kind in ("features", "moments") for each in sources}
        idle, why = ["data", "data_dir", *PIXELS], f"for a file of features, as {files} is"
        if False in featured:
            idle, why = ["train", "labels"], f"for {files}, which has train data and labels"
        elif not any(split in getattr(each.value, "splits", ()) for each in sources):
            refuse_given("split", split, "test", f"for {files}, which does not hold it")
        for name in idle if len(featured) == 1 else ():
            refuse_given(name.replace("_", "-"), getattr(self, name), False, why)

    def pair(
        self,
        path: Path,
        max_queries: int | None = None,
        *,
        max_train: int | None = None,
        views: int = 0,
        labelled: bool = True,
        joined: Joined | None = None,
    ) -> tuple[Representation, Representation]:
        """Load train and test, in the basis and with the samples asked for."""
        # A file that names no split is cut in halves, class by class. `joined(role, split)` adds
        # what another file says of all samples of `train`, `test` or the `whole`.
        from dimlab.given import aligned

        self.check_data([path])
        test = self.representation(path, "test", views=views)
        train = self._train_of(path, test)
        joined = joined or (lambda role, each: each)
        if train is not None:
            train, test = joined("train", train), joined("test", test)
        else:
            train, test = halves(joined("whole", test), seed=self.seed)
            kept = test.meta["sample"].partition("; ")[2]
            say(
                f"{path.name} names no split: {len(train)} of its {len(train) + len(test)} "
                f"samples are train, the others test (seed {self.seed}; --train names another "
                f"file)." + (f" {kept}." if kept else "")
            )
        if labelled and (train.labels is None or test.labels is None):
            file = self.train if test.labels is not None and self.train else path
            if self.source(file).kind != "features":
                raise Refusal(
                    "data must have labels for this command, such as one folder a class; got "
                    f"images without. Or encode {file.name} with dimlab encode, and pass --labels "
                    "TABLE --on file with its features."
                )
            vectors = ", ".join((test if file == path else train).factors)
            raise Refusal(
                f"labels must stand in {file.name} or be named; got none. Pass --labels FILE, or "
                f"the name of an array there ({vectors or 'it has none of one value a sample'})."
            )
        train, test = aligned(train, test)
        test = sampled(test, max_queries, seed=self.seed)
        train, test = sampled_train(train, test, max_train, seed=self.seed)
        train, test = self.in_basis(train, [train, test])
        return train, test

    def _train_of(self, path: Path, test: Representation | None = None) -> Any:
        """Return train features: named, or of the same file; None if that names no split."""
        source = self.source(path)
        if source.kind != "features":
            return self.representation(path, "train")
        if self.train is not None:
            return self.representation(self.train, "train")
        if test is not None and test.meta.get("split") != "test":
            return None
        if "train" in source.value.splits:
            return self.representation(path, "train")
        raise Refusal(
            f"train must name the train features, as {path.name} holds none; got nothing. Pass "
            f"--train train{path.suffix}."
        )

    def in_basis(
        self, train: Representation, representations: list[Representation]
    ) -> list[Representation]:
        """Express representations in the chosen basis, fitted on train, and describe it."""
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

    def measured(
        self,
        paths: Sequence[Path],
        split: str,
        *,
        views: int = 0,
        pairs: bool = False,
        stacked: bool = False,
        save_moments: Path | None = None,
    ) -> Any:
        """Return one representation, or the moments of several parts."""
        # `pairs`: moments are of two views, where there are two; `stacked`: the views are samples
        # of their own, instead of the features
        from dimlab.moments import Moments
        from dimlab.processes import current_world

        self.check_data(paths, split)
        states = [self.source(path).kind == "moments" for path in paths]
        if any(states) and (not all(states) or self.basis or self.masked):
            raise Refusal(
                "files must all be moments, without --basis and --masked, or none; got both."
            )
        world, measured = current_world(), None
        if any(states):
            measured = self.source(paths[0]).value
            with reading():
                for path in paths[1:]:
                    measured = measured.merge(self.source(path).value)
        else:
            parts = [self.representation(each, split, views=views) for each in paths]
            parts = [each.per_view() for each in parts] if stacked else parts
            if self.basis is not None:
                parts = self.in_basis(self._train_of(paths[0]), parts)
            measured = parts[0] if len(parts) == 1 else self._moments(parts, pairs, world)
        if save_moments is not None:
            state = measured
            if not isinstance(measured, Moments):
                state = self._moments([measured], pairs, world)
            if world.rank == 0:
                say(f"wrote {state.save(save_moments)}")
        return measured

    def _moments(self, parts: list[Representation], pairs: bool, world: World) -> Any:
        """Accumulate parts of a representation; a process takes its share of each part's rows."""
        from dimlab.moments import N_BLOCKS, Moments
        from dimlab.terminal import progress

        have = [each.views is not None and len(each.views) > 1 for each in parts]
        pairs = pairs and any(have)
        if pairs and not all(have):
            raise Refusal("files must all hold two views, or none; got both.")
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
                        precision=each.precision,
                        device=self.device,
                        progress=advance,
                    )
                total = state if total is None else total.merge(state)
                first_row += len(each)
        return replace(total, meta=meta).over_ranks()


def _lacks_normalisation(loaded: LoadedEncoder) -> bool:
    """Whether an encoder takes colour images and nothing records how they were normalised."""
    from dimlab._encode import recipe_of

    recorded = loaded.inspection.facts.get("normalisation") or recipe_of(loaded).normalisation
    return recorded is None and _channels(loaded) == 3


def _channels(loaded: LoadedEncoder) -> int | None:
    """Return the channels that the first convolution takes, where there is one."""
    kernels = (each for each in loaded.module.parameters() if each.ndim == 4)
    return next((each.shape[1] for each in kernels), None)


def mask_of(representation: Representation) -> DimensionMask | None:
    """Return the mask that the features' checkpoint learned, where it did."""
    from dimlab.mask import DimensionMask

    weights = representation.meta.get("mask")
    return None if weights is None else DimensionMask(np.array(weights))
