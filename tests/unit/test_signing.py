"""Signatures: what they cover, what is refused, and that nothing shows a key."""

from __future__ import annotations

import hashlib
import hmac
import pickle
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventq import BadSignature, ConfigurationError, JobOptions, Queue, QueueScheduler, SigningKeys, SyncQueue, Worker
from eventq.keys import QueueKeys
from eventq.records import Record, UnreadableRecord, parse_record
from eventq.signing import KEYS_FILE, Signer, key_of, signer_of, unsealed, without_keys

OLD, NEW = bytes(range(32)), b"a secret of thirty-two bytes!!!!"
KEYS = SigningKeys({"new": NEW, "old": OLD})
SIGNER = Signer(KEYS, "eventq", "mail")
SPEC = JobOptions(attempts=3, timeout=5).compiled.spec
TEXTS = st.text(max_size=20) | st.text(alphabet="0123:9", max_size=6)


def record(data: str, *, name: str = "welcome", spec: str = SPEC) -> Record:
    """Return a stored job as a worker reads it."""
    return parse_record(f"1\t1700\t\t\t\t{name}\t\n{spec}\n{data}", "")


def sealed(signer: Signer = SIGNER, data: str = '{"to":"a"}') -> str:
    """Return the data of job `j1` in its envelope."""
    return signer.seal_job("j1", "welcome", SPEC, data)


def test_what_was_signed_is_given_back() -> None:
    """The data as it was, the id of the key, and without keys the data too: nothing is hidden."""
    text = sealed()
    assert SIGNER.open_job("j1", record(text)) == unsealed(text) == '{"to":"a"}'
    assert key_of(text) == "new"


def test_the_envelope_is_what_stored_jobs_are_in() -> None:
    """HMAC-SHA256 of the parts, each with its length before it: another form would refuse every job that is stored."""
    said = f'3:job6:eventq4:mail2:j17:welcome{len(SPEC)}:{SPEC}10:{{"to":"a"}}'
    assert sealed() == f'~1 new {hmac.new(NEW, said.encode(), hashlib.sha256).hexdigest()} {{"to":"a"}}'
    said = "8:schedule6:eventq4:mail4:tick2:{}"
    assert SIGNER.seal_schedule("tick", "{}") == f"~1 new {hmac.new(NEW, said.encode(), hashlib.sha256).hexdigest()} {{}}"


@given(job_id=TEXTS, name=TEXTS, spec=TEXTS, data=TEXTS)
def test_any_job_is_verified_as_it_was_signed(job_id: str, name: str, spec: str, data: str) -> None:
    """Whatever the parts are made of."""
    stored = Record(0, 0, 0, "", name, "", JobOptions().compiled.options, SIGNER.seal_job(job_id, name, spec, data), spec)
    assert SIGNER.open_job(job_id, stored) == data


