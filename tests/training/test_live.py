"""The monitor in any loop: what it reports, when, to whom, and through whose callbacks."""

import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from dimlab import DimensionMonitor, correlate, decompose, effective_rank, find_redundancy, profile
from dimlab.datasets import digits
from dimlab.training.config import TrainConfig
from dimlab.training.live import measured
from dimlab.training.loop import train


@pytest.fixture(autouse=True)
def own_randomness():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def batches(n=6, size=50, d=10, seed=0):
    """Dimension 3 is dead, 4 copies 5, 9 nearly copies 0, and 6 to 8 share something."""
    rng = np.random.default_rng(seed)
    for _ in range(n):
        rows = rng.normal(size=(size, d))
        rows[:, 3], rows[:, 4] = 0.5, 2 * rows[:, 5]
        rows[:, 6:9] += rng.normal(size=(size, 1))
        rows[:, 9] = rows[:, 0] + 0.2 * rows[:, 9]
        yield rows


def test_numbers_are_those_of_the_probes():
    rows = np.concatenate(list(batches()))
    found = measured(rows)
    np.testing.assert_allclose(found["effective_rank"], effective_rank(rows), rtol=1e-5)
    assert found["n_dead"] == find_redundancy(rows).dead.sum() == 1
    assert found["n_copies"] == 4
    living = np.delete(rows, 3, axis=1)
    expected = correlate(living, within=True, n_draws=1).off_diagonal_rms
    np.testing.assert_allclose(found["off_diagonal_rms"], expected, rtol=1e-4)
    ratio = decompose(rows, n_blocks=2).participation_ratio
    np.testing.assert_allclose(found["participation_ratio"], ratio, rtol=1e-5)
    np.testing.assert_allclose(found["largest_share"], profile(rows, n_rows=0).share.max())
    singular = np.linalg.svd(rows[:6], compute_uv=False)
    share = singular / singular.sum()
    few = measured(rows[:6])["effective_rank"]  # fewer rows than dimensions
    np.testing.assert_allclose(few, np.exp(-(share * np.log(share)).sum()), rtol=1e-4)


def test_a_report_is_of_the_last_rows_and_comes_every_so_many_batches():
    reports = []
    monitor = DimensionMonitor(every=3, sink=reports.append, rows=80, prefix="d/")
    given = list(batches())
    for rows in given:
        monitor(rows)
    assert [each["d/step"] for each in reports] == [3, 6]
    last = measured(np.concatenate(given)[-80:])
    for name, value in last.items():
        assert reports[-1][f"d/{name}"] == monitor.history[-1][name] == value


def test_batches_that_no_report_needs_are_not_looked_at():
    class Untouched:
        def __getattr__(self, name):
            raise AssertionError(name)

    monitor = DimensionMonitor(every=10, sink=lambda report: None, rows=50)
    rows = next(batches())
    for _ in range(2):
        for step in range(10):
            seen = monitor.step == 0 or step >= 8  # how large batches are is learned first
            monitor(rows if seen or (monitor.step < 10 and step == 0) else Untouched())
    assert [each["n_rows"] for each in monitor.history] == [50, 50]


def test_rows_that_are_not_finite_are_counted_and_training_goes_on():
    rows = next(batches())
    rows[7, 2], rows[8, 1] = np.nan, np.inf
    found = measured(rows)
    assert (found["n_rows"], found["n_not_finite"]) == (48, 2)
    assert np.isfinite(list(found.values())).all()
    nothing = measured(np.full((4, 3), np.nan))
    assert nothing == {"n_rows": 0, "n_not_finite": 4}
    zeros = measured(np.zeros((4, 3)))
    assert zeros == {"n_rows": 4, "n_not_finite": 0, "n_dead": 3}


def test_quantiles_of_the_mask_are_reported():
    weights = torch.linspace(0, 1, 101, requires_grad=True)
    monitor = DimensionMonitor(every=1, sink=lambda report: None, mask=lambda: weights)
    monitor(next(batches()))
    found = monitor.history[0]
    names = ("mask_q05", "mask_q25", "mask_q50", "mask_q75", "mask_q95")
    np.testing.assert_allclose([found[name] for name in names], [0.05, 0.25, 0.5, 0.75, 0.95])


def test_a_writer_gets_each_number_by_its_name():
    written = []
    writer = SimpleNamespace(add_scalar=lambda *scalar: written.append(scalar))
    DimensionMonitor(every=1, sink=writer, prefix="dimensions/")(next(batches()))
    assert ("dimensions/n_dead", 1, 1) in written
    assert "dimensions/step" not in {name for name, *_ in written}


def test_tensors_of_any_shape_and_type_are_rows():
    for shape, mean in (((6, 5), None), ((6, 7, 5), 1), ((6, 5, 3, 3), (2, 3))):
        features = torch.randn(shape, dtype=torch.bfloat16, requires_grad=True)
        monitor = DimensionMonitor(every=1, sink=lambda report: None)
        monitor(features)
        rows = features.detach() if mean is None else features.detach().mean(mean)
        assert (
            monitor.history[0]["effective_rank"] == measured(rows.float().numpy())["effective_rank"]
        )
        assert features.grad is None


def test_only_training_is_watched_until_the_handle_is_removed():
    layer = nn.Linear(4, 3)
    monitor = DimensionMonitor(every=1, sink=lambda report: None)
    handle = monitor.watch(layer)
    layer.eval()(torch.randn(8, 4))
    assert monitor.step == 0
    layer.train()(torch.randn(8, 4))
    handle.remove()
    layer(torch.randn(8, 4))
    assert monitor.step == 1


