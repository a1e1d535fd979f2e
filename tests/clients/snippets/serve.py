"""Serves `receive` of notifications.py with the standard library's HTTP server."""

import os
import sqlite3
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer

from notifications import receive

SECRETS = os.environ["NODROP_SECRETS"].split(",")


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        status = 500
        try:
            with closing(sqlite3.connect(os.environ["DATABASE"])) as db:
                status = receive(headers, body, SECRETS, db)
        finally:
            self.send_response(status)
            self.end_headers()


HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
