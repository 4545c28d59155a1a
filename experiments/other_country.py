"""Which changes of light and season help a network in a country that it has never seen? On generated terrain.

    PYTHONPATH=. OMP_NUM_THREADS=1 python experiments/other_country.py 4 8 12 16

Trains on the terrain of each seed in the first country, and scores on other terrain of both countries, also without
elevation and slope ("flat"). Prints a line of JSON for each of two trainings of each recipe.
"""

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from landslide.training.augmentation import AugmentationSettings
from tests.training import test_transfer as transfer

BANDS = ("B4", "B3", "B2", "B8", "B11", "B12", "ndvi", "slope", "dem")
COLOURS = {"illumination": 0.3, "band_gain": 0.15, "haze": 0.1}
RECIPES: dict[str, dict[str, float]] = {
    "plain": {},
    "colours": COLOURS,
    "relief": COLOURS | {"relief": 0.5},
    "season": COLOURS | {"season": 0.4},
    "dropout": COLOURS | {"terrain_dropout": 0.25},
    "relief+season": COLOURS | {"relief": 0.5, "season": 0.4},
}


def measure(folder: Path, terrain: int) -> None:
    """Train every recipe with two seeds on one terrain, and print the scores."""
    home = transfer.generate(folder / "home", terrain, 1, ((4, 5), (1, 4)))
    unseen = {
        country: transfer.generate(folder / str(country), terrain + 1, country, ((2, 3),) * 2) for country in (1, 2)
    }
    bands, table = transfer.BandSettings(), transfer.patch_table(folder / "home")
    cache = transfer.ensure_cache(folder / "caches", folder / "home", table, "home", bands)
    rows = transfer.FoldRows(transfer.TRAINING, transfer.SELECTION)
    for recipe, changes in RECIPES.items():
        for seed in (2, 3):
            augmentation = AugmentationSettings(mode="published", flips=True, plain_epochs=0, **changes)  # type: ignore[arg-type]
            settings = replace(transfer.SETTINGS, bands=BANDS, seed=seed, augmentation=augmentation)
            trained = transfer.train_fold(transfer.FoldTask(cache, rows, BANDS, settings, folder / f"{recipe}{seed}"))
            member = transfer.Member(1, trained.spec, 0.5, trained.weights)
            network = transfer.Ensemble([member], bands, torch.device("cpu"))
            found: dict[str, float | str] = {"terrain": terrain, "recipe": recipe, "seed": seed}
            for country, (images, masks) in unseen.items():
                flat = images.copy()
                flat[:, 12], flat[:, 13] = home[0][:, 12].mean(), home[0][:, 13].mean()
                for name, some in (("", images), (" flat", flat)):
                    found[f"{country}{name}"] = 100 * transfer.landslide_f1(network.predict(some)[0] > 0.5, masks)
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    for number in map(int, sys.argv[1:]):
        with tempfile.TemporaryDirectory() as temporary:
            measure(Path(temporary), number)
