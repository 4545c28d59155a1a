"""What a page that needs no network holds: pictures as addresses, and data for its script."""

import base64
import json
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt


def probability_colours(values: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
    """Return (..., 3) colours, red, green, blue, of values 0-255."""
    colours = cv2.applyColorMap(values.reshape(-1, 1), cv2.COLORMAP_MAGMA)
    return np.asarray(colours).reshape(*values.shape, 3)[..., ::-1]


def image_uri(pixels: npt.NDArray[Any]) -> str:
    """Encode (H, W, 3) red, green, blue as JPEG, or (H, W, 4) with opacity as PNG."""
    if pixels.shape[2] == 3:
        kind, order, options = "jpeg", cv2.COLOR_RGB2BGR, [cv2.IMWRITE_JPEG_QUALITY, 88]
    else:
        kind, order, options = "png", cv2.COLOR_RGBA2BGRA, [cv2.IMWRITE_PNG_COMPRESSION, 6]
    _, encoded = cv2.imencode(f".{kind}", cv2.cvtColor(pixels, order), options)
    return f"data:image/{kind};base64,{base64.b64encode(encoded.tobytes()).decode()}"


def script_json(data: Mapping[str, Any]) -> str:
    """Return JSON that a script element can hold: nothing in it can end the element."""
    return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
