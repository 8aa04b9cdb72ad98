"""Feature files as people save them: HDF5, AnnData, Arrow folders, shards, lists, named vectors."""

import json

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from dimlab.io.features import load_features
from dimlab.io.source import open_source
from dimlab.representation import Representation
from tests.io.writing import save

N, D = 12, 3
FEATURES = np.random.default_rng(0).normal(size=(N, D)).astype(np.float32)
NAMES = np.array([f"img{row}.png" for row in range(N)])
CLASSES = np.array(["cat", "dog", "owl"])[np.arange(N) % 3]
LABELS = np.arange(N) % 3


def assert_same(found, *, names="filename"):
    np.testing.assert_allclose(found.features, FEATURES, rtol=1e-6)
    assert found.meta["class_names"] == ["cat", "dog", "owl"]
    np.testing.assert_array_equal(found.labels, LABELS)
    if names:
        assert found.factors[names].tolist() == NAMES.tolist()


def objects(values):
    array = np.empty(len(values), dtype=object)
    array[:] = list(values)
    return array


def records(in_arrays):
    vectors = torch.from_numpy(FEATURES).unbind() if in_arrays else FEATURES.tolist()
    rows = zip(NAMES.tolist(), vectors, CLASSES.tolist(), strict=True)
    return [{"filename": name, "embedding": vector, "label": kind} for name, vector, kind in rows]


def batches():
    return [
        {"filename": NAMES[rows].tolist(), "embedding": torch.from_numpy(FEATURES[rows]),
         "label": CLASSES[rows].tolist()}
        for rows in (slice(0, 5), slice(5, 10), slice(10, 12))
    ]  # fmt: skip


def in_torch():
    """What scripts hand to torch.save, beside tensors by usual names."""
    text = {"filename": objects(NAMES), "label": objects(CLASSES)}
    return {
        "arrays": {"embeddings": FEATURES, **text},
        "turned": {"embeddings": np.asfortranarray(FEATURES.astype(">f8")), **text},
        "vectors in an array": {"embeddings": objects(FEATURES), **text},
        "vectors in a list": {"embeddings": list(FEATURES), **text},
        "records": records(True),
        "batches": batches(),
        "under splits": {"test": {"embeddings": FEATURES, **text}},
    }


@pytest.mark.parametrize("what", in_torch())
def test_torch_files_of_arrays_and_records(what, tmp_path):
    torch.save(in_torch()[what], tmp_path / "a.pt")
    assert_same(load_features(tmp_path / "a.pt"))
    assert open_source(tmp_path / "a.pt").kind == "features"


def test_a_mapping_of_names_to_vectors_is_said_to_be_one(tmp_path, dimlab):
    vectors = dict(zip(NAMES.tolist(), torch.from_numpy(FEATURES).unbind(), strict=True))
    torch.save(vectors, tmp_path / "a.pt")
    with pytest.warns(UserWarning, match=r"a.pt: assumed: each of its 12 vectors is a sample"):
        found = load_features(tmp_path / "a.pt")
    np.testing.assert_array_equal(found.features, FEATURES)
    assert found.factors["file"].tolist() == NAMES.tolist()
    pd.DataFrame({"file": NAMES[::-1], "label": CLASSES[::-1]}).to_csv("y.csv", index=False)
    code, _, err = dimlab("ablate", "a.pt", "--labels", "y.csv", "--reader", "ridge", "--json")
    assert (code, "assumed: each of its 12 vectors" in err) == (0, True), err
    torch.save({"train": vectors, "test": vectors}, tmp_path / "b.pt")
    with pytest.warns(UserWarning, match="assumed"):
        np.testing.assert_array_equal(load_features("b.pt", split="test").features, FEATURES)
    scores = {"scores": torch.ones(N), "labels": torch.ones(N)}  # no samples under these names
    torch.save(scores, tmp_path / "c.pt")
    with pytest.raises(ValueError, match=r"c.pt must hold features \(N, D\); got 'scores'"):
        load_features(tmp_path / "c.pt")


