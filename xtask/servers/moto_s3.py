"""S3, by moto, on a loopback port, with the bucket `larder-test`. What it holds is gone with the process.

`moto_s3.py PORT`: 0 for any port that is free. Prints `READY http://...` once objects can be written. Ends with its
standard input, so with whoever started it, unless that said `stay` first.

Tests have it refuse requests: after `PUT /larder-refuse` with the body `TEXT STATUS CODE METHOD...`, each request by one of
these methods that has the text in its path, its query or its authorization gets that status and S3's error of that code.
`DELETE /larder-refuse` with the body `TEXT` ends it.
"""

import sys
import threading
from urllib.parse import unquote

import boto3
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

port = int(sys.argv[1])
app = DomainDispatcherApplication(create_backend_app)
condition = threading.Lock()
refused = {}


def one_at_a_time(environ, start_response):
    """moto looks whether the object is there, and stores it later: two writers could both find that it is not."""
    if "HTTP_IF_NONE_MATCH" not in environ:
        return app(environ, start_response)
    with condition:
        return list(app(environ, start_response))


def body(environ):
    return environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))


def refuse(environ, start_response):
    """Does to others what a test has asked for."""
    if environ["PATH_INFO"] == "/larder-refuse":
        text, *rule = body(environ).decode().split()
        if environ["REQUEST_METHOD"] == "PUT":
            refused[text] = rule
        else:
            refused.pop(text, None)
        start_response("200 OK", [("Content-Length", "0")])
        return []
    seen = " ".join([environ["PATH_INFO"], environ["QUERY_STRING"], environ.get("HTTP_AUTHORIZATION", "")])
    for text, (status, code, *methods) in list(refused.items()):
        if text in unquote(seen) and environ["REQUEST_METHOD"] in methods:
            # The next request of the connection begins after it.
            body(environ)
            error = f"<Error><Code>{code}</Code><Message>a test has it so</Message></Error>".encode()
            start_response(f"{status} Refused", [("Content-Length", str(len(error)))])
            return [error]
    return one_at_a_time(environ, start_response)


server = make_server("127.0.0.1", port, refuse, threaded=True, request_handler=MotoRequestHandler)
serving = threading.Thread(target=server.serve_forever, daemon=True)
serving.start()

url = f"http://127.0.0.1:{server.server_port}"
client = boto3.client(
    "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id="larder", aws_secret_access_key="larder"
)
client.create_bucket(Bucket="larder-test")
print("READY", url, flush=True)

if sys.stdin.read().strip() == "stay":
    serving.join()
