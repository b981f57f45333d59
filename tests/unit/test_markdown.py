"""Markdown as models write it, shown where Markdown cannot be shown."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.channels.base import Markup
from gateway.rendering import render


def plain(text: str) -> str:
    return render(text, Markup.PLAIN)


def ding(text: str) -> str:
    return render(text, Markup.DINGTALK)


EMPHASIS = [
    ("**重点。**后文", "重点。后文"),
    ("**“中文”**你好", "“中文”你好"),
    ("这是**“重点”**吗", "这是“重点”吗"),
    ("**重点**后文", "重点后文"),
    ("前文**重点**", "前文重点"),
    ("**注意：**请先备份", "注意：请先备份"),
    ("**注意：** 请先备份", "注意： 请先备份"),
    ("**（必填）**姓名", "（必填）姓名"),
    ("姓名**（必填）**一栏", "姓名（必填）一栏"),
    ("**《三体》**是小说", "《三体》是小说"),
    ("我读过**《三体》**。", "我读过《三体》。"),
    ("**「引号」**测试", "「引号」测试"),
    ("**【公告】**今天休息", "【公告】今天休息"),
    ("**价格：¥100**元", "价格：¥100元"),
    ("共**50%**的人", "共50%的人"),
    ("**(英文括号)**后文", "(英文括号)后文"),
    ("用**`pip`**安装", "用pip安装"),
    ("**步骤一、**打开", "步骤一、打开"),
    ("**什么？**我不知道", "什么？我不知道"),
    ("**太好了！**谢谢", "太好了！谢谢"),
    ("**注意……**后文", "注意……后文"),
    ("**注意——**API 要密钥", "注意——API 要密钥"),
    ("前**A**后**B**尾", "前A后B尾"),
    ("**甲**：**乙**", "甲：乙"),
    ("*斜体。*后文", "斜体。后文"),
    ("这是*斜体*吗", "这是斜体吗"),
    ("***又粗又斜。***后文", "又粗又斜。后文"),
    ("~~旧价。~~新价", "旧价。新价"),
    ("**日本語。**です", "日本語。です"),
    ("**「日本」**は", "「日本」は"),
    ("**한국어(KR)**는", "한국어(KR)는"),
    ("**Python**3 很好", "Python3 很好"),
    ("使用**API（接口）**时", "使用API（接口）时"),
    ("**1. 打开设置：**点击", "1. 打开设置：点击"),
    ("**⚠️ 注意**：小心", "⚠️ 注意：小心"),
    ("**重点✅**后文", "重点✅后文"),
    ("**链接：[官网](https://a.cn)**后文", "链接：官网 (https://a.cn)后文"),
    ("__重点__ 后文", "重点 后文"),
    ("和__重点。__一样", "和重点。一样"),
    ("**跨\n行。**后文", "跨\n行。后文"),
    ("- **要点：**说明", "• 要点：说明"),
    ("“**重点**”后文", "“重点”后文"),
    ("**bold** and *italic* words", "bold and italic words"),
]


@pytest.mark.parametrize(("written", "shown"), EMPHASIS)
def test_emphasis_next_to_chinese_leaves_no_mark(written: str, shown: str) -> None:
    assert plain(written) == shown


@pytest.mark.parametrize("written", [written for written, _ in EMPHASIS if "**" in written and "\n" not in written])
def test_dingtalk_bold_opens_and_closes_by_the_strict_rule_too(written: str) -> None:
    """DingTalk's own parser is taken to be a strict one, so a blank is put where it would leak stars."""
    from markdown_it import MarkdownIt

    html = MarkdownIt("commonmark").render(ding(written))

    assert "<strong>" in html
    assert "*" not in html


UNHARMED = [
    "2*3*4=24",
    "x**2 + y**2 = z**2",
    "2 * 3 * 4",
    "a*b, c*d",
    "def f(*args, **kwargs): return x*y",
    "file_names_like_this and _private",
    "__init__.py 和 __main__",
    "#话题 今天天气",
    "#话题# 转发微博",
    "C:\\Users\\_new\\*.txt",
    "D:\\a_b\\[1]\\c",
    "\\\\server\\share_x\\_y",
    "$E=mc^2$ 和 $a_1 * b_2 * c_3$",
    "\\(x_1 * y_1 * z_1\\)",
    "\\[ \\frac{a}{b} * c_{1} * d \\]",
    "\\frac{a}{b}_{1} + \\frac{c}{d}_{2}",
    "SELECT COUNT(*) FROM a WHERE x IN (*)",
    "*.txt and *.md",
    "src/**/*.py tests/**/*.py",
    "https://a.com/_x_/y_z_?q=*",
    "if a < b and c > d: pass & done",
    "AT&T 和 R&D",
    "价格 $5 和 $10",
    "5~10 元",
    "^_^ 和 (*^_^*) (>_<) -_- (>_<)",
    "-5 度",
    "1.5 倍，2) 见下",
    "第一行\n第二行\n\n\n\n第三段",
    "def f():\n    return 2*3*4\n",
    "regex: \\d+\\.\\w* (\\s)",
    "　　全角缩进的一段 a*b",
    "[草稿] 明天见",
    "a | b | c",
    "curl x \\\n  -H y_z_",
    '<b>粗</b> <div class="a">',
    "😀*😀",
    '{"a_b": [1, 2], "c": "*"}',
]


