"""The retraining pipeline: for a runner that retrains when labels have arrived.

zenml pipeline run pipelines.retraining.retraining_pipeline -c configs/retrain.yaml
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import click
from zenml.client import Client

from landslide.bands.formulas import BandSettings
from landslide.errors import LandslideError
from landslide.retraining import record as records
from landslide.retraining.promotion import PromotionSettings
from landslide.training.fold import TrainingSettings
from pipelines.configured import ConfiguredPipeline, PipelineError
from pipelines.cross_validation import cross_validate
from steps.build_bands import build_bands
from steps.compare import compare
from steps.decide import decide
from steps.hooks import record_failure
from steps.ingest import ingest
from steps.open_retraining import open_retraining
from steps.open_run import open_run
from steps.plan import plan
from steps.provenance import tracking_client
from steps.register import register
from steps.report_drift import report_drift
from steps.settings import DataSettings, EvaluationSettings, FoldSettings, RegistrationSettings, RetrainingSettings


class RetrainingPipeline(ConfiguredPipeline):
    """A pipeline that ends by saying what came out: outcome, reason, the version in service, the report."""

    def _call(self, *args: Any, **kwargs: Any) -> Any:
        begun = datetime.now(UTC)
        try:
            done = super()._call(*args, **kwargs)
        except PipelineError as error:
            raise PipelineError(f"{error.message}\n\n{self._summary(begun, with_reason=False)}".rstrip()) from error
        click.echo(f"\n{self._summary(begun)}".rstrip())
        return done

    def _summary(self, begun: datetime, *, with_reason: bool = True) -> str:
        """Return how the run since then ended, empty if none has ended."""
        found = Client().list_pipeline_runs(pipeline=self.name, sort_by="desc:created", size=1).items
        if not found or found[0].created.replace(tzinfo=UTC) < begun:
            return ""
        try:
            return records.summary(tracking_client(), str(found[0].id), with_reason=with_reason)
        except LandslideError as error:  # the tracking server is gone
            return str(error)


def _pipeline(entrypoint: Callable[..., None]) -> RetrainingPipeline:
    pipeline = RetrainingPipeline(name=entrypoint.__name__, entrypoint=entrypoint, on_failure=record_failure)
    pipeline.exclusive = True
    return pipeline


@_pipeline
def retraining_pipeline(
    data: DataSettings = DataSettings(fetch=True),  # noqa: B008 (frozen)
    bands: BandSettings = BandSettings(),  # noqa: B008
    folds: FoldSettings = FoldSettings(),  # noqa: B008
    training: TrainingSettings = TrainingSettings(),  # noqa: B008
    evaluation: EvaluationSettings = EvaluationSettings(),  # noqa: B008
    retraining: RetrainingSettings = RetrainingSettings(),  # noqa: B008
    promotion: PromotionSettings = PromotionSettings(),  # noqa: B008
) -> None:
    """Fetch, check, train, compare with the champion, and promote the better model.

    A step with nothing to do (an empty run or version) returns at once.

    Args:
        data: Where the patches are.
        bands: How the bands are computed.
        folds: How the patches are split if there is no champion; otherwise they keep its folds.
        training: How a fold is trained.
        evaluation: What is drawn.
        retraining: Where to start, when to stop early.
        promotion: When the challenger replaces the champion.
    """
    record = open_retraining(retraining=retraining)
    patch_table, data_version = ingest(data=data, bands=bands, after=record)
    fold_table, departed_patches, champion, start_from, should_train = plan(
        retraining_run=record, patch_table=patch_table, data_version=data_version,
        data=data, bands=bands, folds=folds, training=training, retraining=retraining,
    )  # fmt: skip
    patches = build_bands(
        patch_table=patch_table, data_version=data_version, data=data, bands=bands, after=should_train
    )
    drifting = report_drift(
        retraining_run=record, champion=champion, should_train=should_train, fold_table=fold_table, patches=patches,
        retraining=retraining,
    )  # fmt: skip
    run = open_run(
        fold_table=fold_table, departed_patches=departed_patches, patches=patches, start_from=start_from,
        should_train=should_train, folds=folds, training=training, after=drifting,
    )  # fmt: skip
    fold_runs, scores = cross_validate(
        run=run, fold_table=fold_table, patches=patches, start_from=start_from,
        bands=bands, folds=folds, training=training, evaluation=evaluation,
    )  # fmt: skip
    version = register(
        fold_runs=fold_runs, fold_table=fold_table, scores=scores, patches=patches, cross_validation_run=run,
        training=training, registration=RegistrationSettings(), give_alias=False,
    )  # fmt: skip
    evidence = compare(
        champion=champion, model_version=version, fold_table=fold_table, departed_patches=departed_patches,
        patches=patches,
    )  # fmt: skip
    decide(
        retraining_run=record, champion=champion, model_version=version, evidence=evidence,
        cross_validation_run=run, promotion=promotion,
    )  # fmt: skip
