"""Checkpoints of a fold: which are kept, verification, and failed writes."""

import contextlib
import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from landslide.errors import TrainingError
from landslide.files import sha256
from landslide.metrics.selection import replaces
from landslide.training import checkpoints
from landslide.training.checkpoints import Progress, best_weights, load_last, save, save_weights

FINGERPRINT = "of this fold"


def weights_of(epoch: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(epoch)
    convolution = torch.randn(4, 3, 3, 3, generator=generator).contiguous(memory_format=torch.channels_last)
    return {"conv.weight": convolution, "norm.num_batches_tracked": torch.tensor(epoch)}


def optimizer_of(epoch: int) -> dict:
    moment = torch.full((4, 3, 3, 3), float(epoch))
    return {
        "state": {0: {"step": torch.tensor(float(epoch)), "exp_avg": moment}},
        "param_groups": [{"lr": 1e-4, "betas": (0.9, 0.999), "params": [0]}],
    }


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "fold-1"


@pytest.fixture
def run(directory):
    """Save epochs as training does: call run(scores) with a list of selection scores."""

    def run(scores, fingerprint=FINGERPRINT) -> Progress:
        progress = Progress(fingerprint)
        for score in scores:
            progress.epoch += 1
            progress.history.append({"epoch": progress.epoch, "score": score})
            if replaces({"f1_macro": score}, progress.best_scores, "f1_macro"):
                progress.best_scores, progress.best_epoch = {"f1_macro": score}, progress.epoch
            save(directory, progress, weights_of(progress.epoch), optimizer_of(progress.epoch))
        return progress

    return run


def files(directory) -> set[str]:
    return {path.name for path in directory.iterdir()}


def checkpoint_files(epoch: int) -> set[str]:
    return {f"epoch-{epoch:04d}.{suffix}" for suffix in ("json", "safetensors", "optimizer.pt")}


def assert_last(directory, epoch: int, fingerprint=FINGERPRINT) -> Progress:
    loaded = load_last(directory, fingerprint)
    assert loaded is not None
    progress, weights, optimizer = loaded
    assert progress.epoch == epoch
    assert len(progress.history) == epoch
    for name, tensor in weights_of(epoch).items():
        assert torch.equal(weights[name], tensor)
    torch.testing.assert_close(optimizer, optimizer_of(epoch), rtol=0, atol=0)
    return progress


def flip_a_bit(path) -> None:
    content = bytearray(path.read_bytes())
    content[-10] ^= 0x01
    path.write_bytes(content)


def test_an_empty_folder_has_no_checkpoint_to_resume(directory):
    assert load_last(directory, FINGERPRINT) is None
    directory.mkdir()
    assert load_last(directory, FINGERPRINT) is None


def test_a_saved_checkpoint_is_loaded(directory, run):
    saved = run([0.5, 0.7, 0.6])
    assert assert_last(directory, 3) == saved
    assert saved.best_epoch == 2


def test_the_last_two_checkpoints_and_the_best_weights_are_kept(directory, run):
    run([0.1, 0.9, 0.3, 0.4, 0.5])
    assert files(directory) == checkpoint_files(4) | checkpoint_files(5) | {"epoch-0002.safetensors"}
    assert sha256(best_weights(directory, 2)) == json.loads((directory / "epoch-0005.json").read_text())["best_sha256"]


def test_weights_at_half_of_an_epoch_are_kept_while_they_are_the_best(directory, run):
    progress = run([0.1, 0.2])
    save_weights(directory, 2.5, weights_of(9))
    progress.best_epoch, progress.best_scores = 2.5, {"f1_macro": 0.9}
    for progress.epoch in (3, 4, 5):
        progress.history.append({"epoch": progress.epoch})
        save(directory, progress, weights_of(progress.epoch), optimizer_of(progress.epoch))
    assert files(directory) == checkpoint_files(4) | checkpoint_files(5) | {"epoch-0002-half.safetensors"}
    assert assert_last(directory, 5).best_epoch == 2.5
    name = next(iter(weights_of(9)))
    assert torch.equal(load_file(best_weights(directory, 2.5))[name], weights_of(9)[name])
    flip_a_bit(best_weights(directory, 2.5))
    assert load_last(directory, FINGERPRINT) is None


def test_an_epoch_before_the_first_test_is_resumed_without_best_weights(directory, run):
    save(directory, progress := Progress(FINGERPRINT, epoch=1, history=[{"epoch": 1}]), weights_of(1), optimizer_of(1))
    assert assert_last(directory, 1) == progress
    assert files(directory) == checkpoint_files(1)


def test_best_weights_named_by_the_previous_checkpoint_are_kept(directory, run):
    run([0.1, 0.9, 0.3, 0.4, 0.95])
    assert files(directory) == checkpoint_files(4) | checkpoint_files(5) | {"epoch-0002.safetensors"}
    run([0.1, 0.9, 0.3, 0.4, 0.95, 0.2])
    assert files(directory) == checkpoint_files(5) | checkpoint_files(6)


@pytest.mark.parametrize("suffix", ["safetensors", "optimizer.pt", "json"])
@pytest.mark.parametrize("damage", ["flipped bit", "truncated", "emptied", "missing"])
def test_a_damaged_newest_checkpoint_resumes_from_the_previous_one(directory, run, caplog, suffix, damage):
    run([0.9, 0.3, 0.4])
    path = directory / f"epoch-0003.{suffix}"
    if damage == "missing":
        path.unlink()
    elif damage == "flipped bit":
        flip_a_bit(path)
    else:
        os.truncate(path, path.stat().st_size // 2 if damage == "truncated" else 0)
    assert_last(directory, 2)
    if (suffix, damage) != ("json", "missing"):
        assert "epoch-0003.json is damaged" in caplog.text
        assert caplog.records[0].levelname == "WARNING"


@pytest.mark.parametrize("content", ["[]", "null", "{}", '{"fingerprint": "of this fold"}'])
def test_an_invalid_manifest_resumes_from_the_previous_checkpoint(directory, run, caplog, content):
    run([0.9, 0.3])
    (directory / "epoch-0002.json").write_text(content)
    assert_last(directory, 1)
    assert "epoch-0002.json is damaged" in caplog.text


def test_damaged_best_weights_are_not_resumed_from(directory, run, caplog):
    run([0.9, 0.3, 0.4])
    flip_a_bit(best_weights(directory, 1))
    assert load_last(directory, FINGERPRINT) is None
    assert "does not match its digest" in caplog.text


def test_training_starts_from_scratch_if_all_checkpoints_are_damaged(directory, run):
    run([0.9, 0.3])
    for epoch in (1, 2):
        flip_a_bit(directory / f"epoch-{epoch:04d}.optimizer.pt")
    assert load_last(directory, FINGERPRINT) is None
    run([0.1])
    assert_last(directory, 1)


def test_a_damaged_newest_checkpoint_is_overwritten_after_resuming(directory, run):
    progress = run([0.9, 0.3, 0.4])
    (directory / "epoch-0003.json").write_text("{")
    progress = assert_last(directory, 2)
    progress.epoch = 3
    progress.history.append({"epoch": 3, "score": 0.4})
    save(directory, progress, weights_of(3), optimizer_of(3))
    assert_last(directory, 3)


def test_a_checkpoint_of_another_fingerprint_is_ignored(directory, run, caplog):
    run([0.9, 0.3])
    assert load_last(directory, "of other settings") is None
    assert caplog.text == ""


def test_other_settings_in_the_same_folder_start_from_scratch_and_resume(directory, run):
    run([0.9, 0.3, 0.4, 0.5])
    run([0.1], fingerprint="new")
    assert_last(directory, 1, "new")
    run([0.1, 0.8, 0.2], fingerprint="new")
    assert assert_last(directory, 3, "new").best_epoch == 2


class Harmful:
    """Runs code when it is unpickled without weights_only."""

    ran = False

    def __reduce__(self):
        return setattr, (Harmful, "ran", True)


def test_no_pickled_object_is_ever_executed(directory, run):
    run([0.9, 0.3])
    path = directory / "epoch-0002.optimizer.pt"
    torch.save({"state": Harmful()}, path)
    manifest_path = directory / "epoch-0002.json"
    manifest = json.loads(manifest_path.read_text())
    manifest_path.write_text(json.dumps({**manifest, "optimizer_sha256": sha256(path)}))
    with contextlib.suppress(pickle.UnpicklingError):
        load_last(directory, FINGERPRINT)
    assert not Harmful.ran


@pytest.mark.parametrize("writer", ["save_file", "torch.save", "write_text"])
def test_a_failed_write_keeps_the_older_checkpoints_usable(directory, run, monkeypatch, writer):
    run([0.9, 0.3, 0.4])
    before = files(directory)

    def write_half(path) -> None:
        Path(path).write_bytes(b"half")
        kind = SafetensorError if writer == "save_file" else OSError
        raise kind("No space left on device")

    if writer == "save_file":
        monkeypatch.setattr(checkpoints, "save_file", lambda _, path: write_half(path))
    elif writer == "torch.save":
        monkeypatch.setattr(torch, "save", lambda _, path: write_half(path))
    else:
        monkeypatch.setattr(type(directory), "write_text", lambda path, _: write_half(path))
    progress = load_last(directory, FINGERPRINT)[0]
    progress.epoch = 4
    with pytest.raises(TrainingError, match=r"epoch-0004.*No space left(.|\n)*Free disk space"):
        save(directory, progress, weights_of(4), optimizer_of(4))
    assert before <= files(directory)
    assert not [name for name in files(directory) if name.startswith(".") or name.endswith(".tmp")]
    assert "epoch-0004.json" not in files(directory)
    assert_last(directory, 3)


def test_the_manifest_is_written_last(directory, run, monkeypatch):
    order = []
    original = checkpoints._write
    monkeypatch.setattr(checkpoints, "_write", lambda path, writer: order.append(path.name) or original(path, writer))
    run([0.9])
    assert order[-1] == "epoch-0001.json"
    assert len(order) == 3
