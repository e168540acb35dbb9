"""rediss://: everything over TLS, and nothing with a server that does not show who it is."""

from __future__ import annotations

import asyncio
import time
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from eventq import Job, NewJob, Queue, SyncQueue, Worker
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


@pytest.mark.parametrize("certificate", ["expired", "stranger", "elsewhere"])
async def test_a_server_that_does_not_show_who_it_is_is_refused_at_once(certificate: Certificate, queue_name: str) -> None:
    """A certificate that has expired, that nobody we trust has signed, or of another host: the caller is told, and what to do."""
    began = time.monotonic()
    with TlsServer(certificate=certificate) as server:
        queue = Queue(queue_name, int, url=server.url)
        with pytest.raises(ServerRefused, match=r"certificate is not accepted \(ssl_ca_certs=.*certificate verify") as caught:
            await queue.add("j", 1)
        with pytest.raises(ServerRefused):
            await Worker(queue, double).start()
        await queue.close()
        blocking = SyncQueue(queue_name, int, url=server.url)
        with pytest.raises(ServerRefused, match="certificate is not accepted"):
            await asyncio.to_thread(blocking.add, "j", 1)
        blocking.close()
    assert "CERTIFICATE" == caught.value.code
    assert time.monotonic() - began < 5


class OldTlsServer(TlsServer):
    """A server that speaks TLS 1.1 and nothing newer."""

    __test__ = False

    def _options(self) -> dict[str, str]:
        return super()._options() | {"--tls-protocols": "TLSv1.1", "--tls-ciphers": "ALL:@SECLEVEL=0"}


async def test_a_server_that_speaks_only_old_tls_is_refused_at_once(queue_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """TLS 1.1 is not spoken, whatever OpenSSL here would permit; whoever wants it says so twice."""
    with OldTlsServer() as server:
        old = f"{server.url}&ssl_ciphers=ALL:@SECLEVEL%3D0"
        queue = Queue(queue_name, int, url=old)
        with pytest.raises(ServerRefused, match=r"speaks no TLS that is new enough \(1\.2") as caught:
            await queue.add("j", 1)
        await queue.close()
        blocking = SyncQueue(queue_name, int, url=old)
        with pytest.raises(ServerRefused, match="speaks no TLS that is new enough"):
            await asyncio.to_thread(blocking.add, "j", 1)
        blocking.close()
        assert "TLSVERSION" == caught.value.code
        with pytest.raises(ConfigurationError, match="less than TLS 1.2"):
            Queue(queue_name, int, url=f"{old}&ssl_min_version=770")
        monkeypatch.setenv("EVENTQ_ALLOW_INSECURE_TLS", "1")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"ssl\.TLSVersion\.TLSv1_1 is deprecated")
            async with Queue(queue_name, int, url=f"{old}&ssl_min_version=770") as queue:
                await queue.add("j", 1)  # so it was the version, and nothing else


async def test_verification_that_is_switched_off_has_to_be_wanted_by_name(
    queue_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An option copied from somewhere is refused before anything is opened; with the setting it does what it says."""
    with TlsServer(certificate="stranger") as server:
        url = f"{server.url}&ssl_cert_reqs=none&ssl_check_hostname=no"
        for make in (Queue, SyncQueue):
            with pytest.raises(ConfigurationError, match="ssl_cert_reqs=none .*EVENTQ_ALLOW_INSECURE_TLS=1"):
                make(queue_name, url=url)
        monkeypatch.setenv("EVENTQ_ALLOW_INSECURE_TLS", "1")
        async with Queue(queue_name, int, url=url) as queue, Worker(queue, double):
            assert 8 == await (await queue.add("j", 4)).result(5)


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
