"""The world outside the shop, on one port: a payment provider, a warehouse, a supplier.

    python outside.py PORT

A program of its own without any telemetry, as the outside is.
"""

from __future__ import annotations

import itertools
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LIMIT = 2_500
"""What the provider charges at most in one go, in euros."""

_catalogues = itertools.count(1)


class Outside(BaseHTTPRequestHandler):
    """Answers in JSON."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        if path.startswith("/stock/"):
            article = path.removeprefix("/stock/")
            if article == "teapot" and "busy" in query:
                return self._answer(503, {"error": "the warehouse counts its teapots"})
            return self._answer(200, {"article": article, "stock": 500})
        if path == "/catalogue":
            text = json.dumps({"articles": [{"sku": f"tea-{n}", "price": n} for n in range(40)]})
            broken = "broken" in query and next(_catalogues) % 2 == 0
            return self._send(200, text[: len(text) // 2] if broken else text)
        return self._answer(404, {"error": "no such place"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)) or b"{}")
        if self.path == "/charge":
            if body["amount"] > LIMIT:
                return self._answer(402, {"error": f"more than {LIMIT} euros"})
            return self._answer(200, {"charged": body["amount"]})
        return self._answer(404, {"error": "no such place"})

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        self._send(status, json.dumps(body))

    def _send(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Be quiet."""


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Outside).serve_forever()
