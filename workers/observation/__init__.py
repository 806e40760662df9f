"""What Temporal knows of the fleet: the sweep that asks it, and how its answers are joined with what workers tell."""
