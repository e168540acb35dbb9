"""rediss://: everything over TLS, and nothing with a server that does not show who it is."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from eventq import Job, NewJob, Queue, Worker
from eventq.errors import ConfigurationError, QueueUnavailable, ServerRefused
from eventq.events import CompletedEvent

from ..tls import Certificate, TlsServer
from .recorder import Recorder

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.usefixtures("tls_tools")


@pytest.fixture
def tls_server(tls_tools: None) -> Iterator[TlsServer]:
    """A server that speaks TLS only."""
    with TlsServer() as server:
        yield server


async def double(job: Job[int]) -> int:
    return job.data * 2


async def test_everything_works_over_tls(tls_server: TlsServer, queue_name: str) -> None:
    """Adds, lanes, the heartbeat's thread, the blocking read, readers: every connection is encrypted."""
    async with (
        Queue(queue_name, int, url=tls_server.url) as queue,
        Recorder(queue) as recorder,
        Worker(queue, double, concurrency=20, lease=1.0),
    ):
        jobs = await queue.add_bulk([NewJob("j", number) for number in range(100)])
        assert [number * 2 for number in range(100)] == [await job.result(5) for job in jobs]
        await recorder.wait(CompletedEvent, 100)


@pytest.mark.parametrize("certificate", ["expired", "stranger"])
async def test_a_server_that_does_not_show_who_it_is_is_refused_at_once(certificate: Certificate, queue_name: str) -> None:
    """An expired certificate, or one that nobody we trust has signed: the caller is told, and what to do."""
    began = time.monotonic()
    with TlsServer(certificate=certificate) as server:
        queue = Queue(queue_name, int, url=server.url)
        with pytest.raises(ServerRefused, match=r"certificate is not accepted \(ssl_ca_certs=.*certificate verify") as caught:
            await queue.add("j", 1)
        with pytest.raises(ServerRefused):
            await Worker(queue, double).start()
        await queue.close()
    assert "CERTIFICATE" == caught.value.code
    assert time.monotonic() - began < 5


async def test_without_the_authority_the_certificate_is_a_strangers(tls_server: TlsServer, queue_name: str) -> None:
    """Verification is on unless somebody turns it off."""
    queue = Queue(queue_name, int, url=tls_server.url.partition("?")[0])
    with pytest.raises(ServerRefused, match="certificate is not accepted"):
        await queue.add("j", 1)
    await queue.close()


async def test_a_server_that_asks_for_a_certificate_gets_it_from_the_url(queue_name: str) -> None:
    """ssl_certfile= and ssl_keyfile= stand in the URL; without them the server hangs up."""
    with TlsServer(client_auth=True) as server:
        async with Queue(queue_name, int, url=server.client_url) as queue, Worker(queue, double):
            assert 8 == await (await queue.add("j", 4)).result(5)
        queue = Queue(queue_name, int, url=server.url)
        queue.context.runner._patience = 0.2
        with pytest.raises(QueueUnavailable):
            await queue.count()
        await queue.close()


async def test_tls_options_with_a_plain_url_are_named(tls_server: TlsServer, queue_name: str) -> None:
    """A forgotten s in rediss:// is not silently unencrypted."""
    queue: Queue[Any, Any] = Queue(queue_name, url=tls_server.url.replace("rediss", "redis"))
    with pytest.raises(ConfigurationError, match="ssl_ca_certs"):
        await queue.add("j", 1)
    await queue.close()
