"""The tests mirror the packages; shared builders and servers are in `tests.support`."""
