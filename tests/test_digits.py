"""The experiments on real data: files, parts, networks against autograd, and the smallest sizes."""

import dataclasses
import gzip
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from tolerance import close, near, rounding

from loraone_theory import METHODS, experiment, storage
from loraone_theory.nets import digits, networks
from loraone_theory.nets.idx import read_idx, read_mnist

FOLDER = Path(__file__).resolve().parent.parent / "experiments"
CODES = {"u1": 8, "i1": 9, "i2": 11, "i4": 12, "f4": 13, "f8": 14}


def idx(array: np.ndarray) -> bytes:
    head = bytes([0, 0, CODES[array.dtype.str[1:]], array.ndim])
    shape = struct.pack(f">{array.ndim}I", *array.shape)
    return head + shape + array.astype(array.dtype.newbyteorder(">")).tobytes()


def write_mnist(folder: Path, n: int = 200, side: int = 8) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, side, side), dtype=np.uint8)
    labels = rng.integers(0, 10, n, dtype=np.uint8)
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(labels))
    return images, labels


# --- files


@pytest.mark.parametrize("kind", CODES)
def test_every_kind_of_idx_file_is_read(kind: str, tmp_path: Path) -> None:
    array = np.arange(-3, 21).reshape(2, 3, 4).astype(kind)
    (tmp_path / "a").write_bytes(idx(array))
    (tmp_path / "a.gz").write_bytes(gzip.compress(idx(array)))
    for path in (tmp_path / "a", tmp_path / "a.gz"):
        found = read_idx(path)
        assert found.dtype == array.dtype
        assert found.flags.writeable
        assert np.array_equal(found, array)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: raw[:-1], r"of shape \(4, 3\) must hold 24 bytes; got 23"),
        (lambda raw: raw + b"x", "must hold 24 bytes; got 25"),
        (lambda raw: raw[:7], "ends within its header, at byte 7"),
        (lambda raw: b"PK" + raw[2:], "starts with 50 4b"),
        (lambda raw: raw[:2] + b"\x07" + raw[3:], "a known type"),
        (lambda raw: b"", "starts with two zero bytes"),
        (lambda raw: raw[:3] + b"\xff" + b"\0" * 1020, "at most 32 axes"),
        (lambda raw: gzip.compress(raw)[:-9], "must be a whole gzip file; it is damaged"),
        (lambda raw: gzip.compress(raw)[:5], "must be a whole gzip file; it is damaged"),
        (lambda raw: gzip.compress(raw)[:10] + b"\xff" * 20, "must be a whole gzip file"),
        (lambda raw: gzip.compress(raw)[:-8] + b"\0" * 8, "must be a whole gzip file"),
        (lambda raw: gzip.compress(raw[:-1]), "must hold 24 bytes; got 23"),
    ],
)
def test_damaged_idx_files_are_refused(change: object, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(change(idx(np.zeros((4, 3), np.uint8))))  # type: ignore[operator]
    with pytest.raises(storage.DamagedFile, match=message) as info:
        read_idx(path)
    assert str(path) in str(info.value)
    assert str(info.value).endswith("download it again")


@pytest.mark.parametrize("zipped", [False, True])
def test_no_damage_of_one_byte_is_read_as_something_else(zipped: bool, tmp_path: Path) -> None:
    """Of a plain file only the entries can change unseen, of a gzipped one nothing that matters."""
    array, path = np.arange(12, dtype=np.uint8).reshape(4, 3), tmp_path / "a"
    raw = gzip.compress(idx(array), mtime=0) if zipped else idx(array)
    for place in range(len(raw)):
        for flipped in (1, 0x80):
            path.write_bytes(raw[:place] + bytes([raw[place] ^ flipped]) + raw[place + 1 :])
            try:
                found = read_idx(path)
            except storage.DamagedFile:
                continue
            if zipped:
                assert np.array_equal(found, array)
            else:
                assert place >= len(raw) - array.size or found.dtype != array.dtype
                assert found.shape == array.shape


def test_mnist_folders(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="must hold train-images-idx3-ubyte or"):
        read_mnist(tmp_path)
    images, labels = write_mnist(tmp_path)
    found = read_mnist(tmp_path)
    assert np.array_equal(found[0], images)
    assert np.array_equal(found[1], labels)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(labels[:-1]))
    with pytest.raises(ValueError, match="with one n; got"):
        read_mnist(tmp_path)


