"""One of two ranks whose connection is led through a relay in user space: ``python relayed_rank.py FAULT``.

Gloo connects ranks at the addresses that they write into the store. A store in between replaces the port of each
address by that of a relay, which rank 0 runs in a thread until the fault.
"""

import json
import os
import re
import socket
import sys
import threading
import time
from datetime import timedelta

import torch
from torch.distributed import PrefixStore, Store

from tesserl_ranks import joining
from tesserl_ranks.failures import RankError

RANK, CHUNK = int(os.environ["RANK"]), 1 << 16
ADDRESS = re.compile(rb"\x02\x00(..)\x7f\x00\x00\x01", re.DOTALL)
"""An IPv4 address of this machine, as the kernel has it: family, port, address."""


class Relay:
    """Forwards connections to a port; ``fault`` says what it does from the moment ``broken`` is set."""

    def __init__(self, target: int, fault: str, broken: threading.Event) -> None:
        self.target, self.fault, self.broken = target, fault, broken
        self.listener = _listener_beside(target)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            near, _ = self.listener.accept()
            far = socket.create_connection(("127.0.0.1", self.target))
            for source, sink, back in ((near, far, False), (far, near, True)):
                threading.Thread(target=self._forward, args=(source, sink, back), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket, back: bool) -> None:
        while data := source.recv(CHUNK):
            if self.broken.is_set():
                if self.fault == "close":
                    source.close()
                    sink.close()
                    return
                if self.fault == "stall" or (self.fault == "one way" and back):
                    continue  # what is sent never arrives
                if self.fault == "delay":
                    time.sleep(0.2)
            sink.sendall(data)
        sink.close()


def _listener_beside(port: int) -> socket.socket:
    """Listen at a port close to another: gloo compares addresses to decide which rank connects to which."""
    for near in range(port + 1, port + 30):
        try:
            return socket.create_server(("127.0.0.1", near))
        except OSError:  # taken, or beyond the last port
            continue
    raise OSError(f"no port is free beside {port}")


class Redirecting(Store):
    """A store that writes the port of a relay in the place of this rank's own."""

    def __init__(self, store: Store, fault: str, broken: threading.Event) -> None:
        super().__init__()
        self.store, self.fault, self.broken = store, fault, broken
        self.relays: list[Relay] = []

    def set(self, key: str, value: bytes) -> None:
        value = value if isinstance(value, bytes) else value.encode()

        def through(match: re.Match[bytes]) -> bytes:
            self.relays.append(Relay(int.from_bytes(match[1], "big"), self.fault, self.broken))
            return match[0].replace(match[1], self.relays[-1].port.to_bytes(2, "big"))

        self.store.set(key, ADDRESS.sub(through, value).hex())

    def get(self, key: str) -> bytes:
        return bytes.fromhex(self.store.get(key).decode())

    def add(self, key: str, amount: int) -> int:
        return self.store.add(key, amount)

    def check(self, keys: list[str]) -> bool:
        return self.store.check(keys)

    def wait(self, keys: list[str], timeout: timedelta | None = None) -> None:
        if timeout is None:
            self.store.wait(keys)
        else:
            self.store.wait(keys, timeout)


def main(fault: str) -> dict[str, object]:
    broken, redirecting = threading.Event(), []

    def prefix(name: str, store: Store) -> Store:
        if name != "group":
            return PrefixStore(name, store)
        redirecting.append(Redirecting(PrefixStore(name, store), fault, broken))
        return redirecting[-1]

    joining.PrefixStore = prefix
    began = 0.0
    try:
        with joining.joined("cpu") as ranks:
            parameter = torch.nn.Parameter(torch.ones(100_000))
            for turn in range(6):
                parameter.grad = torch.full_like(parameter, float(RANK))
                began = time.monotonic()
                if turn == 3:
                    broken.set()
                ranks.reduce([parameter], {}, 1.0)
            relays = ranks.total(len(redirecting[0].relays))
            return {"relays": relays, "gradient": float(parameter.grad[0]), "error": None}
    except RankError as error:
        return {"relays": len(redirecting[0].relays), "error": str(error), "seconds": time.monotonic() - began}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1])) + "\n")
    sys.stdout.flush()
