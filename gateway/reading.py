"""From a configuration file and the environment to a `Config`; every error names the key and the repair, never a value."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

import json5
from pydantic import BaseModel, ValidationError

from gateway.config import Config
from gateway.errors import ConfigError

ENV_PREFIX = "GATEWAY_"
_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


def read_config(path: Path, environment: Mapping[str, str] | None = None) -> Config:
    """Read, resolve and validate. Raises ConfigError whose text lists every fault, one per line."""
    environment = os.environ if environment is None else environment
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"there is no {path}. Copy config.example.json to {path} and fill it in.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    return parse_config(_parse(text, path), environment)


def parse_config(data: dict[str, Any], environment: Mapping[str, str]) -> Config:
    """Validate already parsed data; comments (`//…` keys) and switched-off parts are taken out, `${…}` is filled in."""
    data = _without_comments(data)
    _override(data, environment)
    _drop_unused(data)
    unset: list[str] = []
    data = _filled(data, environment, "", unset)
    faults = [*unset, *_known_everywhere(data)]
    if faults:
        raise ConfigError("\n".join(faults))
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        raise ConfigError("\n".join(_faults(error))) from None


def _parse(text: str, path: Path) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except ValueError:
        data = _parse_with_comments(text, path)
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must hold one JSON object")
    return data


def _parse_with_comments(text: str, path: Path) -> Any:
    try:
        return json5.loads(text)
    except ValueError as error:
        raise ConfigError(f"{path} is not valid JSON: {error}") from error


def _without_comments(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_comments(item) for key, item in value.items() if not key.startswith("//") and key != "$schema"}
    return value


def _drop_unused(data: dict[str, Any]) -> None:
    """What is switched off or never asked needs no credentials: leave it out before `${…}` is resolved."""
    for name, channel in dict(_sections(data, "channels")).items():
        if isinstance(channel, dict) and channel.get("enabled") is False:
            del data["channels"][name]
    chain = _sections(data, "answering").get("chain", [])
    for name in list(_sections(data, "backends")):
        if isinstance(chain, list) and name not in chain:
            del data["backends"][name]


def _sections(data: dict[str, Any], name: str) -> dict[str, Any]:
    section = data.get(name)
    return section if isinstance(section, dict) else {}


def _filled(value: Any, environment: Mapping[str, str], where: str, unset: list[str]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(item, environment, f"{where}.{key}".lstrip("."), unset) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, environment, f"{where}[{number}]", unset) for number, item in enumerate(value)]
    return _fill_text(value, environment, where, unset) if isinstance(value, str) else value


def _fill_text(text: str, environment: Mapping[str, str], where: str, unset: list[str]) -> str:
    def fill(reference: re.Match[str]) -> str:
        name, default = reference.groups()
        value = environment.get(name) or default
        if value is None:
            unset.append(f'{where}: the environment variable {name} is not set. Set it, or switch this part off ("enabled": false).')
        return value or ""

    return _REFERENCE.sub(fill, text)


def _override(data: dict[str, Any], environment: Mapping[str, str]) -> None:
    """`GATEWAY_HTTP__PORT=9000` sets http.port. A name that leads nowhere is refused: a mistyped override must not be silent."""
    for variable in sorted(environment):
        if not variable.startswith(ENV_PREFIX) or "__" not in variable:
            continue
        path = variable.removeprefix(ENV_PREFIX).lower().split("__")
        _set(data, path, _value_of(environment[variable]), variable)


def _value_of(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _set(data: dict[str, Any], path: list[str], value: Any, variable: str) -> None:
    if path[0] not in Config.model_fields:
        near = difflib.get_close_matches(path[0], Config.model_fields, n=1)
        hint = f" Did you mean {ENV_PREFIX}{near[0].upper()}__…?" if near else ""
        raise ConfigError(f"the environment variable {variable} names no section of the configuration.{hint}")
    for step in path[:-1]:
        data = data.setdefault(_spelled(data, step), {})
        if not isinstance(data, dict):
            raise ConfigError(f"the environment variable {variable} goes into {step}, which is not a section")
    data[_spelled(data, path[-1])] = value


def _spelled(data: dict[str, Any], step: str) -> str:
    """`step` as the file spells it: variables come in capitals, names of channels may not be."""
    return next((key for key in data if key.lower() == step), step)


def _faults(error: ValidationError) -> Iterator[str]:
    for fault in error.errors(include_input=False, include_url=False, include_context=False):
        path = ".".join(str(step) for step in fault["loc"] if not _is_tag(step, fault["loc"]))
        yield f"{path or 'configuration'}: {fault['msg'].removeprefix('Value error, ')}"


def _is_tag(step: int | str, location: tuple[int | str, ...]) -> bool:
    """pydantic puts the chosen `kind` into the path behind the name of a channel or backend."""
    return len(location) > 2 and location[0] in ("channels", "backends") and location.index(step) == 2


def _known_everywhere(data: dict[str, Any]) -> Iterator[str]:
    yield from _unknown(data, Config, "")


def _unknown(data: dict[str, Any], model: type[BaseModel], where: str) -> Iterator[str]:
    for key, value in data.items():
        path = f"{where}.{key}".lstrip(".")
        field = model.model_fields.get(key)
        if field is None:
            yield _unknown_key(key, model, path)
        elif isinstance(value, dict):
            yield from _inside(value, field.annotation, path)


def _inside(data: dict[str, Any], annotation: Any, path: str) -> Iterator[str]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield from _unknown(data, annotation, path)
    elif get_origin(annotation) is dict:
        kinds = _kinds(get_args(annotation)[1])
        for name, section in data.items():
            if kinds and isinstance(section, dict):
                yield from _one_of(section, kinds, f"{path}.{name}")


def _kinds(annotation: Any) -> dict[str, type[BaseModel]]:
    """The models of a union by their `kind`."""
    arguments = get_args(annotation)
    models = [found for argument in arguments for found in (get_args(argument) or (argument,)) if isinstance(found, type)]
    return {get_args(model.model_fields["kind"].annotation)[0]: model for model in models if issubclass(model, BaseModel)}


def _one_of(section: dict[str, Any], kinds: Mapping[str, type[BaseModel]], path: str) -> Iterator[str]:
    kind = section.get("kind")
    if not isinstance(kind, str) or kind not in kinds:
        given = f"{kind!r} is not a kind" if isinstance(kind, str) else "the key is missing"
        near = difflib.get_close_matches(str(kind), kinds, n=1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        yield f"{path}.kind: {given}. {hint}Known kinds: {', '.join(sorted(kinds))}."
        return
    yield from _unknown(section, kinds[kind], path)


def _unknown_key(key: str, model: type[BaseModel], path: str) -> str:
    near = difflib.get_close_matches(key, model.model_fields, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]!r}?" if near else f"Known keys: {', '.join(sorted(model.model_fields))}."
    return f"{path}: there is no such key. {hint}"
