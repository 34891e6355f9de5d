"""Arguments of DataParallel for the replicas of torch."""

import pytest

from leyden.handlers import DataParallel


def test_a_misspelt_option_is_told_in_one_process_too() -> None:
    with pytest.raises(TypeError, match=r"DataParallel knows no argument 'find_unused'.*find_unused_parameters"):
        DataParallel(find_unused=True)
    DataParallel(find_unused_parameters=True, bucket_cap_mb=1, gradient_as_bucket_view=True)
