"""Encoders that other packages write themselves, and what becomes of each: the table's rows."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

# other packages warn of each other's versions, and of torch's
others_warn = pytest.mark.filterwarnings("ignore")

CASES: list["Case"] = []
SIZE = 64  # of the images, unless the encoder is made for another
AS_TORCHVISION = "as torchvision builds it: ReLU"  # words of what is assumed of a ResNet


def package(module: str) -> Any:
    """Import a package, or skip with the reason: beside another torch it breaks in many ways."""
    try:
        return importlib.import_module(module)
    except Exception as error:
        pytest.skip(f"{module} cannot be imported: {' '.join(str(error).split())[:100]}")


@dataclass(frozen=True)
class Made:
    """What a package wrote, and how it would encode images itself."""

    path: Path
    features: Callable[[torch.Tensor], torch.Tensor]
    size: int = SIZE
    channels: int = 3


@dataclass(frozen=True)
class Case:
    """A row of the table: a file, the flags, and what becomes of it."""

    name: str  # what the file is
    package: str  # that writes it
    make: Callable[[Path], Made]
    flags: dict[str, Any] = field(default_factory=dict)
    assumes: tuple[str, ...] = ()  # words of each assumption, in order
    refuses: str = ""  # words of the refusal; "": it loads
    wrong: bool = False  # the network is another than the assumption says: features differ

    @property
    def outcome(self) -> str:
        """Which of the three columns of the table it belongs to."""
        return "refused" if self.refuses else "assumed" if self.assumes else "loads"

    @property
    def versions(self) -> str:
        """The packages, with the versions that are installed."""
        return ", ".join(f"{each} {version(each)}" for each in self.package.split(", "))


def case(name: str, package: str, **how: Any) -> Callable[[Any], Any]:
    """Add a row: the function below writes its file."""

    def add(make: Callable[[Path], Made]) -> Callable[[Path], Made]:
        CASES.append(Case(name, package, make, **how))
        return make

    return add


def moved(module: nn.Module, seed: int = 1) -> nn.Module:
    """Return a module whose weights and running statistics look trained."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for each in module.parameters():
            each.add_(0.05 * torch.randn(each.shape, generator=generator))
        for name, each in module.named_buffers():
            if name.endswith("running_mean"):
                each.add_(0.1 * torch.randn(each.shape, generator=generator))
            elif name.endswith("running_var"):
                each.mul_(0.5 + torch.rand(each.shape, generator=generator))
    return module.eval()


def saved(module: nn.Module, path: Path, wrap: Callable[[dict], Any] = dict) -> Path:
    """Write a torch file of a module's weights, as a training script wraps them."""
    torch.save(wrap(module.state_dict()), path)
    return path
