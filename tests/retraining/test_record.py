"""The record of a retraining, on a real MLflow store and a real webhook: opened once, closed once, and found."""

import json
from pathlib import Path

import pytest

from landslide.retraining import record
from landslide.retraining.record import (
    FAILED,
    INTERRUPTED,
    PROMOTED,
    REFUSED,
    UNCHANGED,
    close_record,
    decision_on,
    find_record,
    open_record,
)
from landslide.tracking import runs
from tests.support.webhook import webhook

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return runs.connect(f"sqlite:///{tmp_path_factory.mktemp('record')}/mlflow.db")


@pytest.fixture
def client(store):
    """The store, without the records of other tests."""
    for run in runs.search(store, "tags.role = 'retraining'"):
        store.delete_run(run.info.run_id)
    return store


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("LANDSLIDE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(autouse=True)
def posts(monkeypatch):
    """The posts that the webhook received."""
    with webhook() as (host, told):
        monkeypatch.setenv("LANDSLIDE_WEBHOOK_URL", f"http://{host}/hook")
        yield told


def ending(client, run_id: str) -> tuple[str, str | None]:
    run = client.get_run(run_id)
    return run.info.status, run.data.tags.get("outcome")


def test_record_is_opened_once_per_pipeline_run(client):
    first = open_record(client, "run 1")
    assert ending(client, first) == ("RUNNING", None)
    assert client.get_run(first).data.tags["role"] == "retraining"
    assert open_record(client, "run 1") == first, "a step that is retried"
    assert find_record(client, "run 1") == first
    assert find_record(client, "run 2") is None


@pytest.mark.parametrize(
    ("outcome", "status", "event"),
    [
        (PROMOTED, "FINISHED", "promotion"),
        (REFUSED, "FINISHED", "refusal"),
        (UNCHANGED, "FINISHED", None),
        (FAILED, "FAILED", "failure"),
    ],
)
def test_closed_record_is_in_mlflow_report_and_webhook(client, home, posts, tmp_path, outcome, status, event):
    run_id = open_record(client, "run")
    runs.set_tags(client, run_id, {"data_version": "abc.dir", "drift": "slope"})
    prefixes = ("", "new_", "unchanged_", "relabelled_")
    scores = {f"{prefix}{model}_f1_landslide": 0.5 for prefix in prefixes for model in ("champion", "challenger")}
    runs.log_scores(client, run_id, {
        **scores, "challenger_f1_landslide": 0.61239, "f1_landslide_difference": 0.11239,
        "new_largest_shift": 1.2345, "blocks": 1031, "unchanged_challenger_f1_landslide": 0.487,
        "unchanged_f1_landslide_difference_low": -0.02,
    })  # fmt: skip
    close_record(client, run_id, outcome, "because\nof this", {"version": "4", "champion": "3", "compared_with": ""})
    assert ending(client, run_id) == (status, outcome)
    assert client.get_run(run_id).data.tags["reason"] == "because\nof this"
    report = (home / "reports" / "retraining.md").read_text()
    assert report == Path(client.download_artifacts(run_id, "report.md", str(tmp_path))).read_text()
    for line in (
        f"# Retraining: {outcome}",
        "| version | 4 |",
        "| data version | abc.dir |",
        "| drift | slope |",
        "| all compared patches, out of fold | champion | challenger | difference |",
        "| f1_landslide | 50.00 % | 61.24 % | +11.24 points |",
        "| new patches only | champion | challenger | difference |",
        "| patches whose labels did not change | champion | challenger | difference |",
        "| f1_landslide | 50.00 % | 48.70 % | -1.30 points |",
        "| patches whose labels changed | champion | challenger | difference |",
        "| unchanged_f1_landslide_difference_low | -2.00 points |",
        "| blocks | 1,031 |",
        "| f1_landslide_difference | +11.24 points |",
        "| new_largest_shift | 1.23 |",
    ):
        assert line in report.splitlines()
    assert "compared with" not in report
    content = json.loads((home / "reports" / "retraining.json").read_text())
    assert content.items() >= {"outcome": outcome, "reason": "because\nof this", "run_id": run_id}.items()
    assert [path.name for path in sorted((home / "reports").iterdir())] == ["retraining.json", "retraining.md"]
    assert [post.content["event"] for post in posts] == ([event] if event else [])
    if posts:
        assert (posts[0].content["run_id"], posts[0].content["version"], posts[0].content["champion"]) == (
            run_id,
            "4",
            "3",
        )
        assert posts[0].content["text"].endswith(": because of this")


@pytest.mark.parametrize("outcome", [PROMOTED, REFUSED, UNCHANGED, FAILED])
def test_summary_names_outcome_reason_version_in_service_and_report(client, home, tmp_path, outcome):
    assert record.summary(client, "run") == ""
    run_id = open_record(client, "run")
    assert record.summary(client, "run") == ""
    close_record(client, run_id, outcome, "the reason")
    report = f"report         {home / 'reports' / 'retraining.md'}"
    lines = [f"retraining     {outcome}", "reason         the reason", "in service     no version", report]
    assert record.summary(client, "run").splitlines() == lines
    assert record.summary(client, "run", with_reason=False).splitlines() == [lines[0], *lines[2:]]


@pytest.mark.parametrize("difference", [0.0, 0.1])
def test_equal_scores_on_new_patches_are_explained(client, home, difference):
    run_id = open_record(client, "run")
    for prefix in ("", "new_"):
        scores = {f"{prefix}champion_f1_macro": 0.5, f"{prefix}challenger_f1_macro": 0.5 + difference}
        runs.log_scores(client, run_id, scores)
    close_record(client, run_id, REFUSED, "not better")
    report = (home / "reports" / "retraining.md").read_text()
    assert report.count("Both models score the same on the new patches.") == (difference == 0)


def test_record_without_scores_has_a_report(client, home):
    close_record(client, open_record(client, "run"), FAILED, "step ingest: broken")
    report = (home / "reports" / "retraining.md").read_text()
    assert "| drift | not computed |" in report
    assert "champion | challenger" not in report


def test_first_outcome_is_kept(client, home, posts):
    run_id = open_record(client, "run")
    close_record(client, run_id, REFUSED, "step ingest: the data are broken")
    ended = client.get_run(run_id).info.end_time
    close_record(client, run_id, FAILED, "step plan: nothing came from ingest")
    assert ending(client, run_id) == ("FINISHED", REFUSED)
    assert client.get_run(run_id).info.end_time == ended
    assert [post.content["event"] for post in posts] == ["refusal"]
    assert "the data are broken" in (home / "reports" / "retraining.md").read_text()


def test_long_reason_is_cut_in_the_tag_and_complete_in_the_report(client, home):
    run_id = open_record(client, "run")
    close_record(client, run_id, FAILED, "x" * 9000)
    assert client.get_run(run_id).data.tags["reason"] == "x" * 5000
    assert "x" * 9000 in (home / "reports" / "retraining.md").read_text()


# ---- killed retrainings


def test_next_retraining_closes_only_killed_retrainings(client, posts):
    killed = open_record(client, "killed")
    other = runs.create_run(client, "training", {"role": "cross_validation"}, {})
    after = open_record(client, "next night")
    assert ending(client, killed) == ("KILLED", INTERRUPTED)
    assert ending(client, after) == ("RUNNING", None)
    assert ending(client, other) == ("RUNNING", None)
    assert [(post.content["event"], post.content["run_id"]) for post in posts] == [("failure", killed)]
    close_record(client, after, UNCHANGED, "nothing new")
    open_record(client, "third night")
    assert ending(client, killed) == ("KILLED", INTERRUPTED)
    assert ending(client, after) == ("FINISHED", UNCHANGED)
    assert len(posts) == 1


def test_retraining_wrongly_closed_as_killed_still_records_its_outcome(client):
    lives = open_record(client, "slow")
    open_record(client, "next night")
    assert ending(client, lives) == ("KILLED", INTERRUPTED)
    close_record(client, lives, PROMOTED, "better", {"version": "2"})
    assert ending(client, lives) == ("FINISHED", PROMOTED)
    assert client.get_run(lives).data.tags["reason"] == "better"


@pytest.mark.parametrize(("outcome", "status"), [(PROMOTED, "FINISHED"), (FAILED, "FAILED")])
def test_retraining_killed_while_closing_keeps_its_outcome(client, posts, monkeypatch, outcome, status):
    run_id = open_record(client, "killed late")
    with monkeypatch.context() as patched:
        patched.setattr(record, "_write_reports", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            close_record(client, run_id, outcome, "really")
    assert ending(client, run_id) == ("RUNNING", outcome)
    open_record(client, "next night")
    assert ending(client, run_id) == (status, outcome)
    assert client.get_run(run_id).data.tags["reason"] == "really"
    assert posts == []


# ---- one decision per data version


def test_latest_decision_on_a_data_version_is_found(client):
    def decide(pipeline_run: str, data_version: str, **tags: str) -> str:
        run_id = open_record(client, pipeline_run)
        runs.set_tags(client, run_id, {"data_version": data_version, **tags})
        close_record(client, run_id, REFUSED, "not better")
        return run_id

    first = decide("1", "a", decided="true")
    second = decide("2", "a", decided="true")
    decide("3", "a")  # ended without a decision: broken data, or nothing to do
    decide("4", "b")
    assert decision_on(client, "a").info.run_id == second != first
    assert decision_on(client, "b") is None
    assert decision_on(client, "c") is None
