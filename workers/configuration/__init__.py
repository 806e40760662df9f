"""What a worker is given, and what a change of it would change. May import models."""
