"""Ingest: fetch the patches if wanted, identify them, check every file, list them."""

import logging
from pathlib import Path
from typing import Annotated

import pandas as pd
from zenml import step

from landslide.bands.formulas import BandSettings
from landslide.data.check import survey
from landslide.data.project import check_pin, update_from_remote
from landslide.data.table import patch_table
from landslide.errors import DataError
from steps.settings import DataSettings
from steps.table_materializer import TableMaterializer

logger = logging.getLogger(__name__)


@step(enable_cache=False, output_materializers={"patch_table": TableMaterializer})
def ingest(
    data: DataSettings, bands: BandSettings
) -> tuple[Annotated[pd.DataFrame, "patch_table"], Annotated[str, "data_version"]]:
    """List the training patches of a data set whose every file is sound.

    Never cached: it reads the files themselves, and the later steps are cached by its results.

    Args:
        data: Where the patches are.
        bands: Which bands they store.

    Returns:
        The patch table in natural order and the digest of the data set, as `data.dvc` pins it.

    Raises:
        DataError: If the pinned data cannot be fetched, the folder is missing or not what `data.dvc` pins, or it
            holds faults (the log lists all).
    """
    root = Path(data.root)
    if data.fetch:
        logger.info(update_from_remote(root.parent, data.repository, revision=data.revision, name=root.name))
    if not root.is_dir():
        raise DataError(
            f"There is no data folder {root.resolve()}.",
            remedy=f"Generate the demo set with `landslide data demo {root}`, fetch pinned data with "
            f"`dvc pull {root.name}.dvc`, or set parameters.data.root.",
        )
    found = survey(root, bands=bands.stored)
    version, report = found.version, found.report
    if version is not None:
        check_pin(root, version)
    logger.log(logging.INFO if report.ok else logging.ERROR, report.render())
    if version is None or not report.ok:
        of_bands = [fault.remedy for fault in report.faults if (fault.path, fault.code) == (".", "wrong_bands")]
        remedies = [f"{remedy[0].upper()}{remedy[1:]}." for remedy in of_bands]
        if len(of_bands) < len(report.faults):
            remedies.append(f"Mend or remove these files; `landslide data check {root}` shows the same report.")
        raise DataError(
            f"The data set in {root} has {len(report.faults):,} fault(s); the log lists all of them:\n"
            f"{report.summary()}",
            remedy=" ".join(remedies),
        )
    table = patch_table(root, digests=found.digests, positive_pixels=found.positive_pixels, positions=data.positions)
    return table, version
