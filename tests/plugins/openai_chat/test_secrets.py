import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mmrec_bench.errors import ConfigError, ModelError
from mmrec_bench.plugins import installed
from mmrec_plugins.models.openai_chat.options import ServerConfig, endpoint, read_key, resolved
from tests.plugins.openai_chat.faults import Answer, Fault, prompt_of, served
from tests.plugins.openai_chat.making import ask, make_client, questions

KEY = "sk-test-0123456789abcdefSECRET"


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def everything_below(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_the_key_goes_to_the_server_and_nowhere_else(tmp_path: Path) -> None:
    def rule(_body: dict[str, Any], n: int) -> Answer:  # a server that repeats the key
        if n == 0:
            return Fault(500, {"error": {"message": f"who is {KEY}?"}})
        return f"your key is {KEY}"

    with served(rule) as server:
        [reply] = make_client(server.url, tmp_path).ask([ask("hello")])
        assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    assert reply.text == "your key is ***"
    assert KEY.encode() not in everything_below(tmp_path)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500])
def test_an_error_never_repeats_the_key(status: int, tmp_path: Path) -> None:
    fault = Fault(status, {"error": {"message": f"bad key {KEY}"}})
    with (
        served(lambda *_: fault) as server,
        pytest.raises(ModelError) as caught,
    ):
        make_client(server.url, tmp_path, retries=1).ask(questions(1))
    error: BaseException | None = caught.value
    assert "bad key ***" in str(error)
    while error is not None:
        assert KEY not in str(error)
        error = None if error.__suppress_context__ else error.__context__
    assert KEY.encode() not in everything_below(tmp_path)


def test_a_whole_run_writes_no_key_and_debug_prints_none(tmp_path: Path) -> None:
    def rule(_body: dict[str, Any], _n: int) -> Answer:
        return "A"

    def run(url: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [
                *(sys.executable, "-m", "mmrec_bench", "--debug", "run"),
                *("--model", "gpt-zero-shot", "--dataset", "amazon", "--no-baselines"),
                *("--instructions", "ranking", "--limit-cases", "3", "--results", str(tmp_path)),
                *("-o", f"model.base_url={url}", "-o", "model.chat_model=toy"),
                *("-o", "model.backoff=0.002", "-o", f"model.request_log={tmp_path}/log.sqlite"),
                *("-o", "encoder.name=image-tags"),
            ],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    with served(rule) as server:
        done = run(server.url)
        assert done.returncode == 0, done.stderr
        n = server.n_asked
        server.rule = lambda *_: Fault(401, {"error": {"message": f"bad key {KEY}"}})
        (tmp_path / "log.sqlite").unlink()
        for path in (tmp_path / "runs").rglob("*.npz"):
            path.unlink()
        failed = run(server.url)
    assert n == 3
    assert failed.returncode == 1
    assert "Traceback" in failed.stderr
    assert "bad key ***" in failed.stderr
    for output in (done.stdout, done.stderr, failed.stdout, failed.stderr):
        assert KEY not in output
    assert list(tmp_path.rglob("records/**/*.json"))
    assert KEY.encode() not in everything_below(tmp_path)


def test_a_key_given_as_an_option_is_not_repeated() -> None:
    models = installed()["model"]
    config = models.configure("gpt-zero-shot", {"key_variable": KEY}, "model")
    with pytest.raises(ConfigError, match="not repeated here") as error:
        models.load("gpt-zero-shot").resolve(config, device="cpu")
    assert KEY not in str(error.value)
    with pytest.raises(ConfigError, match=r"unknown option model.api_key") as error:
        models.configure("gpt-zero-shot", {"api_key": KEY}, "model")
    assert KEY not in str(error.value)


@pytest.mark.parametrize(
    "url",
    [
        f"http://user:{KEY}@127.0.0.1/v1",
        f"http://127.0.0.1/v1?key={KEY}",
        f"ftp://{KEY}/v1",
        f"http://[{KEY}/v1",
        f"http://127.0.0.1:{KEY}/v1",
    ],
)
def test_an_address_with_a_secret_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigError, match=r"model\.base_url") as error:
        endpoint(ServerConfig(base_url=url))
    assert KEY not in str(error.value)


@pytest.mark.parametrize(
    ("url", "needed"),
    [
        ("http://127.0.0.1:1/v1", False),
        ("http://localhost/v1", False),
        ("http://[::1]:9/v1", False),
        ("https://api.openai.com/v1", True),
        ("http://10.0.0.1/v1", True),
        ("http://localhost.example.org/v1", True),
    ],
)
def test_only_this_machine_needs_no_key(
    url: str, needed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    config = ServerConfig(base_url=url)
    if not needed:
        assert read_key(config, endpoint(config)) == ""
        return
    with pytest.raises(ConfigError, match="set the environment variable OPENAI_API_KEY"):
        read_key(config, endpoint(config))


def test_another_variable_may_hold_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTHER_KEY", "other")
    with served(lambda body, _n: prompt_of(body)) as server:
        make_client(server.url, tmp_path, key_variable="OTHER_KEY").ask([ask("x")])
        assert server.headers[0]["authorization"] == "Bearer other"


def test_a_broken_key_is_told_without_repeating_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f"“{KEY}”")
    config = resolved(ServerConfig())
    with pytest.raises(ConfigError, match="characters that no key has") as error:
        read_key(config, endpoint(config))
    assert KEY not in str(error.value)


def test_no_key_is_part_of_a_request(tmp_path: Path) -> None:
    client = make_client("http://127.0.0.1:9/v1", tmp_path)
    assert KEY not in json.dumps(ask("x").described(client.settings, structured=True))
