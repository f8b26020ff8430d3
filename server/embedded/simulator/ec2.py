"""EC2: the account's defaults for the instance metadata service, which moto lacks."""

from moto.core.responses import ActionResult
from moto.ec2 import urls
from moto.ec2.responses import EC2Response

FIELDS = ("HttpTokens", "HttpPutResponseHopLimit", "HttpEndpoint", "InstanceMetadataTags")
# How a client asks for a field to be unset again.
NO_PREFERENCE = ("no-preference", -1)


class Ec2Answers(EC2Response):
    def _metadata_defaults(self) -> dict[str, str | int]:
        defaults: dict[str, str | int] = self.ec2_backend.__dict__.setdefault("instance_metadata_defaults", {})
        return defaults

    def modify_instance_metadata_defaults(self) -> ActionResult:
        self.error_on_dryrun()
        defaults = self._metadata_defaults()
        for field in FIELDS:
            value = self._get_param(field)
            if value in NO_PREFERENCE:
                defaults.pop(field, None)
            elif value is not None:
                defaults[field] = value
        return ActionResult({"Return": True})

    def get_instance_metadata_defaults(self) -> ActionResult:
        self.error_on_dryrun()
        return ActionResult({"AccountLevel": {**self._metadata_defaults(), "ManagedBy": "account"}})


def install() -> None:
    urls.url_paths["{0}/"] = Ec2Answers.dispatch
