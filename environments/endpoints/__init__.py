"""What a connection's endpoint may be, for forms, commands and verification alike.

Knows no model and no database.
"""
