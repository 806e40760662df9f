"""Environments and worker queues as managers make, change and delete them."""
