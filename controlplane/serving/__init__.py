"""How this process serves: its server, its clients' proxies, its threads, its pulse, and whether it may serve at all.

May import engines and startup.
"""
