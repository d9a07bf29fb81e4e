#!/usr/bin/env python3
"""The worker that Gristmill replaces: receive, get, process, copy, delete, delete the message.

REGION, BUCKET, SRC_PREFIX, DST_PREFIX and QUEUE_URL say on what. It needs boto3. What happens when things
go wrong is in docs/cut-over.md.
"""

import argparse
import json
import os
import sys
import threading
import time
from urllib.parse import unquote_plus

import boto3

BUCKET = os.environ["BUCKET"]
SRC_PREFIX = os.environ.get("SRC_PREFIX", "uploads/")
DST_PREFIX = os.environ.get("DST_PREFIX", "processed/")
QUEUE_URL = os.environ["QUEUE_URL"]

s3 = boto3.client("s3", region_name=os.environ["REGION"])
sqs = boto3.client("sqs", region_name=os.environ["REGION"])


def process(key, destination):
    """The place for real work: writes the object's bytes as a result beside the original."""
    body = s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    s3.put_object(Bucket=BUCKET, Key=destination + ".copy", Body=body)


def handle(key, copy):
    destination = DST_PREFIX + key.removeprefix(SRC_PREFIX)
    if copy:
        process(key, destination)
    s3.copy_object(Bucket=BUCKET, Key=destination, CopySource={"Bucket": BUCKET, "Key": key})
    s3.delete_object(Bucket=BUCKET, Key=key)


class Tally:
    """Objects done, and when the last one was."""

    def __init__(self):
        self.lock = threading.Lock()
        self.objects = 0
        self.started = self.last = time.monotonic()
        self.cpu = time.process_time()

    def add(self):
        with self.lock:
            self.objects += 1
            self.last = time.monotonic()

    def line(self):
        seconds = self.last - self.started
        cpu = time.process_time() - self.cpu
        return json.dumps({"objects": self.objects, "seconds": round(seconds, 3), "cpu_seconds": round(cpu, 3)})


def work(arguments, tally):
    wait = 1 if arguments.until_empty else 20
    while True:
        response = sqs.receive_message(QueueUrl=QUEUE_URL, MaxNumberOfMessages=10, WaitTimeSeconds=wait)
        messages = response.get("Messages", [])
        if arguments.until_empty and not messages:
            return
        for message in messages:
            try:
                for record in json.loads(message["Body"]).get("Records", []):
                    handle(unquote_plus(record["s3"]["object"]["key"]), arguments.copy)
                    tally.add()
                sqs.delete_message(QueueUrl=QUEUE_URL, ReceiptHandle=message["ReceiptHandle"])
            except Exception as error:  # It comes back when its visibility timeout ends.
                print(f"failed: {error}", file=sys.stderr)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="messages in work at once [default: 1]")
    parser.add_argument("--copy", action="store_true", help="write each object's bytes as one result")
    parser.add_argument("--until-empty", action="store_true", help="end when nothing is received; print a JSON line")
    arguments = parser.parse_args()
    tally = Tally()
    threads = [threading.Thread(target=work, args=(arguments, tally), daemon=True) for _ in range(arguments.threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if arguments.until_empty:
        print(tally.line())


if __name__ == "__main__":
    main()
