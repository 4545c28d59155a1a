"""The materializer of tables: stored as CSV, compared by content.

ZenML compares artifacts without a content hash by their identity, so every step after an uncached one
would run again. This materializer gives tables a hash.
"""

import hashlib
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
from zenml.enums import ArtifactType, VisualizationType
from zenml.materializers.base_materializer import BaseMaterializer

_TABLE, _TYPES = "table.csv", "dtypes.json"


class TableMaterializer(BaseMaterializer):
    """Stores a DataFrame without index as CSV, and its dtypes as JSON."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (pd.DataFrame,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.DATA

    def load(self, data_type: type[Any]) -> pd.DataFrame:
        """Read the table."""
        with self.artifact_store.open(f"{self.uri}/{_TYPES}", "r") as file:
            dtypes = pd.read_json(file, typ="series", dtype=False).to_dict()
        with self.artifact_store.open(f"{self.uri}/{_TABLE}", "r") as file:
            return pd.read_csv(file, dtype=dtypes)

    def save(self, data: pd.DataFrame) -> None:
        """Write the table."""
        with self.artifact_store.open(f"{self.uri}/{_TYPES}", "w") as file:
            file.write(data.dtypes.astype(str).to_json())
        with self.artifact_store.open(f"{self.uri}/{_TABLE}", "w") as file:
            file.write(data.to_csv(index=False))

    def compute_content_hash(self, data: pd.DataFrame) -> str:
        """Return a digest of the content: equal tables are equal inputs."""
        return table_digest(data)

    def save_visualizations(self, data: pd.DataFrame) -> dict[str, VisualizationType]:
        """Show the CSV file in the dashboard."""
        return {str(Path(self.uri) / _TABLE): VisualizationType.CSV}


def table_digest(table: pd.DataFrame) -> str:
    """Return the MD5 of a table's CSV text and dtypes, in hexadecimal."""
    text = table.dtypes.astype(str).to_json() + table.to_csv(index=False)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
