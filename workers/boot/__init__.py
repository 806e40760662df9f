"""A worker's first boot: what it is started with, what it has come to, and why it was refused."""
