"""Makes what a name may lead to beside a regular file."""

import os
import socket
from pathlib import Path

SPECIAL_FILES = ("directory", "pipe", "socket", "device", "endless device", "loop", "nowhere", "long name")


def make_special_file(path: Path, kind: str) -> str:
    """Makes it at the path; how a reader refuses it begins with what is returned."""
    match kind:
        case "directory":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)  # nobody ever writes to it
        case "socket":
            _make_socket(path)
        case "device":
            path.symlink_to("/dev/null")
        case "endless device":
            path.symlink_to("/dev/zero")
        case "loop":
            path.symlink_to(path)
            return "Too many levels of symbolic links"
        case "nowhere":
            path.symlink_to("vanished")
            return "No such file or directory"
        case "long name":
            path.symlink_to("x" * 300)
            return "File name too long"
    return f"Is a {kind.rsplit(maxsplit=1)[-1]}, not a regular file"


def _make_socket(path: Path) -> None:
    """By a short name, since a socket's address has at most 107 bytes."""
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(f"/proc/self/fd/{directory}/{path.name}")
    finally:
        os.close(directory)
