"""The configuration: typed sections, read once, never changed. Every error names the key and the repair, never a value."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, StringConstraints, model_validator

Name: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,40}$")]
"""Of a channel or a backend: letters, digits, `_` and `-`; it stands in paths and in the ledger."""
Seconds: TypeAlias = Annotated[float, Field(gt=0)]


def _http_url(value: str | None) -> str | None:
    if value is not None and not value.startswith(("http://", "https://")):
        raise ValueError("must begin with http:// or https://")
    return value.rstrip("/") if value else value


HttpUrl: TypeAlias = Annotated[str | None, AfterValidator(_http_url)]


class Section(BaseModel):
    """What all sections share: unknown keys are refused, values are fixed, secrets do not show in errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, validate_default=False)


class GroupRules(Section):
    """When a personal WeChat account speaks in groups."""

    on_mention: bool = Field(True, description="Answer in a group when somebody writes @ and the bot's name.")
    aliases: tuple[str, ...] = Field((), description="Further names that call the bot, besides its own.")
    allow: tuple[str, ...] = Field(("*",), description="Names of the groups it speaks in; `*` means every group.")


class ChannelSection(Section):
    """What all channels share."""

    enabled: bool = Field(True, description="false switches the channel off without deleting its section.")


class WeChat(ChannelSection):
    """A personal WeChat account."""

    kind: Literal["wechat"]
    transport: Literal["itchat", "ilink"] = Field(
        "itchat",
        description="`ilink`: Tencent's bot interface, private chats only. `itchat`: the web protocol, groups too, can get you banned.",
    )
    accept_ban_risk: bool = Field(
        False, description="Must be true for `itchat`: Tencent warns and bans accounts that use it. Never use an account you need."
    )
    base_url: HttpUrl = Field(None, description="Another platform, e.g. the simulator; null is WeChat's own address.")
    auto_accept_friends: bool = Field(
        False, description="Accept friend requests, at most one in 30 s and 20 a day; adding friends is a strong ban trigger."
    )
    cdn_base_url: HttpUrl = Field(None, description="`ilink`: where pictures and files lie; null is Tencent's own address.")
    fetch_words: tuple[str, ...] = Field(("继续", "continue"), description="`ilink`: what a person sends to read an answer that waits.")
    private_prefix: tuple[str, ...] = Field(
        (), description="In private chats answer only what begins with one of these; empty answers everything."
    )
    reply_prefix: str = Field("", description="Put on a line of its own before answers in private chats.")
    group: GroupRules = Field(default_factory=GroupRules, description="When to speak in groups.")
    state_file: str | None = Field(None, description="Where the login is kept (mode 0600); null is `data/wechat-NAME.json`.")

    @model_validator(mode="after")
    def _risk_accepted(self) -> WeChat:
        if self.transport == "itchat" and not self.accept_ban_risk and self.enabled:
            raise ValueError("set accept_ban_risk to true to use the itchat transport: Tencent warns and bans accounts that use it")
        return self


class NoCard(Section):
    """Streaming cards, which this version does not have."""

    enabled: Literal[False] = Field(False, description="Only false in this version: answers are sent as Markdown.")


class DingTalk(ChannelSection):
    """A DingTalk bot."""

    kind: Literal["dingtalk"]
    mode: Literal["stream", "http"] = Field(
        "stream", description="`stream`: over a socket that the gateway opens, no public address needed. `http`: posted to /dingtalk/NAME."
    )
    client_id: Annotated[str, StringConstraints(min_length=1)] = Field(description="AppKey / Client ID of the app.")
    client_secret: SecretStr = Field(description="AppSecret / Client Secret of the app.")
    openapi_base: HttpUrl = Field("https://api.dingtalk.com", description="DingTalk's API; another platform or the simulator may stand in.")
    oapi_base: HttpUrl = Field("https://oapi.dingtalk.com", description="DingTalk's older API, where session webhooks live.")
    monthly_calls: int | None = Field(5000, ge=0, description="API calls a month that may be used; 0 never calls, null is no limit.")
    calls_per_second: int = Field(18, ge=1, description="API calls a second; DingTalk allows standard organisations 20.")
    card: NoCard = Field(default_factory=NoCard, description="Streaming cards.")


