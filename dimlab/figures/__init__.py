"""Figures of results: each draws on the axes it is given, and computes no more than a sort."""

from dimlab.figures.answers import plot_dimension_table, plot_pruning
from dimlab.figures.contents import (
    plot_attribution,
    plot_attribution_effects,
    plot_erasure,
    plot_erasure_sweep,
    plot_localisation,
)
from dimlab.figures.masks import (
    plot_mask_evolution,
    plot_mask_evolution_links,
    plot_mask_evolution_quantiles,
    plot_mask_trace,
    plot_risk_bound,
)
from dimlab.figures.profile import plot_profile
from dimlab.figures.redundancy import (
    plot_comparison,
    plot_correlation,
    plot_redundancy,
    plot_redundancy_subset,
    plot_representation,
    plot_spectrum,
)
from dimlab.figures.removal import (
    plot_ablation,
    plot_ablation_per_class,
    plot_cumulative_ablation,
    plot_harmful_dimensions,
    plot_masked_scores,
    plot_retrieval_ablation,
    plot_retrieval_ablation_truncation,
)
from dimlab.figures.runs import (
    plot_baseline_comparison,
    plot_checkpoint,
    plot_evaluation,
    plot_projector_widths,
    plot_validation,
)
from dimlab.figures.suspects import plot_suspects

__all__ = [
    "plot_ablation",
    "plot_ablation_per_class",
    "plot_attribution",
    "plot_attribution_effects",
    "plot_baseline_comparison",
    "plot_checkpoint",
    "plot_comparison",
    "plot_correlation",
    "plot_cumulative_ablation",
    "plot_dimension_table",
    "plot_erasure",
    "plot_erasure_sweep",
    "plot_evaluation",
    "plot_harmful_dimensions",
    "plot_localisation",
    "plot_mask_evolution",
    "plot_mask_evolution_links",
    "plot_mask_evolution_quantiles",
    "plot_mask_trace",
    "plot_masked_scores",
    "plot_profile",
    "plot_projector_widths",
    "plot_pruning",
    "plot_redundancy",
    "plot_redundancy_subset",
    "plot_representation",
    "plot_retrieval_ablation",
    "plot_retrieval_ablation_truncation",
    "plot_risk_bound",
    "plot_spectrum",
    "plot_suspects",
    "plot_validation",
]
