"""Every sentence the gateway itself says to a person in a chat, in Chinese and English."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.messages import Lang


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence in both languages; `{name}` marks a gap."""

    zh: str
    en: str


SENTENCES: Mapping[str, Sentence] = {
    # Why there is no answer
    "failed": Sentence(
        "抱歉，处理这条消息时出错了，已经记录下来。请再试一次。",
        "Sorry, something went wrong with this message. It was noted. Please try again.",
    ),
    "refused": Sentence("抱歉，这条消息不能处理。", "Sorry, this message cannot be answered."),
    "busy": Sentence("现在排队的消息太多了，请稍等一会儿再发。", "Too many messages are waiting right now. Please try again in a moment."),
    "queued": Sentence(
        "收到，前面还有消息在处理，您排在第 {number} 位。", "Got it. Others are being answered first; you are number {number}."
    ),
    "too_long": Sentence("这条消息太长了，请分成几段发给我。", "This message is too long. Please send it in smaller parts."),
    "unsupported": Sentence("抱歉，我目前只能看懂文字消息。", "Sorry, I can only read text messages at the moment."),
    "ended_without_words": Sentence("这条消息没有得到回答（{reason}）。", "This message got no answer ({reason})."),
    "empty_message": Sentence("请把问题和我的名字写在同一条消息里。", "Please write your question in the same message that calls me."),
    "backend_failed": Sentence("抱歉，模型没有给出回答，请稍后再试。", "Sorry, the model gave no answer. Please try again later."),
    "backend_unreachable": Sentence(
        "抱歉，现在连不上模型服务，请稍后再试。", "Sorry, the model cannot be reached right now. Please try again later."
    ),
    "backend_timeout": Sentence("抱歉，模型太久没有回答，请再问一次。", "Sorry, the model took too long. Please ask again."),
    "backend_misconfigured": Sentence(
        "抱歉，模型服务的设置有问题，管理员需要检查一下。", "Sorry, the model is not set up correctly. The operator needs to look at it."
    ),
    "rate_limited": Sentence(
        "模型服务现在请求太多或额度用完了，请过一会儿再试。", "The model takes no more requests right now. Please try again in a while."
    ),
    "backend_overloaded": Sentence("模型服务暂时繁忙，请稍后再试。", "The model is overloaded right now. Please try again in a moment."),
    "broken_answer": Sentence("抱歉，模型的回答无法读取，请再试一次。", "Sorry, the model's answer could not be read. Please try again."),
    "truncated_answer": Sentence("抱歉，回答在中途断了，请再问一次。", "Sorry, the answer broke off. Please ask again."),
    "empty_answer": Sentence(
        "模型这次没有说出任何内容，请换个说法再问一次。", "The model had nothing to say this time. Please ask in other words."
    ),
    "content_filtered": Sentence(
        "这个问题被模型服务的内容审核拦下了，请换个说法。", "The provider's content filter stopped this. Please ask in other words."
    ),
    "context_too_long": Sentence(
        "对话太长，模型装不下了。发送 /new 开始新会话再问。", "The conversation no longer fits the model. Send /new and ask again."
    ),
    "store_failed": Sentence("抱歉，暂时无法保存消息，请稍后再试。", "Sorry, messages cannot be stored right now. Please try again later."),
    "broke_off": Sentence("（回答在这里中断了：{reason}）", "(The answer breaks off here: {reason})"),
    "cut_short": Sentence(
        "（回答达到长度上限，发送“继续说”可让我接着说）", "(The length limit was reached; send “go on” and I will continue)"
    ),
    # Sessions
    "farewell": Sentence("这次对话已经结束，随时可以重新开始。", "This conversation has ended. You can start a new one at any time."),
    "cleared": Sentence(
        "好的，之前的对话已经清空，请开始新的问题。", "Done: the conversation so far is forgotten. Go ahead with a new question."
    ),
    "stopped": Sentence("好的，已经停止。", "Stopped."),
    "nothing_to_stop": Sentence("现在没有正在生成的回答。", "There is no answer in the making."),
    "was_stopped": Sentence("（已停止）", "(stopped)"),
    # Answers that come later or in parts
    "placeholder": Sentence("还在思考中……请稍后回复“继续”查看回答。", "Still thinking… Please reply “继续” in a moment to get the answer."),
    "more": Sentence("（未完，回复“继续”）", "(More: reply “继续”)"),
    "nothing_parked": Sentence("没有未读完的回答了。", "There is nothing more to read."),
    # The handbook
    "handbook_source": Sentence("出处：{page}「{heading}」", "Source: {page}, “{heading}”"),
    "handbook_note": Sentence(
        "（我是网关自带的手册，没有接入模型。想用模型：在 config.json 的 backends 里加一个 kind 为 openai 的条目，"
        "再把它的名字放到 answering.chain 的最前面。）",
        "(I am the gateway's handbook; no model is connected. To connect one, add an entry of kind openai to backends in config.json"
        " and put its name first in answering.chain.)",
    ),
    "handbook_nothing": Sentence("手册里没有找到相关内容。可以问我这些：", "The handbook says nothing about that. You can ask me about:"),
    # Commands
    "unknown_command": Sentence(
        "没有 {command} 这个命令。{near}发送 /help 查看全部命令。", "There is no command {command}. {near}Send /help to see all of them."
    ),
    "did_you_mean": Sentence("你是不是想发 {command}？", "Did you mean {command}? "),
    "help_head": Sentence("直接写出你的问题就可以。命令：", "Just write your question. Commands:"),
    "help_new": Sentence("开始新会话，忘掉之前的内容", "start a new conversation, forget the old one"),
    "help_clear": Sentence("清空会话（同 /new）", "forget the conversation (same as /new)"),
    "help_context": Sentence("看看我还记得多少", "what I still remember"),
    "help_stop": Sentence("停止正在生成的回答", "stop the answer in the making"),
    "help_why": Sentence("上一条消息为什么是这个结果", "why the last message ended as it did"),
    "help_help": Sentence("这份说明", "this page"),
    "context": Sentence(
        "本次会话：{exchanges} 轮对话，约 {tokens} 个 token（上限 {limit}）。{ends}",
        "This conversation: {exchanges} exchanges, about {tokens} tokens (limit {limit}). {ends}",
    ),
    "context_ends": Sentence("如果不再说话，{minutes} 分钟后自动结束。", "If nothing more is said it ends in {minutes} minutes."),
    "context_empty": Sentence(
        "现在没有上下文，下一个问题会开始新会话。", "Nothing is remembered; your next question starts a new conversation."
    ),
    "why_none": Sentence("还没有可以说明的消息。", "There is no earlier message to explain."),
    "why_running": Sentence(
        "上一条消息还在处理中（{state}）。编号 {message}", "The last message is still being worked on ({state}). Id {message}"
    ),
    "why_closed": Sentence("上一条消息：{outcome}（{reason}）。编号 {message}", "The last message: {outcome} ({reason}). Id {message}"),
    # Alarms, told to the operator's people: what is wrong (`trouble_…`) and what to do (`help_…`), by `TroubleKind`
    "alarm_begun": Sentence("⚠️ {what}（从 {since} 起）。{help}\n详情：{cause}", "⚠️ {what} (since {since}). {help}\nDetails: {cause}"),
    "alarm_over": Sentence("✅ 已恢复，历时约 {minutes} 分钟：{what}。", "✅ Resolved after about {minutes} min: {what}."),
    "alarm_more": Sentence("另有 {count} 条，请看 /readyz。", "And {count} more; see /readyz."),
    "trouble_channel_down": Sentence("渠道 {part} 收不到消息", "Channel {part} cannot hear messages"),
    "help_channel_down": Sentence(
        "请检查网络和这个渠道的凭证（gateway doctor）。", "Check the network and the channel's credentials (gateway doctor)."
    ),
    "trouble_channel_flaps": Sentence("渠道 {part} 反复断线", "Channel {part} loses its connection again and again"),
    "help_channel_flaps": Sentence(
        "请检查网络和代理，并确认没有第二个网关在用同一个账号。",
        "Check the network and proxies, and that no second gateway uses the same account.",
    ),
    "trouble_needs_person": Sentence("渠道 {part} 需要人工处理", "Channel {part} needs a person"),
    "help_needs_person": Sentence(
        "要登录就按详情里的提示扫码；其他原因请修复后重启网关。",
        "For a sign-in scan the code that the details name; otherwise repair the cause and restart the gateway.",
    ),
    "trouble_silent": Sentence("渠道 {part} 看起来正常，却没有收到消息", "Channel {part} looks well but hears nothing"),
    "help_silent": Sentence(
        "请给机器人发一条消息试试；没有回复就检查平台后台的回调地址和应用状态，或重启网关。",
        "Write to the bot; if it does not answer, check the callback address and the app's state in the platform's console, or restart.",
    ),
    "trouble_store_down": Sentence("存储无法写入", "The store cannot be written"),
    "help_store_down": Sentence(
        "请检查磁盘（满了？只读？）或存储服务；恢复后网关会自动继续。",
        "Check the disk (full? read-only?) or the store's server; work goes on by itself.",
    ),
    "trouble_stuck": Sentence("有消息卡住了", "Messages are stuck"),
    "help_stuck": Sentence(
        "请用 gateway why 查看这条消息；重启网关会重新处理。", "Look at it with gateway why; a restart takes it up again."
    ),
    "trouble_failing": Sentence("太多消息没有得到正常回答", "Too many messages end badly"),
    "help_failing": Sentence("请用 gateway turns --state failed 查看原因。", "Look at the reasons with gateway turns --state failed."),
    "trouble_blocked": Sentence("网关进程曾停住不动", "The gateway's process stood still"),
    "help_blocked": Sentence("请检查机器负载、内存交换和插件。", "Check the machine's load, swapping and plugins."),
    "trouble_clock_jumped": Sentence("系统时间跳变", "The clock jumped"),
    "help_clock_jumped": Sentence(
        "请启用时间同步服务；时间不对时平台会拒绝请求。", "Let a time service keep the clock; platforms refuse wrong times."
    ),
    # Outcomes, for /why
    "outcome_answered": Sentence("已回答", "answered"),
    "outcome_ignored": Sentence("未处理", "ignored"),
    "outcome_duplicate": Sentence("重复消息", "duplicate"),
    "outcome_refused": Sentence("未受理", "refused"),
    "outcome_failed": Sentence("失败", "failed"),
    "outcome_expired": Sentence("已过期", "expired"),
    "outcome_unknown": Sentence("不确定是否送达", "not known whether it was shown"),
}


def say(sentence: str, lang: Lang, **gaps: object) -> str:
    """The sentence named `sentence` in `lang`, gaps filled. Raises KeyError for an unknown name."""
    found = SENTENCES[sentence]
    return (found.zh if lang == "zh" else found.en).format(**gaps)


def language_of(text: str, default: Lang = "zh") -> Lang:
    """Chinese when `text` has a Chinese character, English when it has only Latin letters, otherwise `default`."""
    if any("\u3400" <= character <= "\u9fff" for character in text):
        return "zh"
    return "en" if any(character.isascii() and character.isalpha() for character in text) else default
