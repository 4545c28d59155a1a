"""The networks that the paper and its authors' record compare, with the sizes that these give.

The figures in millions are the paper's (Tables V and VI) and the record's; they seem cut off rather than rounded
(24,876,294 is "24.8"). docs/explanation/paper.md compares our networks with them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import yaml

from landslide.models.complexity import complexity

COLUMNS = ("network", "bands", "parameters", "gflop", "recorded", "difference", "source")


@dataclass(frozen=True)
class ComparedNetwork:
    """A network and its size elsewhere.

    Attributes:
        model: Network name, see `landslide.models.create_model`.
        bands: Number of input bands.
        options: The network's own options.
        source: Where the paper or the record has it, and under which name.
        recorded: Trainable parameters there, to the precision that is given there, or None.
    """

    model: str
    bands: int
    options: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    recorded: int | None = None

    @property
    def label(self) -> str:
        """Name and options, as a configuration has them under `model` and `model_options`."""
        options = yaml.safe_dump(dict(self.options), default_flow_style=True, width=1000).strip()
        return f"{self.model} {options}" if self.options else self.model


_TABLE_V = {"upsample_convolution": False, "heads": 3}
COMPARED_NETWORKS = (
    ComparedNetwork("unet", 14, {}, "Table VI, U-Net baseline", 31_000_000),
    ComparedNetwork("unet", 14, {"upsample_convolution": False}, "record, U-Net without the 2x2 convolution"),
    ComparedNetwork("unet", 23, _TABLE_V, "Table V, multiple heads", 31_400_000),
    ComparedNetwork("unet", 23, {**_TABLE_V, "attention": "cbam"}, "Table V, CBAM", 31_900_000),
    ComparedNetwork("unet", 23, {**_TABLE_V, "attention": "se"}, "Table V, SE", 31_600_000),
    ComparedNetwork("unet", 23, {**_TABLE_V, "attention": "multi_head"}, "Table V, Pro-Att", 31_800_000),
    ComparedNetwork(
        "unet",
        23,
        {**_TABLE_V, "attention": "multi_head", "attention_after": "convolution"},
        "text, attention after every convolution",
    ),
    ComparedNetwork("unet", 23, {**_TABLE_V, "block": "res_conv"}, "text, Res-Conv in place of double convolutions"),
    ComparedNetwork(
        "rau_net",
        23,
        {"attention": "none", "bottom_block": True, "stem": "selu"},
        "Table V, Res-Conv",
        24_400_000,
    ),
    ComparedNetwork("rau_net", 23, {}, "Table VI, best network; log", 24_876_294),
    ComparedNetwork("rau_net", 21, {}, "log, Sentinel-2 only", 24_873_990),
    ComparedNetwork("rau_net", 23, {"attention_at": "concatenation"}, "record, RAU-Net 2", 24_800_000),
    ComparedNetwork("rau_net", 23, {"attention": "multi_head"}, "text, best network with Pro-Att"),
    ComparedNetwork("rau_net_small", 23, {}, "record, small RAU-Net", 2_600_000),
    ComparedNetwork("l4s_baseline", 14, {}, "Table VI, Landslide4Sense baseline", 29_800_000),
    ComparedNetwork("lite_unet", 23, {}, "our recipe"),
    ComparedNetwork("smp:Unet:resnet34", 14, {}, "peer"),
    ComparedNetwork("smp:DeepLabV3Plus:resnet50", 14, {}, "peer"),
)


def size_table(networks: Iterable[ComparedNetwork] = COMPARED_NETWORKS) -> pd.DataFrame:
    """Measure networks, one row each.

    Returns:
        A table with the columns network (name and options), bands, parameters (trainable), gflop (of the forward
        pass for one 128x128 patch), recorded (trainable parameters in the paper or record), difference
        (parameters - recorded) and source (where the paper or record has it).

    Raises:
        ConfigurationError: On an unknown network or option.
    """
    rows = []
    for network in networks:
        cost = complexity(network.model, network.bands, network.options)
        difference = None if network.recorded is None else cost.parameters - network.recorded
        counts = (network.bands, cost.parameters, cost.gflop, network.recorded, difference)
        rows.append((network.label, *counts, network.source))
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return table.astype({"recorded": "Int64", "difference": "Int64"})
