"""The recipe of `configs/own_rgb.yaml` that label_audit.py, label_choice.py and rgb_mosaic.py were measured with.

It had no changes of light and colours, one plain epoch at the end, and could choose any epoch.
"""

from typing import Any

EARLIER: dict[str, Any] = {
    "augmentation": {"mode": "published", "plain_epochs": 1},
    "frozen_batch_norm_epochs": 0,
    "selection_epochs": None,
}
"""Training settings that take the place of those of the configuration."""