@given(one=st.tuples(TEXTS, TEXTS, TEXTS, TEXTS), other=st.tuples(TEXTS, TEXTS, TEXTS, TEXTS))
def test_no_other_job_has_the_same_signature(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    """Nothing can be shifted from one part to the next: lengths stand before them."""
    signed, forged = (SIGNER.seal_job(*parts).split(" ", 3)[2] for parts in (one, other))
    assert (signed == forged) == (one == other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a", "bc", "d", "e"), ("ab", "c", "d", "e")),
        (("1:a", "", "", ""), ("", "1:a", "", "")),
        (("a", "b", "c1:d", ""), ("a", "b", "c", "d")),
    ],
)
def test_parts_cannot_be_shifted(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    """Joined without lengths, these would be alike."""
    assert SIGNER.seal_job(*one).split(" ", 3)[2] != SIGNER.seal_job(*other).split(" ", 3)[2]


def test_every_character_counts() -> None:
    """Of the envelope (mark, key id, signature, data), the id, the name and the options: changed, left out, doubled."""
    text = sealed()
    for changed in altered(text):
        refused("j1", changed)
    for changed in altered("j1"):
        refused(changed, text)
    for changed in altered("welcome"):
        refused("j1", text, name=changed)
    for at in range(len(SPEC)):
        # One that cannot be read is refused earlier.
        with pytest.raises((BadSignature, UnreadableRecord)):
            SIGNER.open_job("j1", record(text, spec=f"{SPEC[:at]}{chr(ord(SPEC[at]) ^ 1)}{SPEC[at + 1 :]}"))


def altered(text: str) -> Iterator[str]:
    """Yield the text with one of its characters changed, left out, doubled."""
    for at, character in enumerate(text):
        for other in (chr(ord(character) ^ 1), "", character * 2):
            yield text[:at] + other + text[at + 1 :]


def refused(job_id: str, text: str, *, name: str = "welcome") -> None:
    """What is stored is not what was signed."""
    with pytest.raises(BadSignature) as caught:
        SIGNER.open_job(job_id, record(text, name=name))
    assert (caught.value.queue, caught.value.id) == ("mail", job_id)


@pytest.mark.parametrize(
    ("prefix", "queue"),
    [("eventq", "mails"), ("eventq2", "mail"), ("event", "qmail"), ("eventq", "mai")],
)
def test_another_queue_takes_no_job_of_this_one(prefix: str, queue: str) -> None:
    """Prefix and name of the queue are signed."""
    with pytest.raises(BadSignature, match="moved here"):
        Signer(KEYS, prefix, queue).open_job("j1", record(sealed()))


def test_keys_are_rotated() -> None:
    """The first key signs, all verify; a key that is gone is unknown, and the message says which are known."""
    before = Signer(SigningKeys({"old": OLD}), "eventq", "mail")
    assert SIGNER.open_job("j1", record(sealed(before))) == '{"to":"a"}'
    assert key_of(sealed(before)) == "old"
    with pytest.raises(BadSignature, match=r"job 'j1': signed by key 'new', which is none of the signing keys here: old"):
        before.open_job("j1", record(sealed()))
    after = Signer(SigningKeys({"new": NEW}), "eventq", "mail")
    with pytest.raises(BadSignature, match="key 'old'"):
        after.open_job("j1", record(sealed(before)))


def test_a_key_by_the_id_of_another_is_no_good() -> None:
    """The id in the envelope chooses the key, and does not stand in for it."""
    with pytest.raises(BadSignature, match="altered"):
        SIGNER.open_job("j1", record(sealed(Signer(SigningKeys({"old": NEW}), "eventq", "mail"))))
    with pytest.raises(BadSignature, match="altered"):
        SIGNER.open_job("j1", record(sealed().replace("new", "old", 1)))


@pytest.mark.parametrize("data", ["", "1", '"~1 new"', "null", "x~1 new 00 1"])
def test_an_unsigned_job_is_refused(data: str) -> None:
    """It says so, and what may be the reason."""
    with pytest.raises(BadSignature, match="it is not signed, and this queue has signing keys"):
        SIGNER.open_job("j1", record(data))


@pytest.mark.parametrize("data", ["~", "~2 new 00 1", "~1 new", "~1 n/w " + "0" * 64 + " 1", "~1 new " + "0" * 63 + "é 1"])
def test_a_damaged_envelope_is_refused(data: str) -> None:
    """It is no JSON either: nobody takes it for data."""
    with pytest.raises(BadSignature, match="envelope is damaged"):
        SIGNER.open_job("j1", record(data))
    assert (unsealed(data), key_of(data)) == (data, None)
    with pytest.raises(msgspec.DecodeError):
        msgspec.json.decode(data)


def test_a_schedule_is_no_job() -> None:
    """What is signed as one is not good as the other; id and definition are covered."""
    text = SIGNER.seal_schedule("tick", '{"name":"n"}')
    assert SIGNER.open_schedule("tick", text) == unsealed(text) == '{"name":"n"}'
    for schedule_id, stored in (("tock", text), ("tick", text[:-1] + "]"), ("tick", '{"name":"n"}')):
        with pytest.raises(BadSignature, match=f"schedule '{schedule_id}'"):
            SIGNER.open_schedule(schedule_id, stored)
    with pytest.raises(BadSignature):
        SIGNER.open_job("tick", record(text, name="n", spec=""))


# -- keys


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({}, "give at least one key"),
        (["k"], "signing_keys of type list: must map key ids to keys"),
        (b"x" * 32, "signing_keys of type bytes"),
        ({"": NEW}, "signing key id '': must be 1 to 32"),
        ({"a b": NEW}, "signing key id 'a b': must be"),
        ({"a" * 33: NEW}, "signing key id of type str: must be"),
        ({7: NEW}, "signing key id of type int: must be"),
        ({NEW.decode() + "!": NEW}, "signing key id of type str: must be"),
        ({NEW: "k"}, "signing key id of type bytes: must be"),
        ({"k": NEW.decode()}, "signing key 'k' of type str: must be bytes, as secrets.token_bytes"),
        ({"k": NEW[:-1]}, "signing key 'k' of 31 bytes: must be at least 32"),
        ({"k": NEW, "l": b""}, "signing key 'l' of 0 bytes"),
    ],
)
@pytest.mark.parametrize("taker", [Queue, SyncQueue, None])
def test_keys_that_are_none(keys: Any, said: str, taker: Any) -> None:
    """Refused before anything is opened; the message names the id and never a key."""
    with pytest.raises(ConfigurationError) as caught:
        taker("q", signing_keys=keys) if taker else SigningKeys(keys)
    assert said in str(caught.value)
    assert "secret of" not in "".join(traceback.format_exception(caught.value))


