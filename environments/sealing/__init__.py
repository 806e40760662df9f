"""Seals secrets with data keys, and rotates these. May import audit, models and encryption."""
