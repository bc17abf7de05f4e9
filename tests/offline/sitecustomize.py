"""Forbids the network to every Python process that finds this file on its path.

`conftest.py` puts it there for the tests and for the kernels of the notebooks. An audit
hook sees every connection that Python code opens, and cannot be taken away again. This
machine itself stays reachable: Jupyter talks to its kernels over it.
"""

import ipaddress
import socket
import sys

HERE = {None, "", "localhost", socket.gethostname()}
NAMES = {
    "socket.getaddrinfo",
    "socket.gethostbyname",
}  # events whose first argument is a host
CONNECTIONS = {
    "socket.connect",
    "socket.sendto",
    "socket.sendmsg",
}  # events with (socket, address)


def is_here(host):
    """Tell whether a host is this machine."""
    host = host.decode() if isinstance(host, bytes) else host
    if host in HERE:
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def forbid_network(event, args):
    """Refuse an event that would leave this machine."""
    if event in NAMES:
        host = args[0]
    elif event in CONNECTIONS and isinstance(
        args[1], tuple
    ):  # other addresses are files or pipes
        host = args[1][0]
    else:
        return
    if not is_here(host):
        raise RuntimeError(
            f"the network is forbidden in tests, but something asked for {host!r}"
        )


sys.addaudithook(forbid_network)
