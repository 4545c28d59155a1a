"""The settings of a training, validated when they are made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from landslide.errors import ConfigurationError, refuse_settings_without_effect
from landslide.inference.prediction import PUBLISHED, PredictionSettings
from landslide.metrics.counts import METRIC_NAMES
from landslide.metrics.selection import selection_scores
from landslide.schema import PATCH_SIZE, SEEDS
from landslide.training.augmentation import AugmentationSettings
from landslide.training.losses import HEAD_WEIGHTS, create_loss
from landslide.training.optimizers import CosineSchedule, OptimizerName, Schedule, StepSchedule

_BANDS_NAMED = 4  # in the name of a run; of more, it gives the number


@dataclass(frozen=True, kw_only=True)
class SelectionSchedule:
    """When the selection part is tested; by default after every epoch. The last epoch is always tested."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    first_epoch: int = 1
    """The first epoch after which the selection part is tested, 1 or more. 2 in the authors' record."""
    half_epochs_from: int | None = None
    """Also test at half of each epoch from this one on; never if null. 37 in the authors' record."""

    def __post_init__(self) -> None:
        for name in ("first_epoch", "half_epochs_from"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigurationError(
                    f"training.test_schedule.{name} is {value}.", remedy="Set it to an epoch, counted from 1."
                )

    def after(self, epoch: int) -> bool:
        """Return whether to test after this epoch, counted from 1."""
        return epoch >= self.first_epoch

    def at_half_of(self, epoch: int) -> bool:
        """Return whether to test at half of this epoch, counted from 1."""
        return self.half_epochs_from is not None and epoch >= self.half_epochs_from


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How a fold is trained; the defaults are those of the paper's text, but for `selection`.

    What the text leaves open follows the authors' code, except where that differs from common practice: the order of
    the patches, the tests, and two of the network's options (docs/explanation/paper.md, "Two protocols").
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    bands: str | tuple[str, ...] = "23"
    """The input bands: a group (`14`, `17`, `21`, `23`, `25`, `26`, `sentinel_only`, `rgb`), `all` for every available
    band, or a list of names. The groups with a number are the first n bands, the rows of the paper's Table IV."""
    model: str = "rau_net"
    """The network: `unet`, `rau_net`, `rau_net_small`, `l4s_baseline`, `lite_unet`, `smp:<Architecture>:<encoder>` of
    segmentation_models.pytorch, or `terratorch:<Decoder>:<backbone>` of TerraTorch. `rau_net` is the paper's best
    (Fig. 4, Table VI)."""
    model_options: Mapping[str, Any] = field(default_factory=dict)
    """The network's own options, such as `width` (docs/reference/networks.md)."""
    standardize: bool = False
    """Subtract the mean and divide by the standard deviation of the training part, band by band. The paper feeds bands
    as stored."""
    loss: str = "focal_lin+iou"
    """The loss, or several joined by a plus (section IV-B, Table III). As in the authors' record: `focal_iou`,
    `cross_entropy`, `focal`, `iou`, `log_cosh`, `tversky`, `lovasz`, `boundary`, `centre`. Otherwise defined:
    `cross_entropy_per_pixel`, `hard_cross_entropy`, `focal_lin`, `log_cosh_jadon`, `tversky_salehi`, `lovasz_berman`,
    `boundary_kervadec`."""
    head_weights: Mapping[str, float] = field(default_factory=lambda: dict(HEAD_WEIGHTS))
    """Weight of the loss of each head, by the head's resolution for patches of 128 pixels (authors' code). The weights
    of the heads that a network has are divided by their sum."""
    epochs: int = 65
    """Passes over the training part, 1 or more."""
    order: Literal["shuffled", "natural"] = "shuffled"
    """The order of the training patches: shuffled anew for every epoch, or `natural`, the order of the files, so that
    every epoch has the same batches (authors' record)."""
    batch_size: int = 12
    """Patches per batch, over all devices together; 1 to 100,000."""
    crop: int | None = None
    """Side in pixels of random crops to train on, a multiple of 16 up to 128; whole patches if null."""
    max_patches: int | None = None
    """Train on this many patches at most, spread evenly over the training part; on all if null."""
    positive_share: float | None = None
    """Share of an epoch's patches that hold landslides, above 0 and up to 1. Patches are repeated or left out to reach
    it; the natural share if null."""
    optimizer: OptimizerName = "adam"
    """The optimizer. `adam` is the paper's. Options other than those below have the defaults of Keras, with which the
    authors compared optimizers."""
    optimizer_epsilon: float = 1e-7
    """Term in the denominator of an update, above 0; `sgd` has none. The default is that of Keras."""
    weight_decay: float = 0.0
    """Weight decay, 0 or more: decoupled for `adamw`, added to the gradient for the others."""
    schedule: Schedule = field(default_factory=StepSchedule)
    """The learning rates by epoch, `{kind: steps, ...}` or `{kind: cosine, ...}`."""
    average_decay: float | None = None
    """Keep an exponential moving average of the weights, with this decay per step, between 0 and 1. The average is what
    is selected, scored and recorded. No average if null."""
    frozen_batch_norm_epochs: int = 0
    """Number of epochs at the end in which batch normalisation takes its running statistics, as in prediction, and does
    not change them; its weights are trained on. 0 or more, less than `epochs`; or all, if a trained network is trained
    on."""
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)
    """How training patches are varied."""
    selection: Literal["inner_validation", "test_fold"] = "inner_validation"
    """Where the epoch and the thresholds are chosen: on an inner validation part of the training folds, or on the test
    fold itself, which is the paper's protocol and optimistic."""
    select_by: str = "f1_macro"
    """The score by which the epoch and the threshold are chosen: `f1_macro`, `miou`, `f1_landslide`, `iou_landslide`,
    `precision_landslide`, `recall_landslide` or `accuracy`. Several joined by "or", such as `f1_macro or miou`: an
    epoch is chosen if any of them is higher than at the last choice (authors' record); the first decides the
    threshold."""
    selection_epochs: int | None = None
    """Choose the epoch among this many last ones, 1 or more; among all if null, or if there are fewer. A test at half
    of an epoch belongs to that epoch. A selection part of few patches may prefer an early epoch by chance."""
    test_schedule: SelectionSchedule = field(default_factory=SelectionSchedule)
    """When the selection part is tested."""
    validation_fraction: float = 0.1
    """Share of the training patches in the inner validation part, between 0 and 1. Not with the selection
    `test_fold`."""
    monitor_test_fold: bool = False
    """Also score the test fold after every epoch, as `test_<score>`, to measure what a choice on it would gain. Nothing
    is chosen by these scores. Not with the selection `test_fold`."""
    prediction: PredictionSettings = PUBLISHED
    """How the trained network predicts. The thresholds are chosen for this; the epoch is chosen in the published way,
    which is quicker."""
    seed: int = 0
    """Seed of everything random in a training; 0 to 4,294,967,295."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes a GPU if there is one."""
    devices: int | Literal["auto"] = "auto"
    """Number of GPUs, or of processes on a CPU, 1 or more; `auto` takes all GPUs or one process."""
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"
    """Number format of the computation: `auto` is bf16 on a GPU that has it and float32 otherwise; the others are the
    names of Lightning Fabric."""
    deterministic: bool = False
    """Ask PyTorch for deterministic algorithms, so that a training on a GPU can be repeated bit for bit."""
    compile: bool = False
    """Compile the network with torch.compile."""

    def __post_init__(self) -> None:
        for name, ok, needed in (
            ("epochs", self.epochs >= 1, "1 or more"),
            ("batch_size", 1 <= self.batch_size <= 100_000, "1 to 100,000"),
            ("seed", self.seed in SEEDS, f"0 to {SEEDS[-1]:,}"),
            (
                "crop",
                self.crop is None or (0 < self.crop <= 128 and self.crop % 16 == 0),
                "a multiple of 16 up to 128",
            ),
            ("max_patches", self.max_patches is None or self.max_patches >= 1, "1 or more"),
            ("positive_share", self.positive_share is None or 0 < self.positive_share <= 1, "above 0 and up to 1"),
            ("validation_fraction", 0 < self.validation_fraction < 1, "between 0 and 1"),
            (
                "select_by",
                _is_selection(self.select_by),
                f'one of {", ".join(METRIC_NAMES)}, or different ones joined by " or "',
            ),
            ("selection_epochs", self.selection_epochs is None or self.selection_epochs >= 1, "1 or more"),
            ("average_decay", self.average_decay is None or 0 < self.average_decay < 1, "between 0 and 1"),
            ("frozen_batch_norm_epochs", self.frozen_batch_norm_epochs >= 0, "0 or more"),
            ("weight_decay", self.weight_decay >= 0, "0 or more"),
            ("optimizer_epsilon", self.optimizer_epsilon > 0, "above 0"),
            ("devices", self.devices == "auto" or self.devices >= 1, "auto or 1 or more"),
        ):
            if not ok:
                raise ConfigurationError(f"training.{name} is {getattr(self, name)!r}.", remedy=f"Set it to {needed}.")
        self._refuse_too_few_epochs()
        if self.order == "natural" and self.positive_share is not None:
            raise ConfigurationError(
                "training.positive_share draws patches at random, and training.order is natural.",
                remedy="Leave out training.positive_share, or set training.order: shuffled.",
            )
        create_loss(self.loss)
        self._refuse_settings_without_effect()

    def _refuse_settings_without_effect(self) -> None:
        if self.optimizer == "sgd":
            refuse_settings_without_effect(
                self, "training", ("optimizer_epsilon",), because="training.optimizer is sgd"
            )
        if self.selection == "test_fold":
            names = ("validation_fraction", "monitor_test_fold")
            refuse_settings_without_effect(self, "training", names, because="training.selection is test_fold")

    def _refuse_too_few_epochs(self) -> None:
        """Refuse, all at once, settings that need more epochs than there are, as in a short try of a configuration."""
        tests, plain = self.test_schedule, self.augmentation.plain_epochs
        unset = (AugmentationSettings(), AugmentationSettings(mode="none"))
        warmup = self.schedule.warmup_epochs if isinstance(self.schedule, CosineSchedule) else None
        faults = []
        if warmup is not None and warmup >= self.epochs:
            what = f"training.schedule.warmup_epochs is {warmup}, and training.epochs {self.epochs}."
            faults.append((what, "Set training.schedule.warmup_epochs below training.epochs."))
        if self.frozen_batch_norm_epochs > self.epochs:
            what = (
                f"training.frozen_batch_norm_epochs is {self.frozen_batch_norm_epochs}, and training.epochs "
                f"{self.epochs}."
            )
            faults.append((what, "Set training.frozen_batch_norm_epochs below training.epochs."))
        if tests.first_epoch > self.epochs:
            what = (
                f"training.test_schedule.first_epoch is {tests.first_epoch}, and training.epochs {self.epochs}, so no "
                "epoch would be tested."
            )
            faults.append((what, "Set training.test_schedule.first_epoch to training.epochs at most."))
        if (tests.half_epochs_from or 0) > self.epochs:
            what = (
                f"training.test_schedule.half_epochs_from is {tests.half_epochs_from}, and training.epochs "
                f"{self.epochs}, so it has no effect."
            )
            how = "Set training.test_schedule.half_epochs_from to training.epochs at most, or leave it out."
            faults.append((what, how))
        if plain >= self.epochs and self.augmentation not in unset:
            what = (
                f"training.augmentation has no effect: the last {plain} epochs are not augmented (plain_epochs), and "
                f"training.epochs is {self.epochs}."
            )
            how = "Set training.augmentation.plain_epochs below training.epochs, or leave training.augmentation out."
            faults.append((what, how))
        if faults and self.frozen_batch_norm_epochs == self.epochs:  # alone, it may fit a trained network
            what = f"training.frozen_batch_norm_epochs is {self.epochs}, as training.epochs."
            faults.append((what, "Set training.frozen_batch_norm_epochs below training.epochs."))
        if faults:
            raise ConfigurationError(" ".join(what for what, _ in faults), remedy=" ".join(how for _, how in faults))

    @property
    def selected_after(self) -> int:
        """The number of first epochs that may not be chosen."""
        return max(self.epochs - self.selection_epochs, 0) if self.selection_epochs else 0

    @property
    def inner_fraction(self) -> float | None:
        """The share of the inner validation part; None if epoch and threshold are chosen on the test fold."""
        return None if self.selection == "test_fold" else self.validation_fraction

    @property
    def bands_text(self) -> str:
        """The input bands as part of a name: their group, their names, or the number of a long list."""
        if isinstance(self.bands, str):
            return self.bands
        return ",".join(self.bands) if len(self.bands) <= _BANDS_NAMED else f"{len(self.bands)} bands"

    def rate(self, progress: float) -> float:
        """Return the learning rate after `progress` epochs, a fraction within an epoch."""
        return self.schedule.rate(progress, self.epochs)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """Tell pydantic, if it validates the settings, to look for fields that a schedule replaced first."""
        from pydantic_core import core_schema

        return core_schema.no_info_before_validator_function(_refuse_former_fields, handler(source))


