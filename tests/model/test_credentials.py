"""Credentials: which keys name a secret, and which only look like it."""

from __future__ import annotations

import pytest
from hypothesis import given
from tests.strategies import json_values

from otel_metadata.model.credentials import MASKED, is_credential, masked_text, without_credentials
from otel_metadata.model.merge import Json

SECRET = (
    *("password", "Password", "db_password", "userPassword", "password2", "passwd", "pwd", "passphrase"),
    *("secret", "client_secret", "clientSecret", "CLIENT-SECRET", "aws_secret_access_key", "SECRET_KEY", "secrets"),
    *("api_key", "apiKey", "apikey", "X-API-Key", "x-goog-api-key", "OPENAI_API_KEY", "Ocp-Apim-Subscription-Key"),
    *("token", "access_token", "accessToken", "refresh-token", "id_token", "github_token", "X-Amz-Security-Token"),
    *("authorization", "Authorization", "proxy-authorization", "http.request.header.authorization", "auth", "bearer"),
    *("cookie", "cookies", "Set-Cookie", "sessionid", "PHPSESSID", "JSESSIONID", "connect.sid", "csrf_token"),
    *("private_key", "privateKey", "credentials", "credential", "connection_string", "backend_token", "admin_token"),
)
ORDINARY = (
    *("max_tokens", "token_count", "tokens", "prompt_tokens", "llm.token_count.prompt", "token_usage", "tokenizer"),
    *("eos_token", "next_page_token", "nextPageToken", "stop_token", "first_token", "token_type", "token_id"),
    *("secretary", "secret_santa_list", "author", "authority", "authorized", "authentication_method", "session_id"),
    *("sessionId", "key", "keys", "primary_key", "cookie_policy", "passwordless", "password_reset_url", "bypass"),
    *("", "-", "output", "user", "user_id", "role", "content", "messages", "question", "logprob"),
)


@pytest.mark.parametrize("key", SECRET)
def test_a_key_that_names_a_secret(key: str) -> None:
    """However it is written, its value is masked at every depth."""
    assert is_credential(key)
    assert without_credentials({"a": [{key: "s3cret"}]}) == {"a": [{key: MASKED}]}


@pytest.mark.parametrize("key", ORDINARY)
def test_a_key_that_only_looks_like_it(key: str) -> None:
    """Its value is kept."""
    assert not is_credential(key)
    assert without_credentials({key: "value"}) == {key: "value"}


@pytest.mark.parametrize("value", [None, True, False, "", [], {}])
def test_what_says_nothing_is_kept(value: Json) -> None:
    """That a password is not there, or that there is one, is no secret."""
    assert without_credentials({"password": value}) == {"password": value}


@pytest.mark.parametrize(
    "value",
    [
        {"token": "Hello", "logprob": -0.1, "bytes": [72], "top_logprobs": [{"token": "Hi", "logprob": -2.0}]},
        {"token": " is", "log_probability": -0.1},
        {"token": {"id": 5, "text": "a", "logprob": -1.0, "special": False}, "generated_text": None},
        {"score": 0.1, "token": 2003, "token_str": "is"},
        {"tokens": ["a", "b"], "max_tokens": 5},
    ],
    ids=range(5),
)
def test_the_pieces_of_a_models_answer_are_kept(value: Json) -> None:
    """A token with a likelihood, and the number of one, is no secret."""
    assert without_credentials(value) == value


def test_numbers_under_other_keys_are_masked() -> None:
    """A password may be a number."""
    assert without_credentials({"password": 1234}) == {"password": MASKED}


class TestPairs:
    def test_a_list_of_pairs_is_read_as_headers_are(self) -> None:
        """The second of a pair is masked when the first names a secret."""
        headers: Json = [["host", "a"], ["Authorization", "Bearer x"], ["cookie", "c=1"]]

        assert without_credentials({"headers": headers}) == {
            "headers": [["host", "a"], ["Authorization", MASKED], ["cookie", MASKED]]
        }

    def test_a_list_of_two_that_is_no_pair_is_kept(self) -> None:
        """Two words beside each other are no header."""
        assert without_credentials({"tags": ["token", "limit"]}) == {"tags": ["token", "limit"]}
        assert without_credentials([["token", "limit"], "else"]) == [["token", "limit"], "else"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgresql+psycopg://app:p%40ss@db:5432/x?y=1", "postgresql+psycopg://app:<masked>@db:5432/x?y=1"),
        ("see https://u:w@h/ and http://a@b/", "see https://u:<masked>@h/ and http://a@b/"),
        ("redis://:word@localhost", "redis://:<masked>@localhost"),
        ("http://host:8080/path@2", "http://host:8080/path@2"),
        ("mail ada@example.com at 10:30", "mail ada@example.com at 10:30"),
    ],
)
def test_passwords_of_urls_are_masked(text: str, expected: str) -> None:
    """The rest of the URL, and of the text around it, stays."""
    assert masked_text(text) == expected
    assert masked_text(expected) == expected


@given(json_values())
def test_a_value_without_credentials_is_itself(value: Json) -> None:
    """Nothing is copied where nothing is masked, and masking twice changes nothing."""
    once = without_credentials(value)

    assert without_credentials(once) is once
    assert once is value or MASKED in repr(once)
