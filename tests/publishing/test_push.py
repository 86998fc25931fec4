"""A model's way to the hub, against a stand-in that speaks the hub's own protocol."""

import base64
import hashlib
import http.server
import json
import threading

import pytest

from orthoreg_jax import cli


class Hub(http.server.BaseHTTPRequestHandler):
    """Makes repositories, and takes files inline or by git-lfs, as the hub does."""

    def _answer(self, value, status=200):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _body(self):
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def log_message(self, *_):
        pass

    def do_GET(self):
        self._answer({"id": "me/model", "siblings": [], "sha": "0" * 40, "lastModified": None})

    def do_PUT(self):
        content = self._body()
        self.server.objects[hashlib.sha256(content).hexdigest()] = content
        self._answer({})

    def do_POST(self):
        body, here = self._body(), f"http://127.0.0.1:{self.server.server_port}"
        if self.headers.get("Authorization") != "Bearer hf_right":
            return self._answer({"error": "Invalid credentials"}, 401)
        if self.path == "/api/repos/create":
            self.server.made.append(json.loads(body))
            return self._answer({"url": f"{here}/me/model", "id": "me/model", "name": "me/model"})
        if "/preupload/" in self.path:
            files = json.loads(body)["files"]
            modes = [("lfs" if each["path"].endswith(".safetensors") else "regular", each["path"])
                     for each in files]  # fmt: skip
            return self._answer({"files": [
                {"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": None}
                for mode, path in modes
            ]})  # fmt: skip
        if self.path.endswith("/info/lfs/objects/batch"):
            return self._answer({"transfer": "basic", "objects": [
                each | {"actions": {"upload": {"href": f"{here}/put/{each['oid']}"}}}
                for each in json.loads(body)["objects"]
            ]})  # fmt: skip
        if "/commit/" in self.path:
            for line in body.splitlines():
                entry = json.loads(line)
                value = entry["value"]
                if entry["key"] == "file":
                    self.server.files[value["path"]] = base64.b64decode(value["content"])
                elif entry["key"] == "lfsFile":
                    self.server.files[value["path"]] = self.server.objects[value["oid"]]
            return self._answer({"commitUrl": f"{here}/me/model/commit/{'0' * 40}",
                                 "commitOid": "0" * 40, "success": True})  # fmt: skip
        return self._answer({"warnings": [], "errors": []})  # e.g. the check of the card's head


@pytest.fixture
def hub(monkeypatch):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.made, server.files, server.objects = [], {}, {}
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", address)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True, raising=False)
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def model(tmp_path):
    card = "---\nlibrary_name: transformers\n---\n\n# A model\n"
    texts = {"config.json": "{}", "model.safetensors": "weights", "README.md": card}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def push(model, *more):
    return cli.main(["push", "--model", str(model), "--to", "me/model", *more])


# The hub's own client sends files in a way that its own HTTP library is about to give up.
@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
@pytest.mark.parametrize("private", [False, True])
def test_every_file_arrives(hub, model, capsys, private):
    assert push(model, *["--private"] * private) == 0
    assert f":{hub.server_port}/me/model" in capsys.readouterr().out
    assert hub.files == {path.name: path.read_bytes() for path in model.iterdir()}
    asked = hub.made[0]
    hidden = bool(asked.get("private")) or asked.get("visibility") == "private"
    assert asked["name"] == "model" and hidden == private


def test_refusals_are_the_hub_s_own(hub, model, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert push(model) == 1
    said = capsys.readouterr().err
    assert "--to me/model: the upload failed" in said and "`hf auth login`" in said
    (model / "README.md").unlink()
    assert push(model) == 1
    assert "has no README.md; give a directory that `orthoreg export`" in capsys.readouterr().err
    assert not hub.files
