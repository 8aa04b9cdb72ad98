"""What is named on a command line becomes checkpoints, images, representations and moments."""

from dimlab.sources.encoders import encode_with, normalisation_note
from dimlab.sources.loading import Loading
from dimlab.sources.reading import (
    Unreadable,
    is_own,
    load_data,
    mask_of,
    names_of,
    read_checkpoint,
    reading,
    said_on_stderr,
    stems_of,
)
from dimlab.sources.samples import check_drawn, drawn, halves, sampled, sampled_train
from dimlab.sources.traces import read_trace

__all__ = [
    "Loading",
    "Unreadable",
    "check_drawn",
    "drawn",
    "encode_with",
    "halves",
    "is_own",
    "load_data",
    "mask_of",
    "names_of",
    "normalisation_note",
    "read_checkpoint",
    "read_trace",
    "reading",
    "said_on_stderr",
    "sampled",
    "sampled_train",
    "stems_of",
]
