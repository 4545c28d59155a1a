"""The work on a map: the plan, windows and networks, resuming, and the folder that holds the products."""
