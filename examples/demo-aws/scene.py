"""Makes what `make demo-aws` plays with, uploads to it, and says what is left to do.

BUCKET says which bucket; where AWS is, is taken from the environment as in all of AWS's tools.
"""

import hashlib
import json
import os
import pathlib
import sys

import boto3

BUCKET = os.environ["BUCKET"]
NAME = "uploads"

# The host gives up by itself, with a reason. The queue's own limit is for what kills every host.
MAX_RECEIVES = 20

# Dead letters wait for people, so they are kept for as long as SQS can.
FOURTEEN_DAYS = 14 * 24 * 60 * 60


def make():
    """S3 tells SNS, SNS tells SQS, in its envelope. Prints the URLs of the queue and of its dead letters."""
    s3, sns, sqs = boto3.client("s3"), boto3.client("sns"), boto3.client("sqs")
    s3.create_bucket(Bucket=BUCKET)
    dead = sqs.create_queue(QueueName=f"{NAME}-dead", Attributes={"MessageRetentionPeriod": str(FOURTEEN_DAYS)})
    redrive = {"deadLetterTargetArn": arn(sqs, dead["QueueUrl"]), "maxReceiveCount": MAX_RECEIVES}
    queue = sqs.create_queue(QueueName=NAME, Attributes={"RedrivePolicy": json.dumps(redrive)})
    topic = sns.create_topic(Name=NAME)["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn(sqs, queue["QueueUrl"]))
    created = {
        "TopicArn": topic,
        "Events": ["s3:ObjectCreated:*"],
        "Filter": {"Key": {"FilterRules": [{"Name": "prefix", "Value": "uploads/"}]}},
    }
    s3.put_bucket_notification_configuration(
        Bucket=BUCKET, NotificationConfiguration={"TopicConfigurations": [created]}
    )
    print(queue["QueueUrl"], dead["QueueUrl"])


def arn(sqs, url):
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
    return attributes["Attributes"]["QueueArn"]


def upload(folder, manifest, small):
    """The files of a folder and so many small ones. Writes key and SHA-256 of each to the manifest."""
    s3 = boto3.client("s3")
    objects = {}
    files = [(path.relative_to(folder).as_posix(), path.read_bytes()) for path in sorted(folder.rglob("*")) if path.is_file()]
    # Names as people give them: each of these characters is written otherwise in the event.
    files += [(f"small/sack {i} + 1% été.txt", f"sack number {i}\n".encode() * 40) for i in range(small)]
    for name, body in files:
        objects[f"uploads/{name}"] = hashlib.sha256(body).hexdigest()
    manifest.write_text(json.dumps(objects, indent=1))
    for name, body in files:
        s3.put_object(Bucket=BUCKET, Key=f"uploads/{name}", Body=body)


def left():
    """Prints how many messages wait or are in flight."""
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible", "ApproximateNumberOfMessagesDelayed"]
    answer = boto3.client("sqs").get_queue_attributes(QueueUrl=os.environ["QUEUE_URL"], AttributeNames=names)
    print(sum(int(answer["Attributes"].get(name, 0)) for name in names))


match sys.argv[1:]:
    case ["make"]:
        make()
    case ["upload", folder, manifest, small]:
        upload(pathlib.Path(folder), pathlib.Path(manifest), int(small))
    case ["left"]:
        left()
    case _:
        sys.exit("usage: scene.py make | upload FOLDER MANIFEST SMALL | left")
