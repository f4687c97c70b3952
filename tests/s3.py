"""A local S3 server with files laid out like NSD's bucket, which answers without an account."""

import logging
import urllib.request
from contextlib import contextmanager

import boto3
from botocore.config import Config
from moto.server import ThreadedMotoServer

from braincorl.datasets.download.bucket import Bucket
from braincorl.datasets.nsd.fetching import BUCKET, REGION


class LocalBucket:
    """NSD's bucket, or another, on a server of its own."""

    def __init__(self, url, name=BUCKET, region=REGION):
        self.url, self.name, self.region = url, name, region
        self._client = boto3.client(
            "s3",
            endpoint_url=url,
            region_name=region,
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=Config(retries={"total_max_attempts": 1}),
        )

    def emptied(self):
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/moto-api/reset", method="POST")).close()
        where = {} if self.region == "us-east-1" else {"LocationConstraint": self.region}
        self._client.create_bucket(Bucket=self.name, **({"CreateBucketConfiguration": where} if where else {}))
        return self

    def open(self):
        """The bucket as the program sees it."""
        return Bucket(self.name, self.region, endpoint_url=self.url)

    def put(self, key, content, public=True):
        self._client.put_object(Bucket=self.name, Key=key, Body=content, **({"ACL": "public-read"} if public else {}))

    def put_in_pieces(self, key, pieces):
        """Upload as large files are: the ETag is no MD5 then."""
        where = {"Bucket": self.name, "Key": key}
        upload = self._client.create_multipart_upload(**where, ACL="public-read")["UploadId"]
        parts = []
        for number, piece in enumerate(pieces, start=1):
            answer = self._client.upload_part(**where, UploadId=upload, PartNumber=number, Body=piece)
            parts.append({"PartNumber": number, "ETag": answer["ETag"]})
        self._client.complete_multipart_upload(**where, UploadId=upload, MultipartUpload={"Parts": parts})

    def delete(self, key):
        self._client.delete_object(Bucket=self.name, Key=key)

    def fill(self, root):
        """Upload every file below a folder."""
        for path in sorted(root.rglob("*")):
            if path.is_file():
                self.put(path.relative_to(root).as_posix(), path.read_bytes())


@contextmanager
def local_server():
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()
