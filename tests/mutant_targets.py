"""Which files are the numerical core, and which tests are theirs."""

from __future__ import annotations

RULE_TESTS = (
    "test_rules.py", "test_usual_values.py", "test_method_corners.py", "test_checks.py",
    "test_capture.py::test_rules_that_do_not_say_so_could_not_be", "test_methods_longhand.py",
    "test_contracts.py",
)  # fmt: skip
PREDICT_TESTS = ("test_predict.py", "test_predict_methods.py", "test_predict_shapes.py")
SENSING_TESTS = (
    "test_sensing_operators.py", "test_sampler_edges.py", "test_predict_sensing.py",
    "test_noise.py", "test_exact_laws.py",
)  # fmt: skip
START_TESTS = (
    "test_inits.py", "test_usual_values.py", "test_method_corners.py", "test_checks.py",
    "test_methods_longhand.py", "test_gauge.py",
)  # fmt: skip
COMPILED_TESTS = tuple(
    f"test_compiled.py::test_{name}"
    for name in (
        "steps_and_records_are_those_of_the_loop_over_X",
        "sines_are_those_of_complete_decompositions",
        "small_sines_keep_their_digits_and_hard_spectra_are_taken_from_A",
        "where_a_subspace_is_undefined_the_sine_is_nan_and_its_neighbours_are_not",
        "a_sine_does_not_depend_on_those_beside_it",
        "a_run_goes_on_and_is_run_again_bit_for_bit",
        "every_option_of_simulate_is_kept",
        "divergence_is_dated_as_by_torch_and_leaves_the_others_alone",
    )
)
# Files of the core -> their tests, the quick and telling ones first.
GROUPS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("core/linalg.py",): ("test_linalg.py", "test_metrics.py", "test_laws.py", "test_inits.py"),
    ("core/tall.py", "core/elementwise.py", "core/implicit.py"): (
        "test_linalg.py",
        "test_elementwise.py",
        "test_steppers.py",
    ),
    ("core/moments.py",): ("test_in_place.py", *RULE_TESTS, "test_pair_optimizer.py"),
    ("core/lowrank.py",): ("test_in_place.py", "test_linalg.py"),
    ("core/factors.py",): ("test_steppers.py", "test_methods_longhand.py"),
    ("core/frames.py",): ("test_frames.py",),
    ("core/iterative.py",): ("test_rules.py", "test_measured_floor.py", "test_gauge.py"),
    ("core/randomness.py",): ("test_sampling.py", "test_minibatches.py"),
    ("core/roots.py",): ("test_spiked.py", "test_gauge.py", "test_input_laws.py"),
    ("dynamics/kernels.py", "dynamics/sines.py"): COMPILED_TESTS,
    ("dynamics/loop.py",): ("test_simulate.py", "test_steppers.py", "test_linear_oracle.py"),
    ("dynamics/steppers.py",): (
        "test_steppers.py",
        "test_linear_oracle.py",
        "test_endings.py",
        "test_capture.py",
    ),
    ("dynamics/by_rule.py",): (
        "test_endings.py",
        "test_capture.py",
        "test_steppers.py",
        "test_linear_oracle.py",
    ),
    ("dynamics/run.py",): (
        "test_endings.py",
        "test_divergence_dates.py",
        "test_simulate.py",
        "test_continuation.py",
    ),
    ("dynamics/capture.py", "core/eigen.py"): ("test_capture.py",),
    ("dynamics/endings.py",): ("test_endings.py", "test_simulate.py"),
    ("dynamics/batches.py",): ("test_minibatches.py", "test_capture.py"),
    ("dynamics/continuation.py", "dynamics/until.py"): ("test_continuation.py", "test_simulate.py"),
    ("dynamics/records.py", "dynamics/curvature.py"): (
        "test_records.py",
        "test_records_of_methods.py",
    ),
    ("dynamics/view.py", "dynamics/recorder.py"): ("test_records.py", "test_simulate.py"),
    ("dynamics/rates.py",): ("test_schedules.py", "test_simulate.py"),
    ("dynamics/online.py",): ("test_exact_laws.py",),
    ("dynamics/own_rules.py",): ("test_own_parts.py",),
    tuple(
        f"methods/rules/{name}.py"
        for name in (
            "adalora", "adamw", "alternating", "gauss_newton", "gd", "lora_muon",
            "lora_plus", "lora_pro", "lora_rite", "momentum", "muon", "preconditioned",
            "scaled_adamw", "spectral_scaled", "whitened",
        )
    ): (*RULE_TESTS, "test_gauge.py"),
    ("methods/rules/flow.py",): ("test_flow.py", *RULE_TESTS),
    ("methods/rules/base.py",): (
        "test_relative_damping.py",
        *RULE_TESTS,
        "test_predict_methods.py",
    ),
    ("methods/schedules.py",): ("test_schedules.py",),
    ("methods/parametrisations.py", "methods/symmetric.py"): (
        "test_symmetric.py",
        "test_usual_values.py",
        "test_method_corners.py",
        "test_methods_longhand.py",
        "test_contracts.py",
    ),
    ("methods/gradient.py", "methods/rebuilding.py"): (
        "test_config.py",
        "test_usual_values.py",
        "test_methods_longhand.py",
        "test_own_parts.py",
        "test_inits.py",
    ),
    tuple(
        f"methods/inits/{name}.py"
        for name in (
            "base", "early", "gaussian", "kaiming", "lora_ga", "lora_sb", "lora_xs", "milora",
            "nystrom", "olora", "pissa", "released", "spectral",
        )
    ): START_TESTS,
    tuple(
        f"predict/{name}.py"
        for name in ("contraction", "floors", "modes", "rates", "tangent", "tangent_map")
    ): (*PREDICT_TESTS, "test_predict_sensing.py"),
    ("predict/linearised.py",): ("test_predict.py",),
    ("predict/relu.py", "predict/relu_modes.py", "predict/relu_contraction.py"): (
        "test_predict_sensing.py",
        "test_theorems_relu.py",
        "test_relu_dynamics.py",
    ),
    ("predict/flow.py",): ("test_flow.py", "test_predict_flow.py"),
    ("predict/noise.py", "predict/one_step.py", "predict/scaling.py"): (
        "test_predict_noise.py",
        "test_predict_sensing.py",
        "test_one_step_covariance.py",
    ),
    ("predict/best_fit.py", "predict/measured.py"): ("test_measured_floor.py",),
    ("predict/ahead.py", "predict/noiseless.py", "predict/summary.py"): (
        "test_predict_noisy.py",
        "test_predict_shapes.py",
        "test_compare.py",
    ),
    ("predict/seen.py", "predict/stationary.py", "predict/checks.py"): (
        "test_predict_shapes.py",
        "test_predict_methods.py",
    ),
    ("predict/stochastic.py",): ("test_stochastic.py",),
    ("predict/tuning.py", "predict/curves.py", "predict/compare.py"): (
        "test_compare.py",
        "test_predict_methods.py",
    ),
    ("problems/linear/blocks.py", "problems/linear/problem.py"): (
        "test_linear_oracle.py",
        "test_reduction.py",
        "test_input_laws.py",
        "test_simulate.py",
    ),
    ("problems/linear/covariance.py",): ("test_sampling.py", "test_reduction.py"),
    ("problems/linear/reduction.py",): ("test_reduction.py",),
    ("problems/linear/noise.py", "problems/linear/laws.py", "problems/linear/data.py"): (
        "test_noise.py",
        "test_input_laws.py",
        "test_exact_laws.py",
    ),
    ("problems/linear/banded.py", "problems/linear/spiked.py"): ("test_spiked.py",),
    ("problems/linear/lazy.py", "problems/linear/revealed.py"): (
        "test_sampler_edges.py",
        "test_method_corners.py",
        "test_exact_laws.py",
        "test_sampling.py",
    ),
    ("problems/linear/sampling.py",): (
        "test_sampling.py",
        "test_sampler_edges.py",
        "test_noise.py",
    ),
    ("problems/linear/streams.py",): ("test_minibatches.py", "test_method_corners.py"),
    ("problems/relu/closed_forms.py", "problems/relu/population.py", "problems/relu/problem.py"): (
        "test_relu_math.py",
        "test_relu_problems.py",
        "test_relu_dynamics.py",
    ),
    ("problems/relu/fused.py",): (
        "test_compiled.py::test_the_fused_pass_is_the_gradient_written_out",
        "test_compiled.py::test_runs_on_relu_problems_are_those_of_torch",
    ),
    ("problems/relu/sampling.py",): (
        "test_sampler_edges.py",
        "test_relu_problems.py",
        "test_method_corners.py",
        "test_input_laws.py",
    ),
    ("problems/activation.py", "problems/autograd.py", "problems/from_loss.py"): (
        "test_from_loss.py",
        "test_sampler_edges.py",
        "test_method_corners.py",
    ),
    ("problems/base.py", "problems/trials.py", "problems/rows.py", "problems/given.py"): (
        "test_minibatches.py",
        "test_sampler_edges.py",
        "test_given_problems.py",
        "test_check_problem.py",
    ),
    ("problems/shifted.py",): ("test_reduction.py", "test_inits.py"),
    (
        "problems/sensing/problem.py", "problems/sensing/lazy.py", "problems/sensing/indices.py",
        "problems/sensing/base.py", "problems/sensing/sampling.py",
    ): SENSING_TESTS,
    ("problems/sensing/gram.py",): ("test_sensing_gram.py",),
    ("problems/sensing/picked.py",): ("test_sensing_minibatches.py",),
    tuple(
        f"problems/sensing/operators/{name}.py"
        for name in (
            "completion", "dense", "given", "multi_response", "rank_one", "single_response",
            "symmetric",
        )
    ): SENSING_TESTS,
    ("problems/sensing/bilinear.py",): SENSING_TESTS,
    ("problems/sensing/rip.py", "problems/sensing/search.py"): ("test_rip.py",),
    ("metrics.py",): ("test_metrics.py",),
    ("agreement.py",): ("test_agreement.py",),
    ("claims/base.py",): ("test_judge.py", "test_stats.py", "test_verify.py"),
    ("claims/judge.py", "claims/stats.py"): ("test_judge.py", "test_stats.py"),
    ("claims/sampled.py", "claims/values.py"): ("test_sampled.py", "test_packs.py"),
    ("claims/verdict.py",): ("test_stats.py", "test_packs.py"),
}  # fmt: skip
# Corners that the tests of whole methods let through; of every file.
CORNERS = ("test_core_values.py", "test_core_corners.py", "test_core_edges.py")
TARGETS = {
    file: (first, *CORNERS, *rest) for files, (first, *rest) in GROUPS.items() for file in files
}
