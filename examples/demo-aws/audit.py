#!/usr/bin/env python3
"""Audits a bucket after the fact: is every uploaded object where it belongs, exactly once?

It knows nothing of how Gristmill works and asks nobody but S3 and SQS. `audit.py MANIFEST`, with BUCKET,
QUEUE_URL and DLQ_URL; the manifest has key and SHA-256 of each object that was uploaded. An object may be

- at its place below processed/, with the bytes that were uploaded and with its provenance,
- or still below uploads/ with a dead letter that says why,
- or still below uploads/ with a message that waits.

Whatever else lies below processed/ is a result, and has to say what it was made from, and by which plugin.
Ends with 1 when something is otherwise. Messages that it looks at are given back at once.
"""

import hashlib
import json
import os
import pathlib
import re
import sys
from collections import Counter
from urllib.parse import unquote, unquote_plus

import boto3

BUCKET = os.environ["BUCKET"]
SRC, DST = "uploads/", "processed/"
SHA256 = re.compile("[0-9a-f]{64}")

# A queue is looked through until it has shown nothing new so often: SQS answers from a part of its servers.
QUIET_LOOKS = 5

# How long a message that was looked at is kept from being shown again.
LOOK_SECONDS = 60

s3, sqs = boto3.client("s3"), boto3.client("sqs")


def listing(prefix):
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
    return {entry["Key"]: entry["ETag"].strip('"') for page in pages for entry in page.get("Contents", [])}


def messages(url):
    found, quiet = {}, 0
    while quiet < QUIET_LOOKS:
        answer = sqs.receive_message(
            QueueUrl=url,
            MaxNumberOfMessages=10,
            VisibilityTimeout=LOOK_SECONDS,
            MessageAttributeNames=["All"],
        )
        new = [message for message in answer.get("Messages", []) if message["MessageId"] not in found]
        found |= {message["MessageId"]: message for message in new}
        quiet = 0 if new else quiet + 1
    for message in found.values():
        sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0)
    return list(found.values())


def keys(message):
    """What a message is about: S3's own notification, perhaps in an SNS envelope."""
    body = json.loads(message["Body"])
    if "Records" not in body and "Message" in body:
        body = json.loads(body["Message"])
    return [unquote_plus(record["s3"]["object"]["key"]) for record in body.get("Records", [])]


def reason(message):
    return message.get("MessageAttributes", {}).get("gristmill-reason", {}).get("StringValue", "")


def lacking(head, uploaded, is_result):
    """What the provenance of an object below processed/ lacks. An original may have been moved without a plugin."""
    metadata = head["Metadata"]
    source = unquote(metadata.get("gristmill-source", ""))
    if source not in uploaded:
        return f"its source is {source!r}, which nobody uploaded"
    if not metadata.get("gristmill-source-etag"):
        return "it does not say which version of its source it came from"
    plugins = [unquote(plugin) for plugin in metadata.get("gristmill-plugins", "").split()]
    if (is_result and not plugins) or not all(SHA256.fullmatch(plugin.rpartition("@")[2]) for plugin in plugins):
        return f"its plugins are {plugins}, and should be name@digest"
    return None


def main(manifest):
    uploaded = json.loads(pathlib.Path(manifest).read_text())
    waiting, done = listing(SRC), listing(DST)
    dead = {key: reason(message) for message in messages(os.environ["DLQ_URL"]) for key in keys(message)}
    live = {key for message in messages(os.environ["QUEUE_URL"]) for key in keys(message)}
    table, wrong, why = Counter(), [], {}
    for key, digest in uploaded.items():
        place = DST + key.removeprefix(SRC)
        if key in waiting and place in done:
            wrong.append(f"{key}: is below both prefixes")
        elif place in done:
            body = s3.get_object(Bucket=BUCKET, Key=place)["Body"].read()
            if hashlib.sha256(body).hexdigest() != digest:
                wrong.append(f"{place}: has other bytes than were uploaded")
            table["processed, with the bytes that were uploaded"] += 1
        elif key not in waiting:
            wrong.append(f"{key}: is gone")
        elif key in dead:
            why[key] = dead[key]
            if not dead[key]:
                wrong.append(f"{key}: has a dead letter that does not say why")
            table["still uploaded, with a dead letter that says why"] += 1
        elif key in live:
            table["still uploaded, with a message that waits"] += 1
        else:
            wrong.append(f"{key}: is forgotten, below {SRC} without a message")
    originals = {DST + key.removeprefix(SRC) for key in uploaded}
    for key in done:
        missing = lacking(s3.head_object(Bucket=BUCKET, Key=key), uploaded, key not in originals)
        if missing:
            wrong.append(f"{key}: {missing}")
        elif key not in originals:
            table["results, with their provenance"] += 1
    for key in waiting.keys() - uploaded.keys():
        wrong.append(f"{key}: nobody uploaded it")

    print(f"{len(uploaded):6}  uploaded")
    for line, count in table.items():
        print(f"{count:6}  {line}")
    print(f"{len(wrong):6}  wrong")
    for key, reason_why in why.items():
        print(f"\n{key} was not processed: {reason_why}")
    for line in wrong:
        print(f"\nWRONG: {line}")
    return 1 if wrong or not uploaded else 0


if len(sys.argv) != 2:
    sys.exit("usage: audit.py MANIFEST")
sys.exit(main(sys.argv[1]))
