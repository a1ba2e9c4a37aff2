"""S3, by moto, on a loopback port, with the bucket `larder-test`. What it holds is gone with the process.

`moto_s3.py PORT`: 0 for any port that is free. Prints `READY http://...` once objects can be written. Ends with its
standard input, so with whoever started it, unless that said `stay` first.
"""

import sys
import threading

import boto3
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

port = int(sys.argv[1])
app = DomainDispatcherApplication(create_backend_app)
condition = threading.Lock()


def one_at_a_time(environ, start_response):
    """moto looks whether the object is there, and stores it later: two writers could both find that it is not."""
    if "HTTP_IF_NONE_MATCH" not in environ:
        return app(environ, start_response)
    with condition:
        return list(app(environ, start_response))


server = make_server("127.0.0.1", port, one_at_a_time, threaded=True, request_handler=MotoRequestHandler)
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
