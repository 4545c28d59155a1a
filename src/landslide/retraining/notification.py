"""Notification: one JSON post to a webhook when a model is promoted or refused, or a retraining fails.

The address is in the environment, `LANDSLIDE_WEBHOOK_URL`; without it nothing is sent. The field `text` is one line
for people, so that incoming webhooks of Slack and Mattermost take the post as it is.
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
    "promotion": "{model} {version} is the champion now",
    "refusal": "{model}: refused, the champion stays",
    "failure": "The retraining of {model} failed",
}
_FIELDS = ("model", "version", "champion", "run_id", "reason")
# Seconds to connect and to be answered, and to wait before each new attempt: a webhook that never answers delays a
# run by less than a minute.
_TIMEOUT = (3.05, 10.0)
_PAUSES = (1, 4, 9)
# Answers that another attempt may change.
_PASSING = (408, 425, 429, 500, 502, 503, 504)


def notify(event: str, **facts: Any) -> bool:
    """Send a notification if there is somewhere to send it; never raises.

    Args:
        event: `promotion`, `refusal` or `failure`.
        **facts: What to say: model, version, champion, run_id, reason and anything else; what JSON lacks becomes text.

    Returns:
        Whether it was delivered.
    """
    url = os.environ.get(VARIABLE)
    if not url:
        return False
    try:
        _post(url, message(event, **facts))
    except Exception as error:  # whatever it is, the models matter more
        logger.warning("The webhook at %s was not told of the %s: %s.", _host(url), event, _cause(error))
        return False
    return True


def message(event: str, **facts: Any) -> dict[str, Any]:
    """Return the content of a notification: event, text, time (UTC) and the facts; None where one is not known."""
    known = {**dict.fromkeys(_FIELDS), **facts}
    shown = {name: value if value not in (None, "") else "?" for name, value in known.items()}
    text = _HEADLINES.get(event, event).format_map({**shown, "version": f"version {shown['version']}"})
    if known["reason"]:
        text += ": " + " ".join(str(known["reason"]).split())
    return {"event": event, "text": text, "time": datetime.now(UTC).isoformat(timespec="seconds"), **known}


def _post(url: str, content: dict[str, Any]) -> None:
    """Post until it is taken. The loop is ours: urllib3's own logs the path of the address when it tries again."""
    body, headers = json.dumps(content, default=str), {"Content-Type": "application/json"}
    for pause in (*_PAUSES, None):
        try:
            response = requests.post(url, data=body, headers=headers, timeout=_TIMEOUT)
            response.raise_for_status()
            return
        except requests.RequestException as error:
            passing = error.response is None or error.response.status_code in _PASSING
            if pause is None or not passing:
                raise
            time.sleep(pause)


def _host(url: str) -> str:
    """Return the part of an address that holds no secret: no user, no path, no query."""
    try:
        return urlsplit(url).hostname or "an address that is none"
    except ValueError:
        return "an address that is none"


def _cause(error: Exception) -> str:
    """Say what went wrong; the messages themselves quote the address."""
    response = getattr(error, "response", None)
    return f"it answered {response.status_code}" if response is not None else type(error).__name__
