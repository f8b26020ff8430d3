"""How policies may be called and described."""

from server.errors import UserErrorCode, refuse

# AWS, API reference of CreatePolicy; the names are kept to what can be read in a list.
NAME_LENGTH = 128
DESCRIPTION_LENGTH = 512
RESERVED = "freehold-"
# AWS's own, attached to everything.
FULL_ACCESS = "FullAWSAccess"


def check_name(name: str) -> None:
    """Refuse what no policy of a user can be called: VALIDATION."""
    if not 1 <= len(name) <= NAME_LENGTH or not name.isprintable() or name != name.strip():
        raise refuse(
            UserErrorCode.VALIDATION,
            f"The name of a policy has 1 to {NAME_LENGTH} printable characters and no space at either end.",
            "name",
        )
    if name.lower().startswith(RESERVED):
        raise refuse(UserErrorCode.VALIDATION, f"Names that begin with {RESERVED} are Freehold's own.", "name")
    if name.lower() == FULL_ACCESS.lower():
        raise refuse(UserErrorCode.VALIDATION, f"{FULL_ACCESS} is the name of a policy of AWS's own.", "name")


def check_description(description: str) -> None:
    """Refuse what AWS does not take as a description: VALIDATION."""
    if len(description) > DESCRIPTION_LENGTH or "\0" in description:
        raise refuse(
            UserErrorCode.VALIDATION,
            f"The description has {len(description)} characters; at most {DESCRIPTION_LENGTH} are allowed, none of "
            "them U+0000.",
            "description",
        )
