"""Where arithmetic runs, refused in one sentence where that is not."""

from __future__ import annotations


def check_device(device: str) -> None:
    """Refuse a device other than cpu, cuda or cuda:N, or a GPU that is not there."""
    name = str(device)  # a torch.device too
    if name in ("cpu", "cpu:0"):  # the usual case costs no import
        return
    kind, colon, number = name.partition(":")
    if kind != "cuda" or (colon and not number.isdecimal()):
        raise ValueError(f"device must be cpu, cuda or cuda:N; got {name!r}.")
    import torch

    n_there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(number or 0) >= n_there:
        there = {0: "no GPU", 1: "1 GPU"}.get(n_there, f"{n_there} GPUs")
        raise ValueError(
            f"device must be there; got {name!r}, and torch sees {there}. Pass --device cpu."
        )
