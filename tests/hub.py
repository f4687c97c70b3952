"""A server that answers as the Hugging Face Hub does for files of a repository, from a folder of repositories."""

import hashlib
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "a" * 40


@contextmanager
def local_hub(root):
    """Serve `root/OWNER/NAME/FILE`; yields (address, list of what was asked for)."""
    asked = []

    class Answers(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self._answer(body=False)

        def do_GET(self):
            self._answer(body=True)

        def _answer(self, body):
            asked.append((self.command, self.path))
            owner, name, word, revision, file = (self.path.lstrip("/").split("/", 4) + [""] * 5)[:5]
            folder, path = root / owner / name, root / owner / name / file
            error = "RepoNotFound" if not folder.is_dir() else "EntryNotFound"
            error = "RevisionNotFound" if folder.is_dir() and revision not in ("main", "v1", COMMIT) else error
            if word != "resolve" or error == "RevisionNotFound" or not path.is_file():
                self.send_response(404)
                self.send_header("X-Error-Code", error)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            content = path.read_bytes()
            self.send_response(200)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()