def test_pairs_of_vectors_or_batches_and_their_labels(tmp_path):
    vectors, labels = torch.from_numpy(FEATURES), torch.from_numpy(LABELS)
    cuts = [slice(start, start + 5) for start in (0, 5, 10)]
    ones = list(zip(vectors, LABELS.tolist(), strict=True))
    for pairs in (ones, [(vectors[rows], labels[rows]) for rows in cuts]):
        torch.save(pairs, tmp_path / "a.pt")
        found = load_features(tmp_path / "a.pt")
        np.testing.assert_array_equal(found.features, FEATURES)
        np.testing.assert_array_equal(found.labels, LABELS)
    splits = [(vectors[rows], labels[rows]) for rows in (slice(0, 8), slice(8, 12))]
    torch.save(splits, tmp_path / "b.pt")  # a pair may be a split
    with pytest.raises(ValueError, match=r"features must name one of the arrays of b\.pt"):
        load_features(tmp_path / "b.pt")


def test_labels_that_are_tensors_of_one_number_each(tmp_path):
    labels = [torch.tensor(each) for each in LABELS]
    torch.save({"features": FEATURES, "labels": labels}, tmp_path / "a.pt")
    np.testing.assert_array_equal(load_features(tmp_path / "a.pt").labels, LABELS)


@pytest.mark.parametrize("ending", ["npz", "npy", "safetensors"])
def test_vectors_by_their_names_in_files_of_numpy_and_safetensors(ending, tmp_path):
    from safetensors.numpy import save_file

    path, vectors = tmp_path / f"a.{ending}", dict(zip(NAMES.tolist(), FEATURES, strict=True))
    if ending == "npz":
        np.savez(path, **vectors)
    elif ending == "npy":
        np.save(path, vectors, allow_pickle=True)
    else:
        save_file(vectors, path)
    with pytest.warns(UserWarning, match="assumed: each of its 12 vectors is a sample"):
        found = load_features(path)
    assert_rows_by_name(found)
    few = {name: np.arange(12.0) for name in ("epoch", "loss", "rate")}  # these are columns
    np.savez(tmp_path / "b.npz", **few)
    with pytest.raises(ValueError, match=r"b.npz must hold features \(N, D\); got 'epoch' \(12,\)"):
        load_features(tmp_path / "b.npz")


def assert_rows_by_name(found):
    order = [NAMES.tolist().index(name) for name in found.factors["file"].tolist()]
    assert sorted(order) == list(range(N))
    np.testing.assert_array_equal(found.features, FEATURES[order])


@pytest.mark.parametrize("ending", ["npy", "pt"])
def test_one_vector_a_file(ending, tmp_path, dimlab):
    for name, vector in zip(NAMES, FEATURES, strict=True):
        path = tmp_path / "v" / f"{name}.{ending}"
        path.parent.mkdir(exist_ok=True)
        np.save(path, vector) if ending == "npy" else torch.save(torch.from_numpy(vector), path)
    with pytest.warns(UserWarning, match="assumed: each of the 12 files is a sample"):
        assert_rows_by_name(load_features(tmp_path / "v" / f"*.{ending}"))
    code, _, err = dimlab("decompose", "v")  # the remedies lead there
    assert (code, f"a pattern such as 'v/*.{ending}'" in err) == (2, True), err
    code, _, err = dimlab("decompose", f"v/img1.png.{ending}")
    assert (code, f"by a pattern in quotation marks, such as 'v/*.{ending}'" in err) == (1, True)
    assert dimlab("decompose", f"v/*.{ending}", "--json")[0] == 0


def test_arrays_of_objects_in_files_of_numpy(tmp_path):
    text = {"filename": objects(NAMES), "label": objects(CLASSES)}
    np.savez(tmp_path / "a.npz", embeddings=FEATURES, **text)
    assert_same(load_features(tmp_path / "a.npz"))
    np.savez(tmp_path / "b.npz", embeddings=objects(FEATURES), **text)
    assert_same(load_features(tmp_path / "b.npz"))
    np.save(tmp_path / "c.npy", {"embeddings": FEATURES, **text}, allow_pickle=True)
    assert_same(load_features(tmp_path / "c.npy"))
    np.savez(tmp_path / "d.npz", embeddings=FEATURES, note=objects([None, *NAMES[1:]]))
    with pytest.warns(UserWarning, match=r"'note' must hold numbers or text; got NoneType"):
        load_features(tmp_path / "d.npz")


