"""What is opened and closed around a block."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self


class Opened(ABC):
    """`async with` opens it and closes it, also where it could not be opened whole."""

    @abstractmethod
    async def open(self) -> Self:
        """Open it."""

    @abstractmethod
    async def close(self) -> None:
        """Close what is open. Safe to call twice."""

    async def __aenter__(self) -> Self:
        try:
            return await self.open()
        except BaseException:
            await self.close()
            raise

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
