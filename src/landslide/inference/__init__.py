"""From a trained network to probabilities: prediction, ensembles, test-time augmentation."""
