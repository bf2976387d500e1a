"""Flows: the built-in ones, and how any flow is found and made ready to run."""