def test_records_by_the_names_of_their_samples(tmp_path):
    rows = {row.pop("filename"): row for row in records(True)}
    torch.save(rows, tmp_path / "a.pt")
    assert_same(load_features(tmp_path / "a.pt"), names="file")
    layers = {name: {"features": torch.from_numpy(FEATURES)} for name in ("layer1", "layer2")}
    torch.save(layers, tmp_path / "b.pt")  # these are no samples
    with pytest.raises(ValueError, match=r"'layer1.features' \(12, 3\), 'layer2.features'"):
        load_features(tmp_path / "b.pt")


@pytest.mark.parametrize(
    "style",
    [
        str,
        lambda row: str(np.array(row)),
        json.dumps,
        lambda row: " ".join(map(str, row)),
        lambda row: ", ".join(map(str, row)),
        lambda row: "|".join(map(str, row)),
        lambda row: str(tuple(row)),
        lambda row: repr(np.array(row, dtype=np.float32)),
        lambda row: f"tensor({row})",
        lambda row: str([np.float32(each) for each in row]),
    ],
)
def test_lists_that_a_csv_holds_as_text(style, tmp_path):
    rows = [style(row) for row in FEATURES.tolist()]
    frame = pd.DataFrame({"filename": NAMES, "embedding": rows, "label": CLASSES})
    frame.to_csv(tmp_path / "a.csv", index=False)
    found = load_features(tmp_path / "a.csv")
    np.testing.assert_allclose(found.features, FEATURES, rtol=1e-6, atol=1e-7)
    assert_same(found)
    frame.assign(embedding=["[0.1 0.2 ... 0.3]"] * N).to_csv(tmp_path / "b.csv", index=False)
    with pytest.raises(ValueError, match=r"must hold whole lists; got some that were cut short"):
        load_features(tmp_path / "b.csv")


def test_numbers_in_text_are_lists_only_where_the_column_is_called_so(tmp_path):
    frame = pd.DataFrame(FEATURES).add_prefix("f_").assign(date="2026 11 29", label=CLASSES)
    frame.to_csv(tmp_path / "a.csv", index=False)
    assert_same(load_features(tmp_path / "a.csv"), names="")
    assert load_features(tmp_path / "a.csv").factors["date"].tolist() == ["2026 11 29"] * N


