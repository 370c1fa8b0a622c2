"""Put on the path as `sitecustomize`, it makes every connection of a process an error."""

import socket


def _refused(self: socket.socket, address: object) -> None:
    raise OSError(f"no network here: a connection to {address} was tried")


socket.socket.connect = _refused  # type: ignore[method-assign, assignment]
socket.socket.connect_ex = _refused  # type: ignore[method-assign, assignment]