def test_outputs_of_other_packages_are_found():
    class Returns(nn.Module):
        def __init__(self, made):
            super().__init__()
            self.made = made

        def forward(self):
            return self.made

    rows = torch.randn(8, 3)
    for made in ((rows, None), {"last_hidden_state": rows[:, None]}, {"pooler_output": rows}):
        monitor = DimensionMonitor(every=1, sink=lambda report: None)
        layer = Returns(made)
        monitor.watch(layer)
        layer()
        assert monitor.history[0]["n_rows"] == 8
    monitor.watch(wrong := Returns({"logits": rows}))
    with pytest.raises(ValueError, match=r"pick must say which .*; got logits"):
        wrong()
    monitor.watch(picked := Returns({"logits": rows}), pick=lambda found: found["logits"])
    picked()
    assert len(monitor.history) == 2


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone, self.head = nn.Linear(4, 3), nn.Linear(3, 1)

    def forward(self, x):
        return self.head(self.backbone(x))


def test_callbacks_watch_from_the_start_of_training_to_its_end(monkeypatch):
    """With stand-ins; the real packages: below, where they are installed."""
    for name in ("lightning", "lightning.pytorch", "pytorch_lightning", "transformers"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["lightning.pytorch"].Callback = sys.modules["transformers"].TrainerCallback = object
    monitor = DimensionMonitor(every=1, sink=lambda report: None)
    model, x = Model(), torch.randn(8, 4)
    callback = monitor.lightning_callback("backbone")
    callback.on_train_start(None, model)
    model(x)
    callback.on_train_end(None, model)
    model(x)
    assert monitor.step == 1
    callback = monitor.trainer_callback("")
    callback.on_train_begin(None, None, None, model=model, processing_class=None)
    model(x)
    callback.on_train_end(None, None, None, model=model)
    model(x)
    assert monitor.step == 2


def test_a_package_that_is_missing_is_named(monkeypatch):
    for name in ("lightning.pytorch", "pytorch_lightning", "transformers", "lightning"):
        monkeypatch.delitem(sys.modules, name, raising=False)

    class Hides:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in ("lightning", "pytorch_lightning", "transformers"):
                raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(sys, "meta_path", [Hides(), *sys.meta_path])
    with pytest.raises(ImportError, match=r"lightning\.pytorch must be installed"):
        DimensionMonitor().lightning_callback("backbone")
    with pytest.raises(ImportError, match="transformers must be installed"):
        DimensionMonitor().trainer_callback("backbone")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"every": 0}, r"every must be >= 1; got 0\."),
        ({"rows": 1}, r"rows must be >= 2; got 1\."),
        ({"sink": 3}, r"sink must be callable, or have add_scalar; got int\."),
    ],
)
def test_bad_settings_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        DimensionMonitor(**given)


def test_bad_batches_are_refused():
    monitor = DimensionMonitor(every=2)
    with pytest.raises(ValueError, match=r"features must have shape \(B, D\); got \(4,\)"):
        monitor(np.ones(4))
    monitor = DimensionMonitor(every=2)
    monitor(np.ones((4, 3)))
    with pytest.raises(ValueError, match="features must have 3 dimensions, as before; got 2"):
        monitor(np.ones((4, 2)))
    with pytest.raises(TypeError, match="features must be real numbers; got <U1"):
        DimensionMonitor()(np.array([["a"]]))


@pytest.mark.parametrize("method", ["metamask", "simclr"])
def test_our_own_training_is_watched_and_is_not_changed_by_it(method):
    config = replace(TrainConfig.small(), method=method, steps=4, batch_size=16, n_dimensions=8)
    images = digits("validation", image_size=8)
    seen = []

    class Seen(DimensionMonitor):
        def __call__(self, features, **more):
            seen.append(features.clone())
            super().__call__(features, **more)

    monitor = Seen(every=2, sink=lambda report: None, rows=32)
    watched, plain = train(config, images, monitor=monitor), train(config, images)
    for name, each in plain.network.items():
        torch.testing.assert_close(watched.network[name], each, rtol=0, atol=0)
    assert [each["step"] for each in monitor.history] == [2, 4]
    last = measured(torch.cat(seen[2:]).numpy())
    assert {name: monitor.history[1][name] for name in last} == last
    assert last["n_rows"] == 32
    assert ("mask_q50" in monitor.history[1]) == (method == "metamask")
    assert not seen[0].requires_grad


def test_sinks_of_tensorboard_and_of_wandb_are_served():
    """A SummaryWriter's ``add_scalar(tag, value, step)`` and a run's ``log(data)``, as they are."""

    class SummaryWriter:
        def __init__(self):
            self.scalars = {}

        def add_scalar(self, tag, scalar_value, global_step=None):
            self.scalars.setdefault(tag, []).append((global_step, float(scalar_value)))

    class Run:
        def __init__(self):
            self.logged = []

        def log(self, data, step=None):
            assert all(isinstance(each, (int, float)) for each in data.values())
            self.logged.append(data)

    writer, run = SummaryWriter(), Run()
    for sink in (writer, run.log):
        monitor = DimensionMonitor(every=2, sink=sink, prefix="dimensions/")
        for rows in batches(n=4):
            monitor(rows)
    assert [step for step, _ in writer.scalars["dimensions/effective_rank"]] == [2, 4]
    assert [each["dimensions/step"] for each in run.logged] == [2, 4]
    assert writer.scalars["dimensions/n_dead"][0] == (2, run.logged[0]["dimensions/n_dead"])
