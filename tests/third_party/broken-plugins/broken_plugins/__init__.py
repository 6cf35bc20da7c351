"""Plugins that fail in every way, as an installed distribution: see its dist-info beside it."""
