"""Where the queues live: which URLs are read, what is refused at once, and that no password shows."""

from __future__ import annotations

import re
from ssl import TLSVersion
from typing import TYPE_CHECKING, Any

import pytest

from eventq import Queue, Worker
from eventq.client.server import DEFAULT_URL, Server, redact
from eventq.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

REDIS = "# Server\r\nredis_version:7.0.15\r\nrole:master\r\nmaxmemory_policy:noeviction\r\n"


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of whoever runs the tests stay out of them."""
    monkeypatch.delenv("EVENTQ_URL", raising=False)
    monkeypatch.delenv("EVENTQ_ALLOW_EVICTION", raising=False)
    monkeypatch.delenv("EVENTQ_ALLOW_INSECURE_TLS", raising=False)


def test_an_argument_stands_over_the_environment_and_that_over_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """argument > EVENTQ_URL > redis://localhost:6379/0."""
    assert DEFAULT_URL == "redis://localhost:6379/0" == Server().where
    monkeypatch.setenv("EVENTQ_URL", "redis://other:1/2")
    assert "redis://other:1/2" == Server().where
    assert "redis://mine:3" == Server("redis://mine:3").where


@pytest.mark.parametrize(
    "url",
    [
        "redis://:s3cret@h:6379/0",
        "redis://user:s3cret@h:6379/0",
        "rediss://user:s3cret@h:6379/0?password=s3cret",
        "redis://h:6379/0?username=u&password=s3cret",
        "redis://h:6379/0?password=x@s3cret",
        "unix://user:s3cret@/tmp/s?db=1",
        "unix:///tmp/s?password=s3cret",
        "redis://:s3cret%40@h",
        "s3cret@h",
        "http://u:s3cret@h",
        "redis://:s3cret@h:notaport/0",
        "redis://:p/s3cret@h",
        "redis://:p#s3cret@h:1",
        "redis://:s3cret#p@h:1",
        "redis://:p?s3cret@h:1",
        "redis://:12#s3cret@h:1",
        "redis://:s3cret[x@h",
        "redis://:s3cret@h/0?bogus=s3cret",
    ],
)
def test_no_password_is_shown(url: str) -> None:
    """Whatever is wrong with a URL, neither repr nor error shows what may be a password."""
    shown = [redact(url)]
    try:
        server = Server(url)
        shown += [repr(server), server.where, repr(Queue("q", url=url)), repr(Worker("q", print, url=url))]
        server.async_connection("x")
    except ConfigurationError as error:
        shown.append(str(error))
    assert [] == [text for text in shown if "s3cret" in text]


@pytest.mark.parametrize(
    ("url", "where"),
    [
        ("redis://:pw@h:6379/0", "redis://h:6379/0"),
        ("unix:///tmp/s?db=1", "unix:///tmp/s"),
        ("embedded:///data/a@b", "embedded:///data/a@b"),
        ("embedded://", "embedded://"),
        ("redis://[::1]:6379/0", "redis://[::1]:6379/0"),
    ],
)
def test_what_is_shown_still_says_where(url: str, where: str) -> None:
    """Host, port, database and path stay."""
    assert where == Server(url).where


@pytest.mark.parametrize("url", ["http://h", "localhost:6379", "redis:/h", "redis", "://h", "valkey://h", "REDIS//h", "sentinel"])
def test_an_unknown_scheme_is_refused_with_those_there_are(url: str) -> None:
    """The refusal names the URL and what it must start with."""
    with pytest.raises(ConfigurationError, match="must start with redis://, rediss://, unix://, embedded://") as caught:
        Queue("q", url=url)
    assert f"url {url!r}" in str(caught.value)


@pytest.mark.parametrize("url", ["redis://h:notaport", "redis://h:99999", "redis://h:0", "redis://[::1", "redis://:p/w@h"])
def test_a_url_that_cannot_be_read_is_refused_before_anything_is_opened(url: str) -> None:
    """Naming the queue is enough to be told."""
    with pytest.raises(ConfigurationError, match="cannot be read; check host and port"):
        Queue("q", url=url)


@pytest.mark.parametrize("url", [5, b"redis://h", object()])
def test_what_is_no_text_is_no_url(url: Any) -> None:
    """The type is checked, not trusted."""
    with pytest.raises(ConfigurationError, match="must be a string"):
        Queue("q", url=url)


