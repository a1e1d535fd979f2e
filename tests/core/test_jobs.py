import itertools
import re

from core.jobs import (
    Job,
    JobName,
    Lane,
    close_order,
    compensate_callback,
    push_notification,
    query_payment,
    refund_payment,
)
from core.order import PaymentKey

KEY = PaymentKey("alipay", "n-000001")


def jobs_of_each_kind(arm_no: int) -> list[Job]:
    return [
        query_payment(KEY, arm_no),
        close_order("A-1", arm_no),
        refund_payment("r-1", arm_no),
        compensate_callback("7c0f", arm_no),
        push_notification("msg_1", arm_no),
    ]


def test_each_job_has_the_name_of_its_function_and_its_lane() -> None:
    """A backlog of queries or of a hanging merchant never delays a callback."""
    assert [(job.name, job.lane) for job in jobs_of_each_kind(1)] == [
        (JobName.QUERY_PAYMENT, Lane.QUERIES),
        (JobName.CLOSE_ORDER, Lane.QUERIES),
        (JobName.REFUND_PAYMENT, Lane.QUERIES),
        (JobName.COMPENSATE_CALLBACK, Lane.FRESH),
        (JobName.PUSH_NOTIFICATION, Lane.NOTIFICATIONS),
    ]


def test_every_arm_number_is_another_job() -> None:
    """The queue drops a job whose id it holds. With one id for all attempts the second would never run."""
    jobs = [job for arm_no in range(1, 13) for job in jobs_of_each_kind(arm_no)]
    assert len({job.id for job in jobs}) == len(jobs)
    assert all(re.fullmatch(rf"[a-z]:.*:{job.args[-1]}", job.id) for job in jobs)


def test_the_same_number_at_another_account_is_another_job() -> None:
    names = ["a", "a-1", "b"]
    keys = [PaymentKey(account, number) for account, number in itertools.product(names, ["n-1", "1-n"])]
    assert len({query_payment(key, 1).id for key in keys}) == len(keys)


def test_the_last_argument_of_a_job_is_its_arm_number() -> None:
    assert query_payment(KEY, 3, 60.0).args == ("alipay", "n-000001", 3)
    assert query_payment(KEY, 3, 60.0).delay_s == 60.0
    assert close_order("A-1", 4).args == ("A-1", 4)