def test_lines_of_json_with_vectors(tmp_path):
    lines = [json.dumps(each) for each in records(False)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    assert_same(load_features(tmp_path / "a.jsonl"))
    lines = [json.dumps(each) for each in FEATURES.tolist()]
    (tmp_path / "b.jsonl").write_text("\n".join(lines))
    np.testing.assert_allclose(load_features(tmp_path / "b.jsonl").features, FEATURES, rtol=1e-6)


def hdf(path, arrays, **attributes):
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            text = array.dtype.kind == "U"
            file.create_dataset(name, data=array.astype(object) if text else array)
        file.attrs.update(attributes)
    return path


@pytest.mark.parametrize("group", ["", "test/"])
def test_hdf5(group, tmp_path, dimlab):
    arrays = {"features": FEATURES, "labels": CLASSES, "filename": NAMES}
    path = hdf(tmp_path / "a.h5", {f"{group}{name}": each for name, each in arrays.items()})
    assert_same(load_features(path))
    code, out, err = dimlab("inspect", "a.h5", "--json")
    assert (code, json.loads(out)["kind"]) == (0, "features"), err


def test_vectors_by_their_names_in_hdf5(tmp_path):
    path = hdf(tmp_path / "a.h5", dict(zip(NAMES.tolist(), FEATURES, strict=True)))
    with pytest.warns(UserWarning, match="assumed: each of its 12 vectors is a sample"):
        found = load_features(path)
    order = [NAMES.tolist().index(name) for name in found.factors["file"].tolist()]
    np.testing.assert_array_equal(found.features, FEATURES[order])


@pytest.mark.parametrize("under", ["", "samples/"])
@pytest.mark.parametrize("row", [np.asarray, np.atleast_2d])
def test_one_group_a_sample_in_hdf5(row, under, tmp_path):
    path = hdf(tmp_path / "a.h5", {})
    import h5py

    with h5py.File(path, "w") as file:
        for name, vector, kind in zip(NAMES, FEATURES, CLASSES, strict=True):
            group = file.create_group(f"{under}{name}")
            group["embedding"] = row(vector)
            group.attrs["label"] = str(kind)
            group["site"] = "north"
    found = load_features(path)
    assert_rows_by_name(found)
    assert found.meta["class_names"] == ["cat", "dog", "owl"]
    assert set(found.factors) == {"file", "site"}
    with h5py.File(path, "w") as file:
        for split, count in (("train", 12), ("test", 8)):
            for name, vector in zip(NAMES[:count], FEATURES, strict=False):
                file[f"{split}/{name}/features"] = vector
    assert len(load_features(path, split="test")) == 8


@pytest.mark.parametrize("shape", [(3, 8), (5,)])
def test_samples_of_several_lengths_are_refused_with_five_examples(shape, tmp_path):
    path = tmp_path / "ragged.h5"
    with h5py.File(path, "w") as file:
        for row in range(20):
            values = np.random.default_rng(row).normal(size=(shape[0] + row % 3, *shape[1:]))
            file[f"sample_{row:02d}/features"] = values
    with pytest.raises(ValueError, match=r"\(20 in all\).* Samples need vectors of one") as raised:
        load_features(path)
    assert str(raised.value).count("sample_") == 5
    with pytest.raises(ValueError, match=r"features must be .*; got 'sample'") as raised:
        load_features(path, features="sample")
    assert str(raised.value).count("sample_") == 5 * (len(shape) - 1)


def anndata(path, *, obsm=True, text=None):
    """As AnnData writes them: categories by their codes, an index called _index."""
    arrays = {
        "X": np.ones((N, 7), np.float32) if obsm else FEATURES,
        "obs/_index": np.array([f"cell{row}" for row in range(N)]),
        "obs/label/codes": LABELS.astype(np.int8),
        "obs/label/categories": np.array(["cat", "dog", "owl"]),
        "obs/filename": NAMES,
        "var/_index": np.array([f"gene{row}" for row in range(7)]),
    }
    for name in ("obs/_index", "obs/label/categories", "obs/filename") if text else ():
        values = arrays.pop(name)  # as of pandas 3: text that may have gaps
        arrays |= {f"{name}/values": values, f"{name}/mask": np.zeros(len(values), bool)}
    return hdf(path, arrays | ({"obsm/X_model": FEATURES} if obsm else {}))


@pytest.mark.parametrize("text", [None, "nullable"])
def test_anndata(text, tmp_path):
    found = load_features(anndata(tmp_path / "a.h5ad", obsm=False, text=text))
    assert_same(found)
    assert found.factors["id"].tolist()[:2] == ["cell0", "cell1"]
    with pytest.warns(UserWarning, match=r"left out.* 'X.matrix' \(12, 7\)"):
        assert_same(load_features(anndata(tmp_path / "b.h5ad", text=text)))
    path = anndata(tmp_path / "c.h5ad", text=text)
    import h5py

    with h5py.File(path, "a") as file:
        file["obsm/X_pca"] = FEATURES[:, :2]
    with pytest.raises(ValueError, match=r"'obsm.X_model' \(12, 3\).*--features NAME"):
        load_features(path)
    with pytest.warns(UserWarning, match="left out"):
        assert_same(load_features(path, features="obsm.X_model"))
    if text:
        with h5py.File(path, "a") as file:
            file["obs/filename/mask"][0] = True
        with pytest.warns(UserWarning, match="left out") as said:
            assert "filename" not in load_features(path, features="obsm.X_model").factors
        assert any("'obs.filename' must be there for every row" in str(e.message) for e in said)


def test_anndata_with_a_sparse_matrix_or_a_table_of_features(tmp_path):
    path = hdf(tmp_path / "a.h5ad", {"X/data": np.ones(5), "X/indices": np.arange(5),
                                     "X/indptr": np.arange(N + 1), "obs/old": LABELS,
                                     "obs/__categories/old": np.array(["cat", "dog", "owl"]),
                                     "obs/cell": NAMES})  # fmt: skip
    import h5py

    with h5py.File(path, "a") as file:
        file["X"].attrs["encoding-type"] = "csr_matrix"
        file["obs"].attrs["_index"] = "cell"
    with pytest.raises(ValueError, match=r"'X' must be a dense matrix; got a sparse one \(csr_mat"):
        load_features(path)
    with h5py.File(path, "a") as file:
        for place in (2, 0, 1):
            file[f"obsm/X_model/d{place}"] = FEATURES[:, place]
        file["obsm/X_model"].attrs["encoding-type"] = "dataframe"
        file["obsm/X_model"].attrs["column-order"] = ["d0", "d1", "d2"]
    with pytest.warns(UserWarning, match="left out, as 'X.matrix' must be a dense matrix"):
        found = load_features(path, labels="obs.old")
    np.testing.assert_array_equal(found.features, FEATURES)
    assert found.meta["class_names"] == ["cat", "dog", "owl"]
    assert found.factors["id"].tolist() == NAMES.tolist()


def test_hdf5_says_what_it_needs_and_follows_no_link(tmp_path, monkeypatch):
    path = hdf(tmp_path / "a.h5", {"features": FEATURES})
    import h5py

    secret = hdf(tmp_path / "secret.h5", {"labels": LABELS})
    with h5py.File(path, "a") as file:
        file["labels"] = h5py.ExternalLink(str(secret), "labels")
        file.create_dataset("site", (8,), "u1", external=[(str(secret), 0, 8)])
    with pytest.warns(UserWarning, match="left out, as 'site' must stand in the file; got a ref"):
        assert load_features(path).labels is None
    with h5py.File(path, "w") as file:
        file.create_dataset("features", (10**7, 10**7), "f4", chunks=(100, 100))
    with pytest.raises(ValueError, match=r"a.h5 must fit into memory"):
        load_features(path)
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(ValueError, match=r'needs h5py .* Run pip install "dimlab\[h5\]"'):
        load_features(path)


def saved_to_disk(folder, rows, shards):
    """As datasets.Dataset.save_to_disk writes a data set: streams of Arrow, and their names."""
    folder.mkdir(parents=True)
    kinds = {"label": {"names": ["cat", "dog", "owl"], "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": kinds}})}
    vectors = pa.FixedSizeListArray.from_arrays(FEATURES[rows].reshape(-1), D)
    columns = {"embedding": vectors, "label": LABELS[rows], "filename": NAMES[rows]}
    table = pa.table(columns).replace_schema_metadata(metadata)
    size = -(-len(table) // shards)
    for shard in range(shards):
        name = f"data-{shard:05d}-of-{shards:05d}.arrow"
        with pa.OSFile(str(folder / name), "wb") as file:
            with pa.ipc.new_stream(file, table.schema) as writer:
                writer.write_table(table.slice(shard * size, size))
    (folder / "state.json").write_text("{}")
    return folder


def test_a_folder_that_datasets_wrote(tmp_path, dimlab):
    assert_same(load_features(saved_to_disk(tmp_path / "a", slice(None), 2)))
    for split, rows in (("train", slice(0, 6)), ("test", slice(6, 12))):
        saved_to_disk(tmp_path / "b" / split, rows, 1)
    found = load_features(tmp_path / "b", split="test")
    np.testing.assert_array_equal(found.features, FEATURES[6:])
    np.testing.assert_array_equal(found.labels, LABELS[6:])
    code, out, err = dimlab("ablate", "b", "--reader", "ridge", "--json", "--out", "o")
    assert (code, json.loads(out)["n_train"]) == (0, 6), err
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "part.npy").touch()
    with pytest.raises(ValueError, match=r"got .*c, which is a folder of part.npy. Name one of"):
        load_features(tmp_path / "c")
    (tmp_path / "c" / "part.npy").rename(tmp_path / "c" / "part.parquet")
    with pytest.raises(ValueError, match=r"or a pattern such as '.*c/\*\.parquet'"):
        load_features(tmp_path / "c")


