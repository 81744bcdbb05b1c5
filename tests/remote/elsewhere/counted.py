"""A TCP relay between a client and a server: it counts bytes, and can lose replies."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress


class Relay:
    """Relays connections to a server.

    Attributes:
        sent: Bytes from the client.
        received: Bytes to the client.
        lose: Whether to close a connection in place of the reply to these bytes.
    """

    def __init__(self, host: str, port: int) -> None:
        self.sent = self.received = 0
        self.lose: Callable[[bytes], bool] = lambda request: False
        self._target = host, port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listening.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            server = socket.create_connection(self._target)
            asked: list[bytes] = []
            for one, other, out in ((client, server, True), (server, client, False)):
                threading.Thread(
                    target=self._pass, args=(one, other, out, asked), daemon=True
                ).start()

    def _pass(
        self, one: socket.socket, other: socket.socket, out: bool, asked: list[bytes]
    ) -> None:
        try:
            while data := one.recv(1 << 16):
                if out:
                    self.sent += len(data)
                    asked.append(data)
                elif asked and self.lose(b"".join(asked)):
                    break
                else:
                    self.received += len(data)
                    asked.clear()
                other.sendall(data)
        except OSError:
            pass
        finally:
            for end in (one, other):
                with suppress(OSError):  # a close alone does not wake the other thread
                    end.shutdown(socket.SHUT_RDWR)
                end.close()