class OfficialAccount(ChannelSection):
    """A WeChat official account, answered passively."""

    kind: Literal["official_account"]
    app_id: Annotated[str, StringConstraints(min_length=1)] = Field(description="AppID of the account.")
    token: SecretStr = Field(description="Token of the server configuration, 3 to 32 letters and digits.")
    encoding_aes_key: SecretStr | None = Field(None, description="EncodingAESKey, 43 characters; needed for compatible and safe mode.")
    previous_encoding_aes_key: SecretStr | None = Field(None, description="The key before a change; both are accepted.")
    encryption: Literal["plain", "compatible", "safe"] | None = Field(
        None, description="Mode of the server configuration; null is `safe` when a key is set, else `plain`."
    )
    app_secret: SecretStr | None = Field(None, description="AppSecret; passive mode never uses it, so it may stay empty.")
    api_base: HttpUrl = Field("https://api.weixin.qq.com", description="WeChat's API; passive mode never calls it.")
    reply_mode: Literal["passive"] = Field("passive", description="Answer inside the platform's request; works for every account.")
    welcome: str | None = Field(None, description="What a new follower is told; null says nothing.")
    fetch_words: tuple[str, ...] = Field(("继续", "continue"), description="What a follower sends to read a late answer or the next part.")

    @model_validator(mode="after")
    def _key_for_encryption(self) -> OfficialAccount:
        if self.encryption in ("compatible", "safe") and self.encoding_aes_key is None:
            raise ValueError(f"encryption {self.encryption!r} needs encoding_aes_key")
        return self

    @property
    def mode(self) -> Literal["plain", "compatible", "safe"]:
        """`encryption`, or what follows from the key."""
        return self.encryption or ("safe" if self.encoding_aes_key else "plain")


class WeComBot(ChannelSection):
    """A WeCom intelligent bot over its long connection."""

    kind: Literal["wecom_bot"]
    bot_id: Annotated[str, StringConstraints(min_length=1)] = Field(description="Bot ID, from the bot's API settings.")
    secret: SecretStr = Field(description="Secret of the long connection, from the same page.")
    base_url: str = Field("wss://openws.work.weixin.qq.com", description="WeCom's address; the simulator may stand in.")
    bot_name: str = Field("", description="The bot's name as people see it, taken out of group messages.")
    welcome: str | None = Field(None, description="Said when somebody opens the chat for the first time on a day; null says nothing.")


class DingTalkWebhook(ChannelSection):
    """A DingTalk group robot that only speaks."""

    kind: Literal["dingtalk_webhook"]
    url: SecretStr = Field(description="The robot's webhook address, access_token included.")
    secret: SecretStr | None = Field(
        None, description="The robot's signing secret (SEC…); null when it is protected by a key word or by address."
    )
    oapi_base: HttpUrl = Field("https://oapi.dingtalk.com", description="DingTalk's older API, where robots live.")
    keyword: str = Field("", description="The key word that its messages must hold, if it was set up with one.")


class Terminal(ChannelSection):
    """A person at the terminal that started the gateway."""

    kind: Literal["terminal"]


class Api(ChannelSection):
    """Programs that POST to /api/v1/messages."""

    kind: Literal["api"]
    tokens: tuple[SecretStr, ...] = Field(min_length=1, description="Bearer tokens, one per program; each has sessions of its own.")
    timeout_s: Seconds = Field(180, description="How long a request is held open for its answer.")


AnyChannel: TypeAlias = Annotated[
    WeChat | DingTalk | DingTalkWebhook | OfficialAccount | WeComBot | Terminal | Api, Field(discriminator="kind")
]


