"""Bytes that never show themselves."""

from __future__ import annotations

import hmac
from typing import NoReturn


class Secret:
    """Key or password bytes: repr and str are `***`, not iterable, not picklable, compared in constant time.

    Only `reveal` gives the bytes, so that every use can be found by its name.
    """

    __slots__ = ("__bytes",)

    def __init__(self, value: bytes) -> None:
        self.__bytes = value

    def reveal(self) -> bytes:
        return self.__bytes

    def __repr__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self.__bytes, other.__bytes)

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> NoReturn:
        msg = "a secret is not serialised"
        raise TypeError(msg)
