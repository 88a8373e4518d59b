import pytest

from runtime.stores.address import is_plain_name, parse_address, without_secrets


def test_an_address_is_its_parts():
    address = parse_address("s3://my.bucket/run/wiki 1/")
    assert (address.scheme, address.bucket, address.key) == ("s3", "my.bucket", "run/wiki 1")
    assert str(address) == "s3://my.bucket/run/wiki 1"
    assert str(parse_address("gs://bucket")) == "gs://bucket"


@pytest.mark.parametrize(
    "text",
    [
        "ftp://bucket/x",
        "pipe:cat x",
        "file:///etc",
        "s3://",
        "s3://b/x",
        "s3://bucket/../other",
        "s3://bucket//x",
        "s3://bucket/.hidden",
        "s3://bucket/x::zip://y",
        "s3://bucket/*",
        "s3://bucket/${HOME}",
        "s3://bucket/x?versionId=1",
        "s3://bucket/" + "x/" * 600 + "x",
        "simplecache::s3://bucket/x",
        "s3://bucket/a\nb",
    ],
)
def test_other_schemes_and_names_that_a_library_expands_are_refused(text):
    with pytest.raises(ValueError, match="give s3://bucket/path"):
        parse_address(text)


def test_credentials_in_an_address_are_refused_and_not_repeated():
    with pytest.raises(ValueError, match="holds credentials") as caught:
        parse_address("s3://AKIAKEY:hunter2@bucket/x")
    assert "hunter2" not in str(caught.value)


def test_messages_lose_their_secrets(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    assert without_secrets("no http://me:word@host/x for hunter2") == (
        "no http://[credentials]@host/x for [AWS_SECRET_ACCESS_KEY]"
    )


def test_names_that_leave_a_folder_or_hide_in_it_are_not_plain():
    assert is_plain_name("checkpoints/step-00000004/rank-00000.safetensors")
    for name in ("../x", "a/../b", "a//b", "/a", "a/", ".a", "a/.b", "a\\b", "a:b", "é"):
        assert not is_plain_name(name), name
