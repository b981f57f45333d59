"""Signatures, AES and XML of an official account's callback, also against everything that is not from WeChat."""

from __future__ import annotations

import base64
import string
import struct

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from hypothesis import given
from hypothesis import strategies as st

from gateway.channels.official_account.envelope import (
    AesKey,
    BadEnvelope,
    BrokenXml,
    Envelope,
    ForbiddenXml,
    cdata,
    read_shell,
    read_xml,
    signature,
)
from gateway.errors import ConfigError

KEY = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
OTHER_KEY = "GFEDCBA9876543210zyxwvutsrqponmlkjihgfedcba"
APP_ID = "wx1234567890abcdef"


def sealed_raw(plain: bytes) -> str:
    """`plain` encrypted as it is, without the padding that belongs there."""
    key = base64.b64decode(KEY + "=")
    encryptor = Cipher(AES(key), CBC(key[:16])).encryptor()
    return base64.b64encode(encryptor.update(plain) + encryptor.finalize()).decode()


@given(st.binary(max_size=300))
def test_what_was_sealed_opens_to_the_same_words(words: bytes) -> None:
    key = AesKey(KEY, APP_ID)

    assert key.open(key.seal(words)) == words


def test_the_same_words_are_never_sealed_alike() -> None:
    key = AesKey(KEY, APP_ID)

    assert key.seal(b"x") != key.seal(b"x")


def test_a_message_for_another_app_id_is_refused() -> None:
    sealed = AesKey(KEY, "wx0000000000000000").seal(b"<xml/>")

    with pytest.raises(BadEnvelope, match="another app id"):
        AesKey(KEY, APP_ID).open(sealed)


def test_a_message_under_another_key_is_refused() -> None:
    sealed = AesKey(OTHER_KEY, APP_ID).seal(b"<xml/>")

    with pytest.raises(BadEnvelope):
        AesKey(KEY, APP_ID).open(sealed)


@pytest.mark.parametrize(
    "sealed",
    [
        "",
        "not base64!",
        "QUJD",
        base64.b64encode(b"x" * 33).decode(),
        base64.b64encode(b"x" * 16).decode(),
        "é" * 44,
        sealed_raw(b"r" * 16 + struct.pack(">I", 5) + b"hello" + b"\x00" * 7),
        sealed_raw(b"r" * 16 + struct.pack(">I", 5) + b"hello" + b"\x21" * 7),
        sealed_raw(b"r" * 16 + struct.pack(">I", 4_000_000_000) + b"hello" + b"\x07" * 7),
        sealed_raw(b"r" * 15 + b"\x20" * 17),
    ],
    ids=["empty", "alphabet", "short", "odd", "one block", "not ascii", "pad 0", "pad 33", "length", "only padding"],
)
def test_a_malformed_ciphertext_is_refused(sealed: str) -> None:
    with pytest.raises(BadEnvelope):
        AesKey(KEY, APP_ID).open(sealed)


@given(st.integers(min_value=0, max_value=200), st.sampled_from(string.ascii_letters))
def test_no_changed_ciphertext_passes_the_signature(position: int, letter: str) -> None:
    envelope = Envelope(token="tok", app_id=APP_ID, encoding_aes_keys=[KEY])
    sealed = envelope.keys[0].seal(b"<xml>" + b"x" * 100 + b"</xml>")
    signed = signature("tok", "1", "2", sealed)
    tampered = sealed[:position] + letter + sealed[position + 1 :]

    if tampered != sealed:
        with pytest.raises(BadEnvelope):
            envelope.open(tampered, msg_signature=signed, timestamp="1", nonce="2")


def test_the_previous_key_still_opens_and_seals_the_answer() -> None:
    envelope = Envelope(token="tok", app_id=APP_ID, encoding_aes_keys=[KEY, OTHER_KEY])
    sealed = AesKey(OTHER_KEY, APP_ID).seal(b"old")

    words, key = envelope.open(sealed, msg_signature=signature("tok", "1", "2", sealed), timestamp="1", nonce="2")

    assert words == b"old"
    assert AesKey(OTHER_KEY, APP_ID).open(key.seal(b"answer")) == b"answer"