@pytest.mark.parametrize("scheme", ["rediss://h:1/0", "sentinel+tls://h:1/orders", "cluster+tls://h:1"])
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("ssl_cert_reqs=none", "ssl_cert_reqs=none accepts every certificate"),
        ("ssl_cert_reqs=%6eone", "ssl_cert_reqs=none accepts every certificate"),
        ("db=0&ssl_cert_reqs=none&ssl_cert_reqs=required", "ssl_cert_reqs=none accepts every certificate"),
        ("ssl_check_hostname=false", "ssl_check_hostname=no accepts the certificate of every other host"),
        ("ssl_check_hostname=0", "ssl_check_hostname=no accepts the certificate of every other host"),
        ("ssl_min_version=770", r"ssl_min_version=770 permits less than TLS 1.2 \(771\)"),
        ("ssl_min_version=-2", r"ssl_min_version=-2 permits less than TLS 1.2 \(771\)"),
    ],
)
def test_tls_that_proves_nothing_has_to_be_wanted_by_name(
    scheme: str, options: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However it is written; naming the queue is enough to be told."""
    url = f"{scheme}?{options}"
    with pytest.raises(ConfigurationError, match=rf"url '{re.escape(scheme)}': {words}.*EVENTQ_ALLOW_INSECURE_TLS=1"):
        Queue("q", url=url)
    monkeypatch.setenv("EVENTQ_ALLOW_INSECURE_TLS", "1")
    Queue("q", url=url)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("ssl_cert_reqs=s3cret", "cannot be read"),
        ("ssl_cert_reqs=None", "cannot be read"),
        ("ssl_min_version=s3cret", r"ssl_min_version must be 771 \(TLS 1.2\) or 772 \(TLS 1.3\)"),
        ("ssl_min_version=1.3", "ssl_min_version must be 771"),
        ("ssl_min_version=5", "ssl_min_version must be 771"),
    ],
)
def test_tls_options_that_mean_nothing_are_refused(options: str, words: str) -> None:
    """They are not taken for the default, and no value is quoted."""
    with pytest.raises(ConfigurationError, match=words) as caught:
        Queue("q", url=f"rediss://h?{options}")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["rediss://h", "sentinel+tls://h/main", "cluster+tls://h"])
@pytest.mark.parametrize("option", ["ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile"])
def test_a_file_that_is_not_there_is_no_server_that_is_away(scheme: str, option: str, tmp_path: Path) -> None:
    """It is told by name as soon as it is named."""
    with pytest.raises(ConfigurationError, match=rf"{option}=/nowhere: there is no such file, or it may not be read"):
        Queue("q", url=f"{scheme}?{option}=%2Fnowhere")
    Queue("q", url=f"{scheme}?{option}={tmp_path}")


@pytest.mark.parametrize(
    ("options", "least"), [("", TLSVersion.TLSv1_2), ("?ssl_cert_reqs=optional&ssl_min_version=772", TLSVersion.TLSv1_3)]
)
def test_every_connection_over_tls_has_a_least_version(options: str, least: TLSVersion) -> None:
    """TLS 1.2 is said, not left to the machine; more may be asked for. `optional` is as strict as `required` for a client."""
    server = Server(f"rediss://h{options}")
    asynchronous: Any = server.async_connection("x")
    blocking: Any = server.sync_connection("x", 1.0)
    assert (least, least) == (asynchronous.min_version, blocking.ssl_min_version)


def test_an_unknown_option_of_a_url_is_a_configuration_error() -> None:
    """An option that the client library does not know is named."""
    with pytest.raises(ConfigurationError, match="url 'redis://h/0': an unknown option .*'bogus'"):
        Server("redis://h/0?bogus=1").async_connection("x")


def test_the_url_does_not_change_what_is_ours_to_say() -> None:
    """Protocol, encoding and resending are not for the URL to decide."""
    connection: Any = Server("redis://h/0?protocol=3&decode_responses=False&retry_on_timeout=True").async_connection("mine")
    assert (2, "mine") == (int(connection.protocol), connection.client_name)
    assert connection.encoder.decode_responses


@pytest.mark.parametrize(
    "info",
    [
        REDIS,
        "redis_version:8.2.1\r\nrole:master",
        "redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:7.2.5\r\nrole:master",
        "redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:9.1.0\r\nmaxmemory_policy:volatile-lru",
        "redis_version:10.0.0",
    ],
)
def test_servers_from_the_floor_up_are_taken(info: str) -> None:
    """Redis 7.0 and Valkey 7.2, and what is newer."""
    server = Server("redis://h")
    server.check(info)
    assert server.is_checked


@pytest.mark.parametrize(
    ("info", "found"),
    [
        ("redis_version:6.2.14\r\nrole:master", "redis 6.2.14"),
        ("redis_version:5.0.7", "redis 5.0.7"),
        ("redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:7.1.9", "valkey 7.1.9"),
        ("", "redis 0"),
    ],
)
def test_older_servers_are_refused_with_version_and_floor(info: str, found: str) -> None:
    """The refusal says what was found and what is needed."""
    server = Server("redis://:pw@h")
    with pytest.raises(ConfigurationError, match=f"redis://h is {found}: eventq needs Redis 7.0 or Valkey 7.2 at least"):
        server.check(info)
    assert not server.is_checked


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-lfu", "allkeys-random"])
def test_policies_that_evict_any_key_are_refused_unless_allowed(policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One evicted column would be a whole queue; EVENTQ_ALLOW_EVICTION=1 takes the risk."""
    info = REDIS.replace("noeviction", policy)
    with pytest.raises(ConfigurationError, match=f"maxmemory-policy {policy}: .*EVENTQ_ALLOW_EVICTION=1"):
        Server("redis://h").check(info)
    monkeypatch.setenv("EVENTQ_ALLOW_EVICTION", "1")
    Server("redis://h").check(info)


def test_a_replica_is_refused() -> None:
    """eventq writes, so it says to connect to the primary."""
    with pytest.raises(ConfigurationError, match="is a replica: eventq writes, so connect to the primary"):
        Server("redis://h").check(REDIS.replace("master", "slave"))
