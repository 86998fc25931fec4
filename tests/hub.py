"""A stand-in of the hub for data sets: the part of its file interface that its client asks for."""

import hashlib
import http.server
import io
import json
import re
import threading
import urllib.parse

import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def encoded(pixels, kind="png"):
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def parquet(images, labels, names=None, image="image", label="label", rows=4, struct=True):
    """A file as the library `datasets` writes it, with its metadata."""
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())]) if struct else pa.binary()
    features = {image: {"_type": "Image"}}
    features |= {label: {"names": names, "_type": "ClassLabel"}} if names else {
        label: {"dtype": "int64", "_type": "Value"}}  # fmt: skip
    columns = [(image, kind), (label, pa.array(labels).type)]
    schema = pa.schema(
        columns, {"huggingface": json.dumps({"info": {"features": features}})} if features else None
    )
    cells = [{"bytes": each, "path": None} if struct else each for each in images]
    file = io.BytesIO()
    pq.write_table(pa.table({image: cells, label: labels}, schema), file, row_group_size=rows)
    return file.getvalue()


class Answers(http.server.BaseHTTPRequestHandler):
    """Of /api/datasets/SET/revision/REVISION, its tree, and of files, whole or from a byte on."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def _send(self, body, status=200, **headers):
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, value, status=200, **headers):
        self._send(json.dumps(value).encode(), status, Content_Type="application/json", **headers)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        api = re.fullmatch(r"/api/datasets/([^/]+/[^/]+)/(revision|tree)/(.+)", path)
        file = re.fullmatch(r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        name = (api or file or {1: ""})[1]
        if name in self.server.gated:
            return self._json({"error": "gated"}, 403, X_Error_Code="GatedRepo")
        if name not in self.server.sets:
            return self._json({"error": "no"}, 404, X_Error_Code="RepoNotFound")
        branches = self.server.sets[name]
        if api and api[2] == "revision":
            commit = next((each for each, (names, _) in branches.items()
                           if api[3] in (each, *names)), None)  # fmt: skip
            if commit is None:
                return self._json({"error": "no"}, 404, X_Error_Code="RevisionNotFound")
            licence = self.server.licences.get(name)
            card = {"license": licence} if licence else {}
            return self._json({"id": name, "sha": commit, "cardData": card, "siblings": []})
        files = branches[(api or file)[3 if api else 2]][1]
        if api:
            return self._json([
                {"type": "file", "path": each, "size": len(content), "oid": "0" * 40,
                 "lfs": {"oid": self.server.hashes.get(each) or hashlib.sha256(content).hexdigest(),
                         "size": len(content), "pointerSize": 100}}
                for each, content in files.items()
            ])  # fmt: skip
        self._send_file(file[3], files[file[3]], file[2])

    def _send_file(self, name, content, commit):
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        headers = {"ETag": etag, "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if self.command == "HEAD":
            return self._send(content, **headers)
        start = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "bytes=0-")
        first = int(start[1])
        self.server.served.append((name, first))
        body, status = content[first:], 200
        if first:
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
            status = 206
        cut = self.server.cuts.pop(0) if self.server.cuts else None
        if cut is None:
            return self._send(body, status, **headers)
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:cut])
        self.wfile.flush()
        self.close_connection = True
        if self.server.dies:  # and answers nobody any more
            threading.Thread(target=self.server.stop, daemon=True).start()


class Server(http.server.ThreadingHTTPServer):
    """The stand-in.

    `sets` are files by commit, with the names of its branches, by set. `served` lists each file
    that was sent and from which byte on. `cuts` are how many bytes of the next files are sent
    before the connection ends; if the server `dies`, it ends with it.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answers)
        self.sets, self.licences, self.gated, self.hashes = {}, {}, set(), {}
        self.served, self.cuts, self.dies = [], [], False
        self.address = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def add(self, name, files, branch="main", commit=COMMIT):
        self.sets.setdefault(name, {})[commit] = ((branch,), files)

    def stop(self):
        self.shutdown()
        self.server_close()


def use(monkeypatch, server, cache):
    """Points the hub's client, in this process, at the stand-in and at a cache of its own."""
    constants = "huggingface_hub.constants"
    monkeypatch.setattr(f"{constants}.ENDPOINT", server.address)
    template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(f"{constants}.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(f"{constants}.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(f"{constants}.HF_HUB_DISABLE_XET", True, raising=False)
