"""Texts that install and start workers. May import configuration and models."""
