"""dimlab looks inside self-supervised representations one dimension at a time.

Train MetaMask (``train``), turn images into a ``Representation`` (``encode``), then measure what
every single dimension does for a reader of the features (``ablate``, ``evaluate``). Names are
loaded on first use, so that ``import dimlab`` costs neither torch nor matplotlib.
"""

import importlib
import os
from typing import Any

# Threads that wait leave the core to other processes; OpenMP reads this when torch is loaded.
# Beside four busy processes, kNN ablation by two threads took 45 to 129 s with threads that spin,
# and 10 s like this.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

__version__ = "0.6.0"

_HOME = {
    "DimensionMask": "dimlab.mask",
    "MaskTrace": "dimlab.mask",
    "Representation": "dimlab.representation",
    "ImageSet": "dimlab.images",
    "datasets": "dimlab.datasets",
    "readers": "dimlab.readers",
    "join_factors": "dimlab.io.tables",
    "coloured": "dimlab.planted",
    "textured": "dimlab.planted",
    "patched": "dimlab.planted",
    "planted_world": "dimlab.planted",
    "PlantedWorld": "dimlab.planted",
    "TrainConfig": "dimlab.training.config",
    "Checkpoint": "dimlab.training.checkpoint",
    "load_checkpoint": "dimlab.training.checkpoint",
    "load_features": "dimlab.io.features",
    "load_relevance": "dimlab.io.relevance",
    "load_encoder": "dimlab.io.weights",
    "LoadedEncoder": "dimlab.io.weights",
    "inspect_file": "dimlab.io.inspecting",
    "Inspection": "dimlab.io.inspecting",
    "train": "dimlab.training.loop",
    "DimensionMonitor": "dimlab.training.live",
    "encode": "dimlab._encode",
    "encode_loader": "dimlab._loaders",
    "encode_moments": "dimlab._encode",
    "encode_pixels": "dimlab._encode",
    "Basis": "dimlab.basis",
    "fit_basis": "dimlab.basis",
    "Ablation": "dimlab.probes.ablate",
    "ablate": "dimlab.probes.ablate",
    "CumulativeAblation": "dimlab.probes.ablate_cumulatively",
    "ablate_cumulatively": "dimlab.probes.ablate_cumulatively",
    "HarmfulDimensions": "dimlab.probes.confirm_harmful",
    "confirm_harmful": "dimlab.probes.confirm_harmful",
    "MaskedScores": "dimlab.probes.random_masks",
    "random_masks": "dimlab.probes.random_masks",
    "RetrievalAblation": "dimlab.probes.ablate_retrieval",
    "ablate_retrieval": "dimlab.probes.ablate_retrieval",
    "Moments": "dimlab.moments",
    "sharing": "dimlab.processes",
    "Correlation": "dimlab.probes.correlate",
    "correlate": "dimlab.probes.correlate",
    "Spectrum": "dimlab.probes.decompose",
    "decompose": "dimlab.probes.decompose",
    "effective_rank": "dimlab.probes._ranks",
    "lidar": "dimlab.probes._ranks",
    "Redundancy": "dimlab.probes.find_redundancy",
    "find_redundancy": "dimlab.probes.find_redundancy",
    "Profile": "dimlab.probes.profile",
    "profile": "dimlab.probes.profile",
    "Comparison": "dimlab.probes.compare",
    "compare": "dimlab.probes.compare",
    "Attribution": "dimlab.probes.attribute",
    "attribute": "dimlab.probes.attribute",
    "Erasure": "dimlab.probes.erase",
    "erase": "dimlab.probes.erase",
    "Suspects": "dimlab.probes.find_suspects",
    "find_suspects": "dimlab.probes.find_suspects",
    "MaskEvolution": "dimlab.probes.follow",
    "follow": "dimlab.probes.follow",
    "Localisation": "dimlab._locate",
    "locate": "dimlab._locate",
    "RiskBound": "dimlab.probes.bound_risk",
    "bound_risk": "dimlab.probes.bound_risk",
    "Evaluation": "dimlab.probes.evaluate",
    "evaluate": "dimlab.probes.evaluate",
    "BaselineComparison": "dimlab.baselines",
    "evaluate_baselines": "dimlab.baselines",
    "plot_ablation": "dimlab.figures",
    "plot_ablation_per_class": "dimlab.figures",
    "plot_cumulative_ablation": "dimlab.figures",
    "plot_harmful_dimensions": "dimlab.figures",
    "plot_masked_scores": "dimlab.figures",
    "plot_attribution": "dimlab.figures",
    "plot_attribution_effects": "dimlab.figures",
    "plot_erasure": "dimlab.figures",
    "plot_erasure_sweep": "dimlab.figures",
    "plot_localisation": "dimlab.figures",
    "plot_mask_evolution": "dimlab.figures",
    "plot_mask_evolution_links": "dimlab.figures",
    "plot_mask_evolution_quantiles": "dimlab.figures",
    "plot_baseline_comparison": "dimlab.figures",
    "plot_checkpoint": "dimlab.figures",
    "plot_comparison": "dimlab.figures",
    "plot_correlation": "dimlab.figures",
    "plot_dimension_table": "dimlab.figures",
    "plot_profile": "dimlab.figures",
    "plot_projector_widths": "dimlab.figures",
    "plot_pruning": "dimlab.figures",
    "plot_redundancy": "dimlab.figures",
    "plot_redundancy_subset": "dimlab.figures",
    "plot_representation": "dimlab.figures",
    "plot_retrieval_ablation": "dimlab.figures",
    "plot_retrieval_ablation_truncation": "dimlab.figures",
    "plot_risk_bound": "dimlab.figures",
    "plot_spectrum": "dimlab.figures",
    "plot_suspects": "dimlab.figures",
    "plot_evaluation": "dimlab.figures",
    "plot_validation": "dimlab.figures",
    "plot_mask_trace": "dimlab.figures",
    "examine": "dimlab._examine",
    "DimensionTable": "dimlab.answers",
    "dimension_table": "dimlab.answers",
    "Pruning": "dimlab._prune",
    "prune": "dimlab._prune",
    "Validation": "dimlab._validate",
    "validate": "dimlab._validate",
    "explore": "dimlab._explore",
    "write_report": "dimlab.report",
    "redraw_report": "dimlab.report",
}
__all__ = ["__version__", *_HOME]


_MODULES = {"datasets", "readers"}  # public names that are modules


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'dimlab' has no attribute {name!r}")
    module = importlib.import_module(_HOME[name])
    value = module if name in _MODULES else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
