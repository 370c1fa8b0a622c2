"""Files on disk: whole or absent, pairs that belong together, one error for damaged ones."""

import io
import json
import os
import pickle
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import loraone_theory as lt
from loraone_theory import storage

DATA = {"a": np.arange(4.0), "name": np.array("x")}


def npz(**arrays):
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def with_a_byte_changed(raw, where):
    return raw[:where] + bytes([raw[where] ^ 0xFF]) + raw[where + 1 :]


def foreign_zip():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("readme.txt", "nothing")
    return stream.getvalue()


WHOLE = npz(a=np.random.default_rng(0).standard_normal(500))
DAMAGED = {
    "empty": b"",
    "text": b"not an archive",
    "cut short": WHOLE[: len(WHOLE) // 2],
    "cut at the end": WHOLE[:-1],
    "a byte of the data": with_a_byte_changed(WHOLE, 300),
    "a byte of the index": with_a_byte_changed(WHOLE, len(WHOLE) - 20),
    "another zip": foreign_zip(),
    "pickle": pickle.dumps({"a": 1}),
    "objects": npz(a=np.array([{}], dtype=object)),
    "bare array": WHOLE[:0] + b"\x93NUMPY\x01\x00",
}


@pytest.mark.parametrize("name", DAMAGED)
@pytest.mark.parametrize("read", [storage.load_arrays, lt.Trajectory.load])
def test_damaged_archives_give_one_error(name, read, tmp_path):
    path = tmp_path / "run.npz"
    path.write_bytes(DAMAGED[name])
    with pytest.raises(storage.DamagedFile, match=r"run.npz must be .* make it again") as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_every_cut_and_every_flipped_byte_of_a_run_is_read_right_or_refused(tmp_path):
    """1,000 damaged copies: what is read is what was written, or the one error."""
    problem = lt.sample_linear(d=4, k=3, true_rank=1, samples=20)
    run = lt.simulate(problem, "lora", rank=1, learning_rate=0.1, steps=2)
    path = tmp_path / "run.npz"
    run.save(path)
    raw, rng = path.read_bytes(), np.random.default_rng(1)
    for i in range(1000):
        where = int(rng.integers(len(raw)))
        path.write_bytes(raw[:where] if i % 2 else with_a_byte_changed(raw, where))
        try:
            found = lt.Trajectory.load(path)
        except storage.DamagedFile:
            continue
        else:  # a byte that says nothing, such as a time stamp in the zip's directory
            assert i % 2 == 0, f"cut at byte {where} of {len(raw)} and read"
            assert found["loss"].equal(run["loss"])
            assert found.final.A.equal(run.final.A)


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff\xfe\x00", b"[" * 200_000, b"nothing"])
def test_damaged_json(raw, tmp_path):
    path = tmp_path / "about.json"
    path.write_bytes(raw)
    with pytest.raises(storage.DamagedFile, match=r"about.json must be a JSON file"):
        storage.load_json(path)


def test_absent_files_keep_their_own_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        storage.load_json(tmp_path / "absent.json")
    with pytest.raises(FileNotFoundError):
        storage.load_arrays(tmp_path / "absent.npz")
    with pytest.raises(IsADirectoryError):
        storage.load_json(tmp_path)


def test_a_link_stays_and_what_it_points_to_changes(tmp_path):
    real, link = tmp_path / "real", tmp_path / "link.json"
    real.mkdir()
    (real / "a.json").write_text("old")
    link.symlink_to(real / "a.json")
    storage.save_json(link, [1])
    assert link.is_symlink()
    assert json.loads((real / "a.json").read_text()) == [1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link.json", "real"]


def test_permissions_stay_and_new_files_follow_the_umask(tmp_path):
    path = tmp_path / "a.json"
    before = os.umask(0o027)
    try:
        storage.save_json(path, 1)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        path.chmod(0o604)
        storage.save_json(path, 2)
        assert stat.S_IMODE(path.stat().st_mode) == 0o604
    finally:
        os.umask(before)


def write_protected(folder):
    path = folder / "a.json"
    path.write_text("old")
    path.chmod(0o444)
    return path


def device(folder):
    path = folder / "a.json"
    path.symlink_to(os.devnull)
    return path


def loop(folder):
    path = folder / "a.json"
    path.symlink_to(path)
    return path


UNWRITABLE = {
    "absent folder": lambda folder: folder / "absent" / "a.json",
    "folder": lambda folder: folder,
    "write-protected": write_protected,
    "device": device,
    "loop of links": loop,
    "below a file": lambda folder: write_protected(folder) / "b.json",
    "long name": lambda folder: folder / ("a" * 300 + ".json"),
    "nul": lambda folder: folder / "a\0.json",
}


@pytest.mark.parametrize("name", UNWRITABLE)
def test_what_cannot_be_written_is_known_before(name, tmp_path):
    path = UNWRITABLE[name](tmp_path)
    before = sorted(tmp_path.rglob("*"))
    for write in (storage.target, lambda p: storage.save_json(p, 1)):
        with pytest.raises(OSError, match=r"must|write-protected"):
            write(path)
    assert sorted(tmp_path.rglob("*")) == before
    assert Path(os.devnull).is_char_device()


def test_suffixes(tmp_path):
    with pytest.raises(ValueError, match=r"must end in .npz; got 'a.json'"):
        storage.target(tmp_path / "a.json", ".npz")


def test_a_full_disk_is_one_error_and_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    storage.save_json(path, 1)

    def full(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match=r"a.json could not be written: No space left on device"):
        storage.save_json(path, 2)
    assert storage.load_json(path) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


WRITER = """
import sys, time
from loraone_theory.core.files import whole_file
with whole_file(sys.argv[1]) as temporary:
    temporary.write_text("half")
    print("ready", flush=True)
    time.sleep(60)
"""


def test_what_a_killed_run_left_goes_and_what_a_living_one_writes_stays(tmp_path):
    def start(name):
        command = [sys.executable, "-c", WRITER, str(tmp_path / name)]
        made = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert made.stdout.readline() == "ready\n"
        return made

    with start("killed.json") as killed, start("living.json") as living:
        assert len(list(tmp_path.iterdir())) == 2
        killed.kill()
        killed.wait()
        storage.save_json(tmp_path / "a.json", 1)
        left = sorted(p.name for p in tmp_path.iterdir())
        living.kill()
    assert len(left) == 2
    assert left[1] == "a.json"


def test_pairs(tmp_path):
    path = tmp_path / "run.npz"
    storage.save_pair(path, DATA, {"seed": 1})
    arrays, about = storage.load_pair(path)
    assert np.array_equal(arrays["a"], DATA["a"])
    assert about["seed"] == 1
    storage.save_pair(path, {"a": np.ones(2)}, {"seed": 2})
    assert storage.load_pair(path)[1]["seed"] == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run.json", "run.npz"]


def test_halves_of_two_runs_are_found_out(tmp_path):
    path, other = tmp_path / "run.npz", tmp_path / "other.npz"
    storage.save_pair(path, DATA, {"seed": 1})
    storage.save_pair(other, {"a": np.ones(2)}, {"seed": 2})
    path.write_bytes(other.read_bytes())
    with pytest.raises(storage.DamagedFile, match=r"run.npz was written by another run"):
        storage.load_pair(path)


def test_an_interruption_between_the_halves_is_found_out(tmp_path, monkeypatch):
    path = tmp_path / "run.npz"
    storage.save_pair(path, DATA, {"seed": 1})
    replace, replaced = os.replace, []

    def once(source, target):
        if replaced:
            raise KeyboardInterrupt
        replaced.append(target)
        replace(source, target)

    monkeypatch.setattr(os, "replace", once)
    with pytest.raises(KeyboardInterrupt):
        storage.save_pair(path, {"a": np.ones(2)}, {"seed": 2})
    with pytest.raises(FileNotFoundError):
        storage.load_pair(path)


def test_json_takes_what_numbers_come_in(tmp_path):
    path = tmp_path / "a.json"
    storage.save_json(
        path,
        {"a": np.float32(0.5), "b": np.arange(2), "c": torch.ones(2), "d": range(2), "e": path},
    )
    assert storage.load_json(path) == {
        "a": 0.5, "b": [0, 1], "c": [1.0, 1.0], "d": [0, 1], "e": str(path),
    }  # fmt: skip


def test_the_version_of_the_code_changes_with_it(tmp_path, monkeypatch):
    folder = Path(storage.__file__).parent
    copy = tmp_path / "loraone_theory"
    for path in (*folder.rglob("*.py"), *folder.rglob("*.pyi")):
        there = copy / path.relative_to(folder)
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_bytes(path.read_bytes())
    version = storage.code_version.__wrapped__  # which is asked for once in a process
    monkeypatch.setattr(storage, "__file__", str(copy / "storage.py"))
    assert version() == storage.code_version()
    with open(copy / "core" / "status.py", "a") as file:
        file.write("\n# changed\n")
    assert version() != storage.code_version()
