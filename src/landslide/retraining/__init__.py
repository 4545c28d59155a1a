"""Unattended retraining: comparison out of fold, promotion, the record, and notification."""
