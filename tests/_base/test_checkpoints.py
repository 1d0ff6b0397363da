"""Checkpoints: whole at any moment, read without running code, refused when they are of another run."""

import os
import pickle

import pytest
import torch

from dynot_lite._base import checkpoints

STATE = {"fingerprint": {"steps": 3, "rate": 0.1}, "weights": torch.arange(3.0)}


def test_what_is_saved_is_read(tmp_path):
    checkpoints.save(STATE, tmp_path / "a.pt")
    assert checkpoints.read(str(tmp_path / "a.pt"))["weights"].tolist() == [0, 1, 2]
    assert os.listdir(tmp_path) == ["a.pt"]
    assert checkpoints.resume(tmp_path / "a.pt", STATE["fingerprint"])["weights"].tolist() == [0, 1, 2]
    assert checkpoints.resume(tmp_path / "none.pt", {}) is None and checkpoints.resume(None, {}) is None


def test_a_write_that_breaks_off_leaves_the_file_before(tmp_path, monkeypatch):
    path = tmp_path / "a.pt"
    checkpoints.save(STATE, path)

    def broken(state, stream):
        stream.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", broken)
    with pytest.raises(OSError, match="disk full"):
        checkpoints.save({}, path)
    assert checkpoints.read(path)["fingerprint"] == STATE["fingerprint"]


def test_the_data_are_on_the_disk_before_the_name_is(tmp_path, monkeypatch):
    order = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (order.append("data"), fsync(handle)))
    monkeypatch.setattr(os, "replace", lambda *names: (order.append("name"), replace(*names)))
    checkpoints.save(STATE, tmp_path / "a.pt")
    assert order[:2] == ["data", "name"]


def test_a_damaged_or_foreign_file_is_refused(tmp_path):
    path = tmp_path / "a.pt"
    checkpoints.save(STATE, path)
    whole = path.read_bytes()
    for content in (b"", whole[: len(whole) // 2], b"text", pickle.dumps(STATE["fingerprint"])):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.pt is (damaged|no checkpoint)"):
            checkpoints.read(path)
    torch.save([1, 2], path)
    with pytest.raises(ValueError, match="holds a list"):
        checkpoints.read(path)
    with pytest.raises(ValueError, match="no file"):
        checkpoints.read(tmp_path / "none.pt")
    checkpoints.save({"weights": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="cannot|can be continued"):
        checkpoints.resume(path, {})


class Harmful:
    def __reduce__(self):
        return os.system, ("touch harmed",)


def test_no_code_in_a_file_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"fingerprint": Harmful()}, "a.pt")
    with pytest.raises(ValueError, match="damaged"):
        checkpoints.read("a.pt")
    assert not os.path.exists("harmed")


@pytest.mark.parametrize(
    "other, words", [({"steps": 4, "rate": 0.1}, "steps 3 there and 4 here"), ({"steps": 3}, "rate 0.1 there and None here")]
)
def test_another_run_is_named(tmp_path, other, words):
    checkpoints.save(STATE, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=f"another run: {words}"):
        checkpoints.resume(tmp_path / "a.pt", other)
