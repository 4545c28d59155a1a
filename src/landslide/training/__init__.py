"""Training of one fold: settings, losses, augmentation, epochs, checkpoints."""
