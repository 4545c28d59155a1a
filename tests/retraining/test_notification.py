"""Notifications to real servers on loopback: one recovers, one hangs, one is unavailable."""

import socket
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from landslide.retraining import notification
from landslide.retraining.notification import notify
from tests.support.webhook import webhook

pytestmark = pytest.mark.slow

SECRET = "T0000-secret"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(notification, "_PAUSES", (0.05, 0.1, 0.2))


@contextmanager
def secret_webhook(*answers: int):
    """A webhook whose address is a secret in every part."""
    with webhook(*answers) as (host, posts):
        yield f"http://user:{SECRET}@{host}/hooks/{SECRET}?token={SECRET}", posts


def test_failed_delivery_is_retried_with_growing_pauses_until_it_succeeds(monkeypatch):
    with secret_webhook(503, 500, 200) as (url, posts):
        monkeypatch.setenv("LANDSLIDE_WEBHOOK_URL", url)
        assert notify(
            "promotion", model="landslide-segmentation", version="4", champion="3", run_id="abc", reason="+2.1 points"
        )
    times, kinds = [post.time for post in posts], [post.content_type for post in posts]
    content = dict(posts[-1].content)
    assert times[2] - times[1] > times[1] - times[0] >= 0.05
    assert set(kinds) == {"application/json"}
    assert content.pop("time").endswith("+00:00")
    assert content == {
        "event": "promotion",
        "text": "landslide-segmentation version 4 is now the champion: +2.1 points",
        "model": "landslide-segmentation",
        "version": "4",
        "champion": "3",
        "run_id": "abc",
        "reason": "+2.1 points",
    }


@pytest.mark.parametrize(
    ("event", "facts", "text"),
    [
        (
            "refusal",
            {"version": 5, "champion": 4, "reason": "not\nbetter"},
            "m: refused, the champion stays: not better",
        ),
        ("refusal", {"champion": 4}, "m: refused, the champion stays"),
        ("failure", {"reason": "{data} is broken"}, "The retraining of m failed: {data} is broken"),
        ("something else", {"extra": Path("x")}, "something else"),
    ],
)
def test_text_is_one_readable_line(event, facts, text):
    content = notification.message(event, model="m", **facts)
    assert content["text"] == text
    assert {"event", "time", "version", "champion", "run_id", "reason", *facts} <= set(content)


def test_facts_without_json_type_become_text(monkeypatch):
    with secret_webhook(200) as (url, posts):
        monkeypatch.setenv("LANDSLIDE_WEBHOOK_URL", url)
        assert notify("promotion", model="m", folder=Path("x"))
    assert posts[0].content["folder"] == "x"


def test_permanent_error_is_not_retried(monkeypatch, caplog):
    with secret_webhook(404) as (url, posts):
        monkeypatch.setenv("LANDSLIDE_WEBHOOK_URL", url)
        assert not notify("failure", model="m")
    assert len(posts) == 1
    assert "it answered 404" in caplog.text
    assert SECRET not in caplog.text


def test_delivery_stops_after_four_failures(monkeypatch, caplog):
    with secret_webhook(503, 503, 503, 503) as (url, posts):
        monkeypatch.setenv("LANDSLIDE_WEBHOOK_URL", url)
        assert not notify("failure", model="m")
    assert len(posts) == 4
    assert "The webhook at 127.0.0.1 did not receive the failure notification: it answered 503" in caplog.text


@pytest.mark.parametrize("listening", [True, False], ids=["hanging", "unreachable"])
def test_unavailable_webhook_is_not_fatal_and_its_secrets_are_not_logged(listening, monkeypatch, caplog):
    monkeypatch.setattr(notification, "_TIMEOUT", (0.2, 0.2))
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if listening:
            server.listen()  # accepts connections, but never answers
        url = f"http://user:{SECRET}@127.0.0.1:{server.getsockname()[1]}/{SECRET}?token={SECRET}"
        monkeypatch.setenv("LANDSLIDE_WEBHOOK_URL", url)
        before = time.monotonic()
        assert not notify("failure", model="m")
    assert time.monotonic() - before < 5
    assert "127.0.0.1 did not receive" in caplog.text
    assert ("Timeout" if listening else "ConnectionError") in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize("url", ["nonsense", "http://[broken", "ftp://example.org/x"])
def test_invalid_address_is_not_fatal(url, monkeypatch, caplog):
    monkeypatch.setenv("LANDSLIDE_WEBHOOK_URL", url)
    assert not notify("failure", model="m")
    assert "did not receive" in caplog.text


def test_without_an_address_nothing_is_sent_or_logged(monkeypatch, caplog):
    monkeypatch.delenv("LANDSLIDE_WEBHOOK_URL", raising=False)
    assert not notify("promotion", model="m", version=1)
    assert not caplog.text
