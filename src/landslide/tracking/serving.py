"""The MLflow pyfunc model: raw patches in, probability and uncertainty out.

MLflow stores this file as the model's code (models from code: nothing is pickled) together with a copy of the
`landslide` package and the ensemble's folder, so a model loads where the locked requirements are installed and
this repository is not.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc.model import PythonModel

import landslide.inference.own_code  # noqa: F401  (a release without it would not compare its code with the model's)
from landslide.errors import DataError, LandslideError
from landslide.inference.ensemble import load_ensemble


class InvalidPatchesError(DataError, MlflowException):
    """Patches that cannot be predicted; over HTTP the status 400 with the message alone.

    MLflow's server would put the patches in front of the message.
    """

    def __init__(self, error: LandslideError) -> None:
        DataError.__init__(self, error.what, remedy=error.remedy)
        MlflowException.__init__(self, str(error), error_code=INVALID_PARAMETER_VALUE)

    @property
    def message(self) -> str:
        """What is wrong, and what to do about it."""
        return str(self)

    @message.setter
    def message(self, text: str) -> None:
        pass


class LandslideModel(PythonModel):
    """Predicts landslides on raw patches (N, C, H, W), values as stored in the patch files, of any real dtype."""

    def load_context(self, context: Any) -> None:
        """Load the ensemble from the model's artifacts."""
        self.ensemble = load_ensemble(Path(context.artifacts["ensemble"]))

    def predict(
        self,
        context: Any,
        model_input: np.ndarray,
        params: Any = None,
    ) -> dict[str, npt.NDArray[np.float32]]:
        """Predict patches.

        Args:
            context: MLflow's context, unused.
            model_input: (N, C, H, W) array of any real dtype, bands as the metadata `stored_bands` names them; H and W
                are multiples of 16.
            params: Unused.

        Returns:
            `probability` and `uncertainty`, each (N, H, W) float32: mean and standard deviation of the members'
            landslide probabilities; NaN in pixels of which a band is not finite.

        Raises:
            InvalidPatchesError: If the patches have the wrong shape or type, or values that no network can take.
        """
        try:
            probability, uncertainty = self.ensemble.predict(np.asanyarray(model_input))
        except Exception as error:
            if isinstance(error, LandslideError) or hasattr(error, "remedy"):  # of this release, or of the model's own
                raise InvalidPatchesError(error) from error  # type: ignore[arg-type]
            raise
        return {"probability": probability, "uncertainty": uncertainty}


if __name__ != "landslide.tracking.serving":  # executed by MLflow as the model's code
    set_model(LandslideModel())
