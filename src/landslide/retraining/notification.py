"""Notification: one JSON post to a webhook when a model is promoted or refused, or a retraining fails.

The address is in the environment variable `LANDSLIDE_WEBHOOK_URL`; without it nothing is sent. The field `text` is one
line for people, so incoming webhooks of Slack and Mattermost accept the post as it is.
"""

import json
import logging
import os
import time
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import requests

logger = logging.getLogger(__name__)

VARIABLE = "LANDSLIDE_WEBHOOK_URL"
_HEADLINES = {
    "promotion": "{model} {version} is now the champion",
    "refusal": "{model}: refused, the champion stays",
    "failure": "The retraining of {model} failed",
}
_FIELDS = ("model", "version", "champion", "run_id", "reason")
# Seconds to connect and to wait for an answer, and pauses between attempts: a webhook that never answers delays a run
# by less than a minute.
_TIMEOUT = (3.05, 10.0)
_PAUSES = (1, 4, 9)
# Status codes that are worth another attempt.
_TEMPORARY = (408, 425, 429, 500, 502, 503, 504)


def notify(event: str, **facts: Any) -> bool:
    """Send a notification if a webhook is configured. Never raises.

    Args:
        event: `promotion`, `refusal` or `failure`.
        **facts: Content: model, version, champion, run_id, reason and others. Values that JSON lacks become text.

    Returns:
        Whether it was delivered.
    """
    url = os.environ.get(VARIABLE)
    if not url:
        return False
    try:
        _post(url, message(event, **facts))
    except Exception as error:  # a failed notification must not end the retraining
        logger.warning("The webhook at %s did not receive the %s notification: %s.", _host(url), event, _cause(error))
        return False
    return True


def message(event: str, **facts: Any) -> dict[str, Any]:
    """Return the content of a notification: event, text, time (UTC) and the facts; unknown facts are None."""
    content = {**dict.fromkeys(_FIELDS), **facts}
    shown = {name: value if value not in (None, "") else "?" for name, value in content.items()}
    text = _HEADLINES.get(event, event).format_map({**shown, "version": f"version {shown['version']}"})
    if content["reason"]:
        text += ": " + " ".join(str(content["reason"]).split())
    return {"event": event, "text": text, "time": datetime.now(UTC).isoformat(timespec="seconds"), **content}


def _post(url: str, content: dict[str, Any]) -> None:
    """Post until the webhook accepts. This loop replaces urllib3's, which logs the path of the address."""
    body, headers = json.dumps(content, default=str), {"Content-Type": "application/json"}
    for pause in (*_PAUSES, None):
        try:
            response = requests.post(url, data=body, headers=headers, timeout=_TIMEOUT)
            response.raise_for_status()
            return
        except requests.RequestException as error:
            temporary = error.response is None or error.response.status_code in _TEMPORARY
            if pause is None or not temporary:
                raise
            time.sleep(pause)


def _host(url: str) -> str:
    """Return the host of an address; user, path and query may hold secrets."""
    try:
        return urlsplit(url).hostname or "an invalid address"
    except ValueError:
        return "an invalid address"


def _cause(error: Exception) -> str:
    """Say what went wrong. The messages of the errors themselves quote the address."""
    response = getattr(error, "response", None)
    return f"it answered {response.status_code}" if response is not None else type(error).__name__
