"""Do changes of light and colours hold with all bands? The recipe of configs/best.yaml between the generated countries.

    PYTHONPATH=. OMP_NUM_THREADS=1 python experiments/all_bands_elsewhere.py 4 8 12 16 20

Trains 24 epochs on the terrain of each seed in the first country, and scores on other terrain of both countries. Prints
a line of JSON for each of two trainings of each recipe.
"""

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import yaml
from pydantic import TypeAdapter

from landslide.training.augmentation import AugmentationSettings
from landslide.training.settings import TrainingSettings
from tests.training import test_transfer as transfer

CONFIG = Path(__file__).parents[1] / "configs" / "best.yaml"
RECIPES: dict[str, dict[str, float]] = {
    "no changes": {},
    "mild colours": {"illumination": 0.3, "band_gain": 0.15, "haze": 0.1},
    "strong light": {"illumination": 0.5, "band_gain": 0.15, "haze": 0.2},
}


def measure(folder: Path, terrain: int) -> None:
    """Train every recipe with two seeds on one terrain, and print the scores."""
    recipe = yaml.safe_load(CONFIG.read_text())["parameters"]["training"]
    base = TypeAdapter(TrainingSettings).validate_python(recipe)
    transfer.generate(folder / "home", terrain, 1, ((5, 8), (1, 8)))
    unseen = {
        country: transfer.generate(folder / str(country), terrain + 1, country, ((3, 4),) * 2) for country in (1, 2)
    }
    bands, table = transfer.BandSettings(), transfer.patch_table(folder / "home")
    cache = transfer.ensure_cache(folder / "caches", folder / "home", table, "home", bands)
    rows = transfer.FoldRows(np.arange(40), np.arange(40, 48))
    for name, changes in RECIPES.items():
        for seed in (2, 3):
            augmentation = AugmentationSettings(mode="published", plain_epochs=2, **changes)  # type: ignore[arg-type]
            settings = replace(base, epochs=24, seed=seed, device="cpu", augmentation=augmentation)
            task = transfer.FoldTask(cache, rows, tuple(base.bands), settings, folder / f"{name}{seed}")
            trained = transfer.train_fold(task)
            member = transfer.Member(1, trained.spec, 0.5, trained.weights)
            network = transfer.Ensemble([member], bands, torch.device("cpu"))
            found: dict[str, float | str] = {"terrain": terrain, "recipe": name, "seed": seed}
            for country, (images, masks) in unseen.items():
                found[str(country)] = 100 * transfer.landslide_f1(network.predict(images)[0] > 0.5, masks)
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    for number in map(int, sys.argv[1:]):
        with tempfile.TemporaryDirectory() as temporary:
            measure(Path(temporary), number)
