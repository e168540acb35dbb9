"""URLs of one server, of Sentinels, of a Cluster: what each says, and which cannot be read."""

from __future__ import annotations

import pytest

from eventq import Queue
from eventq.client.address import Address, parse_address
from eventq.client.server import Server
from eventq.errors import ConfigurationError


@pytest.mark.parametrize("url", ["redis://h:1/2?a=b", "rediss://u:p@h", "unix:///tmp/s", "embedded://"])
def test_a_single_server_is_its_url(url: str) -> None:
    """What redis-py reads by itself is left as it is."""
    assert Address("single", (url,)) == parse_address(url)


def test_the_nodes_of_a_cluster_share_login_and_options() -> None:
    """Each node is a URL of its own, with the usual port where none is given."""
    address = parse_address("cluster+tls://u:p%2F@a:7000,b,[::1]:7002?ssl_ca_certs=/ca.pem")
    after = "/0?ssl_ca_certs=%2Fca.pem"
    assert "cluster" == address.kind
    assert tuple(f"rediss://u:p%2F@{host}{after}" for host in ("a:7000", "b:6379", "[::1]:7002")) == address.nodes
    assert f"rediss://u:p%2F@c:9{after}" == address.url_of("c", 9)


def test_sentinels_have_a_login_of_their_own() -> None:
    """User and password are the data servers'; the Sentinels' stand among the options, and the database is not theirs."""
    address = parse_address("sentinel://:data@a,b:5/orders/3?sentinel_password=w%40ch&socket_read_size=9")
    assert ("sentinel", "orders") == (address.kind, address.service)
    assert ("redis://:w%40ch@a:26379/?socket_read_size=9", "redis://:w%40ch@b:5/?socket_read_size=9") == address.nodes
    assert "redis://:data@[::1]:6379/3?socket_read_size=9" == address.url_of("::1", 6379)
    assert "redis://h:1/0" == parse_address("sentinel://a/orders").url_of("h", 1)


@pytest.mark.parametrize(
    ("url", "form"),
    [
        ("sentinel://a,b", "sentinel://host:port,host:port/SERVICE/DB"),
        ("sentinel://a/orders/x", "sentinel://host:port,host:port/SERVICE/DB"),
        ("sentinel://a,,b/orders", "sentinel://host:port,host:port/SERVICE/DB"),
        ("sentinel+tls://a:port/orders", "sentinel://host:port,host:port/SERVICE/DB"),
        ("sentinel://p/s3cret@a/orders", "sentinel://host:port,host:port/SERVICE/DB"),
        ("cluster://", "cluster://host:port,host:port"),
        ("cluster://a:0", "cluster://host:port,host:port"),
        ("cluster://a:1/1", "cluster://host:port,host:port"),
        ("cluster+tls://:s3cret#@a:1", "cluster://host:port,host:port"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_form_it_should_have(url: str, form: str) -> None:
    """Naming the queue is enough to be told, and no password shows."""
    with pytest.raises(ConfigurationError, match="cannot be read") as caught:
        Queue("q", url=url)
    assert str(caught.value).endswith(f"the form is {form}")
    assert "s3cret" not in str(caught.value)


def test_a_node_that_is_not_there_is_not_asked_again_at_once() -> None:
    """The next node of a Cluster is tried, and the one that was named as owner of the slot is forgotten."""
    server = Server("cluster://a,b")
    first = server.next_node()
    server.node_failed(first)
    server.node_failed(first)
    assert {first, server.next_node()} == {"redis://a:6379/0", "redis://b:6379/0"}
