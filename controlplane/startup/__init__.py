"""What is read and made before Django is there: settings, secrets, private files, authorities.

Knows no settings and no models.
"""