def test_parts_are_disjoint_and_of_one_parity(tmp_path: Path) -> None:
    images, labels = write_mnist(tmp_path)
    for parity, rest in (("odd", 1), ("even", 0)):
        found = digits.load(parity, mnist=tmp_path)
        expected = images[labels % 2 == rest] / 255
        pixels = torch.cat([part.images for part in found]).numpy()
        assert len(pixels) == len(expected)
        # Random images are distinct: the parts hold each of them once.
        key = lambda rows: sorted(row.tobytes() for row in rows.astype(np.float32))  # noqa: E731
        assert key(pixels) == key(expected)
        classes = torch.cat([part.labels for part in found])
        assert torch.bincount(classes).tolist() == [
            int((labels == 2 * c + rest).sum()) for c in range(5)
        ]
        again = digits.load(parity, mnist=tmp_path)
        assert all(torch.equal(a.images, b.images) for a, b in zip(found, again, strict=True))
        assert sum(len(p.labels) for p in digits.load(parity, mnist=tmp_path, limit=10)) == 10


def test_the_bundled_digits() -> None:
    pytest.importorskip("sklearn", reason="needs the extra experiments")
    odd, even = digits.load("odd"), digits.load("even")
    assert [len(part.labels) for part in odd] == [543, 181, 182]
    assert [len(part.labels) for part in even] == [534, 178, 179]
    assert odd.train.images.shape[1:] == (8, 8)
    assert 0 <= float(odd.train.images.min()) < float(odd.train.images.max()) <= 1


# --- networks


