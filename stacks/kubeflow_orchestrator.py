"""A Kubeflow orchestrator whose steps get the GPUs, the memory and the retries that they ask for.

ZenML's own passes memory on as a float, which kfp refuses, asks for GPUs only with a node selector that its
settings discard, and leaves out retries. Everything else is ZenML's.
"""

from typing import Any

from kfp.dsl import PipelineTask
from zenml.client import Client
from zenml.config.resource_settings import ResourceSettings
from zenml.config.retry_config import StepRetryConfig
from zenml.config.step_configurations import Step
from zenml.enums import ExecutionStatus
from zenml.integrations.kubeflow.orchestrators.kubeflow_orchestrator import KubeflowOrchestrator
from zenml.logger import get_logger
from zenml.models import PipelineSnapshotResponse

logger = get_logger(__name__)

_GPU = "nvidia.com/gpu"


class LandslideKubeflowOrchestrator(KubeflowOrchestrator):
    """Compiles a pipeline for Kubeflow Pipelines and submits it."""

    _retries: dict[str, StepRetryConfig | None]

    def submit_pipeline(self, snapshot: PipelineSnapshotResponse, *args: Any, **kwargs: Any) -> Any:
        """Compile and submit a pipeline as a run, or as a recurring run if it has a schedule."""
        # kfp names a task after its step, with dashes.
        self._retries = {name.replace("_", "-"): s.config.retry for name, s in snapshot.step_configurations.items()}
        return super().submit_pipeline(snapshot, *args, **kwargs)

    def run_step(self, step: Step) -> None:
        """Run a step, unless it is done: Kubeflow repeats a pod that was lost after its step had ended."""
        name = step.spec.invocation_id
        for run in Client().list_pipeline_runs(orchestrator_run_id=self.get_orchestrator_run_id()):
            if Client().list_run_steps(pipeline_run_id=run.id, name=name, status=ExecutionStatus.COMPLETED):
                logger.info("Step `%s` is done: its pod was lost after it had ended.", name)
                return
        super().run_step(step)

    def _configure_container_resources(
        self,
        dynamic_component: PipelineTask,
        resource_settings: ResourceSettings,
        node_selector_constraint: tuple[str, str] | None = None,
    ) -> PipelineTask:
        """Put the resources and the retries of a step on its task."""
        task = dynamic_component
        if resource_settings.cpu_count:
            task.set_cpu_limit(f"{resource_settings.cpu_count:g}")
        if resource_settings.memory:
            task.set_memory_limit(resource_settings.memory.removesuffix("B"))  # 8GiB -> 8Gi
        if resource_settings.gpu_count:
            gpu = node_selector_constraint[1] if node_selector_constraint else _GPU
            task.set_accelerator_type(gpu).set_accelerator_limit(resource_settings.gpu_count)
        if retry := self._retries[task.name]:
            task.set_retry(retry.max_retries, f"{retry.delay}s", float(retry.backoff or 1))
        return task
