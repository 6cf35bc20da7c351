"""Building, previewing and exporting the instruction corpus."""
