"""Ends the program when it is imported."""

import sys

sys.exit("this plugin needs another Python")
