"""The way to the hub: timm's own loading against a stand-in of the hub on loopback."""

import http.server
import os
import subprocess
import sys
import threading

import pytest
import timm
import torch
from safetensors.torch import save

CHECK = """
import torch
from biwaa.models.backbone import build_backbone
from biwaa.models.weights import load_weights
backbone = build_backbone("ResNet-18", 64)
print(load_weights(backbone, "auto"))
print(float(backbone.module.conv1.weight.detach().double().sum()))
"""


@pytest.fixture(params=["", "module."])
def hub(request):
    """Serves one safetensors file under any repository's name: its address, what was asked for, a weight, a prefix."""
    model = timm.create_model("resnet18", pretrained=False)
    content = save({f"{request.param}{name}": tensor.contiguous() for name, tensor in model.state_dict().items()})
    asked = []

    class Hub(http.server.BaseHTTPRequestHandler):
        def answer(self, body):
            asked.append(self.path)
            found = self.path.endswith("/model.safetensors")
            self.send_response(200 if found else 404)
            self.send_header("ETag", '"1234"')
            self.send_header("X-Repo-Commit", "0" * 40)
            self.send_header("Content-Length", str(len(content) if found else 0))
            self.end_headers()
            if body and found:
                self.wfile.write(content)

        def do_HEAD(self):
            self.answer(body=False)

        def do_GET(self):
            self.answer(body=True)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked, model.conv1.weight, request.param
    server.shutdown()


def test_weights_come_from_the_hub_and_then_from_its_cache(hub, tmp_path):
    address, asked, weight, prefix = hub
    environment = {**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
    environment |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1"}
    expected = float(weight.detach().double().sum())
    for offline in ("0",) if prefix else ("0", "1", "0"):
        before = len(asked)
        done = subprocess.run(
            [sys.executable, "-c", CHECK], capture_output=True, text=True, check=False,
            env={**environment, "HF_HUB_OFFLINE": offline},
        )  # fmt: skip
        if prefix:  # names that timm passes over: the network would have stayed random
            assert "they lack" in done.stderr
            continue
        assert done.returncode == 0, done.stderr
        origin, total = done.stdout.splitlines()
        assert origin.startswith("hub")
        assert float(total) == pytest.approx(expected)
        assert torch.isfinite(torch.tensor(float(total)))
        assert any("resnet18" in path for path in asked)
    if not prefix:  # the last one may ask, and finds the file in the cache
        assert len(asked) == before
