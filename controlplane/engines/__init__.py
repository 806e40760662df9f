"""Django's database engines with bounds on how long a request waits for a database that does not answer."""
