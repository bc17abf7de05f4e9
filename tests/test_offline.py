"""The network is really forbidden: in this process, and in the kernels that run the
notebooks.
"""

import os
import socket
import subprocess
import sys
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import nbclient
import nbformat
import pytest

ATTEMPTS = {
    "address": "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)",
    "name": "import socket; socket.getaddrinfo('example.org', 80)",
    "page": "import urllib.request; urllib.request.urlopen('http://example.org', timeout=1)",
    "datagram": "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'', ('192.0.2.1', 9))",
}


def run_in_kernel(source):
    """Run one cell in a fresh kernel, as nbval does."""
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    return nbclient.NotebookClient(book, timeout=600, kernel_name="python3").execute()


@pytest.mark.parametrize("source", ATTEMPTS.values(), ids=ATTEMPTS)
def test_network_is_forbidden_in_this_process(source):
    with pytest.raises(RuntimeError, match="network is forbidden"):
        exec(source, {})


def test_network_is_forbidden_in_kernels_of_notebooks():
    with pytest.raises(
        nbclient.exceptions.CellExecutionError, match="network is forbidden"
    ):
        run_in_kernel(ATTEMPTS["address"])


def test_network_is_forbidden_in_child_processes():
    child = subprocess.run(
        [sys.executable, "-c", ATTEMPTS["name"]], capture_output=True, text=True
    )
    assert child.returncode != 0
    assert "network is forbidden" in child.stderr


def test_this_machine_stays_reachable():
    server = HTTPServer(("localhost", 0), BaseHTTPRequestHandler)
    Thread(target=server.handle_request, daemon=True).start()
    with socket.create_connection(server.server_address, timeout=10):
        pass
    server.server_close()


def test_downloaders_cannot_hide_the_failure():
    # A chapter that caught OSError and went on without its download would look offline
    # and not be.
    with pytest.raises(RuntimeError):
        try:
            urllib.request.urlopen("http://example.org", timeout=1)
        except OSError:
            pytest.fail("the guard's error looked like a broken network")


def test_guard_is_on_the_path_of_kernels():
    assert "offline" in os.environ["PYTHONPATH"].split(os.pathsep)[0]
