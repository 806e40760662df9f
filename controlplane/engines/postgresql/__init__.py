"""PostgreSQL, of which a silent server is taken for one that is away."""
