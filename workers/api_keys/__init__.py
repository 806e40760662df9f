"""API keys: what they look like, what they cover, how they are issued and used. May import models."""
