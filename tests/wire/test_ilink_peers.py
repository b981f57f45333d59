"""The simulator is right when clients that we did not write work against it: openilink-sdk-python, and Tencent's own plug-in.

The SDK comes with requirements-dev, or from a folder made by `pip install --target` and named in `OPENILINK_SDK_PATH`. Tencent's plug-in
needs node and the unpacked package (`npm pack @tencent-weixin/openclaw-weixin@2.4.9`, `tar xzf`), named in `TENCENT_ILINK_PACKAGE`;
it runs unmodified, in a host of which only two helpers are stand-ins, and with its fixed address led to the simulator.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.simulators import ilink_faults as at
from gateway.simulators.ilink import ILinkSimulator
from gateway.simulators.ilink_faults import ILinkFaults

SDK_PATH = os.environ.get("OPENILINK_SDK_PATH", "")  # Read now: every test starts with a clean environment.
PLUGIN = os.environ.get("TENCENT_ILINK_PACKAGE", "")

PLUGIN_RUN = """
import fs from "node:fs";
const [base, picture] = process.argv.slice(2);
const original = globalThis.fetch;
globalThis.fetch = (url, options) => original(String(url).replace("https://ilinkai.weixin.qq.com", base), options);
const tell = (name, value) => fs.appendFileSync("told.jsonl", JSON.stringify([name, value ?? null]) + "\\n");

const api = await import("./package/dist/src/api/api.js");
const login = await import("./package/dist/src/auth/login-qr.js");
const { sendMessageWeixin, sendImageMessageWeixin } = await import("./package/dist/src/messaging/send.js");
const { uploadFileToWeixin } = await import("./package/dist/src/cdn/upload.js");
const { downloadAndDecryptBuffer } = await import("./package/dist/src/cdn/pic-decrypt.js");

