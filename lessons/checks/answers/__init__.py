"""For the tests of the checks: reference answers, and wrong ones named `exercise__mistake`."""
