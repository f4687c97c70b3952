"""Files of a public S3 bucket, through boto3 and without an account: listed, and read from any byte on.

boto3 is an optional dependency (`pip install braincorl[fetch]`) and imported when a bucket is opened.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from braincorl.errors import InputError
from braincorl.storage.files import first_line

BLOCK_BYTES = 2**20  # a read buffer
CONNECT_SECONDS, READ_SECONDS = 10, 60


@dataclass(frozen=True)
class RemoteFile:
    """One file as the bucket lists it.

    Attributes
    ----------
    key
        Its path in the bucket.
    size
        Bytes.
    etag
        The bucket's name for this content; another content has another.
    """

    key: str
    size: int
    etag: str

    @property
    def md5(self) -> str | None:
        """MD5 of the content, where the ETag is one: that of a file uploaded in several pieces is not."""
        return self.etag if re.fullmatch("[0-9a-f]{32}", self.etag) else None


class ConnectionLostError(Exception):
    """A connection broke; what came until then is good, and reading may go on from there."""


class Bucket:
    """A public bucket.

    Parameters
    ----------
    name
        Its name.
    region
        AWS region that it is in.
    endpoint_url
        Another server that speaks S3, as for tests or a mirror; by default Amazon's.
    connections
        Files that are read at the same time.

    Raises
    ------
    InputError
        If boto3 is not installed, or will not take these settings.
    """

    def __init__(self, name: str, region: str, *, endpoint_url: str | None = None, connections: int = 4) -> None:
        try:
            import boto3
            import botocore.exceptions
            from botocore import UNSIGNED
            from botocore.config import Config
        except ImportError as error:
            raise InputError("downloads need boto3, which is not installed: pip install braincorl[fetch]") from error
        self.name = name
        self._errors: Any = botocore.exceptions
        config = Config(
            signature_version=UNSIGNED,
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            max_pool_connections=connections,
            retries={"mode": "standard", "total_max_attempts": 3},
        )
        try:
            self._client: Any = boto3.client("s3", region_name=region, endpoint_url=endpoint_url, config=config)
        except (ValueError, self._errors.BotoCoreError) as error:
            raise self._unreadable(error) from error

    def files(self, prefix: str) -> dict[str, RemoteFile]:
        """List the files whose keys begin with a prefix, by key.

        Raises
        ------
        InputError
            If the bucket cannot be listed.
        """
        found: dict[str, RemoteFile] = {}
        try:
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix):
                for entry in page.get("Contents", ()):
                    found[entry["Key"]] = RemoteFile(entry["Key"], int(entry["Size"]), entry["ETag"].strip('"'))
        except (self._errors.ClientError, self._errors.BotoCoreError) as error:
            raise self._unreadable(error) from error
        return found

    def read(self, file: RemoteFile, start: int) -> Iterator[bytes]:
        """Read a file from a byte on, some at a time.

        Raises
        ------
        InputError
            If it may not be read, or is no longer what was listed.
        ConnectionLostError
            If the connection breaks.
        """
        part = {"Range": f"bytes={start}-"} if start else {}
        try:
            answer = self._client.get_object(Bucket=self.name, Key=file.key, IfMatch=f'"{file.etag}"', **part)
            if start and not answer.get("ContentRange", "").startswith(f"bytes {start}-"):
                raise InputError(f"the server of {file.key} sends whole files only: a download cannot go on there.")
            here = start
            for block in answer["Body"].iter_chunks(BLOCK_BYTES):
                here += len(block)
                if here > file.size:
                    raise InputError(f"the server sent more of {file.key} than the {file.size} bytes that it listed.")
                yield block
            if here < file.size:  # a connection that breaks within the headers can look like an empty answer
                raise ConnectionLostError(f"the answer ended after {here - start} bytes")
        except self._errors.ClientError as error:
            if error.response["Error"]["Code"] in ("PreconditionFailed", "412"):
                raise InputError(
                    f"{file.key} changed in the bucket while it was downloaded: run again to begin it anew."
                ) from error
            if error.response["Error"]["Code"] in ("AccessDenied", "Forbidden", "403"):
                raise InputError(
                    f"the bucket {self.name} does not give {file.key} to everybody ({first_line(error)}): leave it "
                    "out, and run again to go on."
                ) from error
            raise self._unreadable(error) from error
        except self._errors.BotoCoreError as error:
            raise ConnectionLostError(first_line(error)) from error

    def _unreadable(self, error: Exception) -> InputError:
        return InputError(
            f"the bucket {self.name} cannot be read ({first_line(error)}): check the network, and run again to go on."
        )
