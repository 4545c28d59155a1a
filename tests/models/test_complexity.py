"""Complexity of networks, the table that compares them, and `landslide networks`."""

import csv
import io
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from torch import nn

from landslide import cli
from landslide.errors import ConfigurationError
from landslide.models import cpu_layers, create_model, trainable_parameters
from landslide.models.attention import SelfAttention
from landslide.models.complexity import complexity, forward_gflop, resolutions
from landslide.models.paper_networks import COMPARED_NETWORKS, ComparedNetwork, size_table

pytestmark = pytest.mark.slow

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "reference" / "networks.md"


@pytest.fixture(scope="module")
def table():
    return size_table()


def networks(*arguments: str) -> Result:
    return CliRunner().invoke(cli.main, ["networks", *arguments])


# ---- operations


def test_a_convolution_has_two_operations_per_weight_and_output_pixel():
    layer = nn.Conv2d(5, 7, 3, stride=2, padding=1)
    assert forward_gflop(layer, 5, 32) * 1e9 == pytest.approx(2 * (5 * 3 * 3) * 7 * 16 * 16)


def test_a_transposed_convolution_has_two_operations_per_weight_and_input_pixel():
    assert forward_gflop(nn.ConvTranspose2d(5, 7, 3, stride=2), 5, 8) * 1e9 == pytest.approx(2 * 5 * 3 * 3 * 7 * 8 * 8)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_attention_operations_are_projections_and_two_products_of_all_row_pairs(device):
    class Rows(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = SelfAttention(16, heads=6, key_size=12)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.attention(x[:, 0])

    projections, pairs = 4 * 2 * 16 * 16 * 72, 2 * 2 * 6 * 16 * 16 * 12
    assert forward_gflop(Rows().to(device), 1, 16) * 1e9 == pytest.approx(projections + pairs)


def test_operations_grow_with_the_area_of_the_patch():
    full, half = (complexity("unet", 5, {"width": 4}, size=size).gflop for size in (128, 64))
    assert full == pytest.approx(4 * half)


@pytest.mark.parametrize("name", ["rau_net", "l4s_baseline", "lite_unet"])
def test_operations_of_a_network_are_the_sum_of_its_convolutions_and_linear_layers(name):
    model = create_model(name, 5, width=4).eval()
    operations = []

    def count(layer: nn.Module, args: tuple[torch.Tensor], out: torch.Tensor) -> None:
        if isinstance(layer, nn.ConvTranspose2d):
            operations.append(2 * layer.weight.numel() * args[0].shape[2] * args[0].shape[3])
        elif isinstance(layer, nn.Conv2d):
            operations.append(2 * layer.weight.numel() * out.shape[2] * out.shape[3])
        elif isinstance(layer, nn.Linear):
            operations.append(2 * layer.weight.numel())

    for layer in model.modules():
        layer.register_forward_hook(count)
    with torch.no_grad(), cpu_layers.switched_off():  # CPU layers bypass the hooks that count
        model(torch.zeros(1, 5, 32, 32))
    measured = complexity(name, 5, {"width": 4}, size=32)
    assert measured.gflop * 1e9 == pytest.approx(sum(operations))
    assert measured.parameters == trainable_parameters(model)


@pytest.mark.parametrize(
    ("name", "bands", "options", "gflop"),
    [
        ("rau_net", 23, {}, 392.3),
        ("unet", 14, {"upsample_convolution": False}, 28.1),
        ("unet", 14, {}, 27.5),
    ],
)
def test_operations_of_the_papers_networks_equal_independent_measurements(name, bands, options, gflop):
    assert complexity(name, bands, options).gflop == pytest.approx(gflop, abs=0.05)


@pytest.mark.parametrize("name", ["smp:Unet:resnet18", "smp:Unet:mit_b0", "lite_unet"])
def test_a_network_is_measured_without_its_pretrained_weights(name, monkeypatch):
    def no_network(*args, **kwargs):
        raise AssertionError("reached for the network")

    monkeypatch.setattr("socket.socket.connect", no_network)
    assert complexity(name, 5, {"encoder_weights": "imagenet"}) == complexity(name, 5)
    assert complexity(name, 5).parameters == trainable_parameters(create_model(name, 5))


@pytest.mark.parametrize("name", ["smp:Unet:resnet18", "lite_unet"])
def test_unknown_pretrained_weights_are_an_error_although_none_are_read(name):
    with pytest.raises(ConfigurationError, match="ImageNet"):
        complexity(name, 5, {"encoder_weights": "ImageNet"})


def test_the_heads_of_a_network_follow_the_size_of_the_patch():
    assert resolutions("rau_net", 5, {"width": 4, "head_width": 4}, size=64) == ["128", "64", "32"]
    options = {"width": 4, "attention": "multi_head"}
    assert resolutions("unet", 5, options) == ["128"]
    with pytest.raises(ConfigurationError, match="128 x 128 pixels and got 64 x 64"):
        resolutions("unet", 5, options, size=64)


def test_an_impossible_network_has_no_complexity():
    with pytest.raises(ConfigurationError, match="block is 'triple'"):
        complexity("unet", 5, {"block": "triple"})


# ---- the table


def test_the_table_names_networks_as_configurations_do(table):
    assert len(table) == len(COMPARED_NETWORKS)
    labels = table["network"].tolist()
    assert labels[0] == "unet"
    assert "rau_net {attention: none, bottom_block: true, stem: selu}" in labels
    assert {"rau_net_small", "l4s_baseline"} < set(labels)
    assert any(label.startswith("smp:") for label in labels)


def test_differences_are_ours_minus_the_record(table):
    with_record = table[table["recorded"].notna()]
    assert (with_record["parameters"] - with_record["recorded"] == with_record["difference"]).all()
    assert table.loc[table["recorded"].isna(), "difference"].isna().all()


def test_sizes_equal_the_log_exactly_and_rounded_figures_nearly(table):
    exact = table[(table["network"] == "rau_net") & table["recorded"].notna()]
    assert exact["difference"].tolist() == [0, 0]
    far = table[(table["difference"].abs() > 150_000).fillna(False)]
    assert far["source"].tolist() == ["Table V, Pro-Att", "Table VI, Landslide4Sense baseline"]


def test_a_network_without_a_record_has_no_difference():
    one = size_table([ComparedNetwork("unet", 3, {"width": 4})]).iloc[0]
    assert one["network"] == "unet {width: 4}"
    assert one["parameters"] == trainable_parameters(create_model("unet", 3, width=4))


# ---- the command


@pytest.fixture
def short_table(monkeypatch):
    monkeypatch.setattr("landslide.models.paper_networks.COMPARED_NETWORKS", COMPARED_NETWORKS[:2])


@pytest.mark.usefixtures("short_table")
class TestCommand:
    def test_columns_are_aligned_with_their_headings(self):
        result = networks()
        heading, first, second = result.stdout.splitlines()
        assert result.exit_code == 0
        assert heading.split() == ["network", "bands", "parameters", "GFLOP", "recorded", "difference", "source"]
        assert first.split()[2:7] == ["31,049,922", "27.5", "31.0", "M", "+49,922"]
        assert first.endswith("  Table VI, U-Net baseline")
        assert second.startswith("unet {upsample_convolution: false}")
        for name in ("bands", "parameters", "GFLOP"):
            end = heading.index(name) + len(name)
            assert all(line[end - 1].isdigit() and line[end] == " " for line in (first, second))

    def test_the_users_network_comes_first(self):
        options = ("--option", "width=4", "--option", "attention=se", "--option", "attention_options={reduction: 2}")
        result = networks("--model", "unet", "--bands", "sentinel_only", *options, "--format", "csv")
        own, *others = csv.DictReader(io.StringIO(result.stdout))
        made = {"width": 4, "attention": "se", "attention_options": {"reduction": 2}}
        assert own["network"] == "unet {attention: se, attention_options: {reduction: 2}, width: 4}"
        assert own["bands"] == "21"
        assert int(own["parameters"]) == trainable_parameters(create_model("unet", 21, **made))
        assert own["recorded"] == own["difference"] == ""
        assert [other["difference"] for other in others] == ["49922", ""]

    def test_an_smp_network_can_be_added(self):
        result = networks("--model", "smp:Unet:resnet18", "--bands", "3")
        assert result.exit_code == 0
        assert result.stdout.splitlines()[1].split()[:2] == ["smp:Unet:resnet18", "3"]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--model", "vnet"], "There is no model 'vnet'"),
            (["--model", "smp:Unet:resnet0"], "resnet0"),
            (["--model", "unet", "--option", "depth=3"], "depth"),
            (["--model", "unet", "--option", "heads=2"], "heads is 2"),
            (["--model", "unet", "--option", "size=64"], "'size'"),
            (["--model", "unet", "--option", "name=vnet"], "'name'"),
            (["--model", "smp:Unet:resnet18", "--option", "in_channels=4"], "'in_channels'"),
            (["--model", "unet", "--option", "width"], "not KEY=VALUE"),
            (["--model", "unet", "--option", "width=[4"], "YAML"),
            (["--model", "unet", "--bands", "many"], "'many' is neither a number of bands"),
            (["--model", "unet", "--bands", "0"], "'0' is neither a number of bands"),
            (["--option", "width=4"], "--model"),
        ],
    )
    def test_invalid_arguments_are_an_error_with_an_exit_code(self, arguments, message):
        result = networks(*arguments)
        assert result.exit_code != 0
        assert message in result.output
        assert "Traceback" not in result.output


def test_the_documentation_shows_the_table_that_the_command_prints(table, monkeypatch):
    monkeypatch.setattr("landslide.models.paper_networks.size_table", lambda _networks: table)
    printed = networks("--format", "markdown").stdout.strip()
    assert printed in DOCUMENTATION.read_text(), "paste what `landslide networks --format markdown` prints"