const started = await login.startWeixinLoginWithQr({});
const found = await login.waitForWeixinLogin({ sessionKey: started.sessionKey, timeoutMs: 20000 });
tell("login", found);
const opts = { baseUrl: found.baseUrl, token: found.botToken };
tell("start", await api.notifyStart(opts));
let buf = "";
let message;
while (!message) {
  const updates = await api.getUpdates({ ...opts, get_updates_buf: buf });
  buf = updates.get_updates_buf;
  message = updates.msgs?.[0];
}
tell("message", message);
const context = { ...opts, contextToken: message.context_token };
const to = message.from_user_id;
tell("early", (await api.getConfig({ ...opts, ilinkUserId: to, contextToken: "wrong" })).ret);
const config = await api.getConfig({ ...opts, ilinkUserId: to, contextToken: message.context_token });
await api.sendTyping({ ...opts, body: { ilink_user_id: to, typing_ticket: config.typing_ticket, status: 1 } });
tell("sent", await sendMessageWeixin({ to, text: "收到：" + message.item_list[0].text_item.text, opts: context }));
const uploaded = await uploadFileToWeixin({ filePath: picture, toUserId: to, opts, cdnBaseUrl: base + "/cdn" });
const key = Buffer.from(uploaded.aeskey).toString("base64");
const back = await downloadAndDecryptBuffer(uploaded.downloadEncryptedQueryParam, key, base + "/cdn", "test");
tell("picture", back.equals(fs.readFileSync(picture)));
tell("image", await sendImageMessageWeixin({ to, text: "", uploaded, opts: context }));
try {
  for (;;) await sendMessageWeixin({ to, text: "更多", opts: context });
} catch (error) {
  tell("refused", String(error));
}
tell("stop", await api.notifyStop(opts));
tell("stale", await api.getUpdates({ ...opts, token: "wrong", get_updates_buf: buf }));
process.exit(0);
"""


@pytest.fixture
async def simulator() -> AsyncIterator[ILinkSimulator]:
    simulator = ILinkSimulator(faults=ILinkFaults(hold_s=0.5))
    async with simulator.running():
        yield simulator


@pytest.fixture
def openilink() -> Any:
    if SDK_PATH and SDK_PATH not in sys.path:
        sys.path.append(SDK_PATH)
    return pytest.importorskip(
        "openilink", reason="the peer is missing: pip install openilink-sdk-python==0.1.1, or set OPENILINK_SDK_PATH"
    )


async def test_openilink_signs_in_hears_and_answers(simulator: ILinkSimulator, openilink: Any) -> None:
    client = openilink.Client("", base_url=simulator.base_url)
    codes: list[str] = []
    result = await asyncio.to_thread(client.login_with_qr, openilink.LoginCallbacks(on_qrcode=codes.append))
    heard: list[str] = []

    def handle(message: Any) -> None:
        text = message.item_list[0].text_item.text
        heard.append(text)
        client.push(message.from_user_id, f"收到：{text}")

    listener = threading.Thread(target=client.monitor, args=(handle,), daemon=True)
    listener.start()
    await simulator.say(sender="小明", text="你好")
    await simulator.say(sender="小明", text="再见")
    shown = await simulator.wait_for_shown(2)
    client.stop()
    await asyncio.to_thread(listener.join, 10)

    assert result.connected
    assert codes[0].startswith("https://liteapp.weixin.qq.com/")
    assert heard == ["你好", "再见"]
    assert [one.text for one in shown] == ["收到：你好", "收到：再见"]
    assert not listener.is_alive()


async def test_openilink_is_told_when_its_token_is_stale(simulator: ILinkSimulator, openilink: Any) -> None:
    client = openilink.Client("not a token", base_url=simulator.base_url)
    updates = await asyncio.to_thread(client.get_updates, "")
    assert -14 in (updates.ret, updates.errcode)


async def test_openilink_shows_that_it_types(simulator: ILinkSimulator, openilink: Any) -> None:
    bot = simulator.sign_in("小明")
    client = openilink.Client(bot.token, base_url=simulator.base_url)
    await simulator.say(sender="小明", text="你好")
    updates = await asyncio.to_thread(client.get_updates, "")
    [message] = updates.msgs
    config = await asyncio.to_thread(client.get_config, message.from_user_id, message.context_token)
    await asyncio.to_thread(client.send_typing, message.from_user_id, config.typing_ticket)
    refused = await asyncio.to_thread(client.get_config, message.from_user_id, "wrong")

    assert bot.typing == [1]
    assert refused.ret == -4


@pytest.mark.slow
async def test_tencents_own_plugin_signs_in_hears_answers_and_sends_a_picture(simulator: ILinkSimulator, tmp_path: Path) -> None:
    node = shutil.which("node")
    if not PLUGIN or node is None:
        pytest.skip("the peer is missing: install node and name the unpacked @tencent-weixin/openclaw-weixin in TENCENT_ILINK_PACKAGE")
    simulator.faults.qr_states = ["wait", "expired", "scaned"]
    picture = tmp_path / "picture.png"
    picture.write_bytes(os.urandom(1000))
    _host(tmp_path)
    simulator.sign_in("小明")
    await simulator.say(sender="小明", text="你好")
    process = await asyncio.create_subprocess_exec(
        node,
        str(tmp_path / "run.mjs"),
        simulator.base_url,
        str(picture),
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "OPENCLAW_STATE_DIR": str(tmp_path / "state")},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        _, errors = await process.communicate()

    assert process.returncode == 0, errors.decode()[-2000:]
    told = dict(json.loads(line) for line in (tmp_path / "told.jsonl").read_text().splitlines())
    assert told["login"]["connected"]
    assert told["start"]["ret"] == told["stop"]["ret"] == 0
    assert int(told["message"]["message_id"]) > 2**53
    assert told["early"] == -4
    assert told["sent"]["serverMessageId"]
    assert told["picture"] is True
    assert told["image"]["serverMessageId"]
    assert "ret=-2" in told["refused"]
    assert -14 in (told["stale"].get("ret"), told["stale"].get("errcode"))
    texts = [shown.text for shown in simulator.shown]
    assert texts == ["收到：你好", "[2]", *["更多"] * 8]
    image = simulator.calls(at.SEND)[1]["msg"]["item_list"][0]["image_item"]
    assert image["mid_size"] == 1008


def _host(folder: Path) -> None:
    """A folder in which the plug-in finds what it expects of its host."""
    shutil.copytree(PLUGIN, folder / "package")
    host = folder / "node_modules" / "openclaw"
    host.mkdir(parents=True)
    exports = {"./plugin-sdk/account-id": "./account-id.js", "./plugin-sdk/infra-runtime": "./infra-runtime.js"}
    (host / "package.json").write_text(json.dumps({"name": "openclaw", "version": "2026.8.1", "type": "module", "exports": exports}))
    (host / "account-id.js").write_text("export const normalizeAccountId = (id) => id;\n")
    helpers = (
        f"export const resolvePreferredOpenClawTmpDir = () => {json.dumps(str(folder))};",
        "export const withFileLock = (path, options, run) => run();",
    )
    (host / "infra-runtime.js").write_text("\n".join(helpers))
    (folder / "run.mjs").write_text(PLUGIN_RUN)
