"""A device that is not there is refused in one sentence, everywhere."""

import numpy as np
import pytest
import torch

from dimlab import cli
from dimlab._encode import encode, encode_loader, encode_moments
from dimlab.datasets import digits
from dimlab.devices import check_device
from dimlab.probes.ablate import ablate
from dimlab.probes.correlate import correlate
from dimlab.representation import Representation
from dimlab.training.config import TrainConfig
from dimlab.training.loop import train, untrained

SENTENCE = "device must be cpu, cuda or cuda:N; got 'nosuch'."


@pytest.fixture(scope="module")
def images():
    return digits("validation", image_size=8).take(range(20))


@pytest.mark.parametrize("device", ["cpu", "cpu:0", torch.device("cpu")])
def test_the_processor_is_always_there(device):
    check_device(device)


@pytest.mark.parametrize(
    "device", ["nosuch", "", "cuda:", "cuda:x", "cuda:-1", "mps", "CPU", "cpu:1"]
)
def test_other_names_are_refused(device):
    with pytest.raises(ValueError, match=r"device must be cpu, cuda or cuda:N; got "):
        check_device(device)


@pytest.mark.parametrize(
    ("n_there", "device", "words"),
    [(0, "cuda", "no GPU"), (1, "cuda:1", "1 GPU"), (2, "cuda:7", "2 GPUs")],
)
def test_a_gpu_that_is_not_there_is_refused(monkeypatch, n_there, device, words):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: n_there > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n_there)
    with pytest.raises(ValueError, match=f"got '{device}', and torch sees {words}. Pass"):
        check_device(device)


def test_a_gpu_that_is_there_is_taken(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_device("cuda")
    check_device("cuda:1")


def test_python_refuses_it(images):
    split = Representation(np.eye(6), labels=np.arange(6) % 2)
    checkpoint = untrained(TrainConfig.small(), images)
    loader = [(torch.zeros(2, 1, 8, 8), torch.zeros(2))]
    calls = [
        lambda: train(TrainConfig.small(), images, device="nosuch"),
        lambda: encode(checkpoint, images, device="nosuch"),
        lambda: encode_moments(checkpoint, images, device="nosuch"),
        lambda: encode_loader(torch.nn.Flatten(), loader, device="nosuch"),
        lambda: ablate(split, split, k=1, device="nosuch"),
        lambda: correlate(split, device="nosuch"),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=SENTENCE):
            call()


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_refuses_a_device_that_is_not_there(dimlab, command):
    _, listed, _ = dimlab(command, "--help")
    said = SENTENCE if "--device" in listed else "No such option: --device. See --help."
    code, out, err = dimlab(command, "features.npz", "--device", "nosuch")
    assert (code, out) == (2, "")
    assert err.strip().endswith(said)
