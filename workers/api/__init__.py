"""The worker API: each view translates HTTP in, makes one call to the domain, and translates out.

May import all but the console.
"""
