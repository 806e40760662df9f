"""The shapes of what the worker API is sent and answers."""
