"""IAM of the simulator as an earlier version may have left it."""

from server.embedded.simulator.iam import AWS_POLICIES, Iam


def test_an_account_that_an_earlier_version_kept_gets_the_policies_that_are_new() -> None:
    kept = Iam("aws", "111122223333")
    arn = "arn:aws:iam::aws:policy/job-function/SystemAdministrator"
    kept.aws_managed_policies = [policy for policy in kept.aws_managed_policies if policy.arn != arn]
    del kept.managed_policies[arn]
    kept.add_new_policies()
    kept.add_new_policies()
    assert sorted(policy.name for policy in kept.aws_managed_policies) == sorted(AWS_POLICIES)
    assert kept.managed_policies[arn].attachment_count == 0
