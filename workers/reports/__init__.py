"""Answers about the fleet; nothing here writes. May import lifecycle, configuration, API keys and models."""
