"""Receives webhooks on this machine and prints those that the platform has signed. Usage: receiver.py PORT < secret"""

import base64
import hmac
import json
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

SECRET = base64.b64decode(sys.stdin.readline().strip().removeprefix("whsec_"))
SEEN = set()


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        id_, sent = self.headers["webhook-id"], self.headers["webhook-timestamp"]
        signed = base64.b64encode(hmac.digest(SECRET, f"{id_}.{sent}.".encode() + body, "sha256")).decode()
        given = self.headers["webhook-signature"].split()
        genuine = any(hmac.compare_digest(f"v1,{signed}", one) for one in given)
        if not genuine or abs(time.time() - int(sent)) > 300:
            self.send_error(401)
            return
        if id_ not in SEEN:  # the same message may come again, under the same id
            SEEN.add(id_)
            event = json.loads(body)
            print(event["type"], event["data"].get("run", ""), event["data"].get("reason", ""), flush=True)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


with HTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver) as server:
    server.serve_forever()
