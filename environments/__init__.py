"""What workers run within: organizations, environments, connections, and the sealing of their secrets."""
