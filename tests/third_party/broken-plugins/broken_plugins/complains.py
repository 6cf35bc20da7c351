"""Raises an error of the core's own when it is imported, which does not say whose it is."""

from mmrec_bench.errors import ConfigError

raise ConfigError("set MY_KEY first")
