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
settings.load_profile("suite")

CUDA = pytest.param(
    "cuda",
    marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA"),
)


# Files whose tests are about something other than the numbers that come out.
NOT_NUMERICAL = {
    "test_bad_arguments", "test_bench", "test_browser", "test_claim_pages", "test_cli",
    "test_layers", "test_mutants",
    "test_hostile", "test_hostile_commands",
    "test_kills", "test_peft_processes", "test_peft_refusals", "test_readme",
    "test_report", "test_sampled", "test_site", "test_storage", "test_streams",
    "test_validate", "test_verify",
    "test_laboratory", "test_sweep_faults", "test_engines",
}  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == HERE and item.path.stem not in NOT_NUMERICAL:
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
