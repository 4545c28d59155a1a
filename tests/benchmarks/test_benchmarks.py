"""The benchmarks run and report their measurements, here with few patches, one round and narrow networks."""

import json
import os
import subprocess
import sys

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import gpu, measure, scale, steps
from benchmarks.measure import Comparison, PlainProcess, in_turn
from landslide.data import demo
from landslide.models.cpu_layers import CPU_LAYERS
from tests.support import pipeline_runs

pytestmark = pytest.mark.slow


def compared(**values: float) -> Comparison:
    return Comparison(name="bands", unit="ms", values=values, reference="plain", ours="ours", goal=2.0, limit=3.0)


def test_the_ratio_is_reference_time_divided_by_ours():
    found = compared(plain=6.0, other=3.0, ours=1.5)
    assert found.ratio == 4.0
    assert found.to_json()["ratios"] == {"plain": 1.0, "other": 2.0, "ours": 4.0}
    assert [line.split()[-1] for line in found.lines()[1:]] == ["1.00x", "2.00x", "4.00x"]


@pytest.mark.parametrize(("ours", "verdict"), [(2.0, "2x yes, 3 ms yes"), (3.5, "2x no, 3 ms no")])
def test_the_verdict_names_the_aims_that_are_reached(ours, verdict):
    assert compared(plain=6.0, ours=ours).verdict().endswith(verdict)


def test_sides_alternate_and_the_first_round_is_discarded():
    calls = []

    def side(name):
        calls.append(name)
        return float(len(calls))

    found = in_turn({"a": lambda: side("a"), "b": lambda: side("b")}, rounds=3)
    assert calls == ["a", "b"] * 4
    assert found == {"a": 5.0, "b": 6.0}


def fail_with_memory_settings():
    """A side that fails if it finds memory settings."""
    return lambda: [os.environ[name] for name in measure.MEMORY_SETTINGS if name in os.environ and 1 / 0]


@pytest.mark.soak
def test_a_plain_process_has_no_memory_settings(monkeypatch):
    for name in measure.MEMORY_SETTINGS[:2]:
        monkeypatch.setenv(name, "100000000")
    side = PlainProcess(fail_with_memory_settings)
    assert side() >= 0.0
    side.close()
    assert os.environ[measure.MEMORY_SETTINGS[0]] == "100000000"


def test_the_loops_of_the_gpu_comparison_train_on_a_cpu():
    networks = {"unet": {"width": 2}}
    device = torch.device("cpu")
    found, hours, share = gpu.compare(networks, device, n=36, steps=1, peak=989.0, compiled=False)
    assert set(found.values) == {"plain float32, TF32 off", "plain float32, TF32 on", "ours"}
    assert min(found.values.values()) > 0
    assert hours.values["ours"] == pytest.approx(gpu.PAPER_PATCHES * found.values["ours"] / 3.6e6)
    assert 0 < share.ratio < 1
    assert share.goal == 0.25


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_its_comparison_is_skipped(capsys):
    assert gpu.run(quick=True) == []
    assert "no GPU" in capsys.readouterr().out


def test_a_step_trains_equally_with_cpu_layers_on_and_off(monkeypatch):
    monkeypatch.setitem(steps.NETWORKS, "rau_net", {"width": 2, "head_width": 2, "dropout": 0.0})
    monkeypatch.setattr(steps, "SIZE", 32)
    losses = [
        [step().item() for _ in range(3)] for step in (steps.Step("rau_net", off=CPU_LAYERS), steps.Step("rau_net"))
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert losses[0][2] < losses[0][0]


def test_the_scale_benchmark_measures_every_stage(tmp_path):
    demo.generate(tmp_path / "demo", scenes=((2, 3),))
    rgb = scale.three_bands(tmp_path / "demo", tmp_path / "rgb")
    found = scale.in_process(rgb, tmp_path / "caches")
    assert list(found) == [
        "digests",
        "table",
        "folds",
        "cache",
        "epoch of batches",
        "prediction and scores",
        "memory, anonymous",
    ]
    assert min(found.values()) >= 0


@pytest.mark.soak
def test_the_command_prints_the_ratios_last_and_writes_them(tmp_path):
    out = tmp_path / "figures.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "batches", "--quick", "--json", str(out)],
        cwd=pipeline_runs.ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    figures = json.loads(out.read_text())["comparisons"]
    last = done.stdout.rstrip().splitlines()[-len(figures) :]
    for line, comparison in zip(last, figures, strict=True):
        assert line.startswith(comparison["name"])
        assert f"{comparison['ratios'][comparison['ours']]:.2f}x" in line


def test_an_unknown_benchmark_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmarks", "bands", "speed"])
    with pytest.raises(SystemExit) as stop:
        command.main()
    assert stop.value.code == 2
    assert "there is no speed; choose from steps" in capsys.readouterr().err
