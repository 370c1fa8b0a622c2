"""Shared fixtures: devices, hypothesis settings."""

import signal
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from hypothesis import HealthCheck, settings
from site_pages import BUILT, build

HERE = Path(__file__).resolve().parent
# Collecting doctests imports every file; this one takes the network from who imports it.
collect_ignore = ["no_network.py"]

# A shell that starts the tests with & has them ignore Ctrl-C, and so would what they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile(
    "suite",
    deadline=None,
    max_examples=25,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
# For a second arithmetic path, by --hypothesis-profile=few: the laws have been tried already.
settings.register_profile("few", settings.get_profile("suite"), max_examples=8)
settings.load_profile("suite")

CUDA = pytest.param(
    "cuda",
    marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA"),
)


# What no arithmetic changes: tests of texts, of files on disk, of commands and processes, of what
# stands in for a device, of refusals, and of numbers beside the same numbers.
NOT_NUMERICAL = {
    "test_bad_arguments", "test_bench", "test_browser", "test_claim_pages", "test_claim_texts",
    "test_cli", "test_cli_data", "test_engines", "test_explore", "test_fake_device",
    "test_fingerprint", "test_frames", "test_hostile", "test_hostile_commands", "test_imports",
    "test_killed_commands", "test_kills", "test_knobs", "test_laboratory", "test_layers",
    "test_mutants", "test_neighbours", "test_outputs", "test_packs", "test_peft_processes",
    "test_peft_refusals", "test_perturbations", "test_readme", "test_release", "test_report",
    "test_sampled", "test_second_device", "test_second_device_peft", "test_sensing_refusals",
    "test_shown", "test_site", "test_sizes", "test_storage", "test_streams",
    "test_sweep_experiments", "test_sweep_faults", "test_sweep_seeds", "test_sweeps",
    "test_tolerances", "test_uses", "test_validate", "test_verify",
}  # fmt: skip
# The same in files whose other tests are numerical.
NOT_NUMERICAL_TESTS = {
    "test_a_run_over_the_committed_data_changes_nothing_but_by_numbers",
    "test_a_script_can_be_interrupted_while_it_imports",
    "test_a_script_runs_alone",
    "test_data_of_a_former_script_differ",
    "test_data_without_a_later_knob_are_drawn_at_its_default",
    "test_a_difference_beyond_rounding_fails",
    "test_figures_come_from_the_stored_data_alone",
    "test_other_sizes_are_not_compared",
    "test_same_seeds_same_data",
    "test_smallest_size_of_the_experiments",
    "test_smoke_writes_four_kinds_of_files",
    "test_smoke_writes_its_files",
}


def is_numerical(item: pytest.Item) -> bool:
    """Whether its numbers could be others on another processor; doctests are run once."""
    if item.path.parent != HERE or item.path.stem in NOT_NUMERICAL:
        return False
    return item.name.partition("[")[0] not in NOT_NUMERICAL_TESTS


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if is_numerical(item):
            item.add_marker("numerical")


@pytest.fixture(params=["cpu", CUDA])
def device(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built site; one worker builds it, the others wait for it."""
    with FileLock(tmp_path_factory.getbasetemp().parent / "site.lock"):
        done = build()
    assert done.returncode == 0, done.stderr
    return BUILT