@pytest.mark.parametrize("ending", ["npy", "npz", "pt", "csv"])
def test_shards_are_read_by_a_pattern_and_one_alone_is_remarked_on(ending, tmp_path, dimlab):
    parts = [slice(start, start + 1) for start in range(N)]
    for number, rows in enumerate(parts):  # 10 comes behind 9
        labels = {} if ending == "npy" else {"label": CLASSES[rows]}
        save(tmp_path / f"features-{number}.{ending}", features=FEATURES[rows], **labels)
    pattern = tmp_path / f"features-*.{ending}"
    found = load_features(pattern)
    np.testing.assert_allclose(found.features, FEATURES, rtol=1e-6)
    assert ending == "npy" or found.labels.tolist() == LABELS.tolist()
    sentence = "features-3.* is one of 12 files that are numbered alike, and is read alone"
    with pytest.warns(UserWarning, match=sentence):
        assert len(load_features(tmp_path / f"features-3.{ending}")) == 1
    code, out, err = dimlab("decompose", f"features-*.{ending}", "--json")
    assert (code, json.loads(out)["n_samples"]) == (0, N), err
    code, _, err = dimlab("redundancy", f"features-3.{ending}")
    assert "is one of 12 files that are numbered alike" in err
    every = [f"features-{number}.{ending}" for number in range(N)]
    for command in ("decompose", "correlate", "redundancy"):  # of several files, in moments
        code, out, err = dimlab(command, *every, "--json")
        assert (code, json.loads(out)["n_samples"], "numbered alike" in err) == (0, N, False), err


