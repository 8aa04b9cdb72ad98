"""Which broken formulas the tests notice: a table of plausible slips, and the tests that see them.

``python tests/mutations.py [--only TEXT] [--share K/N] [--jobs J]`` makes each change in a copy of
the package and runs the named tests, one of which must fail; see `tests/mutation_testing.py`. A row
is a function, a text that must occur once in it, what replaces the text, and a test of the module
above it. A mutation that changes no result has a fifth entry that says why.
"""

# ruff: noqa: E501 (a row is a line)
from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # run as a script
from tests.mutation_testing import Mutation, main  # noqa: E402 - once its folder is known

TABLE: list[Mutation] = []


def _of(file: str, module: str, *rows: tuple[str, ...]) -> None:
    for name, old, new, test, *explained in rows:
        tests = tuple(f"{module}::{each}" for each in test.split()) or (module,)
        TABLE.append(Mutation(file, name, old, new, tests, *explained))


# fmt: off
_of(
    "kernels/scores.py", "kernels/test_scores.py",
    ("r2_contributions", "deviation = around / variance - 1", "deviation = around / variance",
     "test_contributions_to_r2_have_its_value_as_mean"),
    ("r2_contributions", "1 - error + deviation[:, None, :] * unexplained", "1 - error + 0 * deviation[:, None, :] * unexplained",
     "test_contributions_to_r2_are_its_derivatives_by_the_weights_of_rows"),
    ("precision_contributions", "_TIED * ", "1e-17 * ",
     "test_scores_that_differ_by_rounding_are_tied"),
    ("precision_contributions", "axis=(0, 2) if micro else 0", "axis=0",
     "test_contributions_to_average_precision_have_its_value_as_mean"),
    ("precision_contributions", "max(1, len(known))", "max(1, n_labels)",
     "test_labels_that_no_row_has_are_left_out_and_a_single_one_counts"),
    ("_precision", "n = last + 1.0", "n = place + 1.0",
     "test_contributions_to_average_precision_have_its_value_as_mean"),
    ("_precision", "- lost) / np.maximum", ") / np.maximum",
     "test_influence_on_average_precision_is_that_of_leaving_a_row_out"),
    ("_precision", "np.maximum(n_positive - 1, 1)", "n_positive",
     "test_influence_on_average_precision_is_that_of_leaving_a_row_out"),
    ("_precision", "new[1:] = ranked[1:] != ranked[:-1]", "new[1:] = True",
     "test_contributions_to_average_precision_have_its_value_as_mean"),
)
_of(
    "kernels/neighbours.py", "test_targets.py",
    ("weighted_mean", "votes /= votes.sum(-1, keepdim=True)", "votes /= votes.shape[-1]",
     "test_neighbours_without_each_dimension_equal_brute_force"),
)
_of(
    "readers/linear.py", "test_targets.py",
    ("Linear._values_less", "columns -= instead(rows)", "pass", "test_frozen_weights_see_the_fill_in_place_of_a_dimension"),
    ("Standardiser.stand_in", "features[order[rows]]", "features[rows]", "test_frozen_weights_see_the_fill_in_place_of_a_dimension"),
    ("Standardiser.stand_in", "rng.normal(self.mean, self.scale", "rng.normal(0 * self.mean, self.scale",
     "test_frozen_weights_see_the_fill_in_place_of_a_dimension"),
)
_of(
    "probes/_unlabelled.py", "probes/test_unlabelled.py",
    ("measure_unlabelled", "found.astype(np.int8) - left", "left.astype(np.int8) - found",
     "test_view_retrieval_without_each_dimension_equals_brute_force"),
    ("measure_unlabelled", "same.cpu().numpy() / k", "same.cpu().numpy()",
     "test_the_share_of_neighbours_that_stay_equals_brute_force"),
    ("measure_unlabelled", "np.arange(rows.start, rows.stop)[:, None]", "np.arange(rows.stop - rows.start)[:, None]",
     "test_a_dimension_that_differs_between_views_does_harm_and_a_stable_one_is_needed"),
    ("unlabelled_task", "k = 1", "k = 2", "test_labels_change_nothing_where_none_are_needed",
     "only the nearest view is looked at, whatever k"),
)
_of(
    "probes/random_masks.py", "test_targets.py",
    ("null_maxima", "n_masks / (n_masks - 1)", "(n_masks - 1) / n_masks / n_masks", "test_the_normal_null_of_the_best_mask_is_that_of_permuted_rows"),
    ("null_maxima", "z.max(axis=1) - z.mean(axis=1)", "z.max(axis=1) + z.mean(axis=1) + 1", "test_the_normal_null_of_the_best_mask_is_that_of_permuted_rows"),
)
_of(
    "kernels/certificate.py", "kernels/test_neighbours.py",
    ("certify", "for end in (reach.low, reach.high):",
     "for end in (reach.low,):", "test_every_query_and_dimension_equals_brute_force"),
    ("certify", "ceiling - search.unit * end + SLACK < scale * kept",
     "ceiling - search.unit * end + SLACK <= 1.02 * scale * kept", "test_every_query_and_dimension_equals_brute_force"),
    ("certify", "usable = scale > 0", "usable = scale >= scale", "test_any_k_up_to_all_of_train"),
    ("certify", "limits.part * reach.by_group.sqrt()",
     "limits.part * reach.by_group", "test_the_bound_for_groups_counts_what_the_other_sign_gains"),
    ("Limits.of", "torch.where(positive, 0.0, removed.sqrt() + SLACK)",
     "torch.where(positive, 0.0, removed + SLACK)", "test_every_query_and_dimension_equals_brute_force"),
    ("Limits.of", "reach.nonnegative & (search.unit >= 0).all(1, keepdim=True)",
     "reach.nonnegative | (search.unit >= 0).all(1, keepdim=True)", "test_every_query_and_dimension_equals_brute_force"),
    ("Best.threshold", "self.scores[..., -1] - 1.0",
     "self.scores[..., 0] - 1.0", "test_every_query_and_dimension_equals_brute_force"),
    ("Reach.of", "by_row[part] = energy.amax(1)",
     "by_row[part] = energy.mean(1)", "test_every_query_and_dimension_equals_brute_force"),
    ("Reach.of", "by_group = torch.maximum(by_group, energy.amax(0))",
     "by_group = energy.amax(0)", "test_the_bound_counts_the_energy_that_leaves_the_rows"),
    ("_least", "torch.where(scale > 0, scale * kept, scale) - part * norm",
     "torch.where(scale > 0, scale * kept, scale)", "test_every_query_and_dimension_equals_brute_force"),
    ("_reaches", "kept = (sign - energy).clamp_(0, 1).sqrt_()",
     "kept = (sign - energy).clamp_(0, 1)", "test_any_k_up_to_all_of_train"),
    ("Reach.of", "high = torch.maximum(high, unit.amax(0) + SLACK)",
     "high = unit.amax(0) + SLACK", "test_the_bound_counts_the_energy_that_leaves_the_rows"),
    ("Limits.of", "kept[pair[some], group[some]] = rows.square_().sum(1)",
     "kept[pair[some], group[some]] = kept[pair[some], group[some]]", "test_what_is_left_of_a_query_beside_a_huge_dimension_is_still_compared"),
    ("Best.threshold", "self.scores[..., -1] - 1.0",
     "self.scores[..., -1]", "test_every_query_and_dimension_equals_brute_force"),
)
_of(
    "kernels/ranking.py", "kernels/test_ranking.py",
    ("_discounted", "np.log2(rank + 2)", "np.log2(rank + 3)", "test_by_hand"),
    ("Judgements.of", "kept = grade > 0", "kept = grade != 0", "test_equals_the_textbook"),
    ("Judgements.of", "first = place < k", "first = place <= place", "test_equals_the_textbook"),
    ("Judgements.score", "1 / (1.0 + first)", "1 / (2.0 + first)", "test_by_hand"),
    ("Judgements.score", "/ self.n_relevant[query, None]", "/ self.k", "test_equals_the_textbook"),
    ("Judgements.grades_of", "np.where(self.keys[place] == keys, self.grades[place], 0.0)",
     "self.grades[place]", "test_equals_the_textbook"),
)
_of(
    "_prune.py", "test_prune.py",
    ("prune", "dropped = np.setdiff1d(np.arange(len(whole)), kept)", "dropped = kept", "test_the_loss_is_that_of_ablating_what_is_dropped"),
    ("_mark", "for d in living[1:]:", "for d in living[:1]:", "test_what_is_planted_as_superfluous_is_dropped_and_nothing_else"),
    ("verdict", "found.loss_high <= margin", "found.loss_low <= margin", "test_the_loss_is_that_of_ablating_what_is_dropped"),
)
_of(
    "_validate.py", "test_validate.py",
    ("_excess", "outcomes.sum() - 1", "outcomes.sum()", "test_shares_by_hand"),
    ("_excess", "outcomes - level", "outcomes - 2 * level", "test_halved_p_values_are_noticed"),
    ("_row", "(of.truth == 0)[_claimed(of) & ~np.isnan(of.truth)]", "(of.truth == 0)[_claimed(of)]", "test_what_is_neither_counts_nowhere"),
    ("_row", "units = [one[of.truth == 0]", "units = [one[of.truth != 1]", "test_what_is_neither_counts_nowhere"),
    ("_claimed", "np.where(np.isnan(found.truth), -np.inf, found.score)", "-found.score", "test_measures_of_others_are_graded_by_their_highest_scores"),
    ("_movement", "** 2) / 2)", "** 2))", "test_measures_of_others_are_graded_by_their_highest_scores"),
    ("Validation.verdicts", "self.recall_high < _HALF", "self.recall_high < 0", "test_an_exchanged_sign_is_noticed"),
)
_of(
    "_claims.py", "test_validate.py",
    ("_masks", "found.naive_gain > 0", "found.naive_gain > 1", "test_the_largest_score_of_many_masks_is_seen_to_fail"),
)
_of(
    "planted.py", "test_validate.py",
    ("_drawn", "np.sqrt(1.75)", "1.0", "test_planted_dimensions_are_what_they_are_called"),
    ("_drawn", "if sign < 0 and len", "if sign > 0 and len", "test_planted_dimensions_are_what_they_are_called"),
    ("_drawn", "sign * 1.5", "1.5", "test_planted_dimensions_are_what_they_are_called"),
    ("_drawn", "0.6 * score", "0.9 * score", "test_planted_dimensions_are_what_they_are_called"),
    ("_drawn", "np.sqrt([0.8])", "np.sqrt([0.5])", "test_planted_dimensions_are_what_they_are_called"),
)
_of(
    "training/live.py", "training/test_live.py",
    ("DimensionMonitor._report", "np.concatenate(self._kept)[-self.rows :]", "np.concatenate(self._kept)[: self.rows]",
     "test_a_report_is_of_the_last_rows_and_comes_every_so_many_batches"),
    ("DimensionMonitor.__call__", "left = -self.step % self.every", "left = (1 - self.step) % self.every",
     "test_a_report_is_of_the_last_rows_and_comes_every_so_many_batches"),
    ("DimensionMonitor.__call__", "left * self._batch_size < self.rows", "left < self.rows",
     "test_batches_that_no_report_needs_are_not_looked_at"),
    ("DimensionMonitor.__call__", "self._report(mask or self._mask)", "self._report(self._mask)",
     "test_our_own_training_is_watched_and_is_not_changed_by_it"),
    ("measured", "** 2 - by_chance", "** 2", "test_numbers_are_those_of_the_probes"),
    ("measured", ">= _COPY", ">= 1", "test_numbers_are_those_of_the_probes"),
    ("DimensionMonitor.watch", "if watched.training:", "if True:", "test_only_training_is_watched_until_the_handle_is_removed"),
)
_of(
    "probes/find_suspects.py", "probes/test_find_suspects.py",
    ("find_suspects", "paired_test_one_sided(gained[-1], clusters)", "paired_test_one_sided(-gained[-1], clusters)", "test_a_planted_shortcut_is_found_and_its_removal_helps"),
    ("find_suspects", "step[confirming].astype(np.int8) - right[confirming]", "step[choosing].astype(np.int8) - right[choosing]", "test_scores_are_those_of_a_reader_fitted_again_on_the_rest"),
    ("_Behind.predicted", "self.joint.weights_behind(removal, ", "self.joint.weights_behind(None, ", "test_the_ridge_in_closed_form_is_the_one_fitted_again"),
    ("_Tried.of", "deviation[:, None] * ((vectors * root) @ left)", "deviation[:, None] * ((vectors / root) @ left)", "test_directions_are_those_of_a_canonical_correlation"),
    ("_Tried.of", "unit[:, None] * ((vectors / root) @ left)", "unit[:, None] * (vectors @ left)", "test_directions_are_those_of_a_canonical_correlation"),
    ("_chosen", "if steps[best][rows].sum() <= before[rows].sum():", "if steps[best][rows].sum() >= before[rows].sum():", "test_a_planted_shortcut_is_found_and_its_removal_helps"),
    ("_in_order", "directions[~patterns.any(axis=1)] = 0.0", "directions[~patterns.any(axis=1)] += 0.0", "test_scores_are_those_of_a_reader_fitted_again_on_the_rest"),
    ("_taken", "unit[:, None] * directions", "directions", "test_shares_are_taken_in_units_of_the_deviations"),
    ("Suspects.remove", "of_rows(features - self.centre)", "of_rows(features)", "test_removal_leaves_the_mean_of_train_and_everything_else_as_it_was"),
    ("_samples_needed", "0 if fewest >= _LEAST", "0 if fewest >= 0", "test_where_few_samples_are_misread_the_answer_is_open"),
)
_of(
    "probes/profile.py", "probes/test_profile.py",
    ("_of_columns", "share >= _SHARE / n_dimensions", "share >= _SHARE / n", "test_planted_outliers_are_found_and_nothing_else"),
    ("_of_columns", "np.abs(ratio) >= _DEVIATIONS", "ratio >= 2 * _DEVIATIONS", "test_planted_outliers_are_found_and_nothing_else"),
    ("_of_columns", "fourth / n - 3", "fourth / n", "test_numbers_are_those_of_the_textbook"),
    ("_of_columns", "direction**2 - n_directed * share", "direction**2", "test_numbers_are_those_of_the_textbook"),
    ("hubness_without_each", "np.argsort(near == own, -1, kind=\"stable\")", "np.argsort(near != own, -1, kind=\"stable\")",
     "test_hubness_equals_brute_force_with_and_without_each_dimension"),
    ("hubness_without_each", "third, spread**3", "third, spread**2", "test_hubness_equals_brute_force_with_and_without_each_dimension"),
)
_of(
    "kernels/similarity.py", "probes/test_profile.py",
    ("CosineShares.of", "share /= max(1, n_rows)", "share /= len(rows)", "test_shares_by_hand_and_rows_of_zeros_have_none"),
)
_of(
    "probes/_retrieval.py", "probes/test_ablate_retrieval.py",
    ("harm", "np.where(means.mean < 0, means.p_value / 2, 1.0)",
     "means.p_value / 2", "test_halves_confirm_what_is_there_and_few_queries_confirm_nothing"),
    ("truncated", "np.argsort(-lost[~side]", "np.argsort(lost[~side]", "test_truncation_keeps_the_first_the_leading_axes_or_what_other_queries_need"),
)
_of(
    "kernels/spectra.py", "probes/test_ablate_retrieval.py",
    ("principal_axes", "axes[:, ::-1]", "axes", "test_truncation_keeps_the_first_the_leading_axes_or_what_other_queries_need"),
)
_of(
    "probes/confirm_harmful.py", "probes/test_ablate_retrieval.py",
    ("split_and_confirm", "found = confirm(change[side][:, names], own)", "pass",
     "test_the_half_that_did_not_choose_is_what_another_test_confirms_on"),
)
_of(
    "probes/ablate_retrieval.py", "probes/test_ablate_retrieval.py",
    ("ablate_retrieval", "lost = full[:, None] - scores[:, 1:]", "lost = scores[:, 1:] - full[:, None]", "test_every_dimension_equals_brute_force"),
    ("RetrievalAblation.enough", "np.flatnonzero(beyond).max(initial=-1) + 1",
     "np.flatnonzero(~beyond).min(initial=9)", "test_enough_is_counted_down_from_all_dimensions_to_the_first_loss"),
)
_of(
    "kernels/collinearity.py", "probes/test_find_redundancy.py",
    ("_COMPONENT", "1e-8",
     "1e-2", "test_what_adds_little_to_an_exact_sum_is_explained_by_it_all_the_same"),
    ("largest_correlation_by_chance", "(1 - level) / n_pairs",
     "1 - level", "test_the_law_of_the_largest_correlation_of_independent_gaussian_dimensions"),
    ("largest_correlation_by_chance", "(n_samples - 2) / 2",
     "(n_samples - 1) / 2", "test_the_law_of_the_largest_correlation_of_independent_gaussian_dimensions"),
)
_of(
    "probes/_redundancy.py", "probes/test_find_redundancy.py",
    ("by_chance", "max(cut, min(1.0, max(reached) if permuted else largest))",
     "cut", "test_noise_of_few_samples_has_no_groups_and_copies_among_it_are_found"),
)
_of(
    "kernels/correlation.py", "probes/test_correlate.py",
    ("independent_correlations", "rng.chisquare(freedom - np.arange(n_dimensions))",
     "rng.chisquare(freedom, size=n_dimensions)", "test_independent_correlations_have_the_mean_determinant_of_wisharts_law"),
    ("independent_correlations", "freedom = n_samples - 1",
     "freedom = n_samples", "test_independent_correlations_have_the_mean_determinant_of_wisharts_law"),
    ("redundancy_of", "/ (1 - chance)",
     "", "test_by_hand"),
)
_of(
    "kernels/downdate.py", "kernels/test_downdate.py",
    ("solve_ridge", "+= penalty * n_rows\n",
     "+= penalty\n", "test_each_dimension_and_group_equals_an_honest_solve"),
    ("removed_weights", "system.inverse[:, group] @ np.linalg.solve",
     "system.matrix[:, group] @ np.linalg.solve", "test_each_dimension_and_group_equals_an_honest_solve"),
    ("removed_weights", "change[group] = system.weights[group]",
     "change[group] = change[group] * (1 + 1e-6)", "test_each_dimension_and_group_equals_an_honest_solve"),
    ("nested_logits", "t = solve_triangular(lower, columns[:, order].T, lower=True)",
     "t = solve_triangular(lower, columns.T, lower=True)", "test_nested_logits_equal_honest_solves"),
    ("greedy_order", "gain = (vectors**2).sum(axis=1)",
     "gain = np.abs(vectors).sum(axis=1)", "test_greedy_orders_equal_a_search_that_solves_every_candidate"),
    ("greedy_order", "vectors -= factor[:, None] * vectors[chosen]",
     "vectors += factor[:, None] * vectors[chosen]", "test_greedy_orders_equal_a_search_that_solves_every_candidate"),
    ("single_removal_factors", "/ np.diagonal(system.inverse)",
     "* np.diagonal(system.matrix)", "test_each_dimension_and_group_equals_an_honest_solve"),
    ("first_largest", "np.maximum(best, scores[index], out=best)",
     "best = scores[index]", "test_first_largest_is_argmax_with_ties_to_the_lower_class"),
    ("first_largest", "better = scores[index] > (",
     "better = scores[index] >= (", "test_first_largest_is_argmax_with_ties_to_the_lower_class"),
    ("_LARGEST_CONDITION", "1e-8 /", "1e-4 /", "test_an_ill_conditioned_system_is_refused"),
    ("log_losses", "np.exp(scores - largest).sum(axis=0)",
     "np.exp(scores - largest).mean(axis=0)", "test_log_loss_by_hand_and_without_overflow"),
)
_of(
    "answers.py", "test_answers.py",
    ("dimension_table", "if kinds[d] == UNDECIDED:", "if True:", "test_each_dimension_has_the_answer_that_was_planted"),
    ("_dead", "set(ablation.constant.tolist())", "set()", "test_what_was_not_measured_gives_no_answer"),
    ("_nuisances", "if word == NUISANCE:", "if word != NUISANCE:", "test_each_dimension_has_the_answer_that_was_planted"),
)
_of(
    "kernels/rank_one.py", "kernels/test_rank_one.py",
    ("leave_out_predictions", "mine * (winner - low), mine * (winner - high)",
     "mine * (winner - low), mine * (high - winner)", "test_scores_without_each_dimension_are_those_of_its_logits"),
    ("leave_out_predictions", "ranked[:, 1] - ranked[:, 0] - slack",
     "ranked[:, 1] - ranked[:, 0] + slack", "test_a_lead_is_lost_to_the_whole_change_of_the_difference_and_ties_go_to_the_lower_class"),
    ("leave_out_predictions", "-u[n, d] * low[d], -u[n, d] * high[d]",
     "u[n, d] * low[d], u[n, d] * high[d]", "test_scores_without_each_dimension_are_those_of_its_logits"),
    ("leave_out_predictions", "by_size[:, n_compared]]",
     "by_size[:, n_compared - 1]] - 1", "test_scores_without_each_dimension_are_those_of_its_logits"),
    ("leave_out_predictions", "compared = np.sort(by_size[:, :n_compared], axis=1)",
     "compared = np.sort(by_size[:, :n_compared], axis=1)[:, ::-1]", "test_scores_without_each_dimension_are_those_of_its_logits"),
    ("_expanded", "factor.mul_(mine)",
     "factor.mul_(-mine)", "test_a_thousand_classes_by_the_polynomial_and_beyond_its_reach"),
    ("_expanded", "np.abs(u[part]) * radius > limit",
     "np.abs(u[part]) * radius > 4 * limit", "test_the_polynomial_is_as_good_as_its_limit_says"),
    ("_polynomial", "(-1.0) ** orders",
     "1.0**orders", "test_a_thousand_classes_by_the_polynomial_and_beyond_its_reach"),
    ("_limit", "math.exp(2 * z)",
     "math.exp(-2 * z)", "test_the_polynomial_is_as_good_as_its_limit_says"),
    ("_expanded", "u[part] * own[truth[part]]",
     "u[part] * np.ascontiguousarray(v.T)[truth[part]]", "test_a_thousand_classes_by_the_polynomial_and_beyond_its_reach"),
    ("_summed", "columns, weights[own[part]], value=-1)",
     "columns, weights[own[part]], value=1)", "test_scores_without_each_dimension_are_those_of_its_logits"),
    ("_summed", "loss[part] = total.log_().add_(largest).sub_(mine).numpy()",
     "loss[part] = total.log_().sub_(mine).numpy()", "test_losses_of_huge_logits_do_not_overflow"),
)
_of(
    "kernels/downdate.py", "probes/test_ablate.py",
    ("tied_within", "_TIED * np.abs(logits).max(axis=1)",
     "0.0 * np.abs(logits).max(axis=1)", "test_what_rounding_leaves_of_a_class_does_not_predict_it"),
)
_of(
    "kernels/erasure.py", "probes/test_erase.py",
    ("least_squares_eraser", "vectors[:, kept] * root",
     "vectors[:, kept] * values[kept]", "test_leace_is_the_closed_form_of_the_constrained_problem"),
    ("RidgeMoments.weights_behind", "map_.of_columns(weights, transposed=True)",
     "map_.of_columns(weights)", "test_a_ridge_behind_a_map_is_one_fitted_on_mapped_features"),
    ("Removal.of_gram", "(self.right.T @ turned) / 2",
     "(self.right.T @ turned)", "test_a_ridge_behind_a_map_is_one_fitted_on_mapped_features"),
    ("RidgeMoments.weights_behind", "+= penalty * self.n_samples",
     "+= penalty", "test_a_ridge_behind_a_map_is_one_fitted_on_mapped_features"),
)
_of(
    "kernels/jackknife.py", "kernels/test_jackknife.py",
    ("_on", "t.ppf(0.975,",
     "t.ppf(0.95,", "test_blocks_of_one_give_the_t_interval_of_a_mean"),
    ("jackknife_deviations", "np.sqrt((ratio - 1) * n_blocks)",
     "np.sqrt(ratio * n_blocks)", "test_the_interval_of_a_mean_is_centred_at_it_for_blocks_of_any_sizes"),
    ("jackknife_deviations", "pseudo = ratio * full - (ratio - 1) * without",
     "pseudo = n_blocks * full - (n_blocks - 1) * without", "test_the_interval_of_a_mean_is_centred_at_it_for_blocks_of_any_sizes"),
    ("jackknife_deviations", "(1 - counts / n)[:, None] * without",
     "(1 - 1 / n_blocks) * without", "test_the_interval_of_a_mean_is_centred_at_it_for_blocks_of_any_sizes"),
    ("_on", "len(counts) - 1)",
     "len(counts))", "test_blocks_of_one_give_the_t_interval_of_a_mean"),
)
_of(
    "kernels/masking.py", "test_explore.py",
    ("masked_ridge", "first_largest(logits.T)",
     "first_largest(-logits.T)", "test_ridge_is_that_of_a_refit_on_the_kept_dimensions"),
    ("CandidateVotes.predict", "torch.arange(m - 1, -1, -1)",
     "torch.arange(m)", "test_with_all_rows_as_candidates_their_votes_are_exact"),
    ("CandidateVotes.similarities", ">= _LEAST_KEPT",
     ">= -1.0", "test_similarities_are_cosines_however_little_is_left"),
    ("masked_ridge", "+ intercept",
     "", "test_ridge_of_noise_falls_back_on_the_shares_of_unequal_classes"),
    ("masked_singular_values", "np.sqrt(np.where(descending > hidden, descending, 0.0))",
     "np.sqrt(np.maximum(descending, 0.0))", "test_what_products_cannot_tell_from_zero_is_zero"),
)
_of(
    "kernels/moments.py", "kernels/test_moments.py",
    ("_Sums._add_to", "shared = n * m / (n + m)",
     "shared = n * m / (n + m - 1)", "test_merged_shards_have_the_moments_of_the_whole"),
    ("_Sums._add_to", "gap * (n / (n + m))",
     "gap * (m / (n + m))", "test_pairs_are_rows_of_the_first_view_and_columns_of_the_second"),
    ("whole_of", "scatter += (deviations[:, 0].T * counts) @ deviations[:, -1]",
     "scatter += (deviations[:, 0].T * counts) @ deviations[:, 0]", "test_pairs_are_rows_of_the_first_view_and_columns_of_the_second"),
    ("without_each", "shared = count * rest / n",
     "shared = count * n / rest", "test_without_each_block_are_the_moments_of_the_other_rows"),
    ("without_each", "gone = kept_squares <= _ROUNDING * whole_squares",
     "gone = kept_squares < 0", "test_what_rounding_leaves_of_a_dimension_that_one_block_moves_is_taken_off"),
    ("without_each", "np.outer(shared * gap[0], gap[-1])",
     "np.outer(shared * gap[-1], gap[0])", "test_without_each_block_are_the_moments_of_the_other_rows"),
    ("merged", "squares += own_squares + own_counts[:, None, None] * gap**2",
     "squares += own_squares", "test_merged_shards_have_the_moments_of_the_whole"),
    ("deal", "rng.permutation(np.arange(_DEALT) % n_blocks)",
     "rng.integers(n_blocks, size=_DEALT)", "test_rows_are_dealt_evenly_and_by_their_number_alone"),
    ("_mirror", "np.tril(corner, -1).T",
     "np.tril(corner).T", "test_the_covariance_is_numpys_far_from_zero"),
)
_of(
    "moments.py", "kernels/test_moments.py",
    ("Moments.covariance", "/ self.n", "/ (self.n - 1)", "test_tensors_of_any_precision_are_rows"),
)
_of(
    "moments.py", "kernels/test_moments_over_ranks.py",
    ("Moments.over_ranks", "self.squares + counts * gap**2",
     "self.squares + gap**2", "test_processes_with_different_rows_equal_one"),
)
_of(
    "kernels/neighbours.py", "kernels/test_neighbours.py",
    ("_best_candidates", "kept_row = 1.0 - groups.sum(x.square_())",
     "kept_row = 1.0 - groups.sum(x.abs_())", "test_every_query_and_dimension_equals_brute_force"),
    ("_search", "ceiling = values[:, -1].double() + error + SLACK",
     "ceiling = values[:, -1].double()", "test_similarities_closer_than_float32_can_tell_are_ordered_by_float64"),
    ("_best_candidates", "ranks = torch.arange(m - 1, -1, -1, device=scores.device)",
     "ranks = torch.arange(m, device=scores.device)", "test_every_query_and_dimension_equals_brute_force"),
    ("_best_candidates", "keys = scores * (1 << (m - 1).bit_length()) + ranks",
     "keys = scores * m.bit_length() + ranks", "test_every_query_and_dimension_equals_brute_force"),
    ("_Others._enter", "better = scores >= best.scores",
     "better = scores > best.scores", "test_every_query_and_dimension_equals_brute_force"),
    ("_find_block", "best.rows[empty] = torch.arange(k, device=train.device)",
     "best.rows[empty] = best.rows[empty]", "test_every_query_and_dimension_equals_brute_force"),
    ("_emptied", "groups.sum(nonzero) == 0",
     "groups.sum(nonzero) <= 1", "test_every_query_and_dimension_equals_brute_force"),
)
_of(
    "kernels/rows.py", "kernels/test_neighbours.py",
    ("pair_similarities", "norms = q.square().sum(1).sqrt_() * x.square().sum(1).sqrt_()",
     "norms = q.square().sum(1).sqrt_() * x.square().sum(1)", "test_every_query_and_dimension_equals_brute_force"),
    ("divide_by_power_of_two", "torch.frexp(largest).exponent - 1",
     "torch.frexp(largest).exponent + 900", "test_every_query_and_dimension_equals_brute_force"),
    ("Groups.sum", "return values @ self.members.to(values.dtype).T",
     "return values @ self.members.to(values.dtype).T / 2", "test_every_group_equals_brute_force"),
    ("WELL_CONDITIONED", "0.1", "1e-12", "test_every_query_and_dimension_equals_brute_force"),
)
_of(
    "kernels/similarity.py", "probes/test_compare.py",
    ("hilbert_schmidt", "- 2 * both / (n - 2)",
     "+ 2 * both / (n - 2)", "test_cka_is_the_kernel_formula_written_out"),
    ("hilbert_schmidt", "apart / ((n - 1) * (n - 2))",
     "apart / ((n - 1) ** 2)", "test_cka_is_the_kernel_formula_written_out"),
    ("nuclear_similarity", "np.sqrt(x_squares.sum() * y_squares.sum())",
     "x_squares.sum()", "test_a_rotated_and_scaled_copy_is_the_same_to_both"),
    ("matched_dimensions", "-np.abs(np.nan_to_num(correlation))",
     "-np.nan_to_num(correlation)", "test_permuted_dimensions_are_matched_whatever_sign_and_scale"),
)
_of(
    "kernels/spectra.py", "kernels/test_spectra.py",
    ("entropy_rank", "shares = values / values.sum() + added",
     "shares = (values + added) / (values + added).sum()", "test_what_is_added_to_shares_can_exceed_the_rank"),
    ("participation_ratio", "(_checked(singular_values) / np.max(singular_values)) ** 2",
     "_checked(singular_values) / np.max(singular_values)", "test_halving_values_by_hand"),
    ("stable_rank", "((values / values.max()) ** 2).sum()",
     "(values / values.max()).sum()", "test_halving_values_by_hand"),
    ("power_law", "y = 2 * np.log(singular_values",
     "y = np.log(singular_values", "test_an_exact_power_law_is_found_in_any_range"),
    ("power_law", "np.arange(first, last + 1)",
     "np.arange(first - 1, last) + 0.5", "test_an_exact_power_law_is_found_in_any_range"),
    ("discriminant_rank", "1 / np.sqrt(np.maximum(eigenvalues, 0) + delta)",
     "1 / (np.maximum(eigenvalues, 0) + delta)", "test_lidar_of_known_covariances_is_the_rank_of_their_ratio"),
)
_of(
    "kernels/spectra.py", "probes/test_decompose.py",
    ("DEFINITIONS", '"ssrlib": (True, 2, 0.0)',
     '"ssrlib": (True, 1, 0.0)', "test_every_definition_is_its_formula_written_out"),
)
_of(
    "kernels/neighbours.py", "kernels/test_neighbours.py",
    ("count_votes", "(similarities - similarities[..., :1]) / temperature",
     "(similarities - similarities[..., :1]) * temperature", "test_a_tiny_temperature_leaves_the_nearest_alone"),
    ("decide", "torch.round(shares, decimals=10).argmax(-1)",
     "shares.argmax(-1)", "test_equal_totals_go_to_the_lower_class"),
    ("vote", "share[part] = own / totals.sum(1)",
     "share[part] = own / totals.amax(1)", "test_blocks_do_not_matter"),
)
_of(
    "kernels/neighbours.py", "probes/test_ablate.py",
    ("vote", "truth = truth.repeat_interleave(n_groups)",
     "truth = truth.repeat(n_groups)", "test_knn_log_loss_by_hand"),
)
_of(
    "probes/_importance.py", "probes/test_ablate.py",
    ("adjusted", "false_discovery_control(p_value[known])", "p_value[known]",
     "test_knn_per_class_and_full_score_equal_brute_force"),
    ("measure", "per_class_p[:, code] = paired_test(lost)", "per_class_p[:, code] = paired_test(found.lost)",
     "test_knn_per_class_and_full_score_equal_brute_force"),
    ("needed_together", " * len(groups)",
     "", "test_among_many_groups_of_copies_of_noise_none_is_said_to_hide"),
)
_of(
    "probes/ablate_cumulatively.py", "probes/test_ablate_cumulatively.py",
    ("ablate_cumulatively", "[0.025, 0.975]",
     "[0.05, 0.95]", "test_the_band_of_random_orders_holds_95_percent_of_them"),
    ("CumulativeAblation.n_dispensable", "beyond[0]", "beyond[-1]",
     "test_dispensable_is_what_stays_within_the_margin_until_the_first_failure"),
    ("CumulativeAblation.n_dispensable", "self.loss_high[1:]", "self.loss_low[1:]",
     "test_dispensable_is_what_stays_within_the_margin_until_the_first_failure"),
    ("_rows_needed", "np.ceil(effect * high)", "np.ceil(high)",
     "test_the_samples_needed_are_the_fewest_that_show_a_loss_of_that_kind"),
    ("ablate_cumulatively", "paired_interval(lost, clusters)", "paired_interval(lost)",
     "test_copies_of_rows_widen_intervals_only_where_clusters_are_named"),
    ("_importance_on_train", "train.take(~judged), train.take(judged)",
     "train.take(~judged), train.take(~judged)", "test_dimensions_are_ranked_on_rows_that_the_reader_was_not_fitted_on"),
    ("_importance_on_train", ", clusters=train.clusters", "",
     "test_rows_that_rank_dimensions_are_whole_clusters_of_train"),
)
_of(
    "probes/_effects.py", "probes/test_attribute.py",
    ("q_values", "q_value[known] = false_discovery_control(np.where(effect > 0, p_value, 1.0)[known])",
     "q_value = false_discovery_control(np.where(effect > 0, p_value, 1.0), axis=0)",
     "test_q_values_are_adjusted_over_all_factors_and_dimensions_together"),
)
_of(
    "probes/confirm_harmful.py", "probes/test_confirm_harmful.py",
    ("split_and_confirm", "false_discovery_control(found)",
     "found", "test_splitting_and_confirming_is_its_definition_in_loops"),
    ("split_and_confirm", "np.arange(len(p_value)) ^ 1",
     "np.arange(len(p_value))", "test_the_half_that_chooses_is_not_the_half_that_confirms"),
    ("split_and_confirm", "paired_test_one_sided(-change[side], None if clusters is None else clusters[side])",
     "mcnemar_one_sided((change[side] < 0).sum(0), (change[side] > 0).sum(0))",
     "test_copies_confirm_nothing_where_clusters_are_named"),
    ("_samples_needed", "n * 2 * on_a_side", "n * on_a_side",
     "test_the_samples_needed_are_those_at_which_mending_all_is_confirmed"),
    ("confirm_harmful", "right[:, None].astype(np.int8) - 1",
     "np.int8(0) * right[:, None].astype(np.int8) - 1",
     "test_too_few_misread_samples_leave_it_undecided_and_say_how_many_are_needed"),
)
_of(
    "probes/_erasing.py", "probes/test_erase.py",
    ("of_heads", "base[s].r_squared - values, tail, axis=0",
     "values - base[s].r_squared, tail, axis=0", "test_intervals_contain_their_estimates_and_those_of_random_ways_too"),
    ("of_heads", "paired_interval(gained, clusters[s])", "paired_interval(gained)",
     "test_copies_are_no_further_samples_where_clusters_are_named"),
    ("of_heads", "rng, n_bootstrap, clusters[s])", "rng, n_bootstrap)",
     "test_copies_are_no_further_samples_where_clusters_are_named"),
    ("by_effect", "[factor], clusters)", "[factor])",
     "test_a_factor_of_few_train_clusters_is_not_told_by_their_many_rows"),
)
_of(
    "probes/evaluate.py", "probes/test_evaluate.py",
    ("evaluate", "difference(right, right[:, :, :1])", "difference(right[:, :, :1], right)",
     "test_a_mask_is_compared_with_none_on_the_same_samples"),
    ("evaluate", "proportion_interval(columns, task.test.clusters)", "proportion_interval(columns)",
     "test_copies_are_no_further_samples_where_clusters_are_named"),
)
_of(
    "probes/find_redundancy.py", "probes/test_find_redundancy.py",
    ("_accuracies", "representation.take(~judged), representation.take(judged)",
     "representation.take(~judged), representation.take(~judged)", "test_the_subset_of_a_reader_is_judged_on_rows_that_it_was_not_fitted_on"),
)
_of(
    "probes/random_masks.py", "probes/test_random_masks.py",
    ("_judge", "largest.mean() - scores.mean()",
     "largest.mean() - full.mean()", "test_the_selection_bias_is_measured_from_the_mean_of_the_masks"),
    ("_judge", "np.quantile(largest, _LEVEL) - scores.mean()", "np.quantile(largest, _LEVEL) - full.mean()",
     "test_the_null_gain_is_measured_from_the_mean_of_the_masks"),
    ("_judge", "scores.max() - scores.mean()", "scores.max() - full.mean()",
     "test_the_null_gain_is_measured_from_the_mean_of_the_masks"),
    ("null_maxima", "rng.permuted(moved, axis=1)", "rng.permuted(moved, axis=0)",
     "test_whole_clusters_are_permuted_together"),
    ("_judge", "clusters[~half]", "None",
     "test_copies_of_rows_are_no_further_samples_where_clusters_are_named"),
)
_of(
    "cuts.py", "test_cuts.py",
    ("held_out", "sizes // 2)\n    if", "sizes)\n    if",
     "test_the_number_held_out_of_each_class_is_the_nearest_that_leaves_it_in_train"),
    ("held_out", "(after <= most[own]).all()", "(after <= sizes[own]).all()",
     "test_a_class_of_two_clusters_is_judged_by_the_smaller_one"),
    ("deal_folds", "folds[in_fold.sum(axis=0)[codes] == 1] = -1", "",
     "test_a_fold_holds_whole_clusters_and_never_all_of_a_class"),
    ("random_half", "gap == 0 and rng.random() < 0.5", "gap == 0",
     "test_an_odd_cluster_falls_to_either_half"),
)
_of(
    "kernels/effects.py", "probes/test_erase.py",
    ("class_means", "/ np.bincount(codes)[:, None]", "* 1.0",
     "test_moments_given_classes_are_those_of_columns_that_say_them_in_any_blocks"),
    ("class_sums", "sums[present] +=", "sums[present] =",
     "test_moments_given_classes_are_those_of_columns_that_say_them_in_any_blocks"),
)
_of(
    "kernels/erasure.py", "probes/test_erase.py",
    ("RidgeMoments.of", "np.eye(len(shares))", "np.ones((len(shares),) * 2)",
     "test_moments_given_classes_are_those_of_columns_that_say_them_in_any_blocks"),
    ("RidgeMoments.of", "of_features, of_targets = (within.fitted(each, rows) for each in fits)", "pass",
     "test_moments_given_classes_are_those_of_columns_that_say_them_in_any_blocks"),
)
_of(
    "kernels/effects.py", "probes/test_attribute.py",
    ("_error", "- crossed.T @ (share * crossed)", "", "test_intercepts_of_classes_are_those_of_columns_that_say_the_class"),
    ("_error", "left - seen.counts[:, None] * intercepts", "left", "test_intercepts_of_classes_are_those_of_columns_that_say_the_class"),
    ("out_of_fold_errors", "np.flatnonzero(folds < 0)", "np.flatnonzero(folds < -1)",
     "test_out_of_fold_errors_are_those_of_fits_without_each_fold"),
)
_of(
    "kernels/effects.py", "probes/test_labels_of_any_kind.py",
    ("Label.fit", "self.columns.T @ (rows - means)", "0 * self.columns.T @ rows",
     "test_the_label_as_covariates_explains_what_least_squares_does"),
    ("effects", "models = [np.concatenate([each, covariates]) for each in models]", "models = list(models)",
     "test_effects_are_those_of_nested_fits_out_of_fold_beside_the_label"),
)
_of(
    "kernels/permutation.py", "probes/test_labels_of_any_kind.py",
    ("_Test.of", "model @ inside - own @ effect", "model @ inside",
     "test_f_given_covariates_is_that_of_nested_regressions_of_permuted_residuals"),
    ("_Tests.of", "orthonormal(np.hstack([given, *inside[:f]", "orthonormal(np.hstack([*inside[:f]",
     "test_f_given_covariates_is_that_of_nested_regressions_of_permuted_residuals"),
)
_of(
    "probes/_erasing.py", "probes/test_labels_of_any_kind.py",
    ("Readings._values", "+ self._joint.target_mean[self._n_targets :]", "",
     "test_scores_and_factors_given_the_label_are_those_of_scikit_learn"),
    ("Readings._prepared", "label.without(values)", "values - values.mean(axis=0)",
     "test_scores_and_factors_given_the_label_are_those_of_scikit_learn"),
)
_of(
    "readers/logistic.py", "test_targets.py",
    ("_fit_each", "(each[..., 1] - each[..., 0] for each in found)", "(each[..., 1] for each in found)",
     "test_logistic_reads_several_labels_one_against_the_rest"),
)
_of(
    "readers/logistic.py", "test_readers.py",
    ("_fit_softmax", "(2 if n_classes == 2 else 1) / penalty", "1 / penalty",
     "test_logistic_minimises_the_documented_objective"),
    ("_choose_penalty", "standardised[judge] @ start[0]", "standardised[~judge] @ start[0]",
     "test_logistic_chooses_a_penalty_that_does_not_overfit"),
)
_of(
    "training/hypergradient.py", "training/test_hypergradient.py",
    ("exact_hypergradient", "-trial.learning_rate * slope",
     "trial.learning_rate * slope", "test_exact_equals_numerical_differentiation"),
    ("finite_difference_hypergradient", "/ (2 * step)",
     "/ step", "test_finite_difference_converges_to_exact_with_the_square_of_the_radius"),
    ("finite_difference_hypergradient", "step = radius / norm",
     "step = radius", "test_finite_difference_converges_to_exact_with_the_square_of_the_radius"),
    ("lookahead_hypergradient", 'mask_logits, "total")',
     'mask_logits, "contrastive")', "test_lookahead_equals_numerical_differentiation_through_the_real_step"),
    ("finite_difference_hypergradient", "for sign in (1, -1)",
     "for sign in (1, 0)", "test_finite_difference_converges_to_exact_with_the_square_of_the_radius"),
    ("_trial_step", "gradient, -trial.learning_rate))",
     "gradient, trial.learning_rate))", "test_exact_equals_numerical_differentiation"),
    ("lookahead_hypergradient", "-learning_rate * slope",
     "-slope", "test_lookahead_equals_numerical_differentiation_through_the_real_step"),
    ("_trial_step", "each + trial.drift[name]",
     "each - trial.drift[name]", "test_exact_with_a_held_out_batch_and_a_drift"),
    ("_trial_step", "trial.outer_views, remember",
     "trial.inner_views, remember", "test_exact_with_a_held_out_batch_and_a_drift"),
    ("Hypergradient.cosine", "self.direct.norm() * self.second_order.norm()",
     "self.direct.norm() * self.direct.norm()", "test_the_cosine_of_the_two_parts"),
    ("_mask_gradient", "features, s, trial.inner_loss)",
     "features, s, trial.outer_loss)", "test_the_finite_difference_is_of_the_inner_loss"),
)
_of(
    "training/losses.py", "training/test_losses.py",
    ("_correlation", "correction=1 if unbiased else 0", "correction=1", "test_barlow_twins_by_hand"),
    ("_correlation", "correction=1 if unbiased else 0",
     "correction=0", "test_unbiased_barlow_twins_by_hand"),
    ("barlow_twins_terms", "- on_diagonal.square().sum()",
     "- on_diagonal.sum()", "test_unbiased_statistics_are_a_shrunken_pearson_correlation"),
    ("nt_xent_share", "torch.cat([second[batch.rows], first[batch.rows]])",
     "itself", "test_nt_xent_of_orthogonal_pairs"),
    ("barlow_twins_terms", "(on_diagonal - 1).square().sum()",
     "(on_diagonal - 1).abs().sum()", "test_unbiased_statistics_are_a_shrunken_pearson_correlation"),
    ("nt_xent_share", ".T / temperature",
     ".T * temperature", "test_nt_xent_of_orthogonal_pairs"),
    ("nt_xent_share", 'masked_fill(everybody == itself[:, None], float("-inf"))',
     "masked_fill(everybody == itself[:, None], 0.0)", "test_nt_xent_of_orthogonal_pairs"),
    ("vicreg_loss", "/ (len(z) - 1)  # (P, P)", "/ len(z)  # (P, P)", "test_vicreg_by_hand"),
    ("vicreg_loss", "torch.relu(1 - spread).mean() / 2",
     "torch.relu(1 - spread).mean()", "test_vicreg_by_hand"),
    ("vicreg_loss", "(z_a - z_b).square().mean()",
     "(z_a - z_b).square().sum(1).mean()", "test_vicreg_by_hand"),
    ("vicreg_loss", "off_diagonal.square().sum() / z.shape[1]",
     "off_diagonal.square().sum() / len(z)", "test_vicreg_by_hand"),
    ("_correlation", "standardised[0].T @ standardised[1]",
     "standardised[1].T @ standardised[0]", "test_rows_are_dimensions_of_the_first_view_and_columns_of_the_second"),
)
_of(
    "training/step.py", "training/test_hypergradient.py",
    ("Stepper._look_back", "            taken.mask_logits,\n            v,",
     "            regular.mask_logits.detach(),\n            v,", "test_lookahead_judges_a_step_at_the_rate_and_the_mask_that_it_had"),
    ("Stepper._look_back", "learning_rate=taken.learning_rate,",
     'learning_rate=self.optimiser.param_groups[0]["lr"] * _momentum_factor(self.config),', "test_lookahead_judges_a_step_at_the_rate_and_the_mask_that_it_had"),
    ("Stepper._backward_apart", "share = config.contrastive_weight * each",
     "share = each", "test_lookahead_equals_numerical_differentiation_through_the_real_step"),
    ("Stepper._look_back", 'self.optimiser.param_groups[0]["lr"] * _momentum_factor(self.config)',
     'self.optimiser.param_groups[0]["lr"]', "test_lookahead_equals_numerical_differentiation_through_the_real_step"),
    ("Stepper._look_back", "            taken.weights,\n",
     "            {name: weight.detach() for name, weight in regular.weights.items()},\n", "test_lookahead_equals_numerical_differentiation_through_the_real_step"),
    ("Stepper._update", 'record["gradient_norm"] > limit',
     'record["gradient_norm"] < limit', "test_lookahead_refuses_a_step_that_clipping_changed"),
)
_of(
    "kernels/permutation.py", "probes/test_attribute.py",
    ("permutation_p_values", "strata = [np.flatnonzero(cells == cell) for cell in range(int(cells.max()) + 1)]",
     "strata = [np.arange(n_rows)]", "test_p_values_are_shares_of_all_permutations_within_cells"),
    ("permutation_p_values", "null /= typical[:, :, None].astype(np.float32)", "null /= np.float32(1)",
     "test_dimensions_whose_rows_are_alike_within_clusters_share_a_null_with_others"),
    ("_pooled", "least = (observed * (1 - _SAME))", "least = (observed * (1 + _SAME))",
     "test_p_values_are_shares_of_all_permutations_within_cells"),
)
_of(
    "probes/_ranks.py", "probes/test_decompose.py",
    ("lidar_with_interval", "total - within[next(blocks)]", "total",
     "test_the_interval_of_lidar_leaves_the_samples_of_each_block_out"),
)
_of(
    "training/step.py", "training/test_step.py",
    ("Stepper._gradient_share", "/ (2 * self.config.batch_size)",
     "/ self.config.batch_size", "test_gradient_share_is_the_mean_absolute_gradient_of_each_dimension"),
    ("Stepper._drift", "config.momentum**2 if config.nesterov",
     "config.momentum if config.nesterov", "test_the_trial_step_of_the_optimiser_is_the_step_that_sgd_would_take"),
    ("Stepper._drift", "drift[name] = config.weight_decay * weight.detach()",
     "drift[name] = weight.detach() * 0", "test_the_trial_step_of_the_optimiser_is_the_step_that_sgd_would_take"),
    ("Stepper._drift", "held / _momentum_factor(config) * buffer",
     "held * buffer", "test_the_trial_step_of_the_optimiser_is_the_step_that_sgd_would_take"),
    ("Stepper.trial", "learning_rate *= _momentum_factor(config)",
     "learning_rate *= 1.0", "test_the_trial_step_of_the_optimiser_is_the_step_that_sgd_would_take"),
    ("Stepper.take", "each % self.config.meta_every == self.config.meta_every - 1",
     "each % self.config.meta_every == 0", "test_every_third_step_moves_the_mask_and_the_others_are_those_of_a_frozen_one"),
    ("Stepper._look_back", "if judged:", "if True:",
     "test_every_third_step_moves_the_mask_and_the_others_are_those_of_a_frozen_one"),
    ("Stepper.trial", 'views if config.meta_batch == "same" else next_views()',
     "views", "test_every_switch_changes_the_official_step"),
    ("Stepper._update_mask", "self.mask_logits.grad = total.to(",
     "self.mask_logits.grad = hypergradient.direct.to(", "test_every_switch_changes_the_official_step"),
    ("_momentum_factor", "1 + config.momentum if config.nesterov else 1.0",
     "1 + config.momentum", "test_the_trial_step_of_the_optimiser_is_the_step_that_sgd_would_take"),
    ("Stepper.set_rates", "self.config.mask_learning_rate * scale",
     "self.config.mask_learning_rate", "test_a_record_holds_both_scaled_rates_and_the_spread_of_the_weights"),
    ("Stepper._state_of_mask_and_rates", "weights.std(correction=0)",
     "weights.std()", "test_a_record_holds_both_scaled_rates_and_the_spread_of_the_weights"),
)
_of(
    "training/_operations.py", "training/test_tangent.py",
    ("Product.tangent", "db if dw is None else None",
     "db", "test_tangent_equals_torchs_forward_mode"),
    ("Product.tangent", "along_weights = None if dw is None else self._apply(x, dw, db)",
     "along_weights = None if dw is None else self._apply(x, dw, None)", "test_tangent_equals_torchs_forward_mode"),
    ("Norm.tangent", "-scale * mean if dbeta is None else dbeta - scale * mean",
     "-scale * mean if dbeta is None else dbeta + scale * mean", "test_tangent_equals_torchs_forward_mode"),
    ("Norm.tangent", "shift + along_deviation * mean - stretch * total / count",
     "shift - stretch * total / count", "test_tangent_equals_torchs_forward_mode"),
    ("Norm.tangent", "stretch * inverse_deviation * product / count",
     "stretch * product / count", "test_tangent_equals_torchs_forward_mode"),
    ("Norm.tangent", "count = x.numel() // x.shape[1]",
     "count = len(x)", "test_tangent_equals_torchs_forward_mode"),
    ("Relu.tangent", "return backward(dx, saved[0], 0)",
     "return dx", "test_tangent_equals_torchs_forward_mode"),
    ("Sum.tangent", "return b if a is None else a",
     "return None", "test_directions_that_are_missing_are_zero"),
    ("Other.tangent", "mine.get(name, torch.zeros_like(weight))",
     "mine.get(name, torch.ones_like(weight))", "test_directions_that_are_missing_are_zero"),
    ("Norm.run", "momentum = 1.0 / float(layer.num_batches_tracked)",
     "momentum = 0.1", "test_run_is_the_modules_own_forward_and_backward_bit_for_bit"),
    ("LinearMap.tangent", "self.function(self._wide(dx))", "dx", "test_tangent_equals_torchs_forward_mode"),
    ("Gelu.tangent", "backward(dx, saved[0], approximate=self.approximate)", "dx",
     "test_tangent_equals_torchs_forward_mode"),
    ("Given.tangent", "direction.get(self.path)", "None", "test_tangent_equals_torchs_forward_mode"),
    ("_drawing_again", "torch.set_rng_state(state[0])", "pass", "test_what_dropout_drew_is_drawn_again"),
)
_of(
    "training/objective.py", "training/test_step.py",
    ("Objective.value", "config.off_diagonal_weight * terms",
     "terms", "test_joint_descends_the_regular_loss"),
    ("Objective.value", "config.contrastive_weight * terms",
     "terms", "test_joint_descends_the_regular_loss"),
    ("Objective.value", "config.redundancy_weight * barlow",
     "barlow", "test_joint_descends_the_regular_loss"),
    ("Objective.terms", 'masked if config.masked_heads == "both" else features',
     "masked", "test_every_switch_changes_the_official_step"),
    ("Objective.through_encoder", "each.detach() for each in heads.features",
     "each.detach() / 2 for each in heads.features", "test_official_configuration_takes_the_official_step"),
)
_of(
    "training/objective.py", "training/test_hypergradient.py",
    ("Objective.slope", "*zip(heads.features, along, strict=True),",
     "*zip(heads.features, along[::-1], strict=True),", "test_exact_equals_numerical_differentiation"),
)
_of(
    "kernels/means.py", "kernels/test_means.py",
    ("StudentisedMeans.of", "np.sqrt(squares * n_units / max(1, n_units - 1)) / n_rows",
     "np.sqrt(squares) / n_rows", "test_mean_and_error_are_those_of_the_rows"),
    ("_studentised", "squares - 2 * shift * crossed",
     "squares - shift * crossed", "test_drawn_means_are_studentised_by_hand"),
    ("_studentised", "np.sqrt((n_units - 1) / n_units)",
     "np.sqrt(n_units / (n_units - 1))", "test_drawn_means_are_studentised_by_hand"),
    ("StudentisedMeans.p_value", "np.minimum(above, below)",
     "np.maximum(above, below)", "test_tails_finer_than_the_draws_follow_student"),
    ("StudentisedMeans.interval", "((-1, below, self.drawn), (1, above, -self.drawn[::-1]))",
     "((-1, above, self.drawn), (1, below, -self.drawn[::-1]))", "test_an_interval_reaches_further_on_the_side_of_the_long_tail"),
    ("StudentisedMeans.p_value", "np.minimum(1.0, 2 * tail)",
     "np.minimum(1.0, tail)", "test_intervals_hold_the_mean_have_width_and_agree_with_the_p_value"),
    ("StudentisedMeans.of", "around = some - sizes[rows, None] * mean",
     "around = some - mean", "test_drawn_clusters_of_unequal_size_have_a_ratio_for_a_mean"),
    ("_order_statistic", "(1 - tail) * (len(ordered) + 1) - 1",
     "(1 - tail) * (len(ordered) + 1)", "test_of_evenly_spaced_draws_the_k_th_has_k_parts_below_it"),
)
_of(
    "kernels/balanced.py", "kernels/test_balanced.py",
    ("_distances", "np.sqrt((each**2).sum(axis=0)) / len(codes)",
     "np.abs(each).sum(axis=0) / len(codes)", "test_distances_are_added_as_squares_by_hand"),
    ("_distances", "each[place] /= effect",
     "each[place] /= np.sqrt(effect)", "test_one_class_gives_tango"),
    ("balanced_test", "change / (len(sizes) * sizes[codes])[:, None]",
     "change / (len(sizes) * sizes.mean())", "test_rows_count_by_the_size_of_their_class"),
    ("balanced_test", "np.where(estimate > 0, below, above)",
     "np.where(estimate > 0, above, below)", "test_intervals_hold_their_estimate_and_have_width"),
    ("_correlated", "np.sqrt(np.maximum(1.0, ratio))",
     "np.maximum(1.0, ratio)", "test_a_cluster_with_rows_of_several_classes_correlates_them"),
)
_of(
    "kernels/paired.py", "kernels/test_paired.py",
    ("design_effect", "between *= n_clusters / max(1, n_clusters - 1)",
     "between *= 1.0", "test_the_design_effect_is_the_ratio_of_variances_by_hand"),
    ("design_effect", "np.full(between.shape, n / n_clusters)",
     "np.ones(between.shape)", "test_the_design_effect_is_the_ratio_of_variances_by_hand"),
    ("design_effect", "n * (values != 0).sum(axis=0, dtype=np.int64) - total**2",
     "n * (values != 0).sum(axis=0, dtype=np.int64)", "test_the_design_effect_is_the_ratio_of_variances_by_hand"),
    ("cluster_quantile", "len(np.unique(clusters)) - 1",
     "len(clusters) - 1", "test_where_nothing_changes_the_interval_is_that_of_whole_clusters"),
    ("proportion_interval", "wilson_interval(count / effect, n / effect",
     "wilson_interval(count / effect, n", "test_copies_count_once"),
)
_of(
    "kernels/reliability.py", "probes/test_decompose.py",
    ("_is_flat", "half <= 1.5 * _by_chance(share / 2)", "half <= 0.1 * _by_chance(share / 2)",
     "test_a_flat_spectrum_has_no_exponent_to_trust"),
    ("block_kurtosis", "+ gaps**2",
     "", "test_the_kurtosis_is_that_of_the_values"),
)
_of(
    "processes.py", "training/test_distributed.py",
    ("World.rows", "min(self.rank, longer)",
     "self.rank", "test_rows_cut_a_batch_as_tensor_split_does"),
)
_of(
    "processes.py", "test_processes.py",
    ("_Sharing._kept", "if path.exists()", "if False",
     "test_a_killed_loop_goes_on_behind_its_finished_blocks"),
)
_of(
    "kernels/permutation.py", "test_processes.py",
    ("permutation_p_values", "if n_permutations in states", "if True",
     "test_permutations_are_the_same_where_a_killed_run_goes_on"),
)
_of(
    "training/distributed.py", "training/test_distributed.py",
    ("Batch.variance", "(self.n_samples - correction)",
     "self.n_samples", "test_steps_equal_those_of_one_process"),
    ("GlobalBatchNorm.forward", "variance.detach() * count / (count - 1)",
     "variance.detach()", "test_global_statistics_of_one_process_are_batchnorms"),
)
_of(
    "kernels/rounding.py", "kernels/test_rounding.py",
    ("stored_precision", "n_used[name] >= max(1.0, _USED * n_filled)", "n_used[name] >= 0",
     "test_whole_and_short_numbers_are_not_taken_for_rounded_ones"),
    ("stored_precision", "used % (1 << n) == 0", "used % (1 << n) != 0", "test_the_stored_precision_is_found_and_kept"),
    ("spread_floor", "max(_LEAST, 2 * eps) * size", "max(_LEAST, eps) * size", "test_one_rule_for_constant_in_every_place"),
    ("eigenvalue_floor", "eps**2 / 12 * mean_square", "eps**2 / 12000 * mean_square",
     "test_the_floor_lies_above_the_rounding_noise_and_close_to_it"),
    ("eigenvalue_floor", "eps**2 / 12 * mean_square", "eps / 12 * mean_square",
     "test_the_floor_lies_above_the_rounding_noise_and_close_to_it"),
    ("coarser", "max(one, other, key=eps_of)", "min(one, other, key=eps_of)", "test_merged_moments_have_the_coarser_precision"),
)
_of(
    "basis.py", "kernels/test_rounding.py",
    ("Basis._scores", "np.maximum(bound, self.rounding)", "np.minimum(bound, 0.0)",
     "test_a_direction_without_variance_is_constant_however_small_its_mean"),
    ("Basis._scores", "distance <= np.maximum(bound, self.rounding)", "distance >= 0",
     "test_a_basis_keeps_test_rows_that_do_leave_the_train_rows_plane"),
    ("_fit", "eigenvalue_floor(float(eigenvalues[0]), size, n_rows, n_columns, eps)",
     "n_columns * eps_of('float64') * float(eigenvalues[0])", "test_rank_and_collinearity_do_not_depend_on_the_storage"),
)
_of(
    "kernels/collinearity.py", "kernels/test_rounding.py",
    ("relative_size", "1 + whole.n * whole.means", "1 + whole.means", "test_copies_are_found_whatever_the_storage"),
)
_of(
    "readers/linear.py", "kernels/test_rounding.py",
    ("Standardiser.fit", "(low == high) | (scale <= spread_floor(size, eps))", "low == high",
     "test_one_rule_for_constant_in_every_place"),
)
_of(
    "probes/random_masks.py", "probes/test_random_masks.py",
    ("_judge", "right[half].mean(axis=0).argmax()", "right.mean(axis=0).argmax()",
     "test_the_mask_that_one_half_chooses_is_judged_on_the_other"),
    ("_judge", "difference(right[~half, best], full[~half])", "difference(right[:, best], full)",
     "test_the_mask_that_one_half_chooses_is_judged_on_the_other"),
)
_of(
    "clusters.py", "test_clusters.py",
    ("n_repeated_rows", "features[part] + 0.0", "features[part] * 1",
     "test_repeated_rows_are_counted_as_unique_counts_them"),
    ("warning_of_copies", "n_copies <= _MANY_COPIES * len(test)", "n_copies < _MANY_COPIES * len(test)",
     "test_copies_are_warned_of_above_one_percent"),
    ("cluster_ids", "if len(first) == len(values):", "if False:", "test_clusters_of_one_row_each_are_no_clusters"),
)
_of(
    "training/augment.py", "training/test_augment.py",
    ("Augmentation.__init__", "strength / 4", "strength / 2", ""),
)
_of(
    "io/tables.py", "io/test_labels.py",
    ("join", "if len(twice):", "if False:", "test_a_near_miss_shows_five_examples_and_the_flag"),
    ("join", "n_rows != n_samples)", "n_rows < n_samples)", "test_order_is_meant_where_it_is_said_or_nothing_else_is_there"),
    ("_key", "if each in ours and each in theirs]", "if each in theirs]", "test_another_name_is_no_key_and_nothing_is_guessed"),
    ("_examples", "names[:5]", "names", "test_a_near_miss_shows_five_examples_and_the_flag"),
)
_of(
    "io/processors.py", "io/test_folders.py",
    ("recipe_of_transformers", "int(short / share)",
     "int(short * share)", "test_processors_of_transformers"),
    ("recipe_of_transformers", "is_square = short >= 384",
     "is_square = short > 384", "test_processors_of_transformers"),
    ("proved", "found = (found - np.reshape(means, (-1, 1, 1)))",
     "found = (found + np.reshape(means, (-1, 1, 1)))", "test_a_processor_that_normalises_is_proved"),
    ("proved", "key=lambda each: differences[each]", "key=lambda each: -len(each)",
     "test_a_processor_of_tensors_is_followed_to_its_rounding"),
    ("_normalisation", "deviations = [each / scale for each in deviations]",
     "deviations = [each * scale for each in deviations]", "test_processors_of_transformers"),
)
_of(
    "_loaders.py", "test_loaders.py",
    ("as_input", "batch.float() / 255", "batch.float() / 256",
     "test_whole_numbers_are_scaled_and_half_precision_is_remembered"),
    ("as_input", "batch.permute(0, 3, 1, 2)", "batch.permute(0, 3, 2, 1)",
     "test_whole_numbers_are_scaled_and_half_precision_is_remembered"),
    ("_pooled", "found[:, 1:].mean(1)", "found[:, 0:].mean(1)",
     "test_tuples_are_selected_by_place_and_a_lone_part_needs_no_name"),
    ("_pooled", '"cls": found[:, 0]', '"cls": found[:, -1]', "test_a_part_of_the_output_is_selected_by_name"),
    ("_pooled", "found.mean((2, 3))", "found.mean((1, 2))", "test_maps_and_tokens_are_pooled_as_asked"),
    ("_pooled", "return found.mean((1, 2))", "return found.mean((2, 3))", "test_maps_and_tokens_are_pooled_as_asked"),
    ("features_of", "shape[0] != n_rows", "shape[0] < n_rows", "test_outputs_that_are_no_features_are_refused"),
)
_of(
    "datasets/objects.py", "datasets/test_layouts.py",
    ("_targets_of", "and not is_changed", "", "test_targets_that_a_data_set_changes_are_read_off_its_items"),
    ("labels_of", "(labels == np.round(labels)).all()", "(labels >= 0).all()",
     "test_targets_that_are_no_classes_are_refused"),
)
_of(
    "io/blueprints.py", "io/test_folders.py",
    ("recipe_of_timm", "math.floor(size / share)", "math.ceil(size / share)",
     "test_what_timm_records_is_asked_for_unless_a_person_says_otherwise"),
)
_of(
    "images.py", "io/test_folders.py",
    ("Recipe.apply", "math.floor(each) if self.rounds_down",
     "math.ceil(each) if self.rounds_down", "test_transformers_crops_half_a_pixel_lower_than_torchvision"),
)
_of(
    "io/files.py", "io/test_files.py",
    ("write_files", "*others, manifest = contents", "manifest, *others = contents",
     "test_nothing_is_replaced_before_all_is_written_and_the_manifest_comes_last"),
)
# fmt: on

if __name__ == "__main__":
    raise SystemExit(main(TABLE, ROOT, "dimlab"))
