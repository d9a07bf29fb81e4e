"""Serves S3, SQS, SNS and EventBridge on a free port of 127.0.0.1, says which, and ends with standard input.

So it never outlives who started it, however that ends.
"""

import asyncio
import os
import socket
import sys
import threading

# The folder of this file, in which `ministack` would be this file.
del sys.path[0]

# Taken here and handed over, since a free port that is only looked up may be somebody else's a moment later.
listener = socket.create_server(("127.0.0.1", 0), backlog=512)
port = listener.getsockname()[1]
os.environ.update(GATEWAY_PORT=str(port), MINISTACK_HOST="127.0.0.1", BIND_HOST="127.0.0.1", LOG_LEVEL="ERROR")

from hypercorn.asyncio import serve
from hypercorn.config import Config
from ministack.app import app


def end_with_input():
    sys.stdin.read()
    os._exit(0)


threading.Thread(target=end_with_input, daemon=True).start()
config = Config()
config.bind = [f"fd://{listener.fileno()}"]
config.loglevel = "ERROR"
# Longer than any test: a client that sends on a connection which is just being closed would see an error.
config.keep_alive_timeout = 600
print(port, flush=True)
asyncio.run(serve(app, config))
