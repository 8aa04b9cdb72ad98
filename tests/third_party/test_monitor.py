"""`DimensionMonitor` within trainers of other packages, as they are installed."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from dimlab import DimensionMonitor
from tests.third_party.cases import others_warn, package

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def own_randomness():
    """Trainers draw from all global generators."""
    before = random.getstate(), np.random.get_state()  # noqa: NPY002 - put back, not used
    with torch.random.fork_rng(devices=[]):
        yield
    random.setstate(before[0])
    np.random.set_state(before[1])  # noqa: NPY002


class Backbone(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone, self.head = nn.Linear(6, 5), nn.Linear(5, 1)

    def loss(self, x):
        return self.head(self.backbone(x)).square().mean()


@others_warn
@pytest.mark.parametrize("name", ["lightning.pytorch", "pytorch_lightning"])
def test_lightning(name, tmp_path):
    lightning = package(name)

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = Backbone()

        def training_step(self, batch, index):
            return self.model.loss(batch[0])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.01)

    monitor = DimensionMonitor(every=2, sink=lambda report: None)
    data = torch.utils.data.TensorDataset(torch.randn(64, 6))
    trainer = lightning.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
        callbacks=[monitor.lightning_callback("model.backbone")],
    )  # fmt: skip
    trainer.fit(Module(), torch.utils.data.DataLoader(data, batch_size=16))
    assert [each["step"] for each in monitor.history] == [2, 4]
    assert monitor.history[0]["n_rows"] == 32


@others_warn
def test_transformers(tmp_path):
    transformers = package("transformers")
    package("accelerate")

    class Model(Backbone):
        def forward(self, x, labels=None):
            return {"loss": self.loss(x)}

    monitor = DimensionMonitor(every=2, sink=lambda report: None)
    rows = np.random.default_rng(0).normal(size=(64, 6)).astype("f4")
    settings = transformers.TrainingArguments(
        output_dir=str(tmp_path), per_device_train_batch_size=16, max_steps=4, report_to=[],
        use_cpu=True, save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    trainer = transformers.Trainer(
        Model(), settings, train_dataset=[{"x": row, "labels": 0.0} for row in rows],
        callbacks=[monitor.trainer_callback("backbone")],
    )  # fmt: skip
    trainer.train()
    assert [each["step"] for each in monitor.history] == [2, 4]
    assert monitor.history[0]["effective_rank"] > 1