def _is_selection(select_by: str) -> bool:
    try:
        selection_scores(select_by)
    except ValueError:
        return False
    return True


def refuse_head_settings_without_effect(settings: TrainingSettings, resolutions: Sequence[str]) -> None:
    """Refuse settings of heads that the network does not have.

    Args:
        settings: Training settings.
        resolutions: Of the network's heads, as text, for patches of the size that it is trained on.

    Raises:
        ConfigurationError: If `head_weights` or `prediction.heads` is set and has no effect.
    """
    if len(resolutions) == 1:
        because = f"the network {settings.model} has one head"
        refuse_settings_without_effect(settings.prediction, "training.prediction", ("heads",), because=because)
        unused = list(settings.head_weights) if settings.head_weights != HEAD_WEIGHTS else []
    else:
        size = settings.crop or PATCH_SIZE
        because = f"the heads of {settings.model} are {', '.join(resolutions)} for patches of {size} pixels"
        used = {int(resolution) * PATCH_SIZE for resolution in resolutions}
        unused = [weight for weight in settings.head_weights if int(weight) * size not in used]
    if unused:
        raise ConfigurationError(
            f"training.head_weights has a weight of {unused[0]} that has no effect: {because}.",
            remedy="Leave it out.",
        )


def _refuse_former_fields(values: Any) -> Any:
    """Return settings as a configuration means them, unless they hold a field that a schedule replaced."""
    if not isinstance(values, Mapping):
        return values
    former = [name for name in ("learning_rates", "learning_rate", "warmup_epochs") if name in values]
    if isinstance(values.get("schedule"), str):
        former.insert(0, "schedule")
    if former:
        raise ConfigurationError(
            f"training.{former[0]} is {values[former[0]]!r}; training.schedule now holds kind and rates together.",
            remedy="Write schedule: {kind: steps, rates: [[8, 1.0e-4], [15, 5.0e-5], ...]} or "
            "schedule: {kind: cosine, peak: 1.0e-3, warmup_epochs: 1}.",
        )
    if type(values.get("bands")) is int:  # YAML reads the name of a group as a number
        return {**values, "bands": str(values["bands"])}
    return values
