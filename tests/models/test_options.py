"""The options of the networks: what each option builds, and that every combination trains."""

import pytest
import torch
from torch import nn

from landslide.errors import ConfigurationError
from landslide.models import create_model, trainable_parameters
from landslide.models.attention import CBAM, MultiHeadAttention, SqueezeExcitation
from landslide.models.blocks import ResConv
from landslide.training.losses import focal, multi_head_loss

LAYERS = {"se": SqueezeExcitation, "cbam": CBAM, "multi_head": MultiHeadAttention}
SIDE = 32
ATTENTIONS = [{"attention": name} for name in LAYERS]
UNETS = [
    {"block": "res_conv", "heads": 3, "attention": "se"},
    {"upsample_convolution": False, "heads": 3},
    *ATTENTIONS,
    *({**one, "attention_after": "convolution", "upsample_convolution": False} for one in ATTENTIONS),
    {"attention": "multi_head", "attention_options": {"pooling": "mean_max", "heads": 2}, "block": "res_conv"},
]
RAU_NETS = [
    {"attention": "none", "bottom_block": True, "stem": "selu"},
    *({**one, "attention_at": "concatenation"} for one in ATTENTIONS),
    *({**one, "bottom_block": True} for one in ATTENTIONS[1:]),
    {"normalization": "affine", "initialization": "keras", "dropout": 0.0},
]
VARIANTS = [("unet", options) for options in UNETS] + [("rau_net", options) for options in RAU_NETS]
VARIANTS += [("rau_net_small", {"attention": "multi_head"}), ("l4s_baseline", {})]

pytestmark = pytest.mark.usefixtures("one_thread")


def narrow(name: str, *, seed: int = 0, **options) -> nn.Module:
    torch.manual_seed(seed)
    sizes = {} if name == "l4s_baseline" else {"head_width": 6, "patch_size": SIDE}
    return create_model(name, 5, **{"width": 4, **sizes, **options})


def patches(batch: int = 2, side: int = SIDE) -> torch.Tensor:
    return torch.randn(batch, 5, side, side, generator=torch.Generator().manual_seed(1))


def parameters_at(name: str, in_channels: int, **options) -> int:
    with torch.device("meta"):
        return trainable_parameters(create_model(name, in_channels, **options))