@pytest.mark.parametrize("name", ["rank{}", "feats_{}_of_2", "part{}"])
def test_shards_that_are_numbered_otherwise(name, tmp_path):
    for number, rows in enumerate((slice(0, 6), slice(6, 12))):
        np.save(tmp_path / f"{name.format(number)}.npy", FEATURES[rows])
    with pytest.warns(UserWarning, match=r"is one of 2 files that are numbered alike"):
        load_features(tmp_path / f"{name.format(0)}.npy")
    found = load_features(tmp_path / f"{name.format('*')}.npy")
    np.testing.assert_array_equal(found.features, FEATURES)
    np.save(tmp_path / "resnet18.npy", FEATURES)
    np.save(tmp_path / "resnet50.npy", FEATURES)
    load_features(tmp_path / "resnet18.npy")  # no shard: nothing is said


@pytest.mark.parametrize("there", [1, 4])
def test_one_shard_that_says_of_how_many_is_remarked_on(there, tmp_path):
    for number in range(there):
        np.save(tmp_path / f"part-{number:05d}-of-00004.npy", FEATURES)
    with pytest.warns(UserWarning, match=r"is one of 4 files .*part-\*-of-00004.npy' names them"):
        load_features(tmp_path / "part-00000-of-00004.npy")


def test_shards_that_do_not_fit_are_refused(tmp_path):
    np.save(tmp_path / "f-0.npy", FEATURES)
    np.save(tmp_path / "f-1.npy", FEATURES[:, :2])
    with pytest.raises(ValueError, match=r"shards of f-\*.npy must hold the same arrays"):
        load_features(tmp_path / "f-*.npy")
    with pytest.raises(FileNotFoundError, match=r"g-\*\.npy, which none is called"):
        load_features(tmp_path / "g-*.npy")
    Representation(FEATURES).save(tmp_path / "own-0.safetensors")
    with pytest.raises(ValueError, match=r"own-0.safetensors.* dimlab wrote.* one by one"):
        load_features(tmp_path / "own-*.safetensors")


def test_a_distributed_checkpoint_is_called_one(tmp_path, dimlab):
    (tmp_path / "step-10").mkdir()
    for name in (".metadata", "__0_0.distcp"):
        (tmp_path / "step-10" / name).touch()
    for command in (("inspect",), ("ablate",), ("encode", "--data", "digits")):
        code, _, err = dimlab(*command, "step-10")
        assert code == 1
        assert "got step-10, a torch distributed checkpoint (DCP)" in err
        assert "torch.distributed.checkpoint.format_utils.dcp_to_torch_save('step-10', " in err
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    assert callable(dcp_to_torch_save)


def test_parts_keep_the_precision_that_they_were_stored_in(dimlab, tmp_path):
    """Of rank 8 in 16 bit: rounding makes no further directions."""
    rng = np.random.default_rng(0)
    whole = (rng.normal(size=(400, 8)) @ rng.normal(size=(8, 24))).astype(np.float16)
    for number, part in enumerate((whole[:200], whole[200:])):
        np.savez(tmp_path / f"{number}.npz", features=part)
    code, out, err = dimlab("decompose", "0.npz", "1.npz", "--json")
    assert (code, json.loads(out)["numerical_rank"]) == (0, 8), err
