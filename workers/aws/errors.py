"""What an error from AWS means for a stage: one table, from AWS's code to a class and to what somebody has to do.

Sources: the errors listed with each action in the API references of AWS Organizations, Account Management, IAM, STS,
EC2 and S3 Control, and `CreateAccountStatus.FailureReason` in that of Organizations. Those of policies are named with
AttachPolicy, CreatePolicy, DeletePolicy, DetachPolicy and UpdatePolicy there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,  # noqa: A004 - botocore's own, which is not the built-in one
    CredentialRetrievalError,
    HTTPClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
)
from botocore.parsers import ResponseParserError

from server.leases import LeaseLost, StageError, StageErrorClass

TRANSIENT = StageErrorClass.TRANSIENT
PERMANENT = StageErrorClass.PERMANENT
NEEDS_PERSON = StageErrorClass.NEEDS_PERSON


@dataclass(frozen=True, slots=True)
class Meaning:
    """`advice` may name the {name} of the account or policy, the account's {email}, the AWS call {operation}, AWS's own
    words {detail}, and what to {retry} when the cause is removed.
    """

    error_class: StageErrorClass
    advice: str


# What is not given of each error.
FACTS = {"retry": "retry the setup"}

_BUSY = Meaning(TRANSIENT, "AWS asks for fewer calls at a time; Freehold tries again by itself.")
_DENIED = Meaning(
    NEEDS_PERSON,
    "AWS does not allow Freehold to call {operation}. Give its principal the permissions that `freehold iam-policy` "
    "prints, check the service control policies, and {retry}. AWS says: {detail}",
)
_CREDENTIALS = Meaning(
    NEEDS_PERSON, "AWS does not accept the credentials of the worker. Correct them and {retry}. {detail}"
)
_EXPIRED = Meaning(TRANSIENT, "AWS says that credentials have expired; Freehold gets new ones and tries again.")
_ACCOUNT_LIMIT = Meaning(
    NEEDS_PERSON,
    "The organization has as many accounts as AWS allows it. Ask AWS Support for a higher limit, or close accounts "
    "that are not needed, and {retry}.",
)
_EMAIL_IN_USE = Meaning(
    NEEDS_PERSON,
    "AWS already has an account with the e-mail {email}. Give this account another e-mail and {retry}, or "
    "close the other account.",
)
_EMAIL_INVALID = Meaning(
    NEEDS_PERSON, "AWS does not accept the e-mail {email}. Give this account another e-mail and {retry}."
)
_PAYMENT = Meaning(
    NEEDS_PERSON,
    "AWS wants a valid payment method on the management account before it creates accounts. Add one and {retry}.",
)
_BUSINESS = Meaning(
    NEEDS_PERSON,
    "AWS wants the business details of the management account to be validated before it creates accounts. Complete "
    "that with AWS and {retry}.",
)
_REGION_OFF = Meaning(
    NEEDS_PERSON,
    "AWS does not accept the account's credentials in a Region of the tenancy; most often the Region is not enabled "
    "in the account. Enable it there, or take it out of the tenancy, and {retry}. AWS says: {detail}",
)
_NOT_READY = Meaning(
    TRANSIENT,
    "AWS has not made {operation} available to the account, which takes minutes in a new one. If it lasts, look into "
    "the account's support cases and {retry}. AWS says: {detail}",
)
_NOT_FOUND = Meaning(
    TRANSIENT,
    "AWS does not find the account for {operation}, which is usual for some minutes in a new one. If it lasts, see "
    "whether the account is still in the organization and {retry}. AWS says: {detail}",
)
_NOT_ALL_FEATURES = Meaning(
    NEEDS_PERSON,
    "The organization does not have all features enabled. Enable them in AWS Organizations and {retry}.",
)
_UNKNOWN = Meaning(PERMANENT, "AWS refused {operation}: {detail}")
_SERVER_FAULT = Meaning(TRANSIENT, "AWS could not answer {operation}; Freehold tries again by itself. {detail}")
_UNREACHABLE = Meaning(TRANSIENT, "AWS could not be reached; Freehold tries again by itself. {detail}")

# Of the account's number, which AWS Organizations does not tell all its parts at once.
_ACCOUNT_NOT_FOUND = ("AccountNotFoundException", "ChildNotFoundException")
_SERVICE_NOT_READY = ("OptInRequired", "PendingVerification", "SubscriptionRequired", "SubscriptionRequiredException")
# Usual for some minutes in a new account.
NOT_READY = (*_SERVICE_NOT_READY, *_ACCOUNT_NOT_FOUND)

# Of a role in an account, which is assumed anew then, or those that the worker itself runs with.
CREDENTIALS_EXPIRED = ("ExpiredToken", "ExpiredTokenException")

MEANINGS: Mapping[str, Meaning] = {
    "Throttling": _BUSY,
    "ThrottlingException": _BUSY,
    "ThrottledException": _BUSY,
    "RequestLimitExceeded": _BUSY,
    "RequestThrottled": _BUSY,
    "RequestThrottledException": _BUSY,
    "SlowDown": _BUSY,
    "TooManyRequestsException": _BUSY,
    "ConcurrentModification": _BUSY,
    "ConcurrentModificationException": _BUSY,
    "CONCURRENT_ACCOUNT_MODIFICATION": _BUSY,
    "ConflictException": _BUSY,
    "EntityTemporarilyUnmodifiable": _BUSY,
    # Takes up to an hour in a new organization.
    "FinalizingOrganizationException": Meaning(
        TRANSIENT, "AWS is still finishing the new organization; Freehold tries again by itself."
    ),
    "ACCOUNT_CREATION_NOT_COMPLETE": Meaning(
        TRANSIENT, "AWS is still finishing the new account; Freehold tries again by itself."
    ),
    "INTERNAL_FAILURE": _SERVER_FAULT,
    "InternalError": _SERVER_FAULT,
    "InternalFailure": _SERVER_FAULT,
    "InternalServerException": _SERVER_FAULT,
    "ServiceException": _SERVER_FAULT,
    "ServiceFailure": _SERVER_FAULT,
    "ServiceUnavailable": _SERVER_FAULT,
    "Unavailable": _SERVER_FAULT,
    "RequestTimeout": _SERVER_FAULT,
    **dict.fromkeys(CREDENTIALS_EXPIRED, _EXPIRED),
    "AccessDenied": _DENIED,
    "AccessDeniedException": _DENIED,
    "UnauthorizedOperation": _DENIED,
    # EC2's answer in a Region that the account has not opted into.
    "AuthFailure": _REGION_OFF,
    "InvalidClientTokenId": _CREDENTIALS,
    "SignatureDoesNotMatch": _CREDENTIALS,
    "UnrecognizedClientException": _CREDENTIALS,
    "EMAIL_ALREADY_EXISTS": _EMAIL_IN_USE,
    "INVALID_EMAIL": _EMAIL_INVALID,
    "ACCOUNT_LIMIT_EXCEEDED": _ACCOUNT_LIMIT,
    "ACCOUNT_NUMBER_LIMIT_EXCEEDED": _ACCOUNT_LIMIT,
    "ACCOUNT_CREATION_RATE_LIMIT_EXCEEDED": Meaning(
        NEEDS_PERSON,
        "The organization has created as many accounts today as AWS allows. Retry the setup tomorrow, or ask AWS "
        "Support for a higher limit.",
    ),
    "INVALID_ADDRESS": Meaning(
        NEEDS_PERSON,
        "AWS does not accept the postal address of the management account. Correct it there and {retry}.",
    ),
    "MISSING_PAYMENT_INSTRUMENT": _PAYMENT,
    "INVALID_PAYMENT_INSTRUMENT": _PAYMENT,
    "MASTER_ACCOUNT_PAYMENT_INSTRUMENT_REQUIRED": _PAYMENT,
    "MISSING_BUSINESS_VALIDATION": _BUSINESS,
    "FAILED_BUSINESS_VALIDATION": _BUSINESS,
    "PENDING_BUSINESS_VALIDATION": _BUSINESS,
    "UNKNOWN_BUSINESS_VALIDATION": _BUSINESS,
    "INVALID_IDENTITY_FOR_BUSINESS_VALIDATION": _BUSINESS,
    "MASTER_ACCOUNT_MISSING_CONTACT_INFO": Meaning(
        NEEDS_PERSON,
        "AWS wants contact details on the management account before it creates accounts. Add them there and {retry}.",
    ),
    "ORGANIZATION_NOT_IN_ALL_FEATURES_MODE": _NOT_ALL_FEATURES,
    # IAM's, of what an account may hold.
    "LimitExceeded": Meaning(
        NEEDS_PERSON,
        "The account holds as much as AWS allows it. Delete there what is not needed, or ask AWS Support for a higher "
        "limit, and {retry}. AWS says of {operation}: {detail}",
    ),
    "OU_NUMBER_LIMIT_EXCEEDED": Meaning(
        NEEDS_PERSON,
        "The organization has as many organizational units as AWS allows. Delete account types that are not needed, "
        "and {retry}.",
    ),
    "MAX_TAG_LIMIT_EXCEEDED": Meaning(
        NEEDS_PERSON,
        "The account has as many tags in AWS as AWS allows, those of others among them. Remove some there or here, and "
        "{retry}.",
    ),
    "TAG_POLICY_VIOLATION": Meaning(
        NEEDS_PERSON,
        "A tag policy of the organization does not allow a tag of the account. Give it another value here, and "
        "{retry}. AWS says: {detail}",
    ),
    "AWSOrganizationsNotInUseException": Meaning(
        NEEDS_PERSON,
        "The AWS account that the worker's credentials belong to is in no organization. Give the worker credentials "
        "of the tenancy's management account and {retry}.",
    ),
    "RegionDisabledException": _REGION_OFF,
    **dict.fromkeys(_SERVICE_NOT_READY, _NOT_READY),
    **dict.fromkeys(_ACCOUNT_NOT_FOUND, _NOT_FOUND),
    "PolicyChangesInProgressException": _BUSY,
    # The organization's setup enables them, and AWS takes a while for that.
    "PolicyTypeNotEnabledException": Meaning(
        TRANSIENT,
        "Service control policies are not enabled in the organization yet; Freehold tries again by itself. If it "
        "lasts, reassure the management account.",
    ),
    "PolicyTypeNotAvailableForOrganizationException": _NOT_ALL_FEATURES,
    "MalformedPolicyDocumentException": Meaning(
        PERMANENT,
        "AWS does not accept the document of the policy {name}. Give the policy another document. AWS says: {detail}",
    ),
    "POLICY_CONTENT_LIMIT_EXCEEDED": Meaning(
        PERMANENT,
        "The document of the policy {name} is longer than AWS allows. Give the policy a shorter one, or divide it.",
    ),
    "POLICY_NUMBER_LIMIT_EXCEEDED": Meaning(
        NEEDS_PERSON,
        "The organization has as many policies as AWS allows. Delete some that are not needed, and {retry}.",
    ),
    "MAX_POLICY_TYPE_ATTACHMENT_LIMIT_EXCEEDED": Meaning(
        NEEDS_PERSON,
        "As many policies are attached to the target of the policy {name} as AWS allows, FullAWSAccess among them. "
        "Detach one there, or attach this one elsewhere, and {retry}.",
    ),
    "MIN_POLICY_TYPE_ATTACHMENT_LIMIT_EXCEEDED": Meaning(
        NEEDS_PERSON,
        "The policy {name} is the last on its target, and AWS does not leave a target without one. Attach "
        "FullAWSAccess to it in AWS, and {retry}.",
    ),
    "PolicyInUseException": Meaning(
        NEEDS_PERSON,
        "Somebody has attached the policy {name} in AWS, without Freehold. Detach it there, and {retry}.",
    ),
    "ParentNotFoundException": Meaning(
        TRANSIENT,
        "AWS no longer has the unit below which that of {name} belongs. The next setup of an account makes it anew, "
        "and Freehold tries again by itself.",
    ),
    "TargetNotFoundException": Meaning(
        NEEDS_PERSON,
        "AWS no longer has the target that the policy {name} is to be on. Where Freehold makes a unit anew, it "
        "attaches the policy by itself; otherwise detach the policy from the target, or bring it back and {retry}.",
    ),
}

_NO_CREDENTIALS = (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError)
# The last one is an answer that is not AWS's: a page of some proxy in between.
_UNANSWERED = (HTTPClientError, ConnectionError, aiohttp.ClientError, ResponseParserError)
_NEVER_SENT = (*_NO_CREDENTIALS, ParamValidationError, LeaseLost)


def explain(error: BaseException, facts: Mapping[str, str]) -> StageError | None:
    """What an exception raised by an AWS call means for a stage; None when it is not one.

    `facts` holds `name` and `email` of the account, or those of a policy with its own `retry`.
    The code is AWS's own, the more telling one where it has two.
    """
    if isinstance(error, ClientError):
        return _explain_answer(error, facts)
    if isinstance(error, _NO_CREDENTIALS):
        return _stage_error(type(error).__name__, _CREDENTIALS, {**facts, "detail": str(error)})
    if isinstance(error, _UNANSWERED):
        return _stage_error(type(error).__name__, _UNREACHABLE, {**facts, "detail": str(error)})
    if isinstance(error, BotoCoreError):
        return _stage_error(type(error).__name__, _UNKNOWN, {**facts, "operation": "a call", "detail": str(error)})
    return None


def explain_failure(reason: str, facts: Mapping[str, str]) -> StageError:
    """What the `FailureReason` of a CreateAccount request means."""
    given = {**facts, "operation": "CreateAccount", "detail": reason}
    return _stage_error(reason, MEANINGS.get(reason, _UNKNOWN), given)


def error_code(error: ClientError) -> str:
    """AWS's own code for the error."""
    return str(error.response.get("Error", {}).get("Code", "Unknown"))


