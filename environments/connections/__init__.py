"""What a connection gives to workers, and whether it works. May import sealing, audit and models."""