@pytest.mark.parametrize("text", UNHARMED)
def test_text_without_markdown_comes_through_unharmed(text: str) -> None:
    assert plain(text) == text


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("# 标题", "【标题】"),
        ("##标题\n正文", "【标题】\n\n正文"),
        ("### **粗**标题 ###", "【粗标题】"),
        ("标题\n====\n正文", "【标题】\n\n正文"),
        ("一段话\n说完了\n---\n下一段", "一段话\n说完了\n\n————————\n\n下一段"),
        ("- 一\n- 二", "• 一\n• 二"),
        ("* 一\n  * 二\n    1. 三", "• 一\n  • 二\n    1. 三"),
        ("1. 一\n2. 二", "1. 一\n2. 二"),
        ("1. **一**\n1. 二", "1. 一\n2. 二"),
        ("3) **一**\n5) 二", "3) 一\n5) 二"),
        ("- [ ] 未做\n- [x] 已做", "☐ 未做\n☑ 已做"),
        ("1. 一\n\n   续 **a**\n2. 二", "1. 一\n\n   续 a\n\n2. 二"),
        ("> 引用\n> **二**", "│ 引用\n│ 二"),
        ("> 外\n>> 内", "│ 外\n│\n│ │ 内"),
        ("```python\n# 注释\nif a:\n    b *= 2\n```", "# 注释\nif a:\n    b *= 2"),
        ("- 步骤：\n  ```sh\n  ls *\n  ```\n- 完", "• 步骤：\n  ls *\n• 完"),
        ("用 `a*b*c` 和 ``x`y``", "用 a*b*c 和 x`y"),
        ("[官网](https://a.cn/x_y)", "官网 (https://a.cn/x_y)"),
        ("[https://a.cn](https://a.cn)", "https://a.cn"),
        ("<https://a.cn/b>", "https://a.cn/b"),
        ("<me@a.cn>", "me@a.cn"),
        ("[维基](https://zh.wikipedia.org/wiki/北京)", "维基 (https://zh.wikipedia.org/wiki/北京)"),
        ("![一只猫](https://a.cn/c.png)", "一只猫 (https://a.cn/c.png)"),
        ("![](https://a.cn/c.png)", "https://a.cn/c.png"),
        ("**x**\n***\n**y**", "x\n\n————————\n\ny"),
        ("&lt;b&gt; &amp; &copy;", "<b> & ©"),
        ("\\*不是斜体\\* file\\_name \\# 一", "*不是斜体* file_name # 一"),
        ("一  \n**二**\\\n三", "一\n二\n三"),
        ("~~删~~ 留", "删 留"),
        ("$$\na * b * c\n- d\n$$\n**e**", "$$\na * b * c\n- d\n$$\n\ne"),
    ],
)
def test_what_markdown_means_is_still_said_in_plain_text(written: str, shown: str) -> None:
    assert plain(written) == shown


def test_a_table_becomes_lines_that_a_phone_can_show() -> None:
    table = "| 名称 | 价格 |\n|:--|--:|\n| **苹果** | 3<br>元 |\n| 梨 | | 多余 |\n\n完"

    assert plain(table) == "• 名称: 苹果\n  价格: 3\n  元\n• 名称: 梨\n  价格: | 多余\n\n完"
    assert ding(table) == "- 名称: **苹果**  \n  价格: 3；元\n- 名称: 梨  \n  价格: | 多余\n\n完"


