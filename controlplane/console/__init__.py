"""What the console is beside the pages of the apps: its sidebar, its search and its users.

May import accounts and the other packages.
"""
