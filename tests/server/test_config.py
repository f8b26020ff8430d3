"""Settings are read once and refused by name."""

import pytest

from server.config import START, AwsMode, Settings
from server.errors import ConfigurationError


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("FREEHOLD_PORT", "eighty", "FREEHOLD_PORT must be a whole number from 1 to 65535."),
        ("FREEHOLD_PORT", "70000", "FREEHOLD_PORT must be a whole number from 1 to 65535."),
        ("FREEHOLD_AWS_MODE", "production", "FREEHOLD_AWS_MODE must be one of simulator, real."),
        ("FREEHOLD_LOG_LEVEL", "loud", "FREEHOLD_LOG_LEVEL must be one of DEBUG, INFO, WARNING, ERROR."),
        (
            "FREEHOLD_DATABASE_URL",
            "mysql://u@h/d",
            "FREEHOLD_DATABASE_URL must be a URL that starts with postgresql://.",
        ),
        ("FREEHOLD_REDIS_URL", "localhost", "FREEHOLD_REDIS_URL must be a URL that starts with redis:// or rediss://."),
        ("FREEHOLD_ALLOWED_ORIGINS", "example.com", "FREEHOLD_ALLOWED_ORIGINS must be origins such as"),
        ("FREEHOLD_PROT", "8000", "FREEHOLD_PROT is not a setting of Freehold."),
    ],
)
def test_a_wrong_value_is_refused_with_its_name_and_what_would_be_right(name: str, value: str, expected: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Settings.from_environment({name: value})
    assert str(refused.value).startswith(expected)


def test_a_refusal_does_not_show_the_value() -> None:
    with pytest.raises(ConfigurationError) as refused:
        Settings.from_environment({"FREEHOLD_DATABASE_URL": "postgres//user:hunter2@host/db"})
    assert "hunter2" not in str(refused.value)


def test_the_defaults_cannot_reach_aws() -> None:
    settings = Settings.from_environment({})
    assert settings.aws_mode is AwsMode.SIMULATOR
    assert settings.aws_endpoint_url is None
    with pytest.raises(ConfigurationError, match="FREEHOLD_AWS_ENDPOINT_URL is not set"):
        settings.require("aws_endpoint_url")


@pytest.mark.parametrize("host", ["organizations.us-east-1.amazonaws.com", "sts.cn-north-1.amazonaws.com.cn"])
def test_aws_itself_is_no_simulator(host: str) -> None:
    with pytest.raises(ConfigurationError, match="switched on with FREEHOLD_AWS_MODE=real"):
        Settings.from_environment({"FREEHOLD_AWS_ENDPOINT_URL": f"https://{host}"})


def test_real_mode_takes_no_endpoint() -> None:
    with pytest.raises(ConfigurationError, match="has no meaning when FREEHOLD_AWS_MODE is real"):
        Settings.from_environment({"FREEHOLD_AWS_MODE": "real", "FREEHOLD_AWS_ENDPOINT_URL": "http://127.0.0.1:1"})


def test_the_mark_of_a_start_is_no_setting() -> None:
    assert Settings.from_environment({START: "0123456789abcdef"}) == Settings()


def test_an_empty_variable_is_unset() -> None:
    assert Settings.from_environment({"FREEHOLD_PORT": ""}).port == 8000
