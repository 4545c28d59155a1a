"""The flavour of our Kubeflow orchestrator: what ZenML reads about it, without importing kfp."""

from typing import cast

from zenml.integrations.kubeflow.flavors.kubeflow_orchestrator_flavor import (
    KubeflowOrchestratorConfig,
    KubeflowOrchestratorFlavor,
)
from zenml.orchestrators import BaseOrchestrator


class LandslideKubeflowConfig(KubeflowOrchestratorConfig):
    """Configuration of the orchestrator: that of ZenML's, and that Kubeflow retries a step, not ZenML."""

    @property
    def handles_step_retries(self) -> bool:
        """Whether a failed step is started again by Kubeflow: in a new pod, which survives a killed one as well."""
        return True


class LandslideKubeflowFlavor(KubeflowOrchestratorFlavor):
    """ZenML's Kubeflow orchestrator with steps that get the GPUs, the memory and the retries they ask for."""

    @property
    def name(self) -> str:
        """Name of the flavour."""
        return "landslide_kubeflow"

    @property
    def config_class(self) -> type[LandslideKubeflowConfig]:
        """The configuration of this flavour."""
        return LandslideKubeflowConfig

    @property
    def implementation_class(self) -> type[BaseOrchestrator]:  # type: ignore[override]
        """The orchestrator, imported only when a pipeline is submitted or a step runs."""
        from stacks.kubeflow_orchestrator import LandslideKubeflowOrchestrator

        return cast(type[BaseOrchestrator], LandslideKubeflowOrchestrator)
