"""The model registry on a separate store: aliases, decisions and rollbacks, recorded and undone."""

import pandas as pd
import pytest

from landslide.data.demo import DEMO_VERSION
from landslide.errors import RegistryError
from landslide.tracking import registry, runs
from landslide.tracking.registry import (
    MODEL_NAME,
    Decision,
    apply_decision,
    champion,
    previous_champion,
    rollback,
    version,
    versions,
)
from tests.support.versions import add_version

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A client of a store with five versions of one model, and no alias."""
    return five_versions(tmp_path_factory.mktemp("registry"))


def five_versions(folder):
    client = runs.connect(f"sqlite:///{folder / 'mlflow.db'}")
    first = add_version(client, folder)
    found = client.get_model_version(MODEL_NAME, first)
    for score in (0.6, 0.7, 0.8, 0.9):
        client.create_model_version(
            MODEL_NAME,
            found.source,
            found.run_id,
            tags={**found.tags, "f1_macro": f"{score:.6f}", "run_id": f"run of {score}"},
        )
    return client


@pytest.fixture
def client(store):
    """The client, with the store as after registering: no alias, no decision."""
    for alias in list(store.get_registered_model(MODEL_NAME).aliases):
        store.delete_registered_model_alias(MODEL_NAME, alias)
    for number in versions(store)["version"]:
        for name in ("replaced_champion", "rolled_back", "restored", "decision", "decided"):
            if name in version(store, str(number)):
                store.delete_model_version_tag(MODEL_NAME, str(number), name)
    return store


def test_a_model_of_the_demo_set_gives_way_to_the_first_one_of_other_data(client):
    demo = {
        **version(client, "1"),
        "folds_trained": "all",
        "data_version": DEMO_VERSION,
        "run_id": "demo",
        "f1_macro": "0.99",
    }
    real = {**version(client, "2"), "folds_trained": "all"}
    decision = registry.decide_by_score(real, demo, "f1_macro")
    assert decision == Decision("champion", "version 1 was trained on the generated demo set")
    assert registry.decide_by_score(demo, real, "f1_macro").alias == "challenger"
    better = registry.decide_by_score({**demo, "run_id": "again", "f1_macro": "0.98"}, demo, "f1_macro")
    assert better.alias == "challenger"


def promote(client, *numbers: str) -> None:
    for number in numbers:
        apply_decision(client, number, Decision("champion", "better"))


def aliases(client) -> dict[str, str]:
    return {alias: str(number) for alias, number in client.get_registered_model(MODEL_NAME).aliases.items()}


def test_version_is_found_by_number_and_by_alias(client):
    promote(client, "2")
    assert version(client, "3")["f1_macro"] == "0.700000"
    assert version(client, "champion")["version"] == version(client, "@champion")["version"] == "2"
    assert champion(client)["version"] == "2"


@pytest.mark.parametrize("name", ["77", "challenger", "@nonsense"])
def test_missing_version_is_named(client, name):
    with pytest.raises(RegistryError, match=f"no version .*{name.removeprefix('@')}(.|\n)*models list"):
        version(client, name)


def test_table_of_versions_is_complete_and_newest_first(client):
    apply_decision(client, "4", Decision("champion", "better"))
    apply_decision(client, "5", Decision("challenger", "not better"))
    table = versions(client)
    assert list(table["version"]) == [5, 4, 3, 2, 1]
    assert list(table["f1_macro"]) == [0.9, 0.8, 0.7, 0.6, 0.5]
    assert list(table["aliases"]) == ["challenger", "champion", "", "", ""]
    assert list(table["decision"][:2]) == ["challenger: not better", "champion: better"]
    assert table["git_commit"].eq("c" * 40).all()
    assert table["created"].dt.tz is not None
    assert table["run_id"].is_unique


def test_table_of_versions_reads_all_pages(client, monkeypatch):
    search = client.search_model_versions
    monkeypatch.setattr(
        client, "search_model_versions", lambda text, page_token=None: search(text, 2, page_token=page_token)
    )
    assert list(versions(client)["version"]) == [5, 4, 3, 2, 1]


def test_scores_of_different_folds_are_not_compared():
    """The folds differ by fifteen points in difficulty."""
    old = {"version": "1", "run_id": "a", "data_version": "d", "fold_table": "t", "selection": "s", "f1_macro": "0.5"}
    new = {**old, "run_id": "b", "f1_macro": "0.9", "folds_trained": "2"}
    assert registry.decide_by_score(new, old, "f1_macro").alias == "challenger"
    assert "folds_trained differs" in registry.decide_by_score(new, old, "f1_macro").reason
    assert registry.decide_by_score(new, {**old, "folds_trained": "2"}, "f1_macro").alias == "champion"
    new = {**new, "folds_trained": "all"}
    assert registry.decide_by_score(new, old, "f1_macro").alias == "champion"
    # More was trained on beside the same test folds; older scene-blocked folds had a gap of one tile.
    ring = {**new, "left_out": "a ring of 1 tile"}
    assert "left_out differs" in registry.decide_by_score(ring, old, "f1_macro").reason
    old["fold_scheme"] = "scene_blocked"
    assert registry.decide_by_score(ring, old, "f1_macro").alias == "champion"
    assert "left_out differs" in registry.decide_by_score({**ring, "left_out": "nothing"}, old, "f1_macro").reason


def test_table_without_registered_model_is_empty(store, monkeypatch):
    monkeypatch.setattr(registry, "MODEL_NAME", "never-registered")
    table = versions(store)
    assert table.empty
    assert {"version", "aliases", "f1_macro", "decision"} <= set(table.columns)
    with pytest.raises(RegistryError, match="no champion"):
        rollback(store)


def test_repeated_rollbacks_stop_at_the_first_version(client):
    promote(client, "1", "2", "4")
    assert previous_champion(client) == ("4", "2")
    assert rollback(client) == ("4", "2")
    assert aliases(client) == {"champion": "2"}
    assert pd.Timestamp(version(client, "4")["rolled_back"]).tz is not None
    assert version(client, "2")["restored"] == version(client, "4")["rolled_back"]
    assert rollback(client) == ("2", "1")
    with pytest.raises(RegistryError, match="no version before the champion, version 1"):
        rollback(client)
    assert aliases(client) == {"champion": "1"}


def test_rollback_skips_versions_that_were_rolled_back(client):
    promote(client, "1", "2", "3")
    assert rollback(client) == ("3", "2")
    promote(client, "4")  # replaces 2
    promote(client, "5")
    assert rollback(client) == ("5", "4")
    assert rollback(client) == ("4", "2")


def test_rollback_can_return_to_a_version_promoted_again(client):
    promote(client, "1", "2")
    rollback(client)
    promote(client, "2")
    assert "rolled_back" not in version(client, "2")
    promote(client, "3")
    assert rollback(client) == ("3", "2")


def test_rollback_does_not_cycle_between_two_versions(client):
    promote(client, "1", "2", "1")
    assert rollback(client) == ("1", "2")
    with pytest.raises(RegistryError, match="no version before"):
        rollback(client)


def test_rollback_passes_over_the_same_model_registered_twice(client):
    twin = client.get_model_version(MODEL_NAME, "2")
    number = str(client.create_model_version(MODEL_NAME, twin.source, twin.run_id, tags=twin.tags).version)
    try:
        promote(client, "1", "2", number)
        assert rollback(client) == (number, "1")
    finally:
        client.delete_registered_model_alias(MODEL_NAME, "champion")
        client.delete_model_version(MODEL_NAME, number)


@pytest.fixture
def with_deleted(store, tmp_path):
    """A store whose versions 1, 2, 3 and 4 were champions in this order, and a function to delete some."""
    client = five_versions(tmp_path)
    promote(client, "1", "2", "3", "4")
    yield client, lambda *numbers: [client.delete_model_version(MODEL_NAME, number) for number in numbers]
    runs.connect(store.tracking_uri)


def test_rollback_goes_back_past_deleted_versions_and_says_so(with_deleted, caplog):
    client, delete = with_deleted
    delete("3", "2")
    assert previous_champion(client) == ("4", "1")
    assert rollback(client) == ("4", "1")
    assert aliases(client) == {"champion": "1"}
    assert "Version 3 was deleted; the champion before it is version 1." in caplog.text


def test_rollback_without_the_deleted_champion_returns_to_the_last_one(with_deleted):
    client, delete = with_deleted
    rollback(client)  # to 3
    delete("3")
    assert champion(client) is None
    assert rollback(client) == ("", "2")  # not to 4, which was rolled back
    assert rollback(client) == ("2", "1")


def test_rollback_with_all_earlier_champions_deleted_is_an_error(with_deleted):
    client, delete = with_deleted
    delete("1", "2", "3")
    with pytest.raises(RegistryError, match=r"Version 3, to which .* was deleted, and no earlier champion is left"):
        rollback(client)
    delete("4")
    with pytest.raises(RegistryError, match="no champion"):
        rollback(client)


def test_rollback_without_a_champion_names_the_command(client):
    with pytest.raises(RegistryError, match=r"has no champion\.(.|\n)*landslide models promote"):
        rollback(client)


def test_restored_version_loses_the_challenger_alias(client):
    promote(client, "1", "2")
    client.set_registered_model_alias(MODEL_NAME, "challenger", "1")
    rollback(client)
    assert aliases(client) == {"champion": "1"}


def test_model_describes_which_version_is_in_service(client):
    promote(client, "1", "2")
    described = client.get_registered_model(MODEL_NAME).description
    assert "version 2 (`@champion`): better." in described
    assert "| F1 | 60.00 % |" in described
    rollback(client)
    assert "version 1 (`@champion`)" in client.get_registered_model(MODEL_NAME).description


def test_previous_champion_is_read_only(client):
    promote(client, "1", "2")
    assert previous_champion(client) == ("2", "1")
    assert aliases(client) == {"champion": "2"}
    assert "rolled_back" not in version(client, "2")


def test_unavailable_registry_is_an_error_and_not_empty(monkeypatch):
    """Otherwise the next version would be promoted as the first."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    nobody_listens = "http://127.0.0.1:9"
    client = runs.MlflowClient(nobody_listens, nobody_listens)
    for ask in (champion, versions, lambda client: version(client, "1")):
        with pytest.raises(RegistryError, match="unexpected error"):
            ask(client)


def test_version_is_recognized_by_its_registration_tags(client):
    third = {k: v for k, v in version(client, "3").items() if k != "version"}
    assert registry.registered(client, third) == "3"
    assert registry.registered(client, {**third, "f1_macro": "0.123456"}) is None


def test_run_created_twice_after_a_lost_answer_is_kept_once(client, monkeypatch):
    create = client.create_run

    def answered_at_the_second_time(*args, **kwargs):
        create(*args, **kwargs)
        return create(*args, **kwargs)

    monkeypatch.setattr(client, "create_run", answered_at_the_second_time)
    run_id = runs.create_run(client, "twice", {"role": "of the test"}, {})
    assert [run.info.run_id for run in runs.search(client, "tags.role = 'of the test'")] == [run_id]