def test_nothing_shows_a_key() -> None:
    """Neither repr nor pickle, nor what hangs on a queue."""
    queue = Queue("q", signing_keys={"k": NEW})
    shown = repr((KEYS, SIGNER, queue, queue.context, vars(queue.context), KEYS._macs))
    assert repr(KEYS) == "<SigningKeys new, old>"
    assert not [form for form in (repr(NEW)[2:-1], NEW.hex(), repr(OLD)[2:-1], OLD.hex()) if form in shown]
    with pytest.raises(TypeError):
        pickle.dumps(KEYS)


def test_a_worker_has_the_keys_of_its_queue() -> None:
    """Keys belong to a name, or to the Queue; both is refused, as for a URL."""
    for made in (Worker("q", print, signing_keys=KEYS), QueueScheduler("q", signing_keys=KEYS)):
        assert isinstance(made, Worker | QueueScheduler)
    for make in (lambda: Worker(Queue("q"), print, signing_keys=KEYS), lambda: QueueScheduler(Queue("q"), signing_keys=KEYS)):
        with pytest.raises(ConfigurationError, match="signing_keys: those of the queue hold"):
            make()
    with pytest.raises(ConfigurationError, match="url 'redis://x': the queue has one already"):
        QueueScheduler(Queue("q"), url="redis://x")


# -- from a file


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    """A file of two keys."""
    path = tmp_path / "signing-keys"
    path.write_text(f"# rotated in November\n\nnew {NEW.hex()}\n  old\t{OLD.hex().upper()}  \n")
    return path


def test_keys_of_a_file(keys_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of its lines; the environment may name it, an argument wins."""
    assert SigningKeys.from_file(keys_file).ids == ("new", "old")
    monkeypatch.setenv(KEYS_FILE, str(keys_file))
    found = Queue("mail").context.signer
    assert found is not None and found.seal_job("j1", "welcome", SPEC, "1") == sealed(data="1")
    own = Queue("mail", signing_keys={"own": NEW}).context.signer
    assert own is not None and key_of(own.seal_job("j1", "n", "", "1")) == "own"
    monkeypatch.setenv(KEYS_FILE, "")
    assert signer_of(None, QueueKeys("mail")) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no key; each line is ID KEY"),
        ("# only this\n", "holds no key"),
        (f"new {NEW.hex()}\nsecret\n", "line 2: cannot be read; each line is ID KEY, the key in hexadecimal"),
        (f"new {NEW.hex()} secret", "line 1: cannot be read"),
        ("new secret", "line 1: cannot be read"),
        (f"new {NEW.hex()}\nnew {OLD.hex()}", "line 2: key id 'new': is there twice"),
        (f"n/w {NEW.hex()}", "signing key id 'n/w'"),
        (f"{NEW.hex()} {NEW.hex()}", "signing key id of type str: must be"),
        ("new 00ff", "signing key 'new' of 2 bytes"),
        ("é secret", "is not ASCII"),
    ],
)
def test_files_that_are_none(keys_file: Path, text: str, said: str) -> None:
    """The message names file and line, and shows nothing that may be a key."""
    keys_file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        SigningKeys.from_file(keys_file)
    shown = "".join(traceback.format_exception(caught.value))
    assert said in str(caught.value)
    assert "secret" not in shown and NEW.hex() not in shown


def test_a_file_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an argument and by the environment."""
    path = tmp_path / "none"
    monkeypatch.setenv(KEYS_FILE, str(path))
    with pytest.raises(ConfigurationError, match=f"signing keys file '{path}': cannot be read: No such file"):
        Queue("q")


def test_without_keys_it_says_what_to_give() -> None:
    """Of a job and of a schedule."""
    assert str(without_keys("job", "j1", "mail")) == (
        "job 'j1': it is signed, and there are no signing keys here: give signing_keys= or EVENTQ_SIGNING_KEYS_FILE"
    )
