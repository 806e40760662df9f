"""SQLite, whose writers take turns more evenly."""
