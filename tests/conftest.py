"""What holds for all tests: an example of a law may take as long as it takes. A busy machine is no fault; speed is in benchmarks."""

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
