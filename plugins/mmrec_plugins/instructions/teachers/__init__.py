"""Teachers that need no server: rules, and language models that run here."""
