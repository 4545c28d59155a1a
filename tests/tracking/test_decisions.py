"""Decisions about versions that are registered again: what was decided or rolled back stays so."""

import pytest

from landslide.tracking import registry, runs
from landslide.tracking.registry import CHALLENGER, CHAMPION, MODEL_NAME, Decision, decide_once, rollback, version
from tests.support.versions import add_version

pytestmark = pytest.mark.slow

METRIC = "f1_macro"


@pytest.fixture
def client(store, tmp_path):
    """A store with version 1, and the better version 2 in service."""
    client = runs.connect(store)
    for number, score in (("1", 0.5), ("2", 0.6)):
        add_version(client, tmp_path, score=score, fold_table="t", folds_trained="all")
        assert decide_once(client, number, METRIC).alias == CHAMPION
    return client


def in_service(client) -> str:
    return registry.champion(client)["version"]


def register_again(client, number: str, **tags: str) -> str:
    """Register the model of a version again, with other tags."""
    found = client.get_model_version(MODEL_NAME, number)
    kept = {name: value for name, value in found.tags.items() if name not in ("decision", "decided", "rolled_back")}
    return registry.register(client, found.source, kept | tags)


def test_rolled_back_version_is_not_decided_on_again(client):
    rollback(client)
    before = client.get_model_version(MODEL_NAME, "2")
    assert "rolled back" in before.description
    decided = Decision(CHAMPION, "better: f1_macro 60.00 % against 50.00 % of version 1")
    assert decide_once(client, "2", METRIC) == decided
    after = client.get_model_version(MODEL_NAME, "2")
    assert (after.tags, after.aliases, after.description) == (before.tags, before.aliases, before.description)
    assert in_service(client) == "1"


def test_earlier_challenger_is_not_promoted_because_the_champion_changed(client, tmp_path):
    add_version(client, tmp_path, score=0.55, fold_table="t", folds_trained="all")
    assert decide_once(client, "3", METRIC).alias == CHALLENGER
    rollback(client)
    assert decide_once(client, "3", METRIC).alias == CHALLENGER
    assert in_service(client) == "1"


def test_only_promote_brings_a_rolled_back_model_back(client):
    rollback(client)
    number = register_again(client, "2", f1_macro="0.700000")
    decision = decide_once(client, number, METRIC)
    assert decision.alias == CHALLENGER
    assert "rolled back" in decision.reason
    assert in_service(client) == "1"
    registry.apply_decision(client, "2", Decision(CHAMPION, "promoted manually: it was right"))
    assert "rolled_back" not in version(client, "2")
    rollback_time = registry.rolled_back(client, version(client, number))
    assert rollback_time is None


@pytest.mark.parametrize("deleted", ["version", "run"])
def test_rolled_back_model_stays_out_of_service_after_a_deletion(client, deleted, tmp_path):
    rollback(client)
    tags = version(client, "2")
    key = client.get_run(tags["run_id"]).data.tags["landslide.key"]
    number = register_again(client, "2")
    if deleted == "version":
        client.delete_model_version(MODEL_NAME, "2")
    else:
        client.delete_run(tags["run_id"])
        again = runs.open_cross_validation(
            client, key, name="again", params={}, tags={}, data_version="d", data_source="data"
        )
        assert again != tags["run_id"]
        client.set_model_version_tag(MODEL_NAME, number, "run_id", again)
    assert "rolled back" in decide_once(client, number, METRIC).reason
    assert in_service(client) == "1"


@pytest.mark.parametrize("killed_at", ["set_registered_model_alias", "set_model_version_tag", "get_registered_model"])
def test_interrupted_decision_is_completed(client, tmp_path, monkeypatch, killed_at):
    add_version(client, tmp_path, score=0.7, fold_table="t", folds_trained="all")

    def killed(*arguments, **more):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(client, killed_at, killed)
        with pytest.raises(KeyboardInterrupt):
            decide_once(client, "3", METRIC)
    assert "decided" not in version(client, "3")
    decided = Decision(CHAMPION, "better: f1_macro 70.00 % against 60.00 % of version 2")
    assert decide_once(client, "3", METRIC) == decided
    tags = version(client, "3")
    assert (tags["decision"], tags["replaced_champion"]) == (f"champion: {decided.reason}", "2")
    assert in_service(client) == "3"


def test_model_is_called_the_first_only_if_it_is(client, tmp_path):
    client.delete_registered_model_alias(MODEL_NAME, CHAMPION)
    add_version(client, tmp_path, score=0.4, fold_table="t", folds_trained="all")
    assert decide_once(client, "3", METRIC) == Decision(CHAMPION, "no model was in service")
