"""What all calls of the API share: how a body is read, how errors are answered, the contract, and health.

May import serving, monitoring and the other packages.
"""