def nets(runs: int = 2) -> tuple[networks.Weights, torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    shapes = ((6, 8), (8, 7), (7, 5))
    weights = tuple(torch.randn(runs, *s, generator=rng, dtype=torch.float64) for s in shapes)
    X = torch.randn(20, 6, generator=rng, dtype=torch.float64)
    return weights, X, torch.randint(0, 5, (20,), generator=rng)


# Three layers forward and back, sums over at most 20 images or 8 units; ReLUs pass half.
ONCE = rounding(20, operations=6, condition=10)


def plain(weights: networks.Weights, run: int) -> torch.nn.Sequential:
    """One of the nets, as torch has them."""
    layers: list[torch.nn.Module] = []
    for W in weights:
        linear = torch.nn.Linear(*W.shape[1:], bias=False, dtype=W.dtype)
        linear.weight.data = W[run].mT.clone()
        layers += [linear, torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


def test_batched_nets_are_the_plain_ones() -> None:
    weights, X, labels = nets()
    found, losses = networks.gradients(weights, X, labels)
    for run in range(2):
        model = plain(weights, run)
        loss = torch.nn.functional.cross_entropy(model(X), labels)
        loss.backward()
        torch.testing.assert_close(losses[run], loss.detach(), rtol=ONCE, atol=0)
        for G, layer in zip(found, model[::2], strict=True):
            close(G[run], layer.weight.grad.mT, ONCE)
        right = (model(X).argmax(-1) == labels).double().mean()
        assert networks.accuracies(weights, X, labels)[run] == right


@pytest.mark.parametrize("name", ["full-adamw", "lora", "lora-ga", "pissa", "lora-one", "lora-sb"])
def test_training_is_that_of_autograd_on_the_parts(name: str) -> None:
    """Two steps of GD, or of AdamW, against autograd through the effective weight."""
    weights, X, labels = nets()
    gradient, _ = networks.gradients(weights, X, labels)
    method = METHODS[name]() if name == "full-adamw" else METHODS[name](scale=2.0)
    rates = torch.tensor([0.01, 0.05], dtype=torch.float64).reshape(-1, 1, 1, 1)
    training = networks.Training(method, weights, gradient, (0, 1), rank=2, learning_rate=rates)
    first = training.weights[0]
    offsets = name in ("lora", "lora-ga", "pissa", "full-adamw")
    rebuilt = near(8, operations=4, scale=float(weights[0].abs().max()))  # W minus and plus factors
    unchanged = torch.allclose(first, weights[0].expand_as(first), **rebuilt)
    assert unchanged == offsets
    form = method.parametrisation
    for i, rate in enumerate((0.01, 0.05)):
        rule = method.rule(rate, 0.0)
        layers = {n: layer._replace() for n, layer in training.layers.items()}
        leaves = {
            n: [t[i].clone().requires_grad_() for t in L.trainable] for n, L in layers.items()
        }
        states = {n: rule.init(tuple(leaf)) for n, leaf in leaves.items()}
        twin = networks.Training(method, weights, gradient, (0, 1), rank=2, learning_rate=rates)
        for _ in range(2):
            twin.step(X, labels)
            effective = [
                layers[n].frozen_weight + form.shift(tuple(leaves[n]), layers[n].frozen).dense()
                if n in layers
                else W
                for n, W in enumerate(weights)
            ]
            networks.losses(effective, X, labels).sum().backward()
            for n, leaf in leaves.items():
                new, states[n] = rule.update(
                    tuple(t.detach() for t in leaf), tuple(t.grad for t in leaf), states[n]
                )
                leaves[n] = [t.clone().requires_grad_() for t in new]
        for n, leaf in leaves.items():
            for mine, other in zip(twin.layers[n].trainable, leaf, strict=True):
                # Two steps; AdamW divides gradients down to 1e-3 of the largest by their size.
                steps = near(20 + 8, operations=2 * 8, condition=1e3, scale=1.0)
                torch.testing.assert_close(mine[i], other.detach(), **steps)


@pytest.mark.parametrize("name", ["full", "lora", "lora-ga", "lora-sb", "adalora"])
def test_kept_factors_are_those_of_single_steps(name: str) -> None:
    """The same steps, taken one at a time."""
    weights, X, labels = nets()
    gradient, _ = networks.gradients(weights, X, labels)
    both = [
        networks.Training(METHODS[name](), weights, gradient, (0, 2), rank=2, learning_rate=0.05)
        for _ in range(2)
    ]
    history = both[0].run(X, labels, 5, keep_factors=2)
    assert history.factor_steps == (0, 2, 4)
    assert set(history.factors) == {0, 2}
    for t in range(6):
        if t % 2 == 0:
            for i, kept in history.factors.items():
                rebuilt = both[1].layers[i].frozen_weight + kept.dense()[t // 2]
                # One product over a rank or a width of at most 8, in batches of two sizes.
                close(rebuilt, both[1].weights[i], rounding(8, operations=2))
        assert torch.equal(history.losses[t], both[1].step(X, labels))
    alone = both[0].run(X, labels, 0)
    assert alone.losses.shape == (1, 2)
    assert (alone.factor_steps, alone.factors) == ((), {})


def test_factors_beyond_memory_are_refused_before_a_step() -> None:
    weights, X, labels = nets()
    gradient, _ = networks.gradients(weights, X, labels)
    training = networks.Training(
        METHODS["lora"](), weights, gradient, (0,), rank=2, learning_rate=0.05
    )
    before = training.weights[0]
    with pytest.raises(ValueError, match=r"the factors of 1 layers take .* raise keep_factors"):
        training.run(X, labels, 10**14, keep_factors=1)
    with pytest.raises(ValueError, match="keep_factors must be >= 1"):
        training.run(X, labels, 2, keep_factors=0)
    assert torch.equal(training.weights[0], before)


def test_a_network_learns_the_odd_digits() -> None:
    pytest.importorskip("sklearn", reason="needs the extra experiments")
    odd = digits.load("odd")
    weights = networks.pretrained(odd.train, (64, 32, 5), steps=150, seeds=range(2))
    # A guess among five classes is right once in five times.
    assert bool((networks.accuracies(weights, odd.test.flat, odd.test.labels) > 0.8).all())


# --- experiments


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize(
    "name", ["fig_digits_trajectories", "fig_layer_alignment", "table_one_step"]
)
def test_smallest_size_of_the_experiments(name: str, tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="needs the extra experiments")
    if name == "fig_layer_alignment":
        pytest.importorskip("peft", reason="needs the extra peft")
    loaded = experiment.load(experiment.find()[name])
    paths = experiment.produce(loaded, loaded.smoke, tmp_path).figures
    assert {path.suffix for path in paths} == {".png", ".pdf"}
    data = storage.load_arrays(tmp_path / f"{name}.npz")
    if name == "table_one_step":
        rows = json.loads((tmp_path / f"{name}.rows.json").read_text())
        assert [row["method"] for row in rows] == data["rows"].tolist()
        text = (tmp_path / f"{name}.md").read_text().splitlines()
        assert len(text) == 2 + len(rows)
        assert rows[3]["accuracy"].split(" ± ")[0] == f"{data['accuracy'][3].mean():.3f}"
    elif name == "fig_layer_alignment":
        # Float32 frames, and the gradient's own p-th and next singular values may be close.
        assert float(data["lora-one.left.1"][0].max()) < 0.01
        assert float(data["lora.left.1"][0].min()) > 0.3
        assert np.isnan(data["lora.right.1"][0]).all()
    else:
        assert data["points"].shape == (3, loaded.smoke.steps + 1, 2)
        # Full fine-tuning and LoRA start at W, LoRA-One one step away from it.
        # float32 sums over 64 units and a batch, in three layers.
        single = near(64, operations=3, scale=1.0, dtype=torch.float32)
        np.testing.assert_allclose(data["points"][0, 0], data["points"][1, 0], **single)
        begun = pytest.approx(data["start"], rel=single["rtol"])
        assert data["lora-one.loss"][0].mean() != pytest.approx(
            data["start"].mean(), rel=single["rtol"]
        )
        assert data["full.loss"][0] == begun


def test_some_of_the_methods_give_the_rows_and_curves_that_they_give_among_all() -> None:
    pytest.importorskip("sklearn", reason="needs the extra experiments")
    table = experiment.load(FOLDER / "table_one_step.py")
    few = dataclasses.replace(table.smoke, methods=("lora-one", "lora"))
    whole, found = (table.run(c, lambda share: None) for c in (table.smoke, few))
    rows = whole["rows"].tolist()
    assert found["rows"].tolist() == [*rows[:3], "LoRA-One", "LoRA"]
    places = [rows.index(row) for row in found["rows"]]
    np.testing.assert_array_equal(found["accuracy"], whole["accuracy"][places])
    figure = experiment.load(FOLDER / "fig_digits_trajectories.py")
    few = dataclasses.replace(figure.smoke, methods=("lora-one", "p-lora"))
    whole, found = (figure.run(c, lambda share: None) for c in (figure.smoke, few))
    np.testing.assert_array_equal(found["lora-one.loss"], whole["lora-one.loss"])
    assert found["points"].shape == (2, few.steps + 1, 2)
    assert figure.plot(found, few)
    for script in (table, figure):
        with pytest.raises(ValueError, match=r"each of methods must be one of .*; got 'lora-two'"):
            dataclasses.replace(script.smoke, methods=("lora-two",))


def test_experiments_take_mnist(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    loaded = experiment.load(FOLDER / "table_one_step.py")
    config = loaded.config(
        trials=1,
        mnist=str(tmp_path),
        hidden=16,
        pretraining_steps=2,
        steps=2,
        step_rates=(0.1,),
        learning_rates=(1e-3,),
    )
    assert loaded.run(config, lambda share: None)["accuracy"].shape == (10, 1)
