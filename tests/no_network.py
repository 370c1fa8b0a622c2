"""Put on the path as `sitecustomize`, it makes every connection to another machine an error.

Processes of a sweep talk to each other over the loopback, which is let through.
"""

import ipaddress
import socket


def is_here(address: object) -> bool:
    """Whether an address is of this machine: a socket in the file system, or the loopback.

    >>> is_here(("127.0.0.1", 80)), is_here(("::1", 80, 0, 0)), is_here("/tmp/socket")
    (True, True, True)
    >>> is_here(("192.0.2.1", 80)), is_here(("localhost.example", 80))
    (False, False)
    """
    if isinstance(address, (str, bytes)):
        return True
    host = str(address[0]) if isinstance(address, tuple) and address else ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name, which would have to be looked up
        return host == "localhost"


def _refusing(connect):  # type: ignore[no-untyped-def]
    def guarded(self: socket.socket, address: object) -> object:
        if not is_here(address):
            raise OSError(f"no network here: a connection to {address} was tried")
        return connect(self, address)

    return guarded


socket.socket.connect = _refusing(socket.socket.connect)  # type: ignore[method-assign]
socket.socket.connect_ex = _refusing(socket.socket.connect_ex)  # type: ignore[method-assign]