def is_outcome_unknown(error: BaseException) -> bool:
    """Whether a call that ended with this error may have been carried out all the same."""
    if isinstance(error, ClientError):
        return _status(error) >= 500
    return not isinstance(error, _NEVER_SENT)


def _explain_answer(error: ClientError, facts: Mapping[str, str]) -> StageError:
    response: Mapping[str, Any] = error.response
    code, reason = error_code(error), response.get("Reason")
    told = response.get("Error", {}).get("Message") or "AWS gave no reason."
    given = {**facts, "operation": error.operation_name, "detail": told}
    request_id = response.get("ResponseMetadata", {}).get("RequestId")
    # ConstraintViolationException and InvalidInputException say in `Reason` what it is about.
    for known in (str(reason), code):
        if known in MEANINGS:
            return _stage_error(known, MEANINGS[known], given, request_id)
    status = _status(error)
    meaning = _BUSY if status == 429 else _SERVER_FAULT if status in (500, 502, 503, 504) else _UNKNOWN
    return _stage_error(str(reason or code), meaning, given, request_id)


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _stage_error(code: str, meaning: Meaning, given: Mapping[str, str], request_id: str | None = None) -> StageError:
    return StageError(code, meaning.advice.format_map({**FACTS, **given}).strip(), meaning.error_class, request_id)