def test_an_encrypted_message_without_any_key_names_the_repair() -> None:
    envelope = Envelope(token="tok", app_id=APP_ID)

    with pytest.raises(BadEnvelope, match="encoding_aes_key"):
        envelope.open("QUJD", msg_signature=signature("tok", "1", "2", "QUJD"), timestamp="1", nonce="2")


@pytest.mark.parametrize("given_signature", ["", "0" * 40, "签名"])
def test_a_wrong_signature_is_told_from_the_right_one(given_signature: str) -> None:
    envelope = Envelope(token="tok", app_id=APP_ID)

    assert envelope.signs(signature("tok", "1", "2"), timestamp="1", nonce="2")
    assert not envelope.signs(given_signature, timestamp="1", nonce="2")


@pytest.mark.parametrize("key", ["", "short", KEY + "x", "é" * 43, "!" * 43])
def test_a_key_that_is_none_is_refused_with_its_repair(key: str) -> None:
    with pytest.raises(ConfigError, match="43 characters of EncodingAESKey"):
        AesKey(key, APP_ID)


def test_only_elements_right_below_the_root_are_read() -> None:
    fields = read_xml(b"<xml><A>1</A><B><C>2</C>x</B><D><![CDATA[3]]>4</D><E/></xml>")

    assert fields == {"A": "1", "B": "x", "D": "34", "E": ""}


@pytest.mark.parametrize(
    "body",
    [
        b'<!DOCTYPE xml [<!ENTITY a "b">]><xml><A>&a;</A></xml>',
        b'<!DOCTYPE xml SYSTEM "file:///etc/passwd"><xml/>',
        b'<?xml version="1.0"?><!DOCTYPE xml [<!ENTITY a SYSTEM "http://127.0.0.1/">]><xml><A>&a;</A></xml>',
    ],
)
def test_a_document_type_is_forbidden(body: bytes) -> None:
    with pytest.raises(ForbiddenXml):
        read_xml(body)


@pytest.mark.parametrize("body", [b"", b"{}", b"<xml>", b"<xml><A>&b;</A></xml>", b"<xml><A>&#8;</A></xml>", b"<xml/><xml/>"])
def test_what_is_not_xml_is_broken(body: bytes) -> None:
    with pytest.raises(BrokenXml):
        read_xml(body)


def test_control_characters_and_broken_utf8_do_not_silence_a_message() -> None:
    assert read_xml(b"<xml><A><![CDATA[a\x08\x00b\xef\xbf\xbf]]></A></xml>") == {"A": "ab"}
    assert read_xml(b"<xml><A><![CDATA[a\xe4\xbd]]></A></xml>") == {"A": "a\ufffd"}


def test_a_declared_encoding_is_not_believed() -> None:
    assert read_xml('<?xml version="1.0" encoding="gbk"?><xml><A>你</A></xml>'.encode()) == {"A": "你"}


@pytest.mark.parametrize(
    "body",
    [
        b"<xml><ToUserName><![CDATA[gh_1]]></ToUserName><Encrypt><![CDATA[QUJD]]></Encrypt></xml>",
        b"<xml>\n  <ToUserName><![CDATA[gh_1]]></ToUserName>\n  <Encrypt><![CDATA[QUJD]]></Encrypt>\n</xml>\n",
        b"<xml><Encrypt>QUJD</Encrypt></xml>",
        b"<xml><MsgType>text</MsgType><Encrypt><![CDATA[QUJD]]></Encrypt></xml>",
    ],
)
def test_the_quick_reader_of_shells_finds_what_the_careful_one_finds(body: bytes) -> None:
    assert read_shell(body)["Encrypt"] == read_xml(body)["Encrypt"] == "QUJD"


def test_the_quick_reader_of_shells_forbids_a_document_type_too() -> None:
    with pytest.raises(ForbiddenXml):
        read_shell(b"<!DOCTYPE xml><xml><ToUserName><![CDATA[a]]></ToUserName><Encrypt><![CDATA[QUJD]]></Encrypt></xml>")


@given(st.text())
def test_any_text_survives_as_cdata(text: str) -> None:
    fields = read_xml(f"<xml><A>{cdata(text)}</A></xml>".encode())

    assert fields["A"] == cdata(text)[9:-3].replace("]]]]><![CDATA[>", "]]>").replace("\r\n", "\n").replace("\r", "\n")
