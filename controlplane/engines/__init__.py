"""Django's database engines, which bound how long a request waits for the database, and who computes meanwhile."""
