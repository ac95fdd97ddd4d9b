"""A receiver of OpenTelemetry logs: decodes what is posted with OpenTelemetry's own classes."""

import json
import ssl
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)

seen = []
mode = {}


def value(any_value):
    kind = any_value.WhichOneof("value")
    if kind == "array_value":
        return [value(each) for each in any_value.array_value.values]
    return getattr(any_value, kind) if kind else None


def attributes(pairs):
    return {pair.key: value(pair.value) for pair in pairs}


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, kind, body):
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer(200, "application/json", json.dumps(seen).encode())

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.path == "/mode":
            mode.clear()
            mode.update(json.loads(body))
            return self.answer(200, "text/plain", b"")
        if self.path != "/v1/logs" or self.headers["content-type"] != "application/x-protobuf":
            return self.answer(404, "text/plain", b"")
        if "status" in mode:
            return self.answer(mode["status"], "text/plain", b"")
        request = ExportLogsServiceRequest.FromString(body)
        for of_resource in request.resource_logs:
            for of_scope in of_resource.scope_logs:
                for record in of_scope.log_records:
                    seen.append({
                        "resource": attributes(of_resource.resource.attributes),
                        "scope": of_scope.scope.name,
                        "body": value(record.body),
                        "attributes": attributes(record.attributes),
                        "time": record.time_unix_nano,
                        "severity": record.severity_text,
                        "number": record.severity_number,
                        "trace": record.trace_id.hex(),
                        "event": record.event_name,
                        "authorization": self.headers["authorization"],
                    })
        answer = ExportLogsServiceResponse()
        # Of one batch: how many batches the first lines make is a matter of time.
        rejected = mode.pop("reject", 0)
        if rejected:
            answer.partial_success.rejected_log_records = rejected
            answer.partial_success.error_message = "too old"
        return self.answer(200, "application/x-protobuf", answer.SerializeToString())


port, cert, key = int(sys.argv[1]), sys.argv[2], sys.argv[3]
server = ThreadingHTTPServer(("127.0.0.1", port), Receiver)
server.daemon_threads = True
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(cert, key)
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
server.serve_forever()
