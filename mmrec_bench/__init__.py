"""Evaluation framework for multimodal (text + image) recommendation with language models."""
