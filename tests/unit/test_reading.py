from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config import DingTalk, OpenAI
from gateway.errors import ConfigError
from gateway.reading import parse_config, read_config

OFFICIAL = {"kind": "official_account", "app_id": "wx1", "token": "abc"}


def fault(data: dict, **environment: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_config(data, environment)
    return str(caught.value)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"chanels": {}}, ["chanels", "'channels'"]),
        ({"http": {"prot": 1}}, ["http.prot", "'port'"]),
        ({"sessions": {"scope": {"grup": "member"}}}, ["sessions.scope.grup", "'group'"]),
        ({"channels": {"d": {"kind": "dingtalk", "client_id": "x", "client_secrt": "y"}}}, ["channels.d.client_secrt", "'client_secret'"]),
        ({"channels": {"d": {"kind": "dingtak"}}}, ["channels.d.kind", "'dingtalk'"]),
        ({"channels": {"d": {"app_id": "x"}}}, ["channels.d.kind", "missing"]),
        ({"channels": {"d": {"kind": "dingtalk", "client_id": "x"}}}, ["channels.d.client_secret", "required"]),
        ({"http": {"port": "x"}}, ["http.port", "integer"]),
        ({"http": {"host": "0.0.0.0"}}, ["http", "trust_network"]),
        ({"answering": {"chain": ["gpt"]}}, ["gpt", "backends"]),
        ({"channels": {"w": {"kind": "wechat"}}}, ["channels.w", "accept_ban_risk"]),
        ({"channels": {"w": {"kind": "wechat", "accept_ban_risk": True, "transport": "puppet"}}}, ["channels.w.transport", "itchat"]),
        ({"channels": {"o": {**OFFICIAL, "encryption": "safe"}}}, ["channels.o", "encoding_aes_key"]),
        ({"plugins": {"enabled": ["admin"]}}, ["plugins.enabled"]),
        ({"channels": {name: {"kind": "api", "tokens": ["t"]} for name in "ab"}}, ["channels", "/api/v1/messages"]),
        ({"store": {"url": "mysql://x"}}, ["store", "sqlite:///"]),
    ],
)
def test_a_wrong_key_is_named_with_its_whole_path_and_the_repair(data: dict, words: list[str]) -> None:
    text = fault(data)

    assert all(word in text for word in words), text


def test_all_faults_are_told_at_once() -> None:
    text = fault({"http": {"prot": 1}, "sesions": {}})

    assert len(text.splitlines()) == 2


def test_an_unset_variable_is_named_and_a_switched_off_channel_needs_none() -> None:
    section = {"kind": "dingtalk", "client_id": "${DD_ID}", "client_secret": "${DD_SECRET}"}

    assert "DD_ID" in fault({"channels": {"d": section}}, DD_SECRET="x")
    assert parse_config({"channels": {"d": {**section, "enabled": False}}}, {}).channels == {}


def test_variables_fill_in_and_have_defaults() -> None:
    data = {"backends": {"g": {"kind": "openai", "model": "${M:-tiny}", "api_key": "${KEY}"}}, "answering": {"chain": ["g"]}}
    backend = parse_config(data, {"KEY": "sk-1"}).backends["g"]

    assert isinstance(backend, OpenAI)
    assert backend.model == "tiny"
    assert backend.api_key.get_secret_value() == "sk-1"


def test_a_backend_that_nobody_asks_needs_no_key() -> None:
    data = {"backends": {"g": {"kind": "openai", "model": "m", "api_key": "${NOT_SET}"}}, "answering": {"chain": ["echo"]}}

    assert parse_config(data, {}).backends == {}


def test_overrides_come_from_the_environment_and_mistyped_ones_are_refused() -> None:
    data = {"channels": {"Ding": {"kind": "dingtalk", "client_id": "x", "client_secret": "file"}}}
    config = parse_config(data, {"GATEWAY_HTTP__PORT": "99", "GATEWAY_CHANNELS__DING__CLIENT_SECRET": "env"})
    channel = config.channels["Ding"]

    assert config.http.port == 99
    assert isinstance(channel, DingTalk)
    assert channel.client_secret.get_secret_value() == "env"
    assert "GATEWAY_HTP__PORT" in fault({}, GATEWAY_HTP__PORT="1")
    assert "http.portt" in fault({}, GATEWAY_HTTP__PORTT="1")


def test_no_error_shows_a_value() -> None:
    text = fault({"channels": {"d": {"kind": "dingtalk", "client_id": ["sk-LEAK"], "client_secret": {"x": "sk-LEAK"}}}})

    assert "LEAK" not in text


def test_comments_are_welcome_in_both_ways(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{\n // a comment\n "// port": "another", "http": {"port": 81,},\n}', encoding="utf-8")

    assert read_config(path, {}).http.port == 81


@pytest.mark.parametrize(("text", "word"), [("{", "not valid JSON"), ("[]", "one JSON object")])
def test_a_broken_file_is_named(tmp_path: Path, text: str, word: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text, encoding="utf-8")

    with pytest.raises(ConfigError, match=word):
        read_config(path, {})


def test_a_missing_file_tells_what_to_copy(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.example\.json"):
        read_config(tmp_path / "nothing.json", {})


def test_the_pinned_shape_of_the_design_is_accepted_where_its_features_exist() -> None:
    data = {
        "channels": {
            "wechat": {
                "kind": "wechat", "transport": "itchat", "accept_ban_risk": True, "base_url": None, "auto_accept_friends": False,
                "private_prefix": [], "reply_prefix": "", "group": {"on_mention": True, "allow": ["*"]},
            },
            "dingtalk": {
                "kind": "dingtalk", "mode": "stream", "client_id": "${A}", "client_secret": "${B}",
                "openapi_base": "https://api.dingtalk.com", "oapi_base": "https://oapi.dingtalk.com", "card": {"enabled": False},
            },
            "official": {
                "kind": "official_account", "app_id": "${A}", "app_secret": "${B}", "token": "${A}",
                "encoding_aes_key": "${B}", "reply_mode": "passive", "api_base": "https://api.weixin.qq.com",
            },
        },
        "backends": {"gpt": {"kind": "openai", "model": "gpt-4o-mini", "api_key": "${B}", "base_url": None, "timeout_s": 120}},
        "answering": {"chain": ["gpt"], "system_prompt": "…", "temperature": 0.7, "max_output_tokens": 1024},
        "sessions": {
            "idle_timeout_s": 3600, "max_age_s": None, "scope": {"private": "person", "group": "member"},
            "clear_words": ["清空会话", "下一个问题"], "history_tokens": 6000,
        },
        "store": {"url": "sqlite:///data/gateway.db"},
        "http": {"host": "127.0.0.1", "port": 8080},
    }  # fmt: skip

    assert sorted(parse_config(data, {"A": "a" * 8, "B": "b" * 43}).channels) == ["dingtalk", "official", "wechat"]