def test_markdown_targets_get_the_text_unchanged() -> None:
    text = "# a\n\n**b**  \n<b>c</b>\n"

    assert render(text, Markup.MARKDOWN) is text


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("第一行\n第二行\n\n第二段", "第一行  \n第二行\n\n第二段"),
        ("**a**\nb", "**a**  \nb"),
        ("**重点。**后文", "**重点。** 后文"),
        ("这是**“重点”**吗", "这是 **“重点”** 吗"),
        ("## 标题", "## 标题"),
        ("- 一\n- 二", "- 一\n- 二"),
        ("~~删~~", "删"),
        ("---\n**a**", "————————\n\n**a**"),
        ("> 引\n> 用", "> 引  \n> 用"),
        ("<script>alert(1)</script>", "&lt;script>alert(1)&lt;/script>"),
        ("&lt;img&gt; a < b", "&lt;img> a < b"),
        ("&amp;lt;", "&amp;lt;"),
        ("`<div>`", "`&lt;div>`"),
        ("```html\n<div>\n```", "```html\n&lt;div>\n```"),
        ("```py\n# 注释\nx\n```", "```py\n    # 注释\nx\n```"),
        ("~~~\n```\n~~~", "````\n```\n````"),
        ("```\n没有结束", "```\n没有结束\n```"),
        ("[x](https://a.cn/(b))", "[x](https://a.cn/%28b%29)"),
        ("[点我](dtmd://dingtalkclient/sendMessage?content=x)", "点我 (dtmd://dingtalkclient/sendMessage?content=x)"),
        ("[x](javascript:alert)", "x (javascript:alert)"),
        ("![图](https://a.cn/b.png)", "![图](https://a.cn/b.png)"),
        ("\\# 不是标题\n**x**", "\\# 不是标题  \n**x**"),
        ("2\\*3 **x**", "2\\*3 **x**"),
        ("你好*世界 `a`", "你好*世界 `a`"),
        ("长*宽 和 2*3*4", "长\\*宽 和 2\\*3\\*4"),
    ],
)
def test_dingtalk_gets_only_what_it_can_show(written: str, shown: str) -> None:
    assert ding(written) == shown


def test_no_html_reaches_dingtalk_even_when_the_text_is_too_wild_to_parse() -> None:
    assert "<div" not in ding("> " * 200 + "<div>")


@pytest.mark.parametrize(
    "text",
    [
        "```\nprint(1)",
        "**没有结束",
        "*",
        "**",
        "`",
        "[",
        "[a](",
        "![",
        "> ",
        "- ",
        "1.",
        "#",
        "***",
        "|",
        "~~",
        "\\",
        "&",
        "<",
        "$$",
        "```",
    ],
)
@pytest.mark.parametrize("markup", [Markup.PLAIN, Markup.DINGTALK])
def test_unfinished_markdown_is_never_silence(text: str, markup: Markup) -> None:
    shown = render(text, markup)

    assert shown.strip()
    assert not any(character.isalnum() and character not in shown for character in text)


def test_words_behind_a_fence_that_are_no_language_are_kept() -> None:
    assert plain("```这一段是话\n代码\n```") == "这一段是话\n代码"


ATTACKS = {
    "em": "*a*" * 33_333,
    "openers": "*a" * 50_000,
    "strong": "**重点。**" * 14_000,
    "brackets": "[" * 100_000,
    "links": "[a](b" * 20_000,
    "pictures": "![" * 50_000,
    "quotes": ">" * 100_000,
    "lists": "- " * 50_000,
    "deep list": "\n".join("  " * depth + "- a" for depth in range(300)),
    "ticks": "".join("`" * width + " " for width in range(440)),
    "tags": "<" * 100_000,
    "entities": "&lt;" * 25_000,
    "backslashes": "\\" * 100_000,
    "dollars": "$" * 100_000,
    "formulas": "\\[\n" * 33_000,
    "urls": "http://" * 14_000,
    "wide table": ("|" + "a|" * 255 + "\n|" + "-|" * 255 + "\n" + "|\n" * 255 + "\n") * 60,
    "long table": "|a|b|\n|-|-|\n" + "|a|b|\n" * 16_000,
    "items": "1. a\n" * 20_000,
    "headings": "# a\n" * 25_000,
    "fences": "```\n" * 25_000,
}


@pytest.mark.parametrize("text", ATTACKS.values(), ids=ATTACKS.keys())
def test_a_hostile_text_costs_little_time_and_loses_nothing(text: str) -> None:
    started = time.process_time()

    shown = [render(text, markup) for markup in (Markup.PLAIN, Markup.DINGTALK)]

    assert time.process_time() - started < 4, "hundreds of times slower than it should be: the work is not linear"
    assert all(piece.strip() for piece in shown)


MARKS = st.sampled_from(
    [*"*_`~[]()!#>-+1.|\\<&;$=\n\n  ", "词", "字。", "“", "”", "abc", "```", "**", "http://a.cn", "\t", "    ", "<br>", "</b>", "$$"]
)


@settings(max_examples=400, deadline=None)
@given(st.lists(MARKS, max_size=40).map("".join))
def test_no_letter_is_ever_lost(text: str) -> None:
    for markup in Markup:
        shown = render(text, markup)

        assert shown.count("词") >= text.count("词")
        assert markup is not Markup.DINGTALK or not re.search(r"<[A-Za-z/!?]", shown)
        assert bool(shown.strip()) == bool(text.strip())


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200))
def test_any_text_at_all_is_rendered(text: str) -> None:
    for markup in Markup:
        assert bool(render(text, markup).strip()) == bool(text.strip())
