"""Credentials: which keys name a secret, and which only look like it."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from tests.strategies import json_values

from otel_metadata.model.credentials import (
    MASKED,
    is_credential,
    masked_text,
    without_credentials,
    without_credentials_under,
)
from otel_metadata.model.merge import Json
from otel_metadata.model.snapshot import snapshot

SECRET = (
    *("password", "Password", "db_password", "userPassword", "password2", "passwd", "pwd", "passphrase"),
    *("secret", "client_secret", "clientSecret", "CLIENT-SECRET", "aws_secret_access_key", "SECRET_KEY", "secrets"),
    *("api_key", "apiKey", "apikey", "X-API-Key", "x-goog-api-key", "OPENAI_API_KEY", "Ocp-Apim-Subscription-Key"),
    *("token", "access_token", "accessToken", "refresh-token", "id_token", "github_token", "X-Amz-Security-Token"),
    *("authorization", "Authorization", "proxy-authorization", "http.request.header.authorization", "auth", "bearer"),
    *("cookie", "cookies", "Set-Cookie", "sessionid", "PHPSESSID", "JSESSIONID", "connect.sid", "csrf_token"),
    *("authorization_header", "token_value", "secret_value", "password_text", "auth_header", "jwt_value", "passcode"),
    *("stripe_key", "OPENAI_KEY", "anthropicKey", "langfuse_key", "master_key"),
    *("private_key", "privateKey", "credentials", "credential", "connection_string", "backend_token", "admin_token"),
)
ORDINARY = (
    *("max_tokens", "token_count", "tokens", "prompt_tokens", "llm.token_count.prompt", "token_usage", "tokenizer"),
    *("eos_token", "next_page_token", "nextPageToken", "stop_token", "first_token", "token_type", "token_id"),
    *("secretary", "secret_santa_list", "author", "authority", "authorized", "authentication_method", "session_id"),
    *("sessionId", "key", "keys", "primary_key", "cookie_policy", "passwordless", "password_reset_url", "bypass"),
    *("foreign_key", "sort_key", "cache_key", "public_key", "partition_key", "s3_key", "key_value", "token_text"),
    *("eos_token_value", "header", "value", "text", "context", "x_header"),
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


@pytest.mark.parametrize(
    "value",
    [
        {"token": "hunter2", "problem": "login"},
        {"token": "hunter2", "ranking": 1},
        {"token": "hunter2", "special_offers": []},
        {"token": "hunter2", "probe": 1},
        {"token": {"probe": 1, "value": "hunter2"}},
        {"token": {"rank": 1, "value": "hunter2"}},
        {"token": {"rank": 1, "text": "hunter2" * 6}},
        {"token": "hunter2" * 6, "logprob": -0.1},
        {"token": ["hunter2"], "rank": 1},
    ],
    ids=range(9),
)
def test_a_token_beside_anything_else_is_masked(value: Json) -> None:
    """Only the very names of likelihoods tell a token of a model, and only a short text is one."""
    assert "hunter2" not in repr(without_credentials(value))


SCHEMAS: tuple[Json, ...] = (
    {"type": "string"},
    {"type": ["string", "null"], "description": "Of the account.", "minLength": 8},
    {"type": "STRING"},
    {"$ref": "#/$defs/Secret"},
    {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None, "title": "Password"},
    {"type": "object", "properties": {"secret": {"type": "string"}}, "required": ["secret", "name"]},
    {"type": "array", "items": {"type": "string"}},
)


@pytest.mark.parametrize("schema", SCHEMAS, ids=range(len(SCHEMAS)))
def test_the_schema_of_a_secret_is_kept(schema: Json) -> None:
    """What a tool asks for is described, not told."""
    tool: Json = {"name": "login", "parameters": {"properties": {"password": schema}, "required": ["password", "user"]}}

    assert without_credentials(tool) is tool
    assert without_credentials_under("password", schema) is schema


@pytest.mark.parametrize(
    "value",
    [
        {"type": "string", "default": "hunter2"},
        {"type": "string", "examples": ["hunter2"]},
        {"type": "object", "properties": {"a": {"type": "string"}, "password": "hunter2"}},
        {"type": "hunter2"},
        {"$ref": "hunter2"},
        {"type": "string", "value": "hunter2"},
        {"type": "array", "items": ["hunter2"]},
        {"anyOf": ["hunter2"]},
        {"title": "hunter2"},
    ],
    ids=range(9),
)
def test_what_only_looks_like_a_schema_is_masked(value: Json) -> None:
    """So are the default and the examples in one."""
    assert "hunter2" not in repr(without_credentials({"password": value}))


@pytest.mark.parametrize("name", ["name", "key", "header", "Name", "Key"])
def test_a_name_beside_its_value(name: str) -> None:
    """Headers and variables are also written as dicts of two."""
    value = "Value" if name.istitle() else "value"
    headers: Json = [{name: "Authorization", value: "Bearer x"}, {name: "host", value: "a"}]

    assert without_credentials(headers) == [{name: "Authorization", value: MASKED}, {name: "host", value: "a"}]
    for kept in ({name: "max_tokens", value: "5"}, {name: "How do I reset my password", value: "So."}, {name: "token"}):
        assert without_credentials(kept) is kept


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

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            (["Authorization", "Bearer x"], ["Authorization", MASKED]),
            (["authorization", "hunter2"], ["authorization", MASKED]),
            ([["cookie", "x"], ["a"]], [["cookie", MASKED], ["a"]]),
            ([["x", "y", "z"], ["authorization", "x"]], [["x", "y", "z"], ["authorization", MASKED]]),
            ([["authorization", "Bearer x"], "else"], [["authorization", MASKED], "else"]),
        ],
        ids=range(5),
    )
    def test_each_pair_is_judged_by_itself(self, value: Json, expected: Json) -> None:
        """One alone, and one among others that are no pairs."""
        assert without_credentials({"value": value}) == {"value": expected}

    def test_a_conversation_is_no_list_of_headers(self) -> None:
        """A question may end with any word."""
        history: Json = [["How do I reset my password", "Go to 1."], ["And how do I get a token", "There."]]
        assert without_credentials(history) is history

    def test_a_list_of_two_that_is_no_pair_is_kept(self) -> None:
        """Two words beside each other are no header."""
        assert without_credentials({"tags": ["token", "limit"]}) == {"tags": ["token", "limit"]}
        assert without_credentials([["token", "limit"], "else"]) == [["token", "limit"], "else"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgresql+psycopg://app:p%40ss@db:5432/x?y=1", "postgresql+psycopg://app:<masked>@db:5432/x?y=1"),
        ("see https://u:w@h/ and ssh://git@b/", "see https://u:<masked>@h/ and ssh://git@b/"),
        ("redis://:word@localhost", "redis://:<masked>@localhost"),
        ("postgres://u:p@hunter2@h/db", "postgres://u:<masked>@h/db"),
        ("https://t0ken@github.com/x", "https://<masked>@github.com/x"),
        ("git+https://t0ken:x-oauth-basic@github.com/x", "git+https://<masked>:x-oauth-basic@github.com/x"),
        ("https://t0ken:@api.test/", "https://<masked>:@api.test/"),
        ("https://h/p?a=1&api_key=k&b=2", "https://h/p?a=1&api_key=<masked>&b=2"),
        ("(https://h?access_token=k)", "(https://h?access_token=<masked>"),
        ("https://h/#id_token=k&state=1", "https://h/#id_token=<masked>&state=1"),
        ("https://h/?X-Amz-Date=1&amp;X-Amz-Signature=k", "https://h/?X-Amz-Date=1&amp;X-Amz-Signature=<masked>"),
        ("https://h.blob/x?sv=2&sig=k%3D", "https://h.blob/x?sv=2&sig=<masked>"),
        ("https://h/?page_token=k&max_tokens=5&design=a", "https://h/?page_token=k&max_tokens=5&design=a"),
        ("https://medium.com/@ada and ada@example.com", "https://medium.com/@ada and ada@example.com"),
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


@pytest.mark.parametrize(
    "value",
    [
        {"required": ["password", "address_2"]},
        {"required": ["api_key", "v2"], "type": "object", "properties": {"api_key": {"type": "string"}}},
        {"enum": ["password", "oauth2"]},
        {"propertyOrdering": ["token", "line1"]},
        {"columns": ["password", "address_2"]},
        ["secret", "user_id_10"],
    ],
    ids=range(6),
)
def test_a_list_of_names_is_kept(value: Json) -> None:
    """A schema lists what it requires; elsewhere a name ends with an underscore and a number."""
    assert without_credentials(value) is value


def test_what_stands_under_such_a_name_is_masked_all_the_same() -> None:
    """The list and the value, in one object."""
    value: Json = {"required": ["password", "address_2"], "password": "hunter2", "items": ["password", "hunter2"]}

    assert without_credentials(value) == {
        "required": ["password", "address_2"],
        "password": MASKED,
        "items": ["password", MASKED],
    }


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Authorization: Bearer hunter2", "Authorization: Bearer <masked>"),
        ("curl -H 'authorization: bearer hunter2' http://h/", "curl -H 'authorization: bearer <masked>' http://h/"),
        ('{"Authorization": "Basic hunter2"}', '{"Authorization": "Basic <masked>"}'),
        ('{\\"Authorization\\": \\"Bearer hunter2\\"}', '{\\"Authorization\\": \\"Bearer <masked>\\"}'),
        ("PROXY-AUTHORIZATION=Token hunter2;", "PROXY-AUTHORIZATION=Token <masked>"),
        ("/callback?code=1&access_token=hunter2#x", "/callback?code=1&access_token=<masked>#x"),
        ("?api_key=hunter2", "?api_key=<masked>"),
        ("GET /x?page=1&api_key=hunter2 HTTP/1.1", "GET /x?page=1&api_key=<masked> HTTP/1.1"),
    ],
)
def test_what_a_text_says_by_its_form_is_masked(text: str, kept: str) -> None:
    """By itself, and in the middle of a longer one."""
    assert masked_text(text) == kept
    assert masked_text(f"Ask: {text}") == f"Ask: {kept}"
    assert snapshot({"question": [text]}, [], "input", masks_credentials=True) == (
        orjson.dumps({"question": [kept]}).decode(),
    )
    assert snapshot(text, [], "input", masks_credentials=True) == kept
    assert snapshot({"question": [text]}, [], "input", masks_credentials=False) == (
        orjson.dumps({"question": [text]}).decode(),
    )


@pytest.mark.parametrize(
    "text",
    [
        "The authorization was refused.",
        "Authorization: see below",
        "authorization = required",
        "Is x = 5? And a & b = c?",
        "/search?q=token&page=2",
        "What is a bearer token? bearer abc",
    ],
)
def test_a_text_that_only_speaks_of_one_is_kept(text: str) -> None:
    """No scheme, or no value."""
    assert masked_text(text) is text or masked_text(text) == text
