"""The training pipeline: patches in, a cross-validated, recorded and registered model out.

zenml pipeline run pipelines.training.training_pipeline -c configs/demo.yaml
"""

from landslide.bands.formulas import BandSettings
from landslide.training.fold import TrainingSettings
from pipelines.configured import configured_pipeline
from pipelines.cross_validation import cross_validate
from steps.build_bands import build_bands
from steps.ingest import ingest
from steps.measure_bands import measure_bands
from steps.open_run import open_run
from steps.register import register
from steps.settings import DataSettings, EvaluationSettings, FoldSettings, RegistrationSettings
from steps.split import split


@configured_pipeline()
def training_pipeline(
    data: DataSettings = DataSettings(),  # noqa: B008 (frozen)
    bands: BandSettings = BandSettings(),  # noqa: B008
    folds: FoldSettings = FoldSettings(),  # noqa: B008
    training: TrainingSettings = TrainingSettings(),  # noqa: B008
    evaluation: EvaluationSettings = EvaluationSettings(),  # noqa: B008
    registration: RegistrationSettings = RegistrationSettings(),  # noqa: B008
    start_from: str = "",
) -> None:
    """Train, evaluate and register.

    Args:
        data: Where the patches are.
        bands: How the bands are computed.
        folds: How the patches are split.
        training: How a fold is trained.
        evaluation: What is drawn.
        registration: Which score decides about the champion.
        start_from: Registered version whose fold models the folds start from; empty to train from scratch.
    """
    patch_table, data_version = ingest(data=data, bands=bands)
    patches = build_bands(patch_table=patch_table, data_version=data_version, data=data, bands=bands)
    statistics = measure_bands(patch_table=patch_table, patches=patches) if folds.reads_images else None
    # The content of a table file may change; the later steps compare the content.
    fold_table = split.with_options(enable_cache=folds.table is None)(
        patch_table=patch_table, folds=folds, band_statistics=statistics
    )
    run = open_run(fold_table=fold_table, patches=patches, folds=folds, training=training, start_from=start_from)
    fold_runs, scores = cross_validate(
        run=run, fold_table=fold_table, patches=patches, start_from=start_from,
        bands=bands, folds=folds, training=training, evaluation=evaluation,
    )  # fmt: skip
    register(
        fold_runs=fold_runs, fold_table=fold_table, scores=scores, patches=patches,
        cross_validation_run=run, training=training, registration=registration,
    )  # fmt: skip
