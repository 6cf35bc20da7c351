"""Writes new plugins: `mmrec-bench new-plugin`."""
