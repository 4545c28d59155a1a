"""ZenML stacks."""