@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=str)
class TestEveryVariant:
    def test_logits_have_the_shape_of_their_heads(self, name, options):
        with torch.no_grad():
            logits = narrow(name, **options).eval()(patches())
        three = name.startswith("rau_net") or options.get("heads") == 3
        sides = [2 * SIDE, SIDE, SIDE // 2] if three else [SIDE]
        assert {side: tuple(head.shape) for side, head in logits.items()} == {str(s): (2, 2, s, s) for s in sides}
        assert all(head.isfinite().all() for head in logits.values())

    def test_the_gradient_of_the_training_loss_reaches_every_parameter(self, name, options):
        model = narrow(name, **options).train()
        for layer in model.modules():
            if isinstance(layer, CBAM):  # its perceptron has one hidden unit here, which can be dead
                nn.init.ones_(layer.channel[0].bias)
        mask = torch.randint(0, 2, (2, SIDE, SIDE), generator=torch.Generator().manual_seed(2))
        multi_head_loss(model(patches()), mask, focal).backward()
        parameters = dict(model.named_parameters())
        assert [n for n, p in parameters.items() if p.grad is None or not p.grad.isfinite().all()] == []
        assert [n for n, p in parameters.items() if p.ndim > 1 and p.grad.abs().max() == 0] == []

    def test_the_seed_determines_the_weights_and_the_logits(self, name, options):
        model, again, other = (narrow(name, seed=seed, **options).eval() for seed in (0, 0, 7))
        with torch.no_grad():
            expected, same, different = (network(patches()) for network in (model, again, other))
            other.load_state_dict(model.state_dict())
            reloaded = other(patches())
        for side, head in expected.items():
            assert torch.equal(same[side], head)
            assert not torch.equal(different[side], head)
            assert torch.equal(reloaded[side], head)


# ---- sizes


@pytest.mark.parametrize(
    ("name", "in_channels", "options", "parameters"),
    [
        ("unet", 14, {"upsample_convolution": False}, 31_397_122),
        ("unet", 23, {"upsample_convolution": False, "heads": 3}, 31_476_422),
        ("rau_net", 23, {"attention": "none", "bottom_block": True, "stem": "selu"}, 24_283_910),
        ("rau_net", 23, {"attention_at": "concatenation"}, 24_809_990),
    ],
)
def test_variants_have_the_expected_number_of_parameters(name, in_channels, options, parameters):
    assert parameters_at(name, in_channels, **options) == parameters


UNET_WIDTHS = [64, 128, 256, 512, 1024, 512, 256, 128, 64]  # of the nine double convolutions, down and up
UNET_SIDES = [128, 64, 32, 16, 8, 16, 32, 64, 128]


def se(c: int, side: int) -> int:
    return c * (c // 16) + c // 16 + (c // 16) * c + c


def cbam(c: int, side: int) -> int:
    return c * (c // 8) + c // 8 + (c // 8) * c + c + 2 * 7 * 7 + 1


def multi_head(c: int, side: int) -> int:
    return sum(3 * (features * 72 + 72) + 72 * features + features for features in (side, c, c))


@pytest.mark.parametrize("layer", [se, cbam, multi_head])
@pytest.mark.parametrize(("after", "times"), [("block", 1), ("convolution", 2)])
def test_the_unet_has_one_attention_per_block_or_per_convolution(layer, after, times):
    added = times * sum(layer(c, side) for c, side in zip(UNET_WIDTHS, UNET_SIDES, strict=True))
    options = {"upsample_convolution": False, "heads": 3, "attention": layer.__name__, "attention_after": after}
    assert parameters_at("unet", 23, **options) == 31_476_422 + added


def test_the_reduction_of_squeeze_and_excitation_is_16_in_the_unet_and_2_in_the_rau_net():
    assert narrow("unet", width=32, attention="se").encoder[0][1][3].excite[0].out_features == 2
    chosen = narrow("unet", width=32, attention="se", attention_options={"reduction": 4})
    assert chosen.encoder[0][1][3].excite[0].out_features == 8
    assert narrow("rau_net", width=32).encoder[0].attention.excite[0].out_features == 16


def test_the_small_rau_net_has_four_attention_heads():
    assert narrow("rau_net_small", attention="multi_head").encoder[0].attention.over_width.heads == 4
    options = {"attention": "multi_head", "attention_options": {"heads": 2, "key_size": 3}}
    assert narrow("rau_net_small", **options).encoder[0].attention.over_width.query.out_features == 6
    assert isinstance(narrow("rau_net_small").encoder[0].attention, SqueezeExcitation)


# ---- places


@pytest.mark.parametrize("name", LAYERS)
def test_attention_follows_the_activation_of_the_unets_convolutions(name):
    model = narrow("unet", attention=name)
    for block in (*model.encoder, model.bottom, *model.decoder):
        assert [type(layer).__name__ for layer in block[0]] == ["SameConv2d", "BatchNorm2d", "LeakyReLU"]
        assert isinstance(block[1][3], LAYERS[name])
    model = narrow("unet", attention=name, attention_after="convolution")
    for block in (*model.encoder, model.bottom, *model.decoder):
        assert all(isinstance(convolution[3], LAYERS[name]) for convolution in block)


@pytest.mark.parametrize(("name", "options"), [("unet", {}), ("rau_net", {"attention_at": "concatenation"})])
def test_the_multi_head_attention_of_each_level_is_built_for_the_map_of_that_level(name, options):
    model = narrow(name, attention="multi_head", **options).eval()
    layers = [layer for layer in model.modules() if isinstance(layer, MultiHeadAttention)]
    sides = []
    for layer in layers:
        layer.register_forward_hook(lambda built, args, _out: sides.append((built.side, args[0].shape[-1])))
    with torch.no_grad():
        model(patches())
    assert len(sides) == len(layers) == (9 if name == "unet" else 4)
    assert all(built == seen for built, seen in sides)


def test_the_rau_net_2_applies_attention_to_the_concatenation_before_the_block():
    model = narrow("rau_net", attention_at="concatenation").eval()
    assert all(isinstance(block.attention, nn.Identity) for block in (*model.encoder, *model.decoder))
    attended, inputs = [], []
    for layer in model.concatenation_attention:
        assert isinstance(layer, SqueezeExcitation)
        layer.register_forward_hook(lambda _m, _x, out: attended.append(out))
    for block in model.decoder:
        block.register_forward_pre_hook(lambda _m, args: inputs.append(args[0]))
    with torch.no_grad():
        model(patches())
    assert [x.shape[1] for x in inputs] == [8, 12, 16, 20]
    assert all(torch.equal(a, b) for a, b in zip(attended, inputs, strict=True))


def test_the_bottom_block_is_between_encoder_and_decoder():
    model = narrow("rau_net", bottom_block=True).eval()
    steps = []
    for name in ("downsample.3", "bottom", "upsample.0"):
        model.get_submodule(name).register_forward_hook(lambda _m, args, out: steps.append((args[0], out)))
    with torch.no_grad():
        model(patches())
    (_, down), (bottom_in, bottom_out), (up_in, _) = steps
    assert torch.equal(down, bottom_in)
    assert torch.equal(bottom_out, up_in)
    assert not torch.equal(bottom_in, bottom_out)
    assert isinstance(narrow("rau_net").bottom, nn.Identity)


def test_the_selu_stem_has_no_batch_normalisation():
    assert [type(layer).__name__ for layer in narrow("rau_net", stem="selu").stem] == ["SameConv2d", "SELU"]


def test_a_res_conv_block_that_changes_the_width_projects_its_input():
    block = ResConv(6, in_channels=4).eval()
    x = torch.randn(2, 4, 8, 8)
    merged = block.merge(block.branch_3x3(x) + block.branch_2x2(x))
    torch.testing.assert_close(block(x), merged + block.shortcut[1](block.shortcut[0](x)))
    assert block.shortcut[0].kernel_size == (1, 1)
    assert isinstance(ResConv(4).shortcut, nn.Identity)


def test_the_unet_without_upsampling_convolution_concatenates_the_wider_map():
    model = narrow("unet", upsample_convolution=False).eval()
    inputs = []
    for block in model.decoder:
        block.register_forward_pre_hook(lambda _m, args: inputs.append(args[0].shape[1]))
    with torch.no_grad():
        model(patches())
    assert inputs == [64 + 32, 32 + 16, 16 + 8, 8 + 4]


def test_the_challenge_baseline_has_the_published_layers():
    model = create_model("l4s_baseline", 14, width=4).eval()
    widths = [
        [layer.weight.shape[:2] for layer in block if isinstance(layer, nn.Conv2d)]
        for block in (*model.encoder, model.bottom, *model.decoder)
    ]
    down = [[(4, 14), (4, 4)], [(8, 4), (8, 8)], [(16, 8), (16, 16)], [(32, 16), (32, 32)], [(32, 32), (32, 32)]]
    up = [[(32, 64), (16, 32)], [(16, 32), (8, 16)], [(8, 16), (4, 8)], [(4, 8), (4, 4)]]
    assert widths == down + up
    assert (model.upsample.mode, model.upsample.align_corners) == ("bilinear", True)
    assert {type(layer) for layer in model.encoder[0]} == {nn.Conv2d, nn.BatchNorm2d, nn.ReLU}
    assert (model.encoder[0][1].eps, model.encoder[0][1].momentum) == (1e-5, 0.1)
    inputs, skips = [], []
    for block in model.encoder:
        block.register_forward_hook(lambda _m, _x, out: skips.append(out))
    for block in model.decoder:
        block.register_forward_pre_hook(lambda _m, args: inputs.append(args[0]))
    x = torch.randn(1, 14, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        train, evaluated = model.train()(x)["32"], model.eval()(x)["32"]
        assert not torch.equal(train, evaluated)
        assert torch.equal(model(x)["32"], evaluated)  # no dropout
    for seen, skip in zip(inputs[:4], reversed(skips[:4]), strict=True):
        assert torch.equal(seen[:, : skip.shape[1]], skip)


# ---- compatibility and errors


def layer_keys(*places: str) -> set[str]:
    return {f"{place}.{kind}" for place in places for kind in ("weight", "bias")}


def conv_bn_keys(*places: str) -> set[str]:
    statistics = {f"{p}.1.{kind}" for p in places for kind in ("running_mean", "running_var", "num_batches_tracked")}
    return layer_keys(*(f"{p}.{layer}" for p in places for layer in (0, 1))) | statistics


def test_weights_of_a_unet_older_than_the_options_have_the_default_names():
    blocks = [*(f"{side}.{level}" for side in ("encoder", "decoder") for level in range(4)), "bottom"]
    expected = conv_bn_keys(*(f"{block}.{i}" for block in blocks for i in (0, 1)))
    expected |= layer_keys(*(f"upsample.{i}.1" for i in range(4)), "heads.same_resolution")
    assert set(narrow("unet").state_dict()) == expected


@pytest.mark.parametrize("name", ["rau_net", "rau_net_small"])
def test_weights_of_a_rau_net_older_than_the_options_have_the_default_names(name):
    blocks = [f"{side}.{level}" for side in ("encoder", "decoder") for level in range(4)]
    expected = conv_bn_keys("stem", *(f"{b}.{part}" for b in blocks for part in ("branch_3x3", "branch_2x2", "merge")))
    expected |= layer_keys(*(f"{block}.attention.excite.{i}" for block in blocks for i in (0, 2)))
    expected |= layer_keys(*(f"{way}.{level}.0" for way in ("downsample", "upsample") for level in range(4)))
    expected |= layer_keys(*(f"heads.{head}_resolution.{i}" for head in ("half", "double") for i in (0, 2)))
    assert set(narrow(name).state_dict()) == expected | layer_keys("heads.same_resolution")


@pytest.mark.parametrize("name", ["unet", "rau_net"])
def test_multi_head_attention_accepts_patches_of_one_size(name):
    model = narrow(name, attention="multi_head").eval()
    with pytest.raises(ConfigurationError, match="got 16 x 16") as error:
        model(patches(side=16))
    assert "patch_size" in error.value.remedy
    with torch.no_grad():
        narrow(name).eval()(patches(side=16))  # the others take any multiple of 16


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("unet", {"attention": "SE"}, "attention is 'SE'"),
        ("unet", {"block": "triple"}, "block is 'triple'"),
        ("unet", {"heads": 2}, "heads is 2"),
        ("unet", {"attention": "se", "attention_after": "pool"}, "attention_after is 'pool'"),
        ("unet", {"block": "res_conv", "attention_after": "convolution"}, "res_conv"),
        ("unet", {"width": 0}, "width is 0"),
        ("unet", {"patch_size": 100}, "patch_size is 100"),
        ("unet", {"heads": True}, "heads is True"),
        ("unet", {"dropout": 2.0}, "dropout is 2.0"),
        ("unet", {"dropout": True}, "dropout is True"),
        ("rau_net", {"dropout": float("nan")}, "dropout is nan"),
        ("lite_unet", {"dropout": "0.1"}, "dropout is '0.1'"),
        ("unet", {"attention_options": {"reduction": 4}}, "'reduction'"),
        ("rau_net", {"attention": "cmab"}, "attention is 'cmab'"),
        ("rau_net", {"attention": "cmab", "attention_at": "concatenation"}, "attention is 'cmab'"),
        ("rau_net", {"attention_at": "skip"}, "attention_at is 'skip'"),
        ("rau_net", {"stem": "relu"}, "stem is 'relu'"),
        ("rau_net", {"attention_options": {"heads": 3}}, "'heads'"),
        ("rau_net_small", {"attention": "multi_head", "attention_options": {"head": 3}}, "'head'"),
        ("l4s_baseline", {"width": "64"}, "width is '64'"),
    ],
)
def test_an_impossible_option_is_a_configuration_error_that_names_it(name, options, message):
    with torch.device("meta"), pytest.raises(ConfigurationError, match=message) as error:
        create_model(name, 5, **options)
    assert error.value.remedy