class OpenAI(Section):
    """A server that speaks the OpenAI Chat Completions API."""

    kind: Literal["openai"]
    model: Annotated[str, StringConstraints(min_length=1)] = Field(description="Name of the model, as the server knows it.")
    api_key: SecretStr = Field(SecretStr(""), description="The key; a server of your own may need none.")
    base_url: HttpUrl = Field(None, description="Address of a compatible server, usually ending in /v1; null is OpenAI's.")
    timeout_s: Seconds = Field(120, description="Longest time for a whole answer.")
    stall_s: Seconds = Field(60, description="Longest silence inside an answer.")
    retries: int = Field(2, ge=0, le=10, description="How often a failed request is tried again before any word came.")
    extra_body: dict[str, Any] = Field(default_factory=dict, description="Further fields for the request, as the server documents them.")


class Handbook(Section):
    """Answers from the gateway's own documentation, without a model."""

    kind: Literal["handbook"]


class Echo(Section):
    """Answers with the question."""

    kind: Literal["echo"]


AnyBackend: TypeAlias = Annotated[OpenAI | Handbook | Echo, Field(discriminator="kind")]


class AnsweringSection(Section):
    """How questions are answered."""

    chain: tuple[Name, ...] = Field(("handbook",), min_length=1, description="Backends by name, tried in this order.")
    system_prompt: str = Field("", description="What the model is told about its task before every conversation.")
    temperature: float | None = Field(None, ge=0, le=2, description="null leaves it to the server.")
    max_output_tokens: int | None = Field(None, ge=1, description="Longest answer; null leaves it to the server.")
    show_reasoning: bool = Field(False, description="Show what a reasoning model thinks before it answers.")
    language: Literal["auto", "zh", "en"] = Field("auto", description="Language of the gateway's own sentences; `auto` follows the person.")
    max_message_chars: int = Field(8000, ge=1, description="Longer messages are refused with a sentence.")
    on_unknown: Literal["leave", "resend"] = Field(
        "leave", description="What to do with an answer that may or may not have been shown when the gateway died."
    )
    max_replay_age_s: Seconds = Field(600, description="Messages older than this are not answered after a restart.")


class ScopeSection(Section):
    """Who shares a conversation."""

    private: Literal["person"] = Field("person", description="In private chats each person has one.")
    group: Literal["member", "group", "thread"] = Field(
        "member", description="In groups: each member has one, the group shares one, or each thread has one."
    )


class Sessions(Section):
    """How long a conversation is remembered."""

    idle_timeout_s: Seconds | None = Field(3600, description="It ends this long after the last word; null never.")
    max_age_s: Seconds | None = Field(None, description="It ends this long after its first word, however busy; null never.")
    scope: ScopeSection = Field(default_factory=ScopeSection, description="Who shares a conversation.")
    clear_words: tuple[str, ...] = Field(
        ("清空会话", "下一个问题"), description="A message that is one of these starts a new conversation."
    )
    merge_window_ms: int = Field(
        0, ge=0, le=10_000, description="Messages that one person sends within this time after each other are answered as one; 0 never."
    )
    history_tokens: int = Field(6000, ge=0, description="How much of a conversation the model sees, question included.")
    farewell: bool = Field(False, description="Say goodbye when a conversation ends by itself, where the platform allows it.")


class CommandsSection(Section):
    """The commands that people can send."""

    prefixes: tuple[str, ...] = Field(("/", "#"), min_length=1, description="What a command begins with.")


class StoreSection(Section):
    """Where turns and conversations are kept."""

    url: Annotated[str, StringConstraints(pattern=r"^(sqlite:///.+|memory://.*|rediss?(\+sentinel)?://.+|unix://.+)$")] = Field(
        "sqlite:///data/gateway.db",
        description="`sqlite:///PATH`; `redis://…`, `rediss://…`, `redis+sentinel://…` for several gateways; `memory://` forgets.",
    )
    connect_timeout_s: Seconds = Field(30, description="How long a Redis server is waited for at the start.")
    lease_s: float = Field(6, ge=1, le=300, description="Redis: a gateway silent for this long counts as dead; others take over.")
    keep_days: float | None = Field(30, gt=0, description="Ended turns are forgotten after so many days; null keeps them.")
    durability: Literal["process", "power"] = Field(
        "process", description="`power` also survives a power cut, at the cost of a disk flush per commit."
    )


