"""Who runs: worker queues, workers, their API keys, their starts and their liveness."""
