"""One epoch by TerraTorch's own data module and trainer; run by `benchmarks.epoch` with TerraTorch's Python.

    PYTHON benchmarks/terratorch_epoch.py DATA BATCH THREADS

Prints the seconds of the second epoch: a U-Net on a ResNet-34 from random weights, 14 bands, cross entropy, Adam,
float32, no augmentation, no validation.
"""

import sys
import time

import torch
from lightning.pytorch import Callback, Trainer
from terratorch.datamodules import Landslide4SenseNonGeoDataModule
from terratorch.tasks import SemanticSegmentationTask


class Clock(Callback):
    """Takes the time of the last epoch."""

    def on_train_epoch_start(self, trainer: Trainer, task: torch.nn.Module) -> None:
        """Start."""
        self.start = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, task: torch.nn.Module) -> None:
        """Stop."""
        self.seconds = time.perf_counter() - self.start


def main() -> None:
    data, batch, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    module = Landslide4SenseNonGeoDataModule(data, batch_size=batch)
    arguments = {"model": "Unet", "backbone": "resnet34", "bands": list(module.bands), "num_classes": 2}
    arguments |= {"in_channels": 14, "pretrained": False}
    task = SemanticSegmentationTask(
        model_args=arguments,
        model_factory="SMPModelFactory",
        loss="ce",
        ignore_index=-1,
        optimizer="Adam",
        lr=1e-4,
        plot_on_val=False,
    )
    clock = Clock()
    trainer = Trainer(
        max_epochs=2, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, limit_val_batches=0,
        enable_progress_bar=False, callbacks=[clock],
    )  # fmt: skip
    trainer.fit(task, datamodule=module)
    print("parameters", sum(p.numel() for p in task.model.parameters() if p.requires_grad))
    print("seconds", clock.seconds)


if __name__ == "__main__":
    main()
