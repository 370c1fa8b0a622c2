"""Learning rates that depend on the step, against torch's schedulers and by hand."""

import pytest
import torch

import loraone_theory as lt
from loraone_theory.methods import schedules

STEPS = 40
# torch's schedulers go by recursion: each step may lose a few units of rounding.
ROUNDING = 8 * STEPS * torch.finfo(torch.float64).eps


def of_torch(make, rate: float) -> list[float]:
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)
    scheduler, found = make(optimiser), []
    for _ in range(STEPS):
        found.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        scheduler.step()
    return found


CASES = {
    "cosine": (
        schedules.cosine(0.5, steps=STEPS, final=0.1),
        lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=STEPS, eta_min=0.1),
    ),
    "linear": (
        schedules.linear(0.5, steps=STEPS, final=0.1),
        lambda o: torch.optim.lr_scheduler.LinearLR(
            o, start_factor=1.0, end_factor=0.2, total_iters=STEPS
        ),
    ),
    "step": (
        schedules.step(0.5, every=7, factor=0.3),
        lambda o: torch.optim.lr_scheduler.StepLR(o, step_size=7, gamma=0.3),
    ),
    "constant": (
        schedules.constant(0.5),
        lambda o: torch.optim.lr_scheduler.ConstantLR(o, factor=1.0),
    ),
    "inverse_time": (
        schedules.inverse_time(0.5, decay=0.25),
        lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda t: 4 / (4 + t)),
    ),
}


def test_every_schedule_is_here() -> None:
    assert set(CASES) == set(schedules.SCHEDULES)


@pytest.mark.parametrize("name", CASES)
def test_rates_are_torchs(name: str) -> None:
    schedule, make = CASES[name]
    expected = of_torch(make, 0.5)
    assert [schedule(t) for t in range(STEPS)] == pytest.approx(expected, rel=ROUNDING)
    assert all(type(schedule(t)) is float for t in range(STEPS))


@pytest.mark.parametrize("kind", [schedules.cosine, schedules.linear])
def test_warm_up_climbs_to_the_peak_and_the_end_stays(kind) -> None:
    schedule = kind(1.0, steps=12, warmup=4, final=0.25)
    assert [schedule(t) for t in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0], rel=ROUNDING)
    assert [schedule(t) for t in (8, 12, 100)] == pytest.approx([0.625, 0.25, 0.25], rel=ROUNDING)


def test_representations_are_the_calls() -> None:
    shown = {
        "constant(0.5)": schedules.constant(0.5),
        "cosine(0.5, steps=1000, warmup=50)": schedules.cosine(0.5, steps=1000, warmup=50),
        "linear(0.1, steps=10, final=0.01)": schedules.linear(0.1, steps=10, final=0.01),
        "step(0.5, every=3)": schedules.step(0.5, 3),
        "constant(0.12345678901)": schedules.constant(0.12345678901),
        "inverse_time(1, decay=0.5)": schedules.inverse_time(1, 0.5),
    }
    for text, schedule in shown.items():
        assert repr(schedule) == text
        again = eval(text, vars(schedules))  # the point of such a text
        assert again == schedule
        assert hash(again) == hash(schedule)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: schedules.cosine(0.0, steps=10), "peak of schedule cosine must be finite and > 0"),
        (lambda: schedules.cosine(0.5, steps=10, final=-1), "final of schedule cosine must be"),
        (lambda: schedules.linear(0.5, steps=0), "steps of schedule linear must be >= 1"),
        (lambda: schedules.linear(0.5, steps=5, warmup=5), "warmup=5 with steps=5; lower warmup"),
        (lambda: schedules.step(0.5, every=0), "every of schedule step must be >= 1"),
        (lambda: schedules.step(0.5, every=2, factor=0.0), "factor of schedule step must be"),
        (lambda: schedules.inverse_time(0.5, decay=-1.0), "decay of schedule inverse_time must"),
        (lambda: schedules.constant(float("nan")), "rate of schedule constant must be finite"),
    ],
)
def test_bad_schedules_are_refused(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_they_are_public() -> None:
    assert lt.schedules is schedules