class Plugins(Section):
    """Plugins, which this version does not have."""

    folder: str = Field("plugins", description="Where plugins will live.")
    enabled: tuple[Name, ...] = Field((), max_length=0, description="Only empty in this version.")


class Http(Section):
    """The one HTTP listener."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8080, ge=0, le=65535, description="Port to listen on; 0 picks a free one and prints it.")
    trust_network: bool = Field(
        False,
        description="Must be true to listen beyond loopback: callbacks, health and metrics are then open to that network.",
    )

    @model_validator(mode="after")
    def _loopback_unless_trusted(self) -> Http:
        if not (self.trust_network or self.host in ("localhost", "::1") or self.host.startswith("127.")):
            raise ValueError(
                f"host {self.host} is not loopback and no console password is set: set trust_network to true when a firewall or a reverse "
                "proxy stands before it"
            )
        return self


class Queue(Section):
    """How much may wait."""

    per_conversation: int = Field(20, ge=1, description="Messages that may wait in one conversation.")
    total: int = Field(2000, ge=1, description="Messages that may wait in all.")
    notice_after_s: Seconds | None = Field(
        5, description="Whoever waits this long behind others is told his number, where the platform allows it; null never."
    )
    running: int = Field(500, ge=1, description="Messages that are worked on at once.")


class Logging(Section):
    """What is written to the log."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="The least important lines to write.")
    format: Literal["text", "json"] = Field("text", description="`json` writes one object per line.")


class AdminSection(Section):
    """One of the operator's people."""

    channel: Name = Field(description="A channel of this configuration.")
    sender: Annotated[str, StringConstraints(min_length=1)] = Field(description="The platform's id of the person there, never a nickname.")


class Alarms(Section):
    """Who is told when something is wrong."""

    to: tuple[AdminSection, ...] = Field(
        (), description="Tried in this order, first on channels that work. Each must have written to the bot once."
    )
    again_after_s: Seconds = Field(3600, description="The same trouble is not told again before this time.")


class Config(Section):
    """The whole configuration."""

    channels: dict[Name, AnyChannel] = Field(default_factory=dict, description="Accounts by a name of your own.")
    backends: dict[Name, AnyBackend] = Field(default_factory=dict, description="What can answer, by a name of your own.")
    answering: AnsweringSection = Field(default_factory=AnsweringSection)
    sessions: Sessions = Field(default_factory=Sessions)
    commands: CommandsSection = Field(default_factory=CommandsSection)
    store: StoreSection = Field(default_factory=StoreSection)
    http: Http = Field(default_factory=Http)
    queue: Queue = Field(default_factory=Queue)
    plugins: Plugins = Field(default_factory=Plugins)
    alarms: Alarms = Field(default_factory=Alarms)
    logging: Logging = Field(default_factory=Logging)
    stop_timeout_s: Seconds = Field(20, description="How long the gateway finishes what runs when it is told to stop.")

    @model_validator(mode="after")
    def _admins_are_on_channels(self) -> Config:
        for admin in self.alarms.to:
            if admin.channel not in self.channels:
                raise ValueError(
                    f"alarms.to names channel {admin.channel!r}, which is not in channels ({', '.join(self.channels) or 'none'})"
                )
        return self

    @model_validator(mode="after")
    def _merging_is_local(self) -> Config:
        if self.sessions.merge_window_ms and self.store.url.startswith("redis"):
            raise ValueError("sessions.merge_window_ms works with one gateway on SQLite, not with a shared Redis store: set it to 0")
        return self

    @model_validator(mode="after")
    def _one_api(self) -> Config:
        apis = [name for name, section in self.channels.items() if isinstance(section, Api) and section.enabled]
        if len(apis) > 1:
            raise ValueError(f"channels {', '.join(apis)} would all serve /api/v1/messages: keep one and give it all their tokens")
        return self

    @model_validator(mode="after")
    def _chain_is_known(self) -> Config:
        known = {*self.backends, "handbook", "echo"}
        for name in self.answering.chain:
            if name not in known:
                raise ValueError(f"answering.chain names {name!r}, which is not in backends ({', '.join(sorted(known))})")
        return self
