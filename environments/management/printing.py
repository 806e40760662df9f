"""What commands print: for a terminal that nobody else may steer."""


def printable(text: str) -> str:
    """The text with everything that is no visible character written as its number."""
    return "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in text)
